"""Folders and zips: what is listed, read, left out and refused; labels in dataset.json."""

import contextlib
import errno
import json
import logging
import os
import struct
import zipfile
import zlib
from types import SimpleNamespace

import pytest

from biggan.data import load_dataset
from biggan.data.decoding import CorruptImageError
from biggan.data.sources import open_source
from data_forms import (
    pictures,
    png,
    refusal,
    write_archive,
    write_folder,
    write_parquet,
    write_shards,
    write_zip,
)

FILES = pictures(4)
NAMES = [
    "cat/b.PNG",
    "cat/a.jpg",
    "cat/deep/er/c.webp",
    "dog/d.tiff",
    "top.ppm",
]
CLUTTER = [
    "cat/notes.txt",
    "cat/jpg",
    "cat/.hidden.jpg",
    ".cache/a.jpg",
    "__MACOSX/cat/a.jpg",
    "cat/__MACOSX/a.jpg",
    "cat/Thumbs.db",
    "cat/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "cat/deep/.ipynb_checkpoints/c-checkpoint.webp",
    "@eaDir/a.jpg",
    "#recycle/a.jpg",
    "$Recycle.Bin/S-1-5-21/a.jpg",
    "System Volume Information/a.jpg",
    "lost+found/a.jpg",
    "FOUND.000/a.jpg",
]


def fill_folder(folder):
    for name in NAMES + CLUTTER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def fill_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("cat")
        for name in NAMES + CLUTTER:
            archive.writestr(name, name.encode())
    return path


@contextlib.contextmanager
def open_files(path):
    """The images of a folder or zip by name."""
    with open_source(path, unconditional=True) as source:
        yield SimpleNamespace(
            members=tuple(source.members),
            read=lambda member: source.read(source.members.index(member)),
            folders=source.reader.folders,
            unclear_names=source.reader.unclear_names,
        )


