"""Folders and zips: what is listed, read, left out and refused."""

import contextlib
import errno
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
NAMES = ["cat/b.PNG", "cat/a.jpg", "cat/deep/er/c.webp", "dog/d.tiff", "top.ppm"]
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


CONTENTS = {name: name.encode() for name in NAMES + CLUTTER}


def write(form, path, files):
    """A folder, or an archive of this ending."""
    return {"folder": write_folder, "zip": write_zip}.get(form, write_archive)(path, files)


@contextlib.contextmanager
def open_files(path):
    """The images of a folder or zip by name."""
    with open_source(path, unconditional=True) as source:
        yield SimpleNamespace(
            members=tuple(source.members),
            read=lambda member: source.read(source.members.index(member)),
            folders=source.reader.folders,
        )


def refused(path, **options):
    return refusal(open_source(path, **options).__enter__)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_images_are_listed_in_order_and_clutter_is_not(tmp_path, form):
    # A hidden folder above does not hide the data.
    (tmp_path / ".cache").mkdir()
    with open_files(write(form, tmp_path / ".cache" / "data.ZIP", CONTENTS)) as files:
        assert files.members == tuple(sorted(NAMES))
        for member in files.members:
            assert files.read(member) == member.encode()
    if form == "zip":  # it is closed at the end
        with pytest.raises(CorruptImageError):
            files.read(member)


def test_folders_are_listed_whether_they_hold_images_or_not(tmp_path):
    folder = write_folder(tmp_path / "data", CONTENTS)
    (folder / "empty").mkdir()
    (folder / ".git").mkdir()
    with open_files(folder) as files:
        assert files.folders == ("cat", "dog", "empty")
    path = write_zip(tmp_path / "data.zip", CONTENTS | {"words/text.txt": b""})
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("empty/below")
    with open_files(path) as files:
        expected = ("cat", "cat/deep", "cat/deep/er", "dog", "empty", "empty/below", "words")
        assert files.folders == expected


def test_links_are_followed_but_not_in_circles(tmp_path):
    write_folder(tmp_path / "real", CONTENTS)
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
    with open_files(write_zip(tmp_path / "data.zip", {"cat\\a.jpg": b"a"})) as files:
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
    write_zip(tmp_path / "data.zip", CONTENTS)
    assert refused(tmp_path / "data.zip" / "train").startswith(
        f"{tmp_path}/data.zip has no folder 'train': name one, such as {tmp_path}/data.zip::c"
    )
    (tmp_path / "data.h5").write_bytes(b"HDF")
    message = "is neither a folder of class folders nor a .zip or .tar of one"
    assert refused(tmp_path / "data.h5").endswith(message)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_no_images_is_an_error_that_names_the_kinds(tmp_path, form):
    path = write(form, tmp_path / "data.zip", {"notes.txt": b""})
    assert refused(path).startswith(f"{path} holds no images, only 1 .txt (looked for apng")
    path = write_zip(tmp_path / "packed.zip", {"inner.zip": b""})
    assert ", only 1 .zip (looked for " in refused(path)
    assert refused(path).endswith("; unpack it first")
    path = write_zip(tmp_path / "none.zip", {})
    assert refused(path).startswith(f"{path} holds no images (looked for apng")


