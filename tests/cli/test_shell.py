"""The command line among other programs of a shell: pipes, signals, encodings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from biggan.weights.files import Description, save_network
from command_line import succeeds
from tiny import tiny_generator

BIGGAN = [sys.executable, "-m", "biggan"]


def start(*arguments, **options):
    command = [*BIGGAN, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("arguments", [["classes", "--imagenet"], ["--help"], ["sample", "-h"]])
def test_a_reader_that_leaves_ends_it_quietly(arguments):
    process = start(*arguments)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == -signal.SIGPIPE
    process.stderr.close()


def test_an_error_that_nobody_reads_ends_it_quietly():
    process = start("nothing", bufsize=0)
    process.stderr.close()
    assert process.stdout.read() == b""
    assert process.wait(60) == -signal.SIGPIPE
    process.stdout.close()


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize(
    ("line", "status"),
    [("--help >&-", 0), ("models 2>&-", 0), ("nothing 2>&-", 2), ("demo --user ann <&-", 2)],
)
def test_closed_streams_are_like_empty_ones(line, status):
    command = f"exec {sys.executable} -m biggan {line}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)


def test_file_names_and_class_names_are_printed_whatever_the_encoding(tmp_path):
    model = tmp_path / "model.safetensors"
    save_network(model, tiny_generator(), Description("tiny", class_names=("a", "\u732b", "b")))
    western = os.environ | {"PYTHONIOENCODING": "latin-1"}
    printed, said = start("classes", "--model", model, env=western).communicate()
    assert (printed.splitlines()[1], said) == (rb"1) \u732b", b"")

    out = os.fsencode(tmp_path) + b"/out\xff"
    command = [*BIGGAN, "sample", "--model", model, "--class", "\u732b", "--out", out]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == out + "/tiny-001-\u732b-hub0.4-seed0-0000.png\n".encode()
    assert Path(os.fsdecode(done.stdout[:-1])).exists()


def test_names_of_files_are_short_and_ascii_where_the_locale_is(tmp_path):
    cat = "\u732b" * 90
    model = tmp_path / "model.safetensors"
    save_network(model, tiny_generator(), Description("tiny", class_names=("a", cat, "b")))
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = ["sample", "--model", model, "--class", cat, "--out", tmp_path]
    done = start(*command, env=os.environ | ascii_only)
    printed = [succeeds("", *command), done.communicate()[0].decode()]
    assert done.returncode == 0
    for name, line in zip(("\u732b" * 26, "-" * 80), printed, strict=True):
        assert line == f"{tmp_path}/tiny-001-{name}-hub0.4-seed0-0000.png\n"


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_ends_it_with_nothing_half_written(tiny_file, tmp_path, number, status):
    out = tmp_path / "out"
    process = start("sample", "--model", tiny_file, "-n", 100_000, "--out", out)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.png")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == status
    assert not list(out.glob(".*"))
    if number == signal.SIGINT:
        assert said == ("stopping; press Ctrl-C again to stop at once\n\nstopped\n")
    else:
        assert said == ""


WAIT_FOR_SECOND = """
import os, signal, sys, time
from biggan import cli
from biggan.cli.options import group
def command(**options):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        time.sleep(60)  # as threads that are not done yet
group.callback, group.invoke_without_command = command, True
sys.argv = ["biggan", "--"]
cli.main()
"""


def test_a_second_ctrl_c_ends_it_at_once():
    process = subprocess.Popen([sys.executable, "-c", WAIT_FOR_SECOND], stderr=subprocess.PIPE)
    assert process.stderr.readline().startswith(b"stopping; press Ctrl-C")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT


def test_shells_can_ask_for_completions():
    asking = os.environ | {"_BIGGAN_COMPLETE": "bash_source"}
    done = subprocess.run(BIGGAN, capture_output=True, env=asking)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"_biggan_completion" in done.stdout
    asking |= {"_BIGGAN_COMPLETE": "bash_complete", "COMP_WORDS": "biggan cla", "COMP_CWORD": "1"}
    done = subprocess.run(BIGGAN, capture_output=True, env=asking)
    assert done.stdout == b"plain,classifier\nplain,classes\n"
