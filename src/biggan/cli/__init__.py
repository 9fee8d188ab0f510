"""The `biggan` command: one file a verb, each of which parses, calls the library and prints.

A verb's file is imported when the verb is used: `biggan --help` needs no torch.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from types import FrameType
from typing import Any

import click

from biggan._version import __version__
from biggan.errors import InputError, printable

VERBS = {
    "sample": "Make pictures of a class.",
    "interpolate": "Morph pictures of one class into another.",
    "demo": "Open the web page with sliders.",
    "train": "Train a model from a recipe, or resume.",
    "evaluate": "Measure FID, Inception Score and others against data.",
    "classifier": "Train the classifier whose features evaluate compares.",
    "report": "Write a training run's curves and samples as one page.",
    "data": "Pack images for training, check and describe them.",
    "convert": "Turn other software's weights into one file of ours.",
    "export": "Write a model as a file for ONNX Runtime or OpenVINO.",
    "models": "List models and architectures, or say what a weights file is.",
    "classes": "List or search the classes of a model.",
    "bench": "Measure what runs a model fastest on this machine.",
}


_LAST_WORD = 2.0  # seconds
_LONGEST = 256  # characters of a word in a message


class _UnreadError(Exception):
    """Nobody reads the results any more. Click would turn a BrokenPipeError into exit status 1."""


class _LazyGroup(click.Group):
    """A group that knows its verbs' names and one-line helps without importing them."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _telling_unread():  # --help and --version print here
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _telling_unread():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"biggan.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@contextlib.contextmanager
def _telling_unread() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        if not _is_of_printing(error):
            raise
        raise _UnreadError from None


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="biggan %(version)s")
def group() -> None:
    """BigGAN, alive: sample, interpolate, train, look.

    \b
    Examples:
      biggan demo
      biggan sample --class "red apple" --truncation 0.4 --num 10 --out pictures
      biggan train digits --out runs/digits
    """


class _OneLine(logging.Formatter):
    """Messages as errors are printed: names of files in them cannot command the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base class's
        return printable(super().formatMessage(record))


def main() -> None:
    """Run the command line; the entry point of `biggan` and of `python -m biggan`.

    A user's mistake, and a file that the system refuses, is one line on stderr and exit status 2.
    Anything else that is raised is a defect of ours and keeps its traceback.

    Where the reader of the results has gone, as in `biggan classes | head -1`, the process ends by
    SIGPIPE. Ctrl-C, SIGTERM and SIGHUP unwind the command once, so that nothing half written
    stays; a second signal ends the process at once.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    _print_any_character()
    _unwind_on_signals()
    try:
        with _telling_unread():  # an error, too
            _run()
    except _UnreadError:
        _end_by_sigpipe()


def _run() -> None:
    arguments = sys.argv[1:] or ["--help"]
    try:
        sys.exit(group(arguments, prog_name="biggan", standalone_mode=False) or 0)
    except (InputError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else error
        if isinstance(error, click.UsageError) and _is_one_of_many():
            # All find the same. torchrun ends all when one has ended: the first is to speak before.
            time.sleep(_LAST_WORD)
        else:
            _print_error(str(message))
        sys.exit(2)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        _print_error(refusal)
        sys.exit(2)


def _refusal(error: Exception) -> str | None:
    """Why the system refused a file, its name or memory; None for an error of another kind."""
    if isinstance(error, OSError):
        if _is_of_printing(error):
            _drop_unprinted_results()
            return f"cannot print the results: {error.strerror}"
        if isinstance(error, FileNotFoundError):  # the code that opens a file names it
            return None
        if error.filename is None:
            return error.strerror
        return f"cannot open {os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        name = error.object[max(error.start - 50, 0) : error.start + 50]
        return f"{name!a} is not UTF-8, which is needed here: rename the file or folder"
    if "embedded null" in str(error):
        return "a name has a zero byte, which no file name has"
    if "Symlink loop" in str(error):  # as Path.resolve raises it
        return str(error)
    if "home directory" in str(error):  # as Path.expanduser raises it
        return "a name begins with ~, and there is no such user or home folder: give a full path"
    if isinstance(error, (RuntimeError, MemoryError)):
        from biggan.devices import is_out_of_memory

        if is_out_of_memory(error):
            reason = " ".join(str(error).split())[:200]
            return f"out of memory: {reason}; end other programs, or ask for less"
    return None


def _print_error(message: str) -> None:
    """Print a message in one line, without most of a name that is longer than file names are."""
    words = [word if len(word) < _LONGEST else f"{word[:100]}..." for word in message.split()]
    click.echo(f"error: {printable(' '.join(words))}", err=True)


def _print_any_character() -> None:
    """Print file names as the bytes that they are, and escape what the output cannot encode."""

    def encode(error: UnicodeError) -> tuple[str | bytes, int]:
        assert isinstance(error, UnicodeEncodeError)
        try:
            return codecs.lookup_error("surrogateescape")(error)
        except UnicodeEncodeError:
            return codecs.backslashreplace_errors(error)

    codecs.register_error("biggan", encode)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="biggan")


def _unwind_on_signals() -> None:
    """Let the first signal unwind the command, and the second one end the process."""
    # Windows has no SIGHUP; nohup lets it be ignored, and scripts SIGINT in the background.
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    heeded = [n for n in numbers if n is not None and signal.getsignal(n) != signal.SIG_IGN]

    def unwind(number: int, _frame: FrameType | None) -> None:
        for heeded_number in heeded:
            signal.signal(heeded_number, signal.SIG_DFL)
        if number == signal.SIGINT:
            click.echo("stopping what is being done; Ctrl-C again to end at once", err=True)
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in heeded:
        signal.signal(number, unwind)


def _end_by_sigpipe() -> None:
    """End as programs do whose output nobody reads any more: quietly, by the signal."""
    if not hasattr(signal, "SIGPIPE"):  # on Windows
        _drop_unprinted_results()
        sys.exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.raise_signal(signal.SIGPIPE)


def _is_one_of_many() -> bool:
    """Whether torchrun started this process besides a first one."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0"


def _is_of_printing(error: OSError) -> bool:
    """Whether results could not be printed, as into a file on a full disk."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_code is click.echo.__code__


def _drop_unprinted_results() -> None:
    """Keep the interpreter from trying again at its end, and from complaining."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
