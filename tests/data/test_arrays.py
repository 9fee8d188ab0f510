"""CIFAR's and MNIST's files as they are published."""

import gzip
import logging
import os
import pickle
import struct
from random import Random

import numpy as np
import pytest

from biggan import InputError
from biggan.data import load_dataset
from data_forms import refusal, write_archive, write_folder, write_zip
from mutations import MUTATIONS, mutated_bytes

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
LABELS = [number % 2 for number in range(12)]
FINE = [number % 3 for number in range(12)]
DIGITS = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8)


def batch(start, stop, protocol=2, **labels):
    """As Python 2 wrote them: byte strings."""
    labels = labels or {"labels": LABELS}
    about = {name.encode(): each[start:stop] for name, each in labels.items()}
    about |= {b"data": PIXELS[start:stop].reshape(-1, 3072), b"batch_label": b"a batch"}
    return pickle.dumps(about, protocol)


def cifar10(protocol=2):
    files = {f"data_batch_{n + 1}": batch(5 * n, 5 * n + 5, protocol) for n in range(2)}
    files |= {"test_batch": batch(10, 12, protocol), "readme.html": b""}
    files["batches.meta"] = pickle.dumps({b"label_names": [b"plane", b"car"]}, protocol)
    return {f"cifar-10-batches-py/{name}": data for name, data in files.items()}


def cifar10_binary():
    rows = [bytes([label]) + image.tobytes() for label, image in zip(LABELS, PIXELS, strict=True)]
    files = {"data_batch_1.bin": b"".join(rows[:5]), "data_batch_2.bin": b"".join(rows[5:10])}
    files |= {"test_batch.bin": b"".join(rows[10:]), "batches.meta.txt": b"plane\ncar\n\n"}
    return {f"cifar-10-batches-bin/{name}": data for name, data in files.items()}


def cifar100(form):
    names = ["a", "b", "c"], ["x", "y"]
    if form == "python":
        both = {"fine_labels": FINE, "coarse_labels": LABELS}
        meta = {b"fine_label_names": [b"a", b"b", b"c"], b"coarse_label_names": [b"x", b"y"]}
        files = {"train": batch(0, 10, **both), "test": batch(10, 12, **both)}
        files |= {"meta": pickle.dumps(meta, 2)}
    else:
        rows = [bytes([c, f]) + p.tobytes() for c, f, p in zip(LABELS, FINE, PIXELS, strict=True)]
        files = {"train.bin": b"".join(rows[:10]), "test.bin": b"".join(rows[10:])}
        for kind, each in zip(("fine", "coarse"), names, strict=True):
            files[f"{kind}_label_names.txt"] = "\n".join(each).encode()
    return {f"cifar-100-{form}/{name}": data for name, data in files.items()}


def idx(values):
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.astype(np.uint8).tobytes()


def mnist(suffix=".gz", mark="-"):
    pack = gzip.compress if suffix else bytes
    return {
        f"{part}-{kind}{mark}idx{dim}-ubyte{suffix}": pack(idx(values))
        for part, chosen in (("train", slice(0, 4)), ("t10k", slice(4, 6)))
        for kind, dim, values in (
            ("images", 3, DIGITS[chosen]),
            ("labels", 1, np.array(LABELS[:6])[chosen]),
        )
    }


def in_order(labels, images):
    """As data are sorted: by label, and otherwise as they were."""
    return np.concatenate([images[np.array(labels) == label] for label in sorted(set(labels))])


@pytest.mark.parametrize("files", [cifar10(), cifar10(3), cifar10(5), cifar10_binary()])
@pytest.mark.parametrize("form", ["folder", "zip", "tar.gz"])
def test_cifar_10_is_its_training_part(tmp_path, caplog, files, form):
    write = {"folder": write_folder, "zip": write_zip}.get(form, write_archive)
    path = write(tmp_path / f"cifar-10.{form}", files)
    with caplog.at_level(logging.INFO, "biggan.data"):
        data = load_dataset(path, 32, 3)
    assert f"using the images for training; {path}::test are the others" in caplog.text
    assert data.class_names == ("plane", "car")
    assert data.labels.tolist() == sorted(LABELS[:10])
    assert (data.images.numpy() == in_order(LABELS[:10], PIXELS[:10])).all()
    test = load_dataset(f"{path}::test", 32, 3)
    assert (test.images.numpy() == PIXELS[10:]).all()
    one = load_dataset(f"{path}::{next(iter(files))}", 32, 3)
    assert len(one) == 5
    assert len(load_dataset(path, 32, 3, unconditional=True)) == 10


