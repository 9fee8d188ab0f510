"""WebDataset shards as files: what is in them, and what cannot be used."""

import io
import tarfile

import numpy as np
import pytest

from biggan.data import ShardStream, load_dataset
from biggan.data.sources import expand
from data_forms import pictures, png, refusal, write_archive, write_folder, write_tar

FILES = pictures(4)
PNG = png(0)[0]


def refused(path, **options):
    return refusal(load_dataset, path, 8, 3, **options)


def samples(*labels):
    """A shard's members: one image for each label, which is a suffix and a text."""
    members = []
    for number, (suffix, text) in enumerate(labels):
        members += [(f"{number}.png", png(number)[0]), (f"{number}.{suffix}", text.encode())]
    return members


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        ([("cls", "1"), ("cls", " 0\n"), ("cls", "1")], ("0", "1"), [0, 1, 1]),
        ([("cls", "dog"), ("cls", "cat"), ("cls", "dog")], ("cat", "dog"), [0, 1, 1]),
        ([("cls", "9" * 5000), ("cls", "0x")], ("0x", "9" * 5000), [0, 1]),
        ([("json", '{"label": 1}'), ("json", '{"label": 0}')], ("0", "1"), [0, 1]),
        ([("json", '{"label": "b", "x": [0, "\u00e4"]}'), ("cls", "a")], ("a", "b"), [0, 1]),
    ],
)
def test_labels_are_numbers_or_names(tmp_path, labels, names, numbers):
    data = load_dataset(write_tar(tmp_path / "a.tar", samples(*labels)), 8, 3)
    assert data.class_names == names
    assert data.labels.tolist() == numbers
    assert (data.images[0].numpy() == png(1)[1]).all()


def test_numbers_are_named_by_a_file_beside_the_shards(tmp_path):
    path, table = tmp_path / "a.tar", tmp_path / "classes.txt"
    write_tar(path, samples(("cls", "0"), ("cls", "1")))
    table.write_text("zebra\n\n ape \n")
    assert load_dataset(path, 8, 3).class_names == ("zebra", "ape")
    write_tar(path, samples(("cls", "0"), ("cls", "2")))
    assert "a.tar/1.png has the label 2, but there are only 2 class names" in refused(path)
    table.unlink()
    table.mkdir()
    assert refused(path).endswith("classes.txt: Is a directory")


def test_other_files_of_a_sample_and_other_samples_are_passed_over(tmp_path):
    of_system = ("a/._1.jpg", "@eaDir/0.jpg/a.jpg", "a/.ipynb_checkpoints/0.jpg", "__MACOSX/0.jpg")
    members = [
        ("__info__.json", b"{}"),
        ("notes.txt", b"hello"),
        ("a/0.txt", b"a caption"),
        ("a/0.jpg", PNG),
        ("a/0.cls", b"0"),
        *[(name, PNG) for name in of_system],
        ("a/1.seg.PNG", PNG),
        ("a/1.cls", b"1"),
    ]
    assert load_dataset(write_tar(tmp_path / "a.tar", members), 8, 3).labels.tolist() == [0, 1]


def images_of(path):
    """The seeds of the pictures that are loaded, and streamed."""
    seeds = {png(seed)[1].tobytes(): seed for seed in range(10)}
    loaded = load_dataset(path, 8, 3, unconditional=True).images
    index = path.with_suffix(".json")
    stream = ShardStream(path, 8, 3, (), 0, index=index)
    streamed, _ = next(stream.batches([np.arange(len(stream))]))
    found = [[seeds[image.numpy().tobytes()] for image in images] for images in (loaded, streamed)]
    assert sorted(found[0]) == sorted(found[1])
    return sorted(found[0])