def test_damaged_and_encrypted_zips_are_refused(tmp_path):
    path = write_zip(tmp_path / "data.zip", {"caf\u00e9.png": b""})
    whole = path.read_bytes()
    wrong_name = whole.replace("\u00e9".encode(), b"\xe9\xe9")  # marked as UTF-8, and is not
    for data in (whole[: len(whole) // 2], b"", b"not a zip", wrong_name):
        path.write_bytes(data)
        assert refused(path).startswith(f"{path} is not a whole zip: it may be truncated")
    encrypted = bytearray(whole)
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(encrypted)
    assert refused(path).endswith("is encrypted: zip the images without a password")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_a_corrupt_image(tmp_path, method):
    path = tmp_path / "data.zip"
    content = bytes(range(256)) * 20
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in ("cat/a.jpg", "cat/b.jpg"):
            archive.writestr(name, content)
    data = bytearray(path.read_bytes())
    start = 30 + len("cat/a.jpg")  # behind the first local header
    data[start + 40 : start + 60] = b"\xff" * 20
    path.write_bytes(data)
    with open_files(path) as files:
        with pytest.raises(CorruptImageError):
            files.read("cat/a.jpg")
        assert files.read("cat/b.jpg") == content
    data[-6] += 1  # where the directory begins: no fault of the disk, though it is before the file
    path.write_bytes(data)
    with open_files(path) as files, pytest.raises(CorruptImageError, match="."):
        files.read("cat/a.jpg")


def test_a_folder_that_may_not_be_read_is_a_users_mistake(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", forbidden)
    assert "no permission to read" in refused(tmp_path)


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


@pytest.mark.parametrize(
    ("write", "reading"),
    [
        (write_folder, "pathlib.Path.read_bytes"),
        (write_zip, "zipfile.ZipExtFile.read"),
        (write_shards, "pathlib.Path.open"),
        (write_parquet, "pyarrow.parquet.ParquetFile.read_row_group"),
    ],
)
def test_a_fault_of_the_disk_is_no_corrupt_image(tmp_path, monkeypatch, write, reading):
    path = write(tmp_path / ("pets.zip" if write is write_zip else "pets.parquet"), pictures(4))
    with open_source(path) as source:
        monkeypatch.setattr(reading, disk_fault)
        assert CHECK in refusal(source.read, 0)
        if write is write_folder:
            monkeypatch.undo()
            (path / "cat" / "0000.png").unlink()  # as where a network drive goes away
            message = refusal(source.read, 0)
            assert "cat/0000.png: No such file or directory; check the disk" in message


@pytest.mark.parametrize("step", ["ParquetFile", "ParquetFile.read"])
def test_a_fault_of_the_disk_is_no_damaged_parquet_file(tmp_path, monkeypatch, step):
    path = write_parquet(tmp_path / "pets.parquet", pictures(4))
    monkeypatch.setattr(f"pyarrow.parquet.{step}", disk_fault)
    assert CHECK in refused(path)


def old_zip(path, names, encoding, data=b""):
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
    ("encoding", "names", "said"),
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
        # These may be several things.
        ("cp932", ["\u30cd\u30b3/1.png", "\u72ac/1.png"], "(cp932: \u30cd\u30b3/1.png, gbk: "),
        ("cp949", ["\uac15\uc544/1.png", "\uace0/1.png"], "cp949: \uac15\uc544/1.png"),
        ("cp1251", ["\u043a\u043e\u0442/1.png", "b/1.png"], "cp1251: \u043a\u043e\u0442"),
        ("cp852", ["\u0142\u00f3d\u017a/1.png", "b/1.png"], r"(b'\x88\xa2d\xab/1.png')"),
    ],
)
def test_names_of_an_old_zip_are_read_where_one_encoding_makes_sense(
    tmp_path, caplog, encoding, names, said
):
    caplog.set_level(logging.INFO, "biggan.data")
    path = old_zip(tmp_path / "a.zip", names, encoding, png(0)[0])
    with open_source(path, unconditional=True) as source:
        assert len(source.members) == 2
    if said.startswith("read as") or not said:
        with open_source(path) as source:
            assert source.members == sorted(names)
        assert said in caplog.text
        assert bool(said) == bool(caplog.records)
        return
    message = refused(path)
    for part in ("does not state the encoding of its names", "unzip -O ENCODING", said):
        assert part in message
    # What the classes are called does not depend on it.
    below = [f"{number}/{name.replace('/', '-')}" for number, name in enumerate(names)]
    with open_source(old_zip(tmp_path / "b.zip", below, encoding)) as source:
        assert source.class_names == ("0", "1")


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
    path = write(form, tmp_path / f"pets.{form}", TWO)
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
