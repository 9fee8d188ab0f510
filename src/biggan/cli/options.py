"""The group of all verbs, and the options that several of them share."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from biggan._version import __version__
from biggan.cli import HELP, VERBS
from biggan.errors import InputError, most_similar, quoted
from biggan.inference import ENGINES, PRECISIONS

if TYPE_CHECKING:
    from biggan.gan import Gan
    from biggan.provenance import AnyProvenance

_Item = TypeVar("_Item")


class _Verbs(click.Group):
    """A group that knows its verbs' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"biggan.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            near = most_similar(name, (*VERBS, "--help"))
            meant = f"did you mean {near}?" if near else f"there are {', '.join(VERBS)}"
            ctx.fail(f"there is no command {quoted(name)}: {meant}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        formatter.write(HELP)


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option("--version", is_flag=True, help="Show the version and exit.")
@click.option("--verbose", is_flag=True, help="With --version: all that a bug report needs.")
@click.pass_context
def group(context: click.Context, version: bool, verbose: bool) -> None:
    """All verbs; see `HELP`."""
    if not version:
        if context.invoked_subcommand is None:
            raise click.UsageError("Missing command.")
        return
    from biggan.cli.versions import describe

    click.echo(describe() if verbose else f"biggan {__version__}")
    context.exit()


class NumberOr(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A number, or one of a few words that stand for what no number says.

    Args:
        number: The type of the number. Its range is checked later.
        words: The words, with what they are read as.
    """

    def __init__(self, number: type[int] | type[float], words: Mapping[str, str | None]) -> None:
        self.name = "|".join(["number", *words])
        self._number = number
        self._words = words

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str | None:
        """Read the option's text."""
        if isinstance(value, str) and value.lower() in self._words:
            return self._words[value.lower()]
        try:
            return self._number(value)
        except ValueError:
            words = " or ".join(repr(word) for word in self._words)
            kind = "whole number" if self._number is int else "number"
            self.fail(f"{value!r} is neither a {kind} nor {words}", param, ctx)


PICTURE_ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".bmp", ".tif", ".tiff", ".avif"}
)
"""Endings by which a file is meant, not a folder."""


class _Path(click.Path):
    """A path that is not empty: `--out "$UNSET"` would mean the working directory.

    The name of a picture or of weights is no folder.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Read the option's text."""
        if not os.fspath(value):
            self.fail("the path is empty: give a name, or . for the working directory", param, ctx)
        is_file = Path(value).suffix.lower() in {*PICTURE_ENDINGS, ".safetensors"}
        if is_file and not self.file_okay:
            self.fail(f"{quoted(str(value))} is the name of a file: give a folder", param, ctx)
        return super().convert(value, param, ctx)


TRUNCATION = NumberOr(float, {"none": None})
"""A number, or "none" for untruncated noise."""

PATH = _Path(path_type=Path)
SOURCE = _Path(path_type=str)
"""A path, an address, or one of a few names."""
FILE = _Path(dir_okay=False, path_type=Path)
FOLDER = _Path(file_okay=False, path_type=Path)

