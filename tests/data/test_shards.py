"""Streams of shards: an order that depends on the seed and the position alone."""

import io
import itertools
import logging
import re
import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from biggan.data import load_dataset, shards
from biggan.data.shards import ShardStream
from biggan.errors import InputError
from data_forms import pictures, shuffled, write_shards, write_tar

CLASSES = ("cat", "dog")
FILES = shuffled(pictures(10))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), FILES, per_shard=6)  # 6 6 6 2


def stream(folder, seed=0, **options):
    options = {"window": 7, "workers": 2} | options
    return ShardStream(folder, 8, 3, CLASSES, seed, **options)


def take(batches, count):
    with_images = list(itertools.islice(batches, count))
    batches.close()
    return [torch.cat(part) for part in zip(*with_images, strict=True)]


def positions(start, size, rank=0, world_size=1):
    """Those of a process that has its contiguous slice of every batch, from a position on."""
    own = np.arange(size * rank // world_size, size * (rank + 1) // world_size)
    return (first + own for first in itertools.count(start, size))


def batches(source, *slices):
    return source.batches(positions(*slices))


def refusal(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_epoch_is_a_permutation_of_the_dataset(folder):
    data = load_dataset(folder, 8, 3)
    numbers = {image.numpy().tobytes(): number for number, image in enumerate(data.images)}
    images, labels = take(batches(stream(folder), 0, 4), 15)
    assert images.dtype == torch.uint8
    assert images.shape == (60, 3, 8, 8)
    assert labels.dtype == torch.int64
    order = np.array([numbers[image.numpy().tobytes()] for image in images])
    epochs = order.reshape(3, 20)
    assert (np.sort(epochs) == np.arange(20)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert labels.tolist() == data.labels[torch.from_numpy(order)].tolist()


def test_the_seed_and_the_window_select_the_order(folder):
    orders = [
        take(batches(stream(folder, seed, window=window), 0, 20), 1)[0].numpy().tobytes()
        for seed, window in [(0, 7), (0, 7), (1, 7), (0, 20), (0, 1)]
    ]
    assert orders[0] == orders[1]
    assert len(set(orders)) == 4


def test_windows_mix_the_shards(folder):
    """With a window of an epoch all shards mix; with one of one image, only their order changes."""
    data = load_dataset(folder, 8, 3)
    names = list(FILES)
    number = {
        image.numpy().tobytes(): names.index(member) // 6
        for image, member in zip(data.images, sorted(names), strict=True)
    }
    for window, runs in ((1, 4), (20, None)):
        images, _ = take(batches(stream(folder, window=window), 0, 20), 1)
        shards = [number[image.numpy().tobytes()] for image in images]
        changes = 1 + sum(a != b for a, b in itertools.pairwise(shards))
        assert changes == runs if runs else changes > 8


def test_every_window_and_epoch_has_an_order_of_its_own(folder, tmp_path):
    files = dict(sorted(FILES.items()))
    data = load_dataset(write_shards(tmp_path, files, per_shard=20), 8, 3)
    numbers = {image.numpy().tobytes(): number for number, image in enumerate(data.images)}
    images, _ = take(batches(stream(tmp_path, window=10), 0, 20), 2)
    order = np.array([numbers[image.numpy().tobytes()] for image in images]).reshape(4, 10)
    assert (np.sort(order) == np.arange(20).reshape(2, 10)[[0, 1, 0, 1]]).all()
    assert len({tuple(window % 10) for window in order}) == 4
    # Windows of one image leave each shard as it is, and show the order of the shards.
    images, _ = take(batches(stream(folder, window=1), 0, 20), 4)
    assert len({epoch.numpy().tobytes() for epoch in images.split(20)}) > 1


@pytest.mark.parametrize("start", [0, 3, 6, 7, 13, 19, 20, 33, 47])
def test_a_run_resumes_at_any_position(folder, start):
    images, labels = take(batches(stream(folder), 0, 1), 60)
    resumed, resumed_labels = take(batches(stream(folder), start, 1), 60 - start)
    assert torch.equal(resumed, images[start:])
    assert torch.equal(resumed_labels, labels[start:])


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_every_batch(folder, world_size):
    """A batch may be larger than a window, or than an epoch."""
    for batch_size in (4, 24):
        whole, labels = take(batches(stream(folder), 5, 1), 2 * batch_size)
        parts = [
            take(batches(stream(folder), 5, batch_size, rank, world_size), 2)
            for rank in range(world_size)
        ]
        size = batch_size // world_size
        for step in range(2):
            together = [
                torch.cat([part[kind][step * size : (step + 1) * size] for part in parts])
                for kind in range(2)
            ]
            assert torch.equal(together[0], whole[step * batch_size : (step + 1) * batch_size])
            assert torch.equal(together[1], labels[step * batch_size : (step + 1) * batch_size])


def test_positions_may_have_gaps_and_an_end(folder):
    """As a process has them that takes its share of several micro-batches."""
    whole, labels = take(batches(stream(folder), 0, 1), 40)
    chosen = [np.array([3, 4, 17]), np.array([18, 30, 31, 32]), np.array([39])]
    found = list(stream(folder).batches(chosen))
    assert len(found) == 3
    for (images, numbers), places in zip(found, chosen, strict=True):
        assert torch.equal(images, whole[places])
        assert torch.equal(numbers, labels[places])


def test_resuming_reads_no_shard_before(folder, monkeypatch):
    read = []
    real = shards.read_stream
    monkeypatch.setattr(
        shards, "read_stream", lambda url, *more: read.append(url) or real(url, *more)
    )
    whole = stream(folder, window=1)
    list(whole.batches([np.arange(20)]))
    order = read[:4]
    sizes = dict(zip(sorted(order), whole.counts, strict=True))
    start = sizes[order[0]] + sizes[order[1]]
    read.clear()
    list(whole.batches([np.arange(start, 20)]))
    assert read[:2] == order[2:]


def test_the_samples_are_counted_once(folder, tmp_path, monkeypatch):
    index = tmp_path / "index.json"
    first = stream(folder, index=index)
    assert first.counts == [6, 6, 6, 2]
    assert len(first) == 20
    assert first.num_classes == 2
    with monkeypatch.context() as patch:
        patch.setattr("biggan.data.shards.read_stream", None)
        again = stream(folder, index=index)
    assert again.counts == first.counts
    assert again.fingerprint == first.fingerprint
    assert stream(folder, index=index, window=8).fingerprint != first.fingerprint
    assert stream([folder / "train-0000.tar"], index=index).fingerprint != first.fingerprint


def test_shards_may_be_named_in_every_way(folder, tmp_path):
    files = sorted(folder.glob("*.tar"))
    expected = stream(folder).counts
    for urls in (str(folder), f"{folder}/train-{{0000..0003}}.tar", f"{folder}/*.tar", files):
        assert stream(urls).counts == expected
    addresses = [file.as_uri() for file in files]
    assert "say where" in refusal(stream, addresses)
    from_addresses = stream(addresses, index=tmp_path / "index.json")
    assert from_addresses.counts == expected
    one, other = (take(batches(s, 0, 5), 8)[0] for s in (stream(folder), from_addresses))
    assert torch.equal(one, other)


def test_a_corrupt_image_is_replaced_in_the_same_way_everywhere(tmp_path, caplog):
    files = FILES | {name: FILES[name][:-40] for name in ("cat/0003.png", "dog/0004.png")}
    write_shards(tmp_path, files)
    whole, labels = take(batches(stream(tmp_path), 0, 1), 60)
    with caplog.at_level(logging.WARNING, "biggan.data"):
        parts = [take(batches(stream(tmp_path), 20, 10, rank, 2), 1) for rank in range(2)]
    assert torch.equal(torch.cat([images for images, _ in parts]), whole[20:30])
    assert torch.equal(torch.cat([labels for _, labels in parts]), labels[20:30])
    assert len({image.numpy().tobytes() for image in whole[:20]}) == 18
    take(batches(stream(tmp_path), 0, 10), 8)
    assert caplog.text.count("skipped the corrupt image train-") >= 2
    assert "is corrupt" in refusal(take, batches(stream(tmp_path, strict=True), 0, 10), 2)
    write_shards(tmp_path / "all", dict.fromkeys(FILES, b"no image"))
    assert "all images near it are corrupt" in refusal(
        take, batches(stream(tmp_path / "all"), 0, 10), 2
    )


def test_why_a_shard_cannot_be_read_is_told_in_words(tmp_path):
    write_shards(tmp_path, FILES)
    path = next(tmp_path.glob("*.tar"))
    path.write_bytes(path.read_bytes()[:700])
    assert refusal(stream, tmp_path) == f"cannot read the shard {path}: unexpected end of data"


def test_16_bit_images_that_become_dark_are_named_once(tmp_path, caplog):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(buffer, "PNG")
    write_shards(tmp_path, dict.fromkeys(FILES, buffer.getvalue()))
    take(batches(stream(tmp_path), 0, 5), 4)
    assert len(caplog.messages) == 1
    assert "has no level over 4095 of 65535 and becomes dark" in caplog.text


def test_labels_are_numbers_or_names_of_the_classes(tmp_path):
    write_shards(tmp_path / "names", FILES, label="json")
    write_shards(tmp_path / "numbers", FILES)
    one, other = (take(batches(stream(tmp_path / kind), 0, 5), 4) for kind in ("names", "numbers"))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    unconditional = ShardStream(tmp_path / "names", 8, 1, (), 0)
    images, labels = take(batches(unconditional, 0, 5), 4)
    assert images.shape == (20, 1, 8, 8)
    assert not labels.any()
    assert (unconditional.num_classes, unconditional.histogram()) == (0, [])


def test_a_label_that_was_not_there_when_they_were_counted_is_named(tmp_path):
    write_shards(tmp_path, FILES)
    begun = stream(tmp_path)
    files = {name.replace("dog", "eel"): content for name, content in FILES.items()}
    write_shards(tmp_path, files, label="json")
    line = refusal(take, batches(begun, 0, 5), 4)
    assert re.search(r"train-.*\.png has the label '(cat|eel)', which was not there", line)


def test_a_stream_says_what_a_dataset_says(tmp_path):
    files = dict(list(FILES.items())[:17])
    write_shards(tmp_path, files, per_shard=3)
    streamed, loaded = stream(tmp_path), load_dataset(tmp_path, 8, 3)
    assert len(streamed) == len(loaded) == 17
    assert streamed.histogram() == loaded.histogram()
    assert streamed.class_names == loaded.class_names == CLASSES
    assert streamed.source == loaded.source == tmp_path.name
    stored = sum(map(len, files.values()))
    assert streamed.window_bytes == 14 * stored // 17
    assert stream(tmp_path, window=100).window_bytes == 2 * stored


def test_the_fingerprint_tells_that_the_shards_changed(tmp_path):
    def fingerprint(files, names=CLASSES, shard="train-0001.tar", label="cls"):
        folder = tmp_path / "shards"
        shutil.rmtree(folder, ignore_errors=True)
        write_shards(folder, files, per_shard=10, label=label)
        (folder / "train-0001.tar").rename(folder / shard)
        return ShardStream(folder, 8, 3, names, 0).fingerprint

    whole = fingerprint(FILES)
    assert fingerprint(FILES) == fingerprint(FILES, names=None) == whole
    first = next(iter(FILES))
    other = {"cat": "dog/x.png", "dog": "cat/x.png"}[first.split("/")[0]]
    relabelled = {other if name == first else name: data for name, data in FILES.items()}
    changed = [
        fingerprint(dict(list(FILES.items())[1:])),
        fingerprint(relabelled),
        fingerprint(FILES, names=("cat", "eel")),
        fingerprint(FILES, shard="train-0002.tar"),
    ]
    assert len({whole, *changed}) == 5


def test_a_shard_that_is_cut_or_changed_is_refused(tmp_path):
    write_shards(tmp_path, FILES, per_shard=10)
    shard = tmp_path / "train-0001.tar"
    whole = shard.read_bytes()
    begun = stream(tmp_path)
    for size in (len(whole) // 1024 * 512, len(whole) // 2 + 100, 700, 0):
        shard.write_bytes(whole[:size])
        assert str(shard) in refusal(take, batches(begun, 0, 20), 6)
        assert f"cannot read the shard {shard}" in refusal(stream, tmp_path)
    write_shards(tmp_path, dict(list(FILES.items())[:15]), per_shard=10)
    assert "no longer holds the 10 samples" in refusal(take, batches(begun, 0, 20), 6)


def test_other_mistakes(folder, tmp_path, monkeypatch):
    assert "is no .tar shard" in refusal(stream, tmp_path)
    assert "no such file" in refusal(stream, tmp_path / "a.tar")
    other = tmp_path / "a.zip"
    other.touch()
    assert "a.zip is no .tar shard, and only those are streamed" in refusal(stream, other)
    assert "no shards are named" in refusal(stream, [])
    assert "hold no images" in refusal(stream, write_tar(tmp_path / "a.tar", [("a.txt", b"")]))
    assert "1 channel" in refusal(ShardStream, folder, 8, 2, CLASSES, 0)
    assert "at least 1" in refusal(stream, folder, window=0)
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    assert "pip install 'biggan[data]'" in refusal(stream, folder, index=tmp_path / "index")


def test_closing_ends_the_threads(folder):
    before = threading.active_count()
    begun = batches(stream(folder), 0, 4)
    next(begun)
    assert threading.active_count() > before
    begun.close()
    assert threading.active_count() == before
