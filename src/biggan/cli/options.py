"""Options that several verbs share."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.provenance import AnyProvenance

_F = TypeVar("_F", bound=Callable[..., Any])


class TruncationType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A number, or "none" for untruncated noise."""

    name = "number|none"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Read the option's text; its range depends on --noise and is checked later."""
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor 'none'", param, ctx)


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A time such as 50m, 1h30m or 90s, in seconds."""

    name = "time"

    _FORM = re.compile(
        r"(?:(\d{1,4}(?:\.\d+)?)h)?(?:(\d{1,6}(?:\.\d+)?)m)?(?:(\d{1,8}(?:\.\d+)?)s)?"
    )

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Read the option's text."""
        if value is None or isinstance(value, float):
            return value
        match = self._FORM.fullmatch(str(value).strip().lower().replace(" ", ""))
        hours, minutes, seconds = (
            (float(part or 0) for part in match.groups()) if match else (0,) * 3
        )
        total = 3600 * hours + 60 * minutes + seconds
        if total <= 0:
            self.fail(f"{str(value)[:100]!r} is not a time; write 50m, 1h30m or 90s", param, ctx)
        return total


def model_option(command: _F) -> _F:
    """--model: which generator."""
    return click.option(
        "--model",
        metavar="NAME|PATH",
        help="A published name (biggan-deep-256, ...), a weights file of any known format, a run "
        "folder, or an address (hf://owner/repo, https://...); the bundled model if left out.",
    )(command)


def offline_option(command: _F) -> _F:
    """--offline: never touch the network."""
    return click.option(
        "--offline", is_flag=True, help="Fetch nothing: use what is here or in the cache."
    )(command)


def noise_option(command: _F) -> _F:
    """--noise: what truncation means."""
    return click.option(
        "--noise",
        type=click.Choice(["hub", "paper", "scale"]),
        default="hub",
        show_default=True,
        help="What truncation t means: hub t * TN(-2, 2), paper TN(-t, t), scale N(0, t^2).",
    )(command)


def device_option(command: _F) -> _F:
    """--device: where the network runs."""
    return click.option(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda, cuda:1, mps; the first accelerator that is there if left out.",
    )(command)


def engine_options(command: _F) -> _F:
    """--engine and --precision: what runs the network."""
    from biggan.inference import ENGINES, PRECISIONS

    command = click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="float32",
        show_default=True,
        help="Of the convolutions; less than float32 is for GPUs, and changes pictures slightly.",
    )(command)
    return click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="What runs the network; auto: the fastest that biggan bench has measured here.",
    )(command)


def like_option(command: _F) -> _F:
    """--like: a picture whose provenance says all."""
    return click.option(
        "--like",
        metavar="PICTURE",
        type=click.Path(path_type=Path),
        help="Make this picture or grid again, by the provenance in its PNG file.",
    )(command)


def check_alone_with_like(*names: str) -> None:
    """Make sure that the options of these parameters are left to the picture's provenance.

    Raises:
        InputError: One of them was given.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is click.core.ParameterSource.COMMANDLINE:
            raise InputError(
                f"--like takes all from the picture: leave {max(parameter.opts, key=len)} out"
            )


def share_processor() -> None:
    """Let torch's threads wait for each other briefly and then sleep, unless the environment says.

    Threads that spin for as long as they wait, as they do by default, make a picture up to fifty
    times slower beside another busy program; threads that sleep at once make it a third slower on
    an idle machine. To be called before torch is first imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def choose_device(name: str | None) -> str:
    """The device of an option's text, or the best that is there.

    Raises:
        InputError: No such device on this machine.
    """
    import torch

    from biggan.devices import find_device

    if name is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return str(find_device(name))


def unused_name(path: Path, is_same: Callable[[Path], bool]) -> Path:
    """The path, or the same with a number where a file is there that holds something else.

    Args:
        path: What the file would be called.
        is_same: Whether an existing file may be replaced, as it holds the same.
    """
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        if not candidate.is_file() or is_same(candidate):
            return candidate
    raise AssertionError


def unused_picture(path: Path, provenance: AnyProvenance) -> Path:
    """The path, with a number where a file is there that shows something else."""
    from biggan.provenance import read_provenance

    def is_same(other: Path) -> bool:
        try:
            return _without_version(read_provenance(other)) == _without_version(provenance)
        except InputError:
            return False

    return unused_name(path, is_same)


def _without_version(provenance: AnyProvenance) -> AnyProvenance:
    from biggan.provenance import GridProvenance

    if isinstance(provenance, GridProvenance):
        pictures = (dataclasses.replace(picture, version="") for picture in provenance.pictures)
        return GridProvenance(provenance.columns, tuple(pictures))
    return dataclasses.replace(provenance, version="")


def is_default(name: str) -> bool:
    """Whether the option of this parameter was left out."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.COMMANDLINE


def check_writable(folder: Path) -> None:
    """Make sure that a folder can be written, or created, before any work is done for it.

    Creates nothing: a later mistake shall leave no trace.

    Raises:
        InputError: It cannot.
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
        raise InputError(f"cannot write to {folder}: {existing} is no folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: no permission for {existing}")