@pytest.mark.parametrize("form", ["python", "binary"])
def test_the_labels_of_cifar_100_are_fine_or_coarse(tmp_path, form):
    path = write_archive(tmp_path / "cifar-100.tar.gz", cifar100(form))
    data = load_dataset(path, 32, 3)
    assert data.class_names == ("a", "b", "c")
    assert (data.images.numpy() == in_order(FINE[:10], PIXELS[:10])).all()
    for column in ("coarse", "coarse_label"):
        data = load_dataset(path, 32, 3, label_column=column)
        assert data.class_names == ("x", "y")
        assert (data.images.numpy() == in_order(LABELS[:10], PIXELS[:10])).all()
    message = refusal(load_dataset, path, 32, 3, label_column="bad")
    assert "has the labels fine and coarse at most, not 'bad'" in message
    path = write_archive(tmp_path / "cifar-10.tar.gz", cifar10())
    assert "has no coarse labels" in refusal(load_dataset, path, 32, 3, label_column="coarse")


@pytest.mark.parametrize(("suffix", "mark"), [(".gz", "-"), ("", "-"), ("", ".")])
def test_mnist_is_its_idx_files(tmp_path, suffix, mark):
    files = mnist(suffix, mark)
    path = write_folder(tmp_path / "mnist", files)
    data = load_dataset(path, 28, 1)
    assert data.class_names == ("0", "1")
    assert (data.images[:, 0].numpy() == in_order(LABELS[:4], DIGITS[:4])).all()
    test = load_dataset(f"{path}::test", 28, 1)
    assert (test.images[:, 0].numpy() == DIGITS[4:]).all()
    for name in [name for name in files if "images" in name]:
        assert len(load_dataset(path / name, 28, 1)) == (4 if "train" in name else 2)
    archive = write_zip(tmp_path / "mnist.zip", {f"MNIST/raw/{n}": d for n, d in files.items()})
    assert load_dataset(archive, 28, 1).fingerprint == data.fingerprint


def test_files_of_several_sets_are_to_be_named(tmp_path):
    files = {f"emnist-{kind}-{name}": d for kind in ("a", "b") for name, d in mnist("").items()}
    path = write_folder(tmp_path / "a", files)
    message = refusal(load_dataset, path, 28, 1)
    assert "holds several datasets (emnist-a-train-images-idx3-ubyte, emnist-b-train-" in message
    assert len(load_dataset(message.rpartition("such as ")[2], 28, 1)) == 4
    unlabelled = write_folder(tmp_path / "b", {"train-images-idx3-ubyte": idx(DIGITS)})
    assert "has no label" in refusal(load_dataset, unlabelled, 28, 1)
    assert len(load_dataset(unlabelled, 28, 1, unconditional=True)) == 6


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