def refused(path, **options):
    return refusal(open_source(path, **options).__enter__)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_images_are_listed_in_order_and_clutter_is_not(tmp_path, kind):
    path = fill_folder(tmp_path / "data") if kind == "folder" else fill_zip(tmp_path / "data.ZIP")
    with open_files(path) as files:
        assert files.members == tuple(sorted(NAMES))
        for member in files.members:
            assert files.read(member) == member.encode()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folders_are_listed_whether_they_hold_images_or_not(tmp_path, kind):
    if kind == "folder":
        (fill_folder(tmp_path) / "empty").mkdir()
        (tmp_path / ".git").mkdir()
        with open_files(tmp_path) as files:
            assert files.folders == ("cat", "dog", "empty")
        return
    path = fill_zip(tmp_path / "data.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("empty/below")
        archive.writestr("words/text.txt", "")
    with open_files(path) as files:
        expected = ("cat", "cat/deep", "cat/deep/er", "dog", "empty", "empty/below", "words")
        assert files.folders == expected


def test_a_zip_is_closed_at_the_end(tmp_path):
    with open_files(fill_zip(tmp_path / "data.zip")) as files:
        member = files.members[0]
    with pytest.raises(CorruptImageError):
        files.read(member)


def test_a_hidden_folder_above_does_not_hide_the_data(tmp_path):
    with open_files(fill_folder(tmp_path / ".cache" / "data")) as files:
        assert len(files.members) == len(NAMES)


def test_links_are_followed_but_not_in_circles(tmp_path):
    fill_folder(tmp_path / "real")
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "real" / "cat")
    (tmp_path / "data" / "cat" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    itself = tmp_path / "data" / "cat" / "itself"
    itself.symlink_to(itself)
    with open_files(tmp_path / "data") as files:
        assert "dog/a.jpg" in files.members
        assert not any("loop" in member for member in files.members)
        with pytest.raises(CorruptImageError):
            files.read("cat/gone.jpg")


def test_backslashes_in_a_zip_are_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("cat\\a.jpg", b"a")
    with open_files(tmp_path / "data.zip") as files:
        assert files.members == ("cat/a.jpg",)
        assert files.read("cat/a.jpg") == b"a"


def test_a_missing_path_names_a_sibling(tmp_path):
    (tmp_path / "ImageNet").mkdir()
    wrong = tmp_path / "ImageNt" / "train"
    assert refused(wrong) == (
        f"no such file or folder: {wrong}; did you mean {tmp_path / 'ImageNet'}?"
    )
    assert refused(tmp_path / "zzz") == f"no such file or folder: {tmp_path / 'zzz'}"
    (tmp_path / "\u1100\u1161\u11bc").mkdir()  # as macOS writes it
    assert refused(tmp_path / "\uac15").endswith(f"did you mean {tmp_path}/\u1100\u1161\u11bc?")
    fill_zip(tmp_path / "data.zip")
    assert refused(tmp_path / "data.zip" / "train").startswith(
        f"{tmp_path}/data.zip has no folder 'train': name one, such as {tmp_path}/data.zip::c"
    )


def test_a_path_inside_a_file_or_of_another_kind_is_refused(tmp_path):
    (tmp_path / "data.h5").write_bytes(b"HDF")
    assert refused(tmp_path / "data.h5").endswith(
        "is neither a folder of class folders nor a .zip or .tar of one"
    )


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_no_images_is_an_error_that_names_the_kinds(tmp_path, kind):
    path = tmp_path / "data.zip"
    if kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("")
    else:
        zipfile.ZipFile(path, "w").close()
    others = ", only 1 .txt" if kind == "folder" else ""
    assert refused(path).startswith(f"{path} holds no images{others} (looked for apng")


def test_a_truncated_zip_is_refused(tmp_path):
    whole = fill_zip(tmp_path / "whole.zip").read_bytes()
    path = tmp_path / "data.zip"
    for data in (whole[: len(whole) // 2], b"", b"not a zip"):
        path.write_bytes(data)
        assert refused(path).startswith(f"{path} is not a whole zip: it may be truncated")


def test_an_encrypted_zip_is_refused(tmp_path):
    data = bytearray(fill_zip(tmp_path / "data.zip").read_bytes())
    place = data.find(b"PK\x01\x02")
    while place >= 0:
        data[place + 8] |= 1  # the flag in each entry of the central directory
        place = data.find(b"PK\x01\x02", place + 1)
    (tmp_path / "data.zip").write_bytes(data)
    assert refused(tmp_path / "data.zip").endswith(
        "is encrypted: zip the images without a password"
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_a_corrupt_image(tmp_path, method):
    path = tmp_path / "data.zip"
    content = bytes(range(256)) * 20
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("cat/a.jpg", content)
        archive.writestr("cat/b.jpg", content)
    data = bytearray(path.read_bytes())
    start = 30 + len("cat/a.jpg")  # behind the first local header
    data[start + 40 : start + 60] = b"\xff" * 20
    path.write_bytes(data)
    with open_files(path) as files:
        with pytest.raises(CorruptImageError):
            files.read("cat/a.jpg")
        assert files.read("cat/b.jpg") == content


def test_a_folder_that_may_not_be_read_is_a_users_mistake(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", forbidden)
    assert "no permission to read" in refused(tmp_path)


def test_a_place_that_a_damaged_zip_names_is_no_fault_of_the_disk(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"cat/a.png": b"a"})
    data = bytearray(path.read_bytes())
    data[-6] += 1  # where the directory begins; the file then begins before the zip
    path.write_bytes(data)
    with open_files(path) as files, pytest.raises(CorruptImageError, match="."):
        files.read("cat/a.png")


def test_what_is_no_regular_file_or_too_large_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(2**30 + 1)
    with open_files(tmp_path) as files:
        with pytest.raises(CorruptImageError, match="not a regular file"):
            files.read("pipe.png")
        with pytest.raises(CorruptImageError, match="1073741825 bytes are too many"):
            files.read("large.png")


def disk_fault(*arguments, **options):
    raise OSError(errno.EIO, "Input/output error")


CHECK = "Input/output error; check the disk and start again"


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "parquet"])
def test_a_fault_of_the_disk_is_no_corrupt_image(tmp_path, monkeypatch, kind):
    write = {
        "zip": write_zip,
        "tar": write_shards,
        "parquet": write_parquet,
        "folder": write_folder,
    }
    path = write[kind](tmp_path / f"pets.{kind}", pictures(4))
    with open_source(path) as source:
        reading = {
            "folder": "pathlib.Path.read_bytes",
            "zip": "zipfile.ZipExtFile.read",
            "tar": "pathlib.Path.open",
            "parquet": "pyarrow.parquet.ParquetFile.read_row_group",
        }
        monkeypatch.setattr(reading[kind], disk_fault)
        assert CHECK in refusal(source.read, 0)
        if kind == "folder":
            monkeypatch.undo()
            (path / "cat" / "0000.png").unlink()  # as where a network drive goes away
            message = refusal(source.read, 0)
            assert "cat/0000.png: No such file or directory; check the disk" in message


@pytest.mark.parametrize("step", ["ParquetFile", "ParquetFile.read"])
def test_a_fault_of_the_disk_is_no_damaged_parquet_file(tmp_path, monkeypatch, step):
    path = write_parquet(tmp_path / "pets.parquet", pictures(4))
    monkeypatch.setattr(f"pyarrow.parquet.{step}", disk_fault)
    assert CHECK in refused(path)


def old_zip(path, names, encoding, data=b"image"):
    """A zip whose names have no mark of UTF-8, as old programs wrote them."""
    coded = [name.encode(encoding) for name in names]
    with zipfile.ZipFile(path, "w") as archive:
        for place, name in enumerate(coded):
            archive.writestr(chr(65 + place) * len(name), data)
    content = path.read_bytes()
    for place, name in enumerate(coded):
        content = content.replace((chr(65 + place) * len(name)).encode(), name)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("encoding", "names", "told"),
    [
        ("utf-8", ["caf\u00e9/1.png", "\u732b/1.png"], ""),  # old programs of macOS and Linux
        (
            "cp437",
            ["caf\u00e9/1.png", "H\u00e4hne/1.png"],
            "read as cp437, such as caf\u00e9/1.png",
        ),
        ("cp850", ["\u00c1rbol/1.png", "ni\u00f1o/1.png"], "read as cp850"),
        ("cp1252", ["caf\u00e9/1.png", "tea/1.png"], "read as cp1252"),
        ("cp866", ["\u043a\u043e\u0442/1.png", "\u043f\u0451\u0441/1.png"], "read as cp866"),
    ],
)
def test_names_of_an_old_zip_are_read_where_one_encoding_makes_sense(
    tmp_path, caplog, encoding, names, told
):
    with (
        caplog.at_level(logging.INFO, "biggan.data"),
        open_files(old_zip(tmp_path / "a.zip", names, encoding)) as files,
    ):
        assert files.members == tuple(sorted(names))
        assert files.read(names[0]) == b"image"
        assert files.unclear_names is None
    assert told in caplog.text
    assert bool(told) == bool(caplog.records)


@pytest.mark.parametrize(
    ("encoding", "names", "shown"),
    [
        ("cp932", ["\u30cd\u30b3/1.png", "\u72ac/1.png"], "cp932: \u30cd\u30b3/1.png, gbk: "),
        ("cp949", ["\uac15\uc544/1.png", "\uace0/1.png"], "cp949: \uac15\uc544/1.png"),
        (
            "cp1251",
            ["\u043a\u043e\u0448\u043a\u0430/1.png", "b/1.png"],
            "cp1251: \u043a\u043e\u0448",
        ),
        ("cp852", ["\u0142\u00f3d\u017a/1.png", "b/1.png"], r"(b'\x88\xa2d\xab/1.png')"),
    ],
)
def test_names_of_an_old_zip_that_may_be_several_things_are_asked_about(
    tmp_path, encoding, names, shown
):
    path = old_zip(tmp_path / "a.zip", names, encoding, png(0)[0])
    message = refused(path)
    for part in ("does not state the encoding of its names", "unzip -O ENCODING", shown):
        assert part in message
    with open_source(path, unconditional=True) as opened:
        assert len(opened.members) == 2
    # What the classes are called does not depend on it.
    below = [f"{number}/{name.replace('/', '-')}" for number, name in enumerate(names)]
    path = old_zip(tmp_path / "b.zip", below, encoding)
    with open_source(path) as opened:
        assert opened.class_names == ("0", "1")


def test_a_name_in_the_unicode_path_field_is_taken(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for crc, place in ((zlib.crc32(b"x1.png"), 1), (0, 2)):
            info = zipfile.ZipInfo(f"x{place}.png")
            name = "\u732b/1.png".encode()
            info.extra = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, crc) + name
            archive.writestr(info, b"image")
    with open_files(path) as files:
        assert files.members == ("x2.png", "\u732b/1.png")


def test_a_name_that_is_marked_as_utf8_and_is_not_is_damage(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("caf\u00e9.png", b"")
    damaged = (tmp_path / "a.zip").read_bytes().replace("\u00e9".encode(), b"\xe9\xe9")
    (tmp_path / "a.zip").write_bytes(damaged)
    assert "is not a whole zip" in refused(tmp_path / "a.zip")


@pytest.mark.parametrize("write", [write_folder, write_zip])
@pytest.mark.parametrize(
    "names",
    [
        ["0.png", "1.png"],
        ["cat/0.png", "cat/1.png"],
        ["a/0.png", "b/0.png", "b/c/0.png"],
        ["00000/img0.png", "00001/img1.png"],
        ["cat\n/0.png", "dog/0.png"],
    ],
)
def test_without_classes_every_layout_will_do(tmp_path, write, names):
    (tmp_path / "empty").mkdir()
    path = write(tmp_path / "data.zip", dict.fromkeys(reversed(names), b"image"))
    with open_source(path, unconditional=True) as source:
        assert (source.members, source.labels, source.class_names) == (names, [0] * len(names), ())


# --- one part of an archive ---

TWO = {f"pets/{part}/{name}": data for part in ("train", "test") for name, data in FILES.items()}


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "tgz"])
def test_a_part_is_what_its_folder_is(tmp_path, form):
    TWO["pets/train/cat/5.png"] = png(5)[0]
    path = tmp_path / f"pets.{form}"
    {"folder": write_folder, "zip": write_zip}.get(form, write_archive)(path, TWO)
    wanted = load_dataset(write_folder(tmp_path / "a", TWO) / "pets" / "train", 8, 3)
    for part in ("train", "pets/train", "pets/train/"):
        data = load_dataset(f"{path}::{part}", 8, 3)
        assert data.fingerprint == wanted.fingerprint
        assert data.source == f"pets.{form}::{part.strip('/')}"
    inside = path / ("pets/train" if form == "folder" else "train")
    assert load_dataset(inside, 8, 3).fingerprint == wanted.fingerprint
    message = refusal(load_dataset, f"{path}::trian", 8, 3)
    assert message == f"{path} has no folder 'trian': name one, such as {path}::pets/train"
    message = refusal(load_dataset, f"{path}::cat", 8, 3)
    assert message.startswith(f"{path} has several folders 'cat': name one, such as {path}::pets/")


