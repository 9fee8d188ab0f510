"""Where a model's name leads: the bundled weights, a file, a training run."""

from __future__ import annotations

from pathlib import Path

from biggan.errors import InputError
from biggan.models import PRESETS
from biggan.weights import files
from biggan.weights.files import LoadedDiscriminator, LoadedGenerator

BUNDLED = "digits"
"""Name of the model that comes with the package."""

_BUNDLED_FILE = Path(__file__).parent / "bundled" / f"{BUNDLED}.safetensors"

RUN_GENERATOR = "generator.safetensors"
"""Name of the newest EMA generator in a run folder."""

RUN_DISCRIMINATOR = "discriminator.safetensors"
"""Name of the newest discriminator in a run folder."""


def find_generator(name_or_path: str | Path | None) -> LoadedGenerator:
    """Read a generator by the name or path that a user gives.

    Args:
        name_or_path: None or "digits" for the bundled model; a weights file; a run folder.

    Raises:
        InputError: Nothing loadable is there.
    """
    if name_or_path is None or str(name_or_path) == BUNDLED:
        return files.load_generator(_BUNDLED_FILE)
    return files.load_generator(_network_file(name_or_path, RUN_GENERATOR))


def find_discriminator(path: str | Path) -> LoadedDiscriminator:
    """Read a discriminator from a weights file or a run folder.

    Raises:
        InputError: Nothing loadable is there.
    """
    return files.load_discriminator(_network_file(path, RUN_DISCRIMINATOR))


def _network_file(name_or_path: str | Path, in_run: str) -> Path:
    try:
        path = Path(name_or_path).expanduser()
        is_dir, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # no permission, too long a name, no such user
        raise InputError(f"cannot open {str(name_or_path)[:200]!r}: {error}") from None
    if is_dir:
        if not (path / in_run).is_file():
            raise InputError(
                f"{path} holds no {in_run}: a run folder has one after its first checkpoint"
            )
        return path / in_run
    if is_file:
        return path
    if str(name_or_path) in PRESETS:
        raise InputError(
            f"{name_or_path} is an architecture; its published weights cannot be fetched by name "
            f"yet. Give a weights file or a run folder, or leave the model out for {BUNDLED!r}"
        )
    raise InputError(
        f"no model {str(name_or_path)!r}: give {BUNDLED!r} (bundled), a .safetensors file, "
        "or the folder of a training run"
    )