@pytest.mark.parametrize(
    "names",
    [
        ["cat.0", "cat.1", "dog.0"],
        ["cat", "cat.1", "cat.2"],
        ["v1.0_a", "v1.0_b", "v1.5"],
        ["st.paul", "st.petersburg", "x"],
        ["at 10.15.30", "at 10.15.31", "at 10.16.00"],
    ],
)
def test_names_with_dots_are_all_kept_with_their_labels(tmp_path, names, caplog):
    members = []
    for number, name in enumerate(names):
        members += [(f"{name}.png", png(number)[0]), (f"{name}.cls", b"%d" % (number % 2))]
    path = write_tar(tmp_path / "a.tar", members)
    assert images_of(path) == [0, 1, 2]
    data = load_dataset(path, 8, 3)
    assert data.labels.tolist() == [0, 0, 1]
    assert (data.images[2].numpy() == png(1)[1]).all()
    assert caplog.messages == []


def test_of_several_images_that_of_the_samples_name_is_taken(tmp_path, caplog):
    members = []
    for number in range(2):
        for suffix, seed in (("mask.png", 8), ("png", number), ("seg.png", 9)):
            members.append((f"{number}.{suffix}", png(seed)[0]))
        members += [(f"{number}.cls", b"%d" % number), (f"{number}.txt", b"a caption")]
    members += [("README", b"hello"), ("notes/x.heic", b"")]
    path = write_tar(tmp_path / "a.tar", members)
    assert images_of(path) == [0, 1]
    skipped = "2 .mask.png, 2 .seg.png, 1 without an extension, 1 .heic"
    message = f"skipped 6 files that are not images: {skipped}"
    assert caplog.messages == [message, message]  # loaded, and counted for the stream
    images_of(path)
    assert caplog.messages == [message] * 3  # a shard is counted once


def test_several_images_of_one_name_are_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("0.PNG", png(0)[0]), ("0.png", png(1)[0])])
    assert "two images are named a.tar/0.png" in refused(path, unconditional=True)
    write_tar(path, [("0.left.png", PNG), ("0.right.png", PNG), ("0.cls", b"0")])
    fault = "a.tar/0 has several images (left.png, right.png): keep one, or rename it to 0.png"
    assert fault in refused(path)
    assert "has several images" in refusal(ShardStream, path, 8, 3, (), 0)


def test_names_may_occur_in_several_shards_and_beside_class_folders(tmp_path):
    for shard in "ab":
        write_tar(tmp_path / f"{shard}.tar", samples(("cls", "0"), ("cls", "1")))
    assert len(load_dataset(tmp_path, 8, 3)) == 4
    write_folder(tmp_path, FILES)  # beside class folders, archives are not the dataset
    assert len(load_dataset(tmp_path, 8, 3)) == 8


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ([("0.png", PNG)], "a.tar/0.png has no label"),
        (samples(("json", '{"class": 1}')), "a.tar/0.png has no label"),
        (samples(("json", "{")), "a.tar/0.png has no label"),
        (samples(("json", '{"label": true}')), "a.tar/0.png has no label"),
        (samples(("cls", "-1")), "a.tar/0.png has no label"),
        (samples(("cls", "")), "a.tar/0.png has no label"),
        (samples(("json", "[" * 100_000)), "a.tar/0.png has no label"),
        (samples(("cls", "0"), ("cls", "1" * 5000)), "some labels are numbers and some are names"),
        ([("0.png", PNG), ("0.cls", b"caf\xe9")], "'caf\\udce9' is not UTF-8"),
        ([("0.cls", b"0")], "holds no images"),
        ([], "holds no images"),
        ([*samples(("cls", "0")), ("x.png", PNG), *samples(("cls", "0"))], "two images are named"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, members, fault):
    path = write_tar(tmp_path / "a.tar", members)
    message = refused(path)
    assert message.startswith(str(path))
    assert fault in message


def test_a_shard_cut_anywhere_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(*[("cls", str(n)) for n in range(4)]))
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # of the last file
    for size in (0, 100, 512, 700, 1024, 2 * 512, end - 512, end - 5, end):
        path.write_bytes(whole[:size])
        assert "is not a whole tar: it may be truncated" in refused(path), size
    path.write_bytes(whole[: end + 1024])
    assert len(load_dataset(path, 8, 3)) == 4
    path.write_bytes(b"no tar" * 1000)
    assert "is not a whole tar" in refused(path)


