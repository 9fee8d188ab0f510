"""Reading `torch.save` files of others: tensors only, and no code of theirs is run.

A pickle is a program. torch's `weights_only` unpickler runs no part of it that is not needed to
rebuild tensors; what it refuses is refused here in one line. Files that torch writes today are zips
with a checksum per entry, which torch itself does not verify, so this does; those from before 2020
(Hugging Face's and ajbrock's among them) have none: there only the shapes are left to check.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.errors import DamagedFileError, InputError, printable, quoted

_CHUNK = 1 << 22
_SAMPLED = 100  # characters of others' messages and names that go into ours


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict that `torch.save` wrote.

    Args:
        path: A `.pth`, `.pt` or `.bin` file.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        InputError: The file is damaged, wants to run code, or holds something else than weights.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        if is_zip:
            _verify_zip(path)
        contents = _unpickle(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    return _state_dict(contents, path)


def _verify_zip(path: Path) -> None:
    """Check every entry against its checksum, without inflating anything.

    torch stores its entries as they are: a compressed one is none of its, and may be a bomb.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                raise _NotTorchError("it is a zip of other files; unpack it first")
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    name = entry.filename[:_SAMPLED]
                    raise _NotTorchError(f"its entry {name!r} is compressed")
                with archive.open(entry) as contents:
                    while contents.read(_CHUNK):  # the last read compares the checksum
                        pass
    except _NotTorchError as error:
        raise InputError(f"{path} is not a torch file: {error}") from None
    # RuntimeError is that of an encrypted entry.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from None


class _NotTorchError(Exception):
    """A zip, but not one that torch wrote."""


def _unpickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of the file: it is old
            # Opened here, because torch gives paths that end in .safetensors to that library.
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S{1,100})", str(error))
        wants = f"asks for {printable(asked[1])}, which" if asked else "does what"
        kind = InputError if asked else DamagedFileError
        raise kind(
            f"{path} is refused: its pickle {wants} tensors do not need and could run code, or it "
            "may be damaged; nothing was run. Get the weights as a plain state dict or as "
            "safetensors, or fetch the file again"
        ) from None
    except MemoryError:
        raise _too_large(path) from None
    # Damage surfaces anywhere in torch's reader, as any of these.
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        if "can't allocate memory" in str(error):
            raise _too_large(path) from None
        raise _damaged(path, error) from None
    except (EOFError, AssertionError, ImportError, ArithmeticError, struct.error) as error:
        raise _damaged(path, error) from None


def _too_large(path: Path) -> InputError:
    return InputError(f"{path} asks for more memory than there is, or it is damaged")


def _damaged(path: Path, error: Exception) -> DamagedFileError:
    lines = str(error).strip().splitlines()
    reason = (
        f"{type(error).__name__}: {printable(lines[0])[:_SAMPLED]}" if lines else "it ends early"
    )
    return DamagedFileError(f"{path} is not a whole torch file ({reason}): fetch it again")


def _state_dict(contents: Any, path: Path) -> dict[str, Tensor]:
    """The contents, if they are tensors by name; otherwise what they seem to be."""
    if not isinstance(contents, Mapping):
        raise InputError(
            f"{path} holds a {type(contents).__name__}, not a network's weights (a state dict)"
        )
    for marks, found in (
        ({"param_groups", "state"}, "an optimizer's state"),
        ({"itr", "epoch"}, "a run's counters"),
    ):
        if marks <= set(contents):
            raise InputError(
                f"{path} holds {found}, not a network's weights: give the generator's file "
                "(G_ema.pth or G.pth) or the discriminator's (D.pth)"
            )
    others = [str(name) for name, value in contents.items() if not isinstance(value, Tensor)]
    if others or not contents:
        found = (
            f"more than tensors: {printable(', '.join(others))[:_SAMPLED]}" if others else "nothing"
        )
        raise InputError(f"{path} is no plain state dict: it holds {found}")
    tensors = {str(name): value for name, value in contents.items()}
    for name, tensor in tensors.items():
        if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise InputError(
                f"{path}: {quoted(name)} is no plain tensor: it has no values of its own"
            )
        # One value can be spread over a tensor of any size without taking memory, until it is used.
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise InputError(f"{path}: {quoted(name)} claims more values than the file has")
    if sum(tensor.nbytes for tensor in tensors.values()) > path.stat().st_size:
        raise InputError(f"{path}: its tensors claim more values than the file has")
    return tensors
