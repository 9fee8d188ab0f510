"""`torch.save` files of others: tensors only, and no code of theirs is run.

A pickle is a program. torch's `weights_only` unpickler runs no part of it that is not needed to
rebuild tensors; what it refuses is refused here in one line. Only numpy's scalars and the logs of
mmgeneration, which stand beside the tensors of some files, are replaced by placeholders.

Files that torch writes today are zips with a checksum per entry, which torch itself does not
verify, so this does; those from before 2020 (Hugging Face's and ajbrock's among them) have none:
there only the shapes are left to check.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import torch
from torch import Tensor

from biggan.errors import DamagedFileError, InputError, first_line, printable, quoted

_CHUNK = 1 << 22
_GLOBAL = re.compile(r"GLOBAL (\S{1,100})")
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int64")
# Damage surfaces anywhere in torch's reader, as any of these.
_DAMAGE = (
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError),
    *(AssertionError, ImportError, ArithmeticError, struct.error),
)
_TYPES = {("collections", "OrderedDict"), ("torch", "Size")}
_REBUILDERS = ("_rebuild_tensor_v2", "_rebuild_parameter")
_REPLACED = ("numpy", "_codecs", "mmcv", "mmengine")  # packages
_OTHER_FILES = (
    ({"param_groups", "state"}, "an optimizer's state"),
    ({"itr", "epoch"}, "a run's counters"),
)


def load_checkpoint(file: BinaryIO, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by name, on the CPU, of a file that `torch.save` wrote, and what is beside them.

    The file is open at its start. It holds a state dict, or a dict with one as its `state_dict`.
    """
    head = file.read(4)
    file.seek(0)
    if head[:1] not in (b"P", b"\x80"):  # of a zip, of a pickle
        raise DamagedFileError(f"{path} is not a torch file")
    if head.startswith(b"PK"):
        _verify_zip(file, path)
        file.seek(0)
    contents = _unpickle(file, path, is_zip=head == b"PK\x03\x04")  # as torch decides
    beside: dict[str, Any] = {}
    if isinstance(contents, Mapping) and isinstance(contents.get("state_dict"), Mapping):
        beside = {str(name): value for name, value in contents.items() if name != "state_dict"}
        contents = contents["state_dict"]
    tensors = _state_dict(contents, path)
    for name, tensor in tensors.items():
        if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise InputError(
                f"{path}: {quoted(name)} is not a plain tensor: it has no values of its own"
            )
        # One value can be spread over a tensor of any size without taking memory, until it is used.
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise InputError(f"{path}: {quoted(name)} claims more values than the file has")
    if sum(tensor.nbytes for tensor in tensors.values()) > os.fstat(file.fileno()).st_size:
        raise InputError(f"{path}: its tensors claim more values than the file has")
    return tensors, beside


def _verify_zip(file: BinaryIO, path: Path) -> None:
    """Check every entry against its checksum, without inflating anything.

    torch stores its entries as they are: a compressed one is none of its, and may be a bomb.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                raise InputError(
                    f"{path} is not a torch file: it is a zip of other files; unpack it first"
                )
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise InputError(
                        f"{path} is not a torch file: its entry {entry.filename[:100]!r} is "
                        "compressed"
                    )
                with archive.open(entry) as contents:
                    while contents.read(_CHUNK):  # the last read compares the checksum
                        pass
    except InputError:
        raise
    # RuntimeError is that of an encrypted entry.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from None


def _unpickle(file: BinaryIO, path: Path, *, is_zip: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the age of the file: it is old
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                asked = _GLOBAL.search(str(error))
                if not is_zip or not asked or asked[1].partition(".")[0] not in _REPLACED:
                    raise
            file.seek(0)
            return torch.load(file, "cpu", _PLACEHOLDERS, weights_only=False)
    except pickle.UnpicklingError as error:
        asked = _GLOBAL.search(str(error))
        wants = f"asks for {printable(asked[1])}, which" if asked else "does what"
        kind = InputError if asked else DamagedFileError
        raise kind(
            f"{path} is refused: its pickle {wants} tensors do not need and could run code, or it "
            "is damaged; no code was run. Use a plain state dict or safetensors, or download the "
            "file again"
        ) from None
    except (MemoryError, *_DAMAGE) as error:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise InputError(f"{path} needs more memory than available, or it is damaged") from None
        raise _damaged(path, error) from None


class _Placeholder:
    """In the place of an object that is not needed: accepts what a pickle does to it."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...


class _PlaceholderUnpickler(pickle.Unpickler):
    """Calls only what rebuilds tensors; torch's loader derives from it and finds the storages."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _TYPES or (module == "torch" and name in _DTYPES):
            return super().find_class(module, name)
        # New objects each time: a pickle can set attributes of what it gets here.
        if module == "torch._utils" and name in _REBUILDERS:
            return partial(getattr(torch._utils, name))
        if module.partition(".")[0] in _REPLACED:
            return type("_Placeholder", (_Placeholder,), {})
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")


_PLACEHOLDERS: Any = SimpleNamespace(__name__=__name__, Unpickler=_PlaceholderUnpickler)


def _damaged(path: Path, error: Exception) -> DamagedFileError:
    reason = f"{type(error).__name__}: {first_line(error) if str(error) else 'it ends early'}"
    return DamagedFileError(f"{path} is not a whole torch file ({reason}): download it again")


def _state_dict(contents: Any, path: Path) -> dict[str, Tensor]:
    """The contents, if they are tensors by name; otherwise a message of what they seem to be."""
    if not isinstance(contents, Mapping):
        raise InputError(
            f"{path} holds a {type(contents).__name__}, not a network's weights (a state dict)"
        )
    for marks, found in _OTHER_FILES:
        if marks <= set(contents):
            raise InputError(
                f"{path} holds {found}, not a network's weights: give the generator's file "
                "(G_ema.pth or G.pth) or the discriminator's (D.pth)"
            )
    others = [str(name) for name, value in contents.items() if not isinstance(value, Tensor)]
    if others or not contents:
        found = f"more than tensors: {printable(', '.join(others))[:100]}" if others else "nothing"
        raise InputError(f"{path} is not a plain state dict: it holds {found}")
    return {str(name): value for name, value in contents.items()}