def test_a_damaged_header_is_refused_and_no_end(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(*[("cls", str(n)) for n in range(4)]))
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        headers = [info.offset for info in archive]
    for start in headers:
        for place in (start, start + 150):  # the name, and the checksum
            damaged = bytearray(whole)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            assert "is not a whole tar: it may be truncated" in refused(path), place
            assert "cannot read the shard" in refusal(ShardStream, path, 8, 3, (), 0)


def test_patterns(tmp_path):
    for name in ("a-00", "a-01", "a-02", "b-00"):
        write_tar(tmp_path / f"{name}.tar", [])
    for pattern, names in (
        ("a-{00..02}", ["a-00", "a-01", "a-02"]),
        ("{b,a}-00", ["b-00", "a-00"]),
        ("{b,a}-*", ["b-00", "a-00", "a-01", "a-02"]),
    ):
        assert [path.stem for path in expand(f"{tmp_path}/{pattern}.tar")] == names
    assert refused(tmp_path / "a-{00..03}.tar") == f"no such file: {tmp_path}/a-03.tar"
    assert refused(tmp_path / "c-*.tar") == f"no such file: {tmp_path}/c-*.tar"


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "A.TGZ"])
def test_a_tar_of_class_folders_is_that_folder(tmp_path, name):
    files = {f"./pets/{name}": data for name, data in FILES.items()} | {"pets/LICENSE": b""}
    plain = load_dataset(write_folder(tmp_path / "b", FILES), 8, 3)
    data = load_dataset(write_archive(tmp_path / name, files), 8, 3)
    assert data.fingerprint == plain.fingerprint
    assert data.class_names == ("cat", "dog")
    path = write_archive(tmp_path / f"bad-{name}", files)
    whole = path.read_bytes()
    for damaged in (whole[:-1500], whole[:300] + b"\xff" * 50 + whole[350:]):
        path.write_bytes(damaged)
        assert f"bad-{name} is not a whole tar" in refused(path)


def test_a_tar_for_each_class(tmp_path):
    """As ImageNet has them: in a folder, or in one more tar."""
    for name in ("cat", "dog"):
        own = {key[4:]: data for key, data in FILES.items() if key.startswith(name)}
        write_tar(tmp_path / "all" / f"{name}.tar", own.items())
    inner = {path.name: path.read_bytes() for path in (tmp_path / "all").iterdir()}
    plain = load_dataset(write_folder(tmp_path / "b", FILES), 8, 3)
    for path in (tmp_path / "all", write_archive(tmp_path / "outer.tar", inner)):
        assert load_dataset(path, 8, 3).fingerprint == plain.fingerprint
    # Shards without labels are no classes.
    for name in ("train-0000", "train-0001"):
        write_tar(tmp_path / "shards" / f"{name}.tar", [(f"{name}.png", PNG)])
    assert "holds shards (train-0000, train-0001)" in refused(tmp_path / "shards")


def test_a_disk_without_room_for_what_is_unpacked(tmp_path, monkeypatch):
    path = write_archive(tmp_path / "a.tgz", FILES)

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    assert "No space left on device; set TMPDIR to a folder with space" in refused(path)


def test_a_label_of_json_can_be_chosen(tmp_path):
    labels = [("json", f'{{"label": 0, "colour": "{c}"}}') for c in ("red", "blue", "red")]
    path = write_tar(tmp_path / "a.tar", samples(*labels))
    data = load_dataset(path, 8, 3, label_column="colour")
    assert (data.class_names, data.labels.tolist()) == (("blue", "red"), [0, 1, 1])
    stream = ShardStream(path, 8, 3, None, 0, label_column="colour")
    assert stream.class_names == ("blue", "red")
    assert "needs several classes" in refusal(ShardStream, path, 8, 3, None, 0)
    assert "has no label" in refused(path, label_column="size")
