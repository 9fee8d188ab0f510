"""The models that a server offers: named at its start, loaded when they are asked for."""

import logging
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from itertools import chain, count
from pathlib import Path
from threading import Lock

from biggan import gan
from biggan.devices import total_memory
from biggan.errors import InputError, quoted
from biggan.gan import Gan
from biggan.models import count_parameters
from biggan.weights.files import BUNDLED
from biggan.weights.load import is_address, means_published
from biggan.weights.published import PUBLISHED, cached_path, obtain_published

_LOG = logging.getLogger("biggan.demo")

# A model takes its tensors and the folded network that an engine makes of them, whose convolutions
# are kept in the forms that run fastest. Measured: 2.5 to 2.8 bytes for each byte of tensors.
_COPIES = 3
_SHARE = 1 / 4  # of the memory, for all models; the rest is for pictures and other programs
_MOST_UPLOADS = 4  # models that visitors bring
_UNKNOWN = 8 * 2**30  # bytes of memory where the system does not say, as if it were a laptop


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
        sources: What `load` takes, at least one and none twice; the first is the default.
        load: Loads one of them.
        memory: Bytes for all models together; None for a quarter of the device's memory.
        downloads: Whether visitors may download published models; then all of them are offered,
            and the bundled ones.
        offline: Whether those can only be taken from files that somebody has put into the cache.
        uploads: The folder for weights of visitors; None to take none.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        load: Callable[[str | Path], Gan] = gan.load,
        memory: int | None = None,
        *,
        downloads: bool = False,
        offline: bool = False,
        uploads: Path | None = None,
    ) -> None:
        names = _display_names([str(source) for source in sources])
        self._sources = dict(zip(names, sources, strict=True))
        if downloads:
            self._sources |= {n: n for n in (*BUNDLED, *PUBLISHED) if n not in self._sources}
        self._given = names
        self.uploads = uploads
        self.failures: dict[str, str] = {}  # why a model that was given is not there
        self._offline = offline
        self._facts: dict[str, str] = {}
        self._load = load
        self._memory = memory
        self._loaded: OrderedDict[str, Gan] = OrderedDict()  # the least recently used first
        self._access, self._loading = Lock(), Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """All models on offer, also those that are not downloaded yet."""
        return tuple(self._sources)

    @property
    def ready(self) -> tuple[str, ...]:
        """The models that can be loaded at once, the default first."""
        return tuple(name for name in self._sources if self.is_ready(name))

    @property
    def default(self) -> str:
        """The model of a visitor who names none."""
        return self.ready[0]

    def is_ready(self, name: str) -> bool:
        """Whether a model is on this machine."""
        source = str(self._sources[name])
        return not means_published(source) or cached_path(source).is_file()

    def nearest(self, names: Collection[str]) -> str | None:
        """Of these models the offered one that is here, or else one with a small download."""
        found = [name for name in self._sources if name in names]
        if ready := next(filter(self.is_ready, found), None):
            return ready
        # Without statistics of its own, truncation spoils a model's pictures.
        costs = {n: (not PUBLISHED[n].rows, count_parameters(PUBLISHED[n].config)) for n in found}
        return min(costs, key=costs.__getitem__, default=None)

    def label(self, name: str) -> str:
        """A model in a menu: its name and what is known of it without loading it."""
        facts = self._facts.get(name, "")
        if (published := PUBLISHED.get(str(self._sources[name]))) and not facts:
            config = published.config
            megabytes = round(4 * count_parameters(config) / 1e6)
            state = "downloaded" if self.is_ready(name) else "not downloaded yet"
            licence = re.split("[:(]", published.licence)[0].strip()
            facts = f"{config.resolution} px, {megabytes} MB, {state}; licence {licence}"
        return f"{name} ({facts})" if facts else name

    def source(self, name: str, *, with_paths: bool) -> str | None:
        """What `biggan sample --model` takes; None instead of a path unless `with_paths`."""
        source = str(self._sources[name])
        if source in BUNDLED or means_published(source) or is_address(source):
            return source
        return str(Path(source).expanduser().absolute()) if with_paths else None

    def get(self, name: object) -> Gan:
        """A model by its name, loaded if need be, on any thread. To keep it keeps its memory.

        Raises:
            UnknownModelError: It is not offered.
            UnavailableError: It cannot be loaded; the log says why.
        """
        if not isinstance(name, str) or name not in self._sources:
            raise UnknownModelError(
                f"no model is named {quoted(name)} here; available are {', '.join(self.ready)}"
            )
        if loaded := self._find(name):
            return loaded
        if not self.is_ready(name):
            raise UnavailableError(f"{name} is not downloaded yet: choose it in the page's menu")
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
        """Load every model that was given, the default last, so that a wrong one is found early.

        A published model that cannot be had is left out; the default is then a bundled one.
        """
        for name in reversed(self._given):
            try:
                self._read(name)
            except InputError as error:
                if self._sources[name] not in PUBLISHED:
                    raise
                self.failures[name] = str(error)
                _LOG.warning("%s", error)
        if not self.ready:
            self._sources[BUNDLED[0]] = BUNDLED[0]
        if self.default not in self._given:
            self._read(self.default)

    def download(self, name: str, report: Callable[[int, int | None], object]) -> None:
        """Put a published model into the cache of downloads; raises as `obtain_published`."""
        obtain_published(str(self._sources[name]), offline=self._offline, report=report)
        self.failures.pop(name, None)

    def add(self, files: Sequence[Path]) -> str:
        """Offer weights that a visitor has brought, of one model; returns its name.

        Raises:
            InputError: They are no weights of a known format, or there are too many models.
        """
        if self.uploads is None:
            raise InputError("this server takes no weights from visitors")
        number = len(list(self.uploads.iterdir()))
        if number >= _MOST_UPLOADS:
            raise InputError(f"{number} models were brought already: restart the server for more")
        folder = self.uploads / str(number)
        folder.mkdir()
        try:
            for file in files:
                shutil.copy(file, folder / file.name)
            source = folder if len(files) > 1 else folder / files[0].name
            loaded = self._load(source)
        except InputError as error:
            shutil.rmtree(folder)
            text = str(error).replace(f"{folder}/", "").replace(str(folder), "")
            raise InputError(text) from None
        numbered = (f"{loaded.name}-{number}" for number in count(2))
        name = next(name for name in chain([loaded.name], numbered) if name not in self._sources)
        with self._access:
            self._sources[name] = source
        self._keep(name, loaded)
        return name

    def _find(self, name: str) -> Gan | None:
        with self._access:
            if name in self._loaded:
                self._loaded.move_to_end(name)
            return self._loaded.get(name)

    def _read(self, name: str) -> Gan:
        loaded = self._load(self._sources[name])
        self._keep(name, loaded)
        return loaded

    def _keep(self, name: str, loaded: Gan) -> None:
        classes = f"{len(loaded.class_names)} classes" if loaded.class_names else "unconditional"
        if name not in PUBLISHED:
            self._facts[name] = f"{loaded.config.resolution} px, {classes}"
        memory = self._memory
        if memory is None:
            memory = int(_SHARE * (total_memory(loaded.device) or _UNKNOWN))
        with self._access:
            self._loaded[name] = loaded
            while len(self._loaded) > 1 and sum(map(_size, self._loaded.values())) > memory:
                self._loaded.popitem(last=False)


def _size(loaded: Gan) -> int:
    """Bytes that a model takes once it has made a picture, roughly."""
    tensors = chain(loaded.generator.parameters(), loaded.generator.buffers())
    return _COPIES * sum(tensor.nbytes for tensor in tensors)


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
