"""Lock files, also on disks that answer flock with an error."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from biggan.errors import InputError
from biggan.locks import locked

HOLD = """
import fcntl, os, sys, time
from pathlib import Path
from biggan.locks import locked
number = int(sys.argv[2])
def flock(*_):
    raise OSError(number, os.strerror(number))
if number:
    fcntl.flock = flock
with locked(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=[0, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS])
def flock_error(request, monkeypatch):
    """The error that flock gives, 0 for none."""

    def flock(*_):
        raise OSError(request.param, os.strerror(request.param))

    if request.param:
        monkeypatch.setattr(fcntl, "flock", flock)
    return request.param


@pytest.fixture
def holder(tmp_path, flock_error):
    """Another process that holds the lock of `tmp_path / "lock"`."""
    arguments = [sys.executable, "-c", HOLD, tmp_path / "lock", str(flock_error)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_one_process_at_a_time_even_after_a_kill(tmp_path, holder, flock_error):
    with pytest.raises(InputError, match="busy") as refused, locked(tmp_path / "lock", "busy"):
        pass
    assert ("on another machine, delete" in str(refused.value)) == bool(flock_error)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "lock", "busy"):
        pass
    assert not list(tmp_path.glob("*.held"))


@pytest.mark.parametrize("flock_error", [errno.ENOLCK], indirect=True)
def test_a_lock_of_another_machine_says_what_to_delete(tmp_path, flock_error):
    held = tmp_path / "lock.held"
    held.write_text("1\nanother-machine\n")
    waited = []
    with pytest.raises(InputError, match=f"another machine, delete {held}"):
        locked(tmp_path / "lock", "busy").__enter__()
    with locked(tmp_path / "lock", "busy", wait=lambda why: (waited.append(why), held.unlink())):
        assert len(waited) == 1


def test_what_cannot_be_written_is_said_as_it_is(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), locked(tmp_path / "file" / "lock", "busy"):
        pass
