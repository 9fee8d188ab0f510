"""Files that are replaced as a whole."""

import os
import stat

import pytest

from biggan.atomic_write import replaced_atomically, write_atomically
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