model = click.option(
    "--model",
    metavar="NAME|PATH",
    help="A bundled or published name (cifar10, biggan-deep-256, ...), a weights file of any known "
    "format, a run folder, RUN@STEP or RUN@best, or an address (hf://owner/repo, https://...).  "
    "[default: the bundled fruits]",
)
offline = click.option(
    "--offline", is_flag=True, help="Use only local files and the cache; no network access."
)
noise = click.option(
    "--noise",
    type=click.Choice(["hub", "paper", "scale"]),
    default="hub",
    help="Meaning of truncation t: hub t * TN(-2, 2), paper TN(-t, t), scale N(0, t^2).",
)
device = click.option(
    "--device",
    metavar="DEVICE",
    help="cpu, cuda, cuda:1 or mps.  [default: the first available accelerator]",
)
engine = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    help="Inference engine; auto: the fastest that biggan bench measured on this machine.",
)
precision = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    help="Precision of the convolutions. Faster, with slightly different images: bfloat16 on GPUs "
    "and CPUs with AMX or AVX-512 BF16, float16 on GPUs.",
)
like = click.option(
    "--like",
    metavar="PICTURE",
    type=PATH,
    help="Generate this image again, from the provenance in the file.",
)
label_column = click.option(
    "--label-column",
    metavar="NAME",
    help="The column of the labels, where a table has several.  [default: label]",
)
RESIZES = click.Choice(["crop", "pad", "stretch"])
resize = click.option(
    "--resize",
    type=RESIZES,
    default="crop",
    help="Make images square: crop them to the centre, pad them with black, or stretch them.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def parse_truncations(text: str) -> list[Any]:
    """Read a list such as "0.2,1,none"."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError("give at least one truncation, as in 0.2,1,none")
    return [TRUNCATION.convert(part, None, None) for part in parts]


def given_option(names: Iterable[str]) -> str | None:
    """The first option of these parameters that is on the command line, as it is written there."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names:
            source = context.get_parameter_source(parameter.name)
            if source is click.core.ParameterSource.COMMANDLINE:
                return max(parameter.opts, key=len)
    return None


def set_environment() -> None:
    """Set what torch reads from the environment, unless it is set; before torch is first imported.

    Threads wait for each other briefly and then sleep. If they spin for as long as they wait, the
    default, a picture takes up to fifty times longer beside another busy program; if they sleep at
    once, a third longer on an idle machine. This count costs an idle machine about 1%.

    Large tensors lie in pages of 2 MiB where Linux has them: weights are read faster by a twentieth
    to a tenth of the time of an image.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def load_gan(
    model: str | Path | None, *, device: str | None = None, offline: bool = False, **how: Any
) -> Gan:
    """Load the generator that the options name; see `biggan.load`."""
    from biggan.gan import load

    return load(model, device=device, offline=offline, **how)


def report(words: str) -> None:
    """Print what is being done, on a terminal."""
    if sys.stderr.isatty():
        click.echo(f"{words} ...", err=True)


def name_next(*words: object, model: str | Path | None = None) -> None:
    """Tell a person at a terminal what one does next; programs read nothing of it.

    Args:
        words: The command.
        model: Its `--model`; None for the bundled one.
    """
    if sys.stderr.isatty():
        named = () if model is None else ("--model", model)
        click.echo(f"next: {shlex.join(map(str, (*words, *named)))}", err=True)


def progress(items: Iterable[_Item], total: int, unit: str, **options: Any) -> Iterable[_Item]:
    """Show a bar on a terminal after two seconds."""
    from tqdm import tqdm

    shown: Iterable[_Item] = tqdm(
        items, total=total, unit=unit, delay=2, **{"disable": None, **options}
    )
    return shown


def unused_name(path: Path, is_same: Callable[[Path], bool]) -> Path:
    """The path, or the same with a number where a file is there that may not be replaced."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    candidates = itertools.chain([path], numbered)
    return next(name for name in candidates if not name.is_file() or is_same(name))


def unused_picture(path: Path, provenance: AnyProvenance) -> Path:
    """The path, with a number where a file is there that shows something else."""
    from biggan.provenance_files import read_provenance

    def is_same(other: Path) -> bool:
        try:
            return read_provenance(other) == provenance
        except InputError:
            return False

    return unused_name(path, is_same)


def is_same_file(out: Path, source: str | Path) -> bool:
    """Whether a file to write is the source itself, which may be no path at all."""
    try:
        return out.samefile(source)
    except (OSError, ValueError):
        return False


def check_replaceable(path: Path, load: Callable[[Path], object]) -> None:
    """Refuse to replace a file that is there and that `load` does not read."""
    if not path.is_file():
        return
    try:
        load(path)
    except InputError as error:
        raise InputError(f"{path} exists and is not replaced: {error}") from None


def check_writable(folder: Path) -> None:
    """Make sure that a folder can be written, or created, before any work is done for it.

    Creates nothing: a later mistake shall leave no trace.
    """
    try:
        existing = next(
            path
            for path in (folder, *folder.absolute().parents)
            if path.exists() or path.is_symlink()
        )
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from None
    if not existing.is_dir():
        raise InputError(f"cannot write to {folder}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: no permission for {existing}")
