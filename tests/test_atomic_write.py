"""Files that are replaced as a whole."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from biggan.atomic_write import (
    TEMPORARY_SUFFIX,
    make_folder,
    replaced_atomically,
    temporary_prefix,
    write_atomically,
)
from biggan.errors import InputError


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_permissions_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        with replaced_atomically(tmp_path / "file") as temporary:
            temporary.write_bytes(b"by a library that makes private files")
            temporary.chmod(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_the_process_s_umask_is_left_alone(tmp_path, monkeypatch):
    """It is all threads': while it is changed, other files get other permissions."""
    monkeypatch.delattr(os, "umask")
    write_atomically(tmp_path / "file", b"new")


def test_threads_that_write_one_file_each_write_it_whole(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(10):
            list(threads.map(lambda written: write_atomically(path, written), contents))
            assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_may_be_as_long_as_the_disk_takes(tmp_path):
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


WRITE_HALF = """
import os, signal, sys
from pathlib import Path
from biggan.atomic_write import TEMPORARY_SUFFIX, replaced_atomically, temporary_prefix
folder = Path(sys.argv[1])
unfinished = folder / f"{temporary_prefix()}12345678{TEMPORARY_SUFFIX}"
unfinished.mkdir()
(unfinished / "part").touch()
with replaced_atomically(folder / "file") as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_only_what_killed_processes_left_is_removed(tmp_path):
    foreign = [".notes.tmp", ".file.png.1.tmp", ".biggan-notes.tmp"]
    for name in foreign:
        (tmp_path / name).touch()
    (tmp_path / ".folder.tmp").mkdir()
    subprocess.run([sys.executable, "-c", WRITE_HALF, tmp_path])
    left = {path.name for path in tmp_path.iterdir()} - {*foreign, ".folder.tmp"}
    assert len(left) == 2
    with replaced_atomically(tmp_path / "file") as temporary:
        temporary.write_bytes(b"whole")
        make_folder(tmp_path)  # as another process does
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(["file", ".folder.tmp", *foreign])


def test_what_another_machine_left_is_removed_after_a_day(tmp_path):
    name = f".biggan-00000000-1-12345678{TEMPORARY_SUFFIX}"
    assert not name.startswith(temporary_prefix())
    (tmp_path / name).touch()
    make_folder(tmp_path)
    assert (tmp_path / name).exists()
    os.utime(tmp_path / name, (0, 0))
    make_folder(tmp_path)
    assert not (tmp_path / name).exists()


def test_the_rename_is_on_the_disk_before_the_caller_goes_on(tmp_path, monkeypatch):
    """A power cut cannot be had here, so the order of what is asked of the system is checked."""
    events, real = [], os.fsync

    def fsync(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        events.append((kind, (tmp_path / "file").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "file", b"new")
    assert events == [("file", False), ("folder", True)]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail_to_write():
        with replaced_atomically(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        fail_to_write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
