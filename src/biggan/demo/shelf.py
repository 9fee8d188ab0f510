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
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.weights.addresses import is_address
from biggan.weights.load import means_published
from biggan.weights.published import BUNDLED

_LOG = logging.getLogger("biggan.demo")

# What a model takes for each byte of its tensors: those, and the folded network that an engine
# makes of them, whose convolutions are kept in the forms that run fastest. Measured: 2.5 to 2.8.
_COPIES = 3
_SHARE = 1 / 4  # of the memory, for all models; the rest is for pictures, and for other programs
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_LONGEST = 60  # characters of a wrong name that are repeated to whoever sent it


class ModelUnavailableError(InputError):
    """A model that the server offers and cannot load: no fault of whoever asks for it."""


class ModelShelf:
    """The models that a server offers, by name.

    A model is loaded when it is first asked for. Those that were not asked for the longest leave
    when all together take more than `memory`, but for the last one, and are loaded again when they
    are wanted: six published models are 3 GiB. So memory decides and no number: of small models all
    stay, and on a laptop one or two large ones.

    Nothing but the names given here can be loaded: visitors of a page choose a model by its name,
    and a name that was not offered is looked for nowhere.

    Args:
        names_or_paths: What `load` takes, at least one; the first is the default.
        load: Reads one of them.
        memory: Bytes for all models together; None for a quarter of the memory of the device that
            they are on.

    Attributes:
        names: What visitors call the models, in the order given: a name as it is, of a path or an
            address the last part, with as many before it as make it unique.

    Raises:
        InputError: One is given twice.
    """

    names: tuple[str, ...]

    def __init__(
        self,
        names_or_paths: Sequence[str | Path],
        load: Callable[[str | Path], Gan] = gan.load,
        memory: int | None = None,
    ) -> None:
        self.names = _display_names([str(source) for source in names_or_paths])
        self._sources = dict(zip(self.names, names_or_paths, strict=True))
        self._load = load
        self._memory = memory
        self._loaded: OrderedDict[str, Gan] = OrderedDict()  # the last asked for is the last
        self._access, self._loading = Lock(), Lock()

    @property
    def default(self) -> str:
        """The model of those who name none."""
        return self.names[0]

    def check(self, name: str) -> None:
        """Make sure that a model is offered.

        Raises:
            InputError: It is not.
        """
        if name not in self._sources:
            shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
            raise InputError(f"no model is called {shown!r} here; there is {', '.join(self.names)}")

    def in_shell(self, name: str, *, with_paths: bool) -> str | None:
        """What `biggan sample --model` takes for a model, in any folder of this machine.

        Args:
            name: As visitors call it.
            with_paths: Whether it may be a path of this machine; if not, None stands for one.
        """
        source = str(self._sources[name])
        if source in BUNDLED or means_published(source) or is_address(source):
            return source
        return str(Path(source).expanduser().absolute()) if with_paths else None

    def get(self, name: str) -> Gan:
        """A model by its name, loaded if it is not; to be called from any thread.

        Do not keep what is returned: it would stay in memory for as long.

        Raises:
            InputError: It is not offered.
            ModelUnavailableError: It cannot be loaded; the log says why.
        """
        self.check(name)
        loaded = self._find(name)
        if loaded is not None:
            return loaded
        with self._loading:  # one at a time, for each takes memory
            loaded = self._find(name)  # by whoever came before
            if loaded is None:
                loaded = self._read(name)
                self._put(name, loaded)
            return loaded

    def load_all(self) -> None:
        """Load every model once, the default last.

        So a wrong name, a damaged file and a download are a matter of whoever starts the server,
        and no visitor waits for them.

        Raises:
            InputError: One cannot be loaded.
        """
        for name in reversed(self.names):
            self._put(name, self._load(self._sources[name]))

    def _find(self, name: str) -> Gan | None:
        with self._access:
            if name in self._loaded:
                self._loaded.move_to_end(name)
            return self._loaded.get(name)

    def _read(self, name: str) -> Gan:
        try:
            return self._load(self._sources[name])
        except InputError as error:  # which may name paths: not for visitors
            _LOG.error("%s cannot be loaded: %s", name, error)
            raise ModelUnavailableError(
                f"{name} cannot be loaded at present; whoever runs this server finds the reason in "
                "its log"
            ) from error

    def _put(self, name: str, loaded: Gan) -> None:
        memory = _share_of_memory(loaded.device) if self._memory is None else self._memory
        with self._access:
            self._loaded[name] = loaded
            while len(self._loaded) > 1 and sum(map(_size, self._loaded.values())) > memory:
                self._loaded.popitem(last=False)


def _size(loaded: Gan) -> int:
    """Bytes that a model takes once it has made a picture, roughly."""
    network = loaded.generator
    tensors = chain(network.parameters(), network.buffers())
    return _COPIES * sum(tensor.nbytes for tensor in tensors)


def _share_of_memory(device: torch.device) -> int:
    """Bytes for all models on a device."""
    if device.type == "cuda":
        total: float = torch.cuda.mem_get_info(device)[1]
    else:
        total = min(_physical_memory(), _allowed_memory())
    return int(_SHARE * total)


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 8 * 2**30  # Windows has no sysconf: as if it were a laptop


def _allowed_memory() -> float:
    """What a container is limited to."""
    try:
        return float(_CGROUP_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return float("inf")


def _display_names(sources: Sequence[str]) -> tuple[str, ...]:
    """The shortest ends of paths and addresses that tell them apart.

    Raises:
        InputError: Two are the same.
    """
    parts = [_parts(source) for source in sources]
    lengths = [1] * len(sources)
    while True:
        names = ["/".join(p[-length:]) for p, length in zip(parts, lengths, strict=True)]
        twins = [i for i, name in enumerate(names) if names.count(name) > 1]
        if not twins:
            return tuple(names)
        longer = [i for i in twins if lengths[i] < len(parts[i])]
        if not longer:
            raise InputError(f"the model {names[twins[0]]} is given twice")
        for i in longer:
            lengths[i] += 1


def _parts(source: str) -> list[str]:
    path = re.sub(r"^[a-z]+://|[?#].*$", "", source) if "://" in source else source
    return [part for part in re.split(r"[/\\]", path) if part not in ("", ".", "..")] or [source]