def test_a_name_with_two_colons_is_a_name(tmp_path):
    folder = write_folder(tmp_path / "a::b", FILES)
    assert len(load_dataset(folder, 8, 3)) == 8


# --- dataset.json of StyleGAN's tools: labels of image files in numbered folders ---


NUMBERED = [f"{number // 2:05}/img{number:08}.png" for number in range(6)]
LABELS = [1, 0, 1, 1, 0, 1]
PAIRS = [list(pair) for pair in zip(NUMBERED, LABELS, strict=True)]


def numbered(tmp_path, labels=PAIRS, *, form="folder", prefix="", text=None):
    about = json.dumps({"labels": labels, "more": []}) if text is None else text
    files = {f"{prefix}{name}": png(number)[0] for number, name in enumerate(NUMBERED)}
    files[f"{prefix}dataset.json"] = about.encode()
    write = write_folder if form == "folder" else write_zip
    return write(tmp_path / f"data.{form}", files)


@pytest.mark.parametrize(
    ("form", "prefix"),
    [
        ("folder", ""),
        ("folder", "cifar10/"),
        ("zip", ""),
        ("zip", "cifar10/"),
        ("zip", "a/cifar10/"),
    ],
)
def test_labels_are_those_of_dataset_json(tmp_path, form, prefix):
    data = load_dataset(numbered(tmp_path, form=form, prefix=prefix), 8, 3)
    assert data.class_names == ("0", "1")
    assert data.labels.tolist() == sorted(LABELS)
    order = [1, 4, 0, 2, 3, 5]
    assert [image.numpy().tobytes() for image in data.images] == [
        png(number)[1].tobytes() for number in order
    ]


