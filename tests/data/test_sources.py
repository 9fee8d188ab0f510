import errno
import zipfile

import pytest

from biggan.data.decoding import CorruptImageError
from biggan.data.sources import FolderFiles, ZipFiles, open_files
from biggan.errors import InputError

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


def refusal(path):
    with pytest.raises(InputError) as caught:
        open_files(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_images_are_listed_in_order_and_clutter_is_not(tmp_path, kind):
    path = fill_folder(tmp_path / "data") if kind == "folder" else fill_zip(tmp_path / "data.ZIP")
    with open_files(path) as files:
        assert isinstance(files, FolderFiles if kind == "folder" else ZipFiles)
        assert files.path == path
        assert files.members == tuple(sorted(NAMES))
        for member in files.members:
            assert files.read(member) == member.encode()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folders_are_listed_whether_they_hold_images_or_not(tmp_path, kind):
    if kind == "folder":
        (fill_folder(tmp_path) / "empty").mkdir()
        (tmp_path / ".git").mkdir()
        assert FolderFiles(tmp_path).folders == ("cat", "dog", "empty")
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
    assert refusal(wrong) == (
        f"no such file or folder: {wrong}; did you mean {tmp_path / 'ImageNet'}?"
    )
    assert refusal(tmp_path / "zzz") == f"no such file or folder: {tmp_path / 'zzz'}"
    fill_zip(tmp_path / "data.zip")
    assert refusal(tmp_path / "data.zip" / "train").startswith("no such file or folder")


def test_a_path_inside_a_file_or_of_another_kind_is_refused(tmp_path):
    (tmp_path / "data.h5").write_bytes(b"HDF")
    assert refusal(tmp_path / "data.h5").endswith(
        "is neither a folder of class folders nor a .zip of one"
    )


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_no_images_is_an_error_that_names_the_kinds(tmp_path, kind):
    path = tmp_path / "data.zip"
    if kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("")
    else:
        zipfile.ZipFile(path, "w").close()
    assert refusal(path).startswith(f"{path} holds no images (looked for bmp gif jpeg jpg")


def test_a_truncated_zip_is_refused(tmp_path):
    whole = fill_zip(tmp_path / "whole.zip").read_bytes()
    path = tmp_path / "data.zip"
    for data in (whole[: len(whole) // 2], b"", b"not a zip"):
        path.write_bytes(data)
        assert refusal(path).startswith(f"{path} is not a whole zip: it may be truncated")


def test_an_encrypted_zip_is_refused(tmp_path):
    data = bytearray(fill_zip(tmp_path / "data.zip").read_bytes())
    place = data.find(b"PK\x01\x02")
    while place >= 0:
        data[place + 8] |= 1  # the flag in each entry of the central directory
        place = data.find(b"PK\x01\x02", place + 1)
    (tmp_path / "data.zip").write_bytes(data)
    assert refusal(tmp_path / "data.zip").endswith(
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
    assert "no permission to read" in refusal(tmp_path)


def test_a_fault_of_the_disk_is_no_corrupt_image(tmp_path, monkeypatch):
    files = FolderFiles(fill_folder(tmp_path))

    def fail(_path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pathlib.Path.read_bytes", fail)
    with pytest.raises(InputError, match=r"cat/a.jpg: Input/output error; see to the disk"):
        files.read("cat/a.jpg")
    monkeypatch.undo()
    with pytest.raises(CorruptImageError):
        files.read("cat/gone.jpg")
