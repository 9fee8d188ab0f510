"""The `biggan` command: one file a verb, each of which parses, calls the library and prints.

A verb's file is imported when the verb is used: `biggan --help` needs no torch.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from importlib import import_module

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


class _LazyGroup(click.Group):
    """A group that knows its verbs' names and one-line helps without importing them."""

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


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="biggan %(version)s")
def group() -> None:
    """BigGAN, alive: sample, interpolate, train, look.

    \b
    Examples:
      biggan demo
      biggan sample --class seven --truncation 0.4 --num 10 --out pictures
      biggan train digits --out runs/digits
    """


def main() -> None:
    """Run the command line; the entry point of `biggan` and of `python -m biggan`.

    A user's mistake is one line on stderr and exit status 2. Anything else that is raised is a
    defect of ours and keeps its traceback, but for results that nobody takes.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    arguments = sys.argv[1:] or ["--help"]
    try:
        sys.exit(group(arguments, prog_name="biggan", standalone_mode=False) or 0)
    except (InputError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else error
        if isinstance(error, click.UsageError) and _is_one_of_many():
            # All find the same. torchrun ends all when one has ended: the first is to speak before.
            time.sleep(_LAST_WORD)
        else:
            click.echo(f"error: {printable(' '.join(str(message).split()))}", err=True)
        sys.exit(2)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except (RuntimeError, MemoryError) as error:
        from biggan.devices import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        click.echo(f"error: out of memory: {reason}; end other programs, or ask for less", err=True)
        sys.exit(2)
    except OSError as error:
        if not _is_of_printing(error):
            raise
        _drop_unprinted_results()
        click.echo(f"error: cannot print the results: {error.strerror}", err=True)
        sys.exit(2)


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