def test_labels_may_be_an_object_names_of_windows_and_names_of_classes(tmp_path):
    labels = {f".\\{name}".replace("/", "\\"): label for name, label in PAIRS}
    data = load_dataset(numbered(tmp_path, labels), 8, 3)
    assert data.labels.tolist() == sorted(LABELS)
    labels = [[name, ["cat", "dog"][label]] for name, label in PAIRS]
    assert load_dataset(numbered(tmp_path, labels), 8, 3).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (None, "has no labels [file, number]: train without classes (--unconditional"),
        (PAIRS[:4], f"has no label for 2 of 6 images, such as {NUMBERED[4]}"),
        (
            [*PAIRS[:5], [NUMBERED[5], None]],
            f"has no label for 1 of 6 images, such as {NUMBERED[5]}",
        ),
        ([[name, [label, 0.5]] for name, label in PAIRS], f"{NUMBERED[0]} ([1, 0.5])"),
        ([[name, label / 2] for name, label in PAIRS], f"{NUMBERED[0]} (0.5)"),
        ([*PAIRS[:5], [NUMBERED[5], -1]], f"{NUMBERED[5]} has no label"),
        ([*PAIRS, ["00003/img00000006.png", 2]], "no image of the class 2 that dataset.json names"),
        (LABELS, "has no labels [file, number]"),
        ("labels", "has no labels [file, number]"),
        ([[1, 2]], "has no labels [file, number]"),
    ],
)
def test_labels_that_cannot_be_used_are_named(tmp_path, labels, fault):
    path = numbered(tmp_path, labels)
    message = refusal(load_dataset, path, 8, 3)
    assert message.startswith(str(path))
    assert fault in message
    assert len(load_dataset(path, 8, 3, unconditional=True)) == 6


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\0"])
def test_a_damaged_file_is_named(tmp_path, text):
    assert "dataset.json is damaged" in refusal(load_dataset, numbered(tmp_path, text=text), 8, 3)


@pytest.mark.parametrize("text", ["[]", '{"version": 1}'])
def test_the_file_of_another_program_says_nothing(tmp_path, text):
    assert "holds shards (00000, 00001, 00002)" in refusal(
        load_dataset, numbered(tmp_path, text=text), 8, 3
    )
    for name in ("cat", "dog"):
        write_folder(tmp_path / "pets", {f"{name}/0.png": png(0)[0]})
    write_folder(tmp_path / "pets", {"dataset.json": text.encode()})
    assert load_dataset(tmp_path / "pets", 8, 3).class_names == ("cat", "dog")