# It claims an entry of the memo far away, for which the unpickler in C has no memory.
BOMB = b"\x80\x02K\x01r\xff\xff\xff\x7f."


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (pickle.dumps(Evil(), 2), "asks for posix.system; no code was run"),
        (pickle.dumps({b"data": Evil()}, 2), "asks for posix.system; no code was run"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [0, 1]}, 2), "are not uint8"),
        (pickle.dumps({b"data": PIXELS[:2, 0], b"labels": [0, 1]}, 2), "cannot reshape"),
        (pickle.dumps({b"labels": [0, 1]}, 2), "data"),
        (pickle.dumps({b"data": PIXELS[:2].reshape(2, -1), b"labels": [0]}, 2), "the numbers of"),
        (pickle.dumps([1, 2], 2), "damaged"),
        (batch(0, 5)[:-100], "damaged"),
        (b"", "damaged"),
        (BOMB, "damaged"),
    ],
)
def test_a_damaged_or_hostile_batch_runs_nothing(tmp_path, monkeypatch, data, fault):
    monkeypatch.chdir(tmp_path)
    files = cifar10() | {"cifar-10-batches-py/data_batch_1": data}
    path = write_archive(tmp_path / "a.tar.gz", files)
    message = refusal(load_dataset, path, 32, 3)
    assert "cifar-10-batches-py/data_batch_1 is damaged" in message
    assert fault in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"\1" + d[1:], lambda d: b"",
        lambda d: d[:4] + b"\xff" * 12 + d[16:],
    ],
)  # fmt: skip
def test_a_damaged_idx_file_is_named(tmp_path, change):
    name = "train-images-idx3-ubyte"
    files = mnist("")
    path = write_folder(tmp_path, files | {name: change(files[name])})
    assert f"{name} is damaged" in refusal(load_dataset, path, 28, 1)
    files = mnist() | {f"{name}.gz": mnist()[f"{name}.gz"][:-9]}
    path = write_folder(tmp_path / "b", files)
    assert f"{name}.gz is damaged" in refusal(load_dataset, path, 28, 1)


@pytest.mark.parametrize("name", ["data_batch_1", "batches.meta", "train-labels-idx1-ubyte.gz"])
def test_any_damage_is_one_line(tmp_path, name):
    random = Random(0)
    files = mnist() if "idx" in name else cifar10(5)
    key = next(key for key in files if key.endswith(name))
    messages = []
    for number in range(MUTATIONS):
        # Most of a batch is pixels: damage is looked for before them.
        damaged = mutated_bytes(files[key][:400], random) + files[key][400:]
        path = write_folder(tmp_path / str(number), files | {key: damaged})
        try:
            load_dataset(path, 32, 3, progress=False)
        except InputError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)


ROWS = PIXELS.transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("array", "channels"), [(ROWS, 3), (PIXELS, 3), (ROWS[..., 0], 1), (ROWS[..., :1], 1)]
)
def test_samples_as_numpy_arrays(tmp_path, array, channels):
    np.savez(tmp_path / "samples.npz", array, np.array(LABELS))
    found = load_dataset(tmp_path / "samples.npz", 32, channels)
    assert found.labels.tolist() == sorted(LABELS)
    assert np.array_equal(found.images, in_order(LABELS, PIXELS[:, :channels]))
    named = np.array([f"class {label}" for label in LABELS])
    np.savez(tmp_path / "named.npz", array, np.arange(len(array)).astype(str), named)
    again = load_dataset(tmp_path / "named.npz", 32, channels)
    assert again.class_names == tuple(f"class {label}" for label in sorted(set(LABELS)))
    assert np.array_equal(again.images, found.images)
    np.save(tmp_path / "samples.npy", array)
    alone = load_dataset(tmp_path / "samples.npy", 32, channels, unconditional=True)
    assert np.array_equal(alone.images, PIXELS[:, :channels])
    assert "no class folders" in refusal(load_dataset, tmp_path / "samples.npy", 32, channels)


def test_arrays_of_something_else_are_refused(tmp_path):
    path, archive = tmp_path / "samples.npy", tmp_path / "samples.npz"
    for wrong in (PIXELS.astype(np.float32), PIXELS[:, :2], PIXELS[:0], np.arange(3)):
        np.save(path, wrong)
        said = refusal(load_dataset, path, 32, 3, unconditional=True)
        assert "images must be uint8 (N, height, width)" in said
        assert str(wrong.shape) in said
    np.save(path, np.array([{}], object), allow_pickle=True)
    np.savez(archive, PIXELS)
    archive.write_bytes(archive.read_bytes()[:-50])
    for damaged in (path, archive):
        assert "not a whole file of arrays" in refusal(load_dataset, damaged, 32, 3)
