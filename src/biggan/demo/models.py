"""The models that a server offers: named at its start, loaded when they are asked for."""

import logging
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from threading import Lock

import torch

from biggan import gan
from biggan.errors import InputError, quoted
from biggan.gan import Gan
from biggan.weights.files import BUNDLED
from biggan.weights.load import is_address, means_published

_LOG = logging.getLogger("biggan.demo")

# A model takes its tensors and the folded network that an engine makes of them, whose convolutions
# are kept in the forms that run fastest. Measured: 2.5 to 2.8 bytes for each byte of tensors.
_COPIES = 3
_SHARE = 1 / 4  # of the memory, for all models; the rest is for pictures and other programs
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class UnknownModelError(InputError):
    """No model of this name is offered."""

    status = 404


class UnavailableError(InputError):
    """The server cannot do at present what it offers: not a mistake of the visitor."""

    status = 503


class ModelCache:
    """An LRU cache of loaded models, bounded by memory; the most recent one always stays.

    A model is loaded when it is first asked for, and only those that are given here can be. Its
    name is that of a published model, or the end of a path or address that makes it unique.

    Args:
        sources: What `load` takes, at least one; the first is the default.
        load: Loads one of them.
        memory: Bytes for all models together; None for a quarter of the device's memory.

    Raises:
        InputError: One is given twice.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        load: Callable[[str | Path], Gan] = gan.load,
        memory: int | None = None,
    ) -> None:
        self.names = _display_names([str(source) for source in sources])
        self._sources = dict(zip(self.names, sources, strict=True))
        self._load = load
        self._memory = memory
        self._loaded: OrderedDict[str, Gan] = OrderedDict()  # the least recently used first
        self._access, self._loading = Lock(), Lock()

    @property
    def default(self) -> str:
        """The model of a visitor who names none."""
        return self.names[0]

    def source(self, name: str, *, with_paths: bool) -> str | None:
        """What `biggan sample --model` takes; None instead of a path unless `with_paths`."""
        source = str(self._sources[name])
        if source in BUNDLED or means_published(source) or is_address(source):
            return source
        return str(Path(source).expanduser().absolute()) if with_paths else None

    def get(self, name: object) -> Gan:
        """A model by its name, loaded if it is not; may be called from any thread.

        Do not keep the model: it would stay in memory.

        Raises:
            UnknownModelError: It is not offered.
            UnavailableError: It cannot be loaded; the log says why.
        """
        if not isinstance(name, str) or name not in self._sources:
            raise UnknownModelError(
                f"no model is named {quoted(name)} here; available are {', '.join(self.names)}"
            )
        if loaded := self._find(name):
            return loaded
        with self._loading:  # one at a time, for each takes memory
            if loaded := self._find(name):
                return loaded
            try:
                return self._read(name)
            except InputError as error:  # which may name paths: not for visitors
                _LOG.error("%s cannot be loaded: %s", name, error)
                raise UnavailableError(
                    f"{name} cannot be loaded at present; the server's log says why"
                ) from error

    def load_all(self) -> None:
        """Load every model once, the default last, so that a wrong one is found at the start."""
        for name in reversed(self.names):
            self._read(name)

    def _find(self, name: str) -> Gan | None:
        with self._access:
            if name in self._loaded:
                self._loaded.move_to_end(name)
            return self._loaded.get(name)

    def _read(self, name: str) -> Gan:
        loaded = self._load(self._sources[name])
        memory = _SHARE * _total_memory(loaded.device) if self._memory is None else self._memory
        with self._access:
            self._loaded[name] = loaded
            while len(self._loaded) > 1 and sum(map(_size, self._loaded.values())) > memory:
                self._loaded.popitem(last=False)
        return loaded


def _size(loaded: Gan) -> int:
    """Bytes that a model takes once it has made a picture, roughly."""
    tensors = chain(loaded.generator.parameters(), loaded.generator.buffers())
    return _COPIES * sum(tensor.nbytes for tensor in tensors)


def _total_memory(device: torch.device) -> float:
    """Bytes of a GPU, or those that this machine or its container has."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        total = 8 * 2**30  # Windows has no sysconf: as if it were a laptop
    try:
        return min(total, float(_CGROUP_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such file, or "max"
        return total


def _display_names(sources: Sequence[str]) -> tuple[str, ...]:
    """The shortest ends of paths and addresses that tell all of them apart."""
    parts = [_parts(source) for source in sources]
    names: list[str] = []
    for length in range(1, 1 + max(map(len, parts))):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return tuple(names)
    twice = next(name for name in names if names.count(name) > 1)
    raise InputError(f"the model {twice} is given twice")


def _parts(source: str) -> list[str]:
    path = re.sub(r"^[a-z]+://|[?#].*$", "", source) if "://" in source else source
    return [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..")] or [source]
