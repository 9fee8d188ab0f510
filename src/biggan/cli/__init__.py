"""The `biggan` command: one file a verb, each of which parses, calls the library and prints.

A verb's file is imported when the verb is used, and Click when there is one: `biggan --help` needs
neither Click nor torch.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import time
from types import FrameType

from biggan.errors import InputError, printable

VERBS = {
    "sample": "Generate images of a class.",
    "interpolate": "Interpolate between classes, as a grid or a video.",
    "demo": "Serve the web page and the HTTP API.",
    "train": "Train a model from a recipe, or resume.",
    "directions": "Find directions of a model's noise.",
    "invert": "Find the noise and class vector of pictures.",
    "evaluate": "Measure FID, Inception Score and other metrics.",
    "classifier": "Train a classifier as a feature extractor for evaluate.",
    "report": "Write a report of a training run as one HTML page.",
    "data": "Pack, verify and describe datasets.",
    "convert": "Convert weights of other software to one file.",
    "export": "Export a model to ONNX, OpenVINO or a web page.",
    "push": "Publish a model on the Hugging Face Hub.",
    "models": "List models and architectures, or describe a weights file.",
    "classes": "List or search the classes of a model.",
    "bench": "Measure which engine is the fastest on this machine.",
}

HELP = """Usage: biggan [OPTIONS] COMMAND [ARGS]...

  BigGAN: sample, interpolate, train and evaluate.

  Examples:
    biggan demo
    biggan sample --class "red apple" --truncation 0.4 --num 10 --out pictures
    biggan train digits --out runs/digits

Options:
  --version   Show the version and exit; with --verbose all that a bug report needs.
  -h, --help  Show this message and exit.

Commands:
""" + "".join(f"  {verb:11}  {about}\n" for verb, about in VERBS.items())

# What a word without an option may be.
_MEANT = {
    "demo": "--model",
    "interpolate": "--from and --to",
    "train": "--data",
    "evaluate": "--model",
    "classes": "--search",
    "bench": "--model",
}

_LAST_WORD = 2.0  # seconds
_LONGEST = 256  # characters of a word in a message


def main() -> None:
    """Run the command line; the entry point of `biggan` and of `python -m biggan`.

    A user's mistake, and a file that the system refuses, is one line on stderr and exit status 2.
    Anything else that is raised is a defect of ours and keeps its traceback.

    Where the reader of the results has gone, as in `biggan classes | head -1`, the process ends by
    SIGPIPE. Ctrl-C, SIGTERM and SIGHUP unwind the command once, so that nothing half written
    stays; a second signal ends the process at once.
    """
    _open_closed_streams()
    _print_any_character()
    _unwind_on_signals()
    try:
        try:
            _run(sys.argv[1:])
        except (Exception, KeyboardInterrupt) as error:
            message = _mistake(error)
            if message is None:
                raise
            _print_error(message)
            sys.exit(2)
    except BrokenPipeError as error:
        if not _is_of_printing(error):
            raise
        _end_by_sigpipe()
    sys.exit()


def _run(arguments: list[str]) -> None:
    """Run a command; not by Click's `main`, which ends the process where a pipe is broken."""
    completes = os.environ.get("_BIGGAN_COMPLETE")
    if arguments in ([], ["-h"], ["--help"]) and not completes:
        _print_help()
        return
    import click

    from biggan.cli.options import group

    _log_to_stderr()
    if completes:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(group, {}, "biggan", "_BIGGAN_COMPLETE", completes))
    try:
        with group.make_context("biggan", arguments) as context:
            group.invoke(context)
    except click.exceptions.Exit as end:  # of --help, --version
        sys.exit(end.exit_code)


def _mistake(error: BaseException) -> str | None:
    """The message of a user's mistake, or why the system refused a file, its name or memory.

    None for an error of another kind.

    Raises:
        SystemExit: Another process reports the error, or the user stopped the command.
    """
    import click

    if isinstance(error, click.Abort | KeyboardInterrupt | EOFError):
        # An empty line ends the one in which the terminal shows ^C.
        click.echo("stopped" if isinstance(error, click.Abort) else "\nstopped", err=True)
        sys.exit(130)
    if isinstance(error, click.UsageError) and _is_one_of_many():
        # All find the same. torchrun ends all when one has ended: the first is to speak before.
        time.sleep(_LAST_WORD)
        sys.exit(2)
    if isinstance(error, click.ClickException):
        message, context = error.format_message(), getattr(error, "ctx", None)
        meant = _MEANT.get(context.info_name) if context else None
        if meant and "unexpected extra argument" in message:
            message += f": did you mean {meant}?"
        return message
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        if _is_of_printing(error):
            if isinstance(error, BrokenPipeError):
                return None
            _drop_unprinted_results()
            return f"cannot print the results: {error.strerror}"
        if isinstance(error, FileNotFoundError):  # the code that opens a file names it
            return None
        if error.filename is None:
            return error.strerror
        return f"cannot open {os.fsdecode(error.filename)}: {error.strerror}"
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        name = error.object[max(error.start - 50, 0) : error.start + 50]
        return f"{name!a} is not valid UTF-8: rename the file or folder"
    if isinstance(error, (ValueError, RuntimeError, MemoryError)):
        if "embedded null" in str(error):
            return "a file name contains a zero byte"
        if "Symlink loop" in str(error):  # as Path.resolve raises it
            return str(error)
        if "home directory" in str(error):  # as Path.expanduser raises it
            return (
                "a path begins with ~, but there is no such user or home folder: give the full path"
            )
    if isinstance(error, (RuntimeError, MemoryError)):
        from biggan.devices import is_out_of_memory

        if is_out_of_memory(error):
            reason = " ".join(str(error).split())[:200]
            return f"out of memory: {reason}; close other programs, or request less"
    return None


def _print_help() -> None:
    sys.stdout.write(HELP)
    sys.stdout.flush()


def _print_error(message: str) -> None:
    """Print a message in one line, without most of a name that is longer than file names are."""
    import click

    words = [word if len(word) < _LONGEST else f"{word[:100]}..." for word in message.split()]
    click.echo(f"error: {printable(' '.join(words))}", err=True)


def _log_to_stderr() -> None:
    """Print messages as errors are: names of files in them cannot command the terminal."""
    import logging

    class OneLine(logging.Formatter):
        def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # of the base class
            return printable(super().formatMessage(record))

    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


def _open_closed_streams() -> None:
    """Read and print nothing where the caller closed a stream, as in `biggan models >&-`."""
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


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
            print("stopping; press Ctrl-C again to stop at once", file=sys.stderr)
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
    import click

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    printing = (click.echo.__code__, _print_help.__code__)
    return trace is not None and trace.tb_frame.f_code in printing


def _drop_unprinted_results() -> None:
    """Keep the interpreter from trying again at its end, and from complaining."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
