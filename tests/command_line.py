"""The command line as a user types it, run in the process of the test."""

import io
import json
import logging
import os
import shlex
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from biggan.cli import main
from tiny import TINY_RECIPE


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def biggan(line: str, *more: object, at_terminal: bool = False) -> Result:
    """Run a line as a shell would split it, and what comes behind it word for word.

    A process of its own would take seconds to import torch.
    """
    stdout, stderr = io.StringIO(), _Terminal() if at_terminal else io.StringIO()
    log = logging.getLogger()
    handlers, level = log.handlers[:], log.level
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signals = {number: signal.getsignal(number) for number in handled}
    log.handlers.clear()  # so that main sets up logging to the redirected stderr
    arguments = ["biggan", *shlex.split(line), *map(str, more)]
    try:
        with (
            mock.patch.object(sys, "argv", arguments),
            mock.patch.dict(os.environ),
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            main()
    except SystemExit as end:
        return Result(int(end.code or 0), stdout.getvalue(), stderr.getvalue())
    finally:
        log.handlers[:] = handlers
        log.setLevel(level)
        for number, handler in signals.items():
            signal.signal(number, handler)
    raise AssertionError("main() returned instead of exiting")


def succeeds(line: str, *more: object) -> str:
    """What a command prints on stdout."""
    result = biggan(line, *more)
    assert result.returncode == 0, result.stderr
    return result.stdout


def next_command(line: str, *more: object) -> str:
    """The command that the last line at a terminal names, without the name of the program."""
    result = biggan(line, *more, at_terminal=True)
    assert result.returncode == 0, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("next: "), last
    return last.removeprefix("next: ").removeprefix("biggan ")


def fails(line: str, *more: object) -> str:
    """The one line on stderr of a mistake."""
    result = biggan(line, *more)
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.endswith("training on cpu")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error:")
    return lines[0]


def pixels(path: str | Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def write_images(folder: Path, num: int = 3) -> None:
    folder.mkdir(parents=True)
    for i in range(num):
        Image.fromarray(np.full((40, 32, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")


def write_recipe(path: Path, **changes: Any) -> Path:
    """The tiny recipe as a TOML file."""
    values = TINY_RECIPE | changes
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lines = [f"{k} = {json.dumps(v)}" for k, v in values.items() if k not in tables]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines))
    return path
