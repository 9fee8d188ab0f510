"""DeepMind's six published generators, by name: where they were put, and how to get them.

DeepMind published BigGAN (November 2018) and BigGAN-deep (March 2019) as TF Hub modules, and never
a discriminator. Hosts come and go: all places that are known are tried in turn, others' conversions
first, because they need no graph to be read. What is downloaded is converted once, into a file of
our own in the cache, and then deleted.

No sha256 of these files is known to us for certain, so none is pinned (`RemoteFile.sha256`; one
that is given is enforced). What is checked instead: the length that the host announces, the
checksums inside an archive, the name and shape of every tensor, and that the network is the one
that was asked for. The Hugging Face Hub states a sha256 of its own, and that one is enforced.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from biggan.errors import InputError
from biggan.models import PRESETS, GeneratorConfig
from biggan.weights import files
from biggan.weights.addresses import only_file_or_folder, repository_files
from biggan.weights.cache import cache_dir, exclusive, is_offline
from biggan.weights.download import DownloadError, RemoteFile, fetch_all
from biggan.weights.files import LoadedModel, hub_grid
from biggan.weights.formats.conversion import DEEPMIND_LICENCE

_LOG = logging.getLogger("biggan.weights")

BUNDLED = ("fruits", "digits")
"""Names of the models that come with the package, the default first. They precede equal paths."""

BUNDLED_FOLDER = Path(__file__).parent / "bundled"
"""Where their files are."""

Read = Callable[[Path], LoadedModel[Any]]
"""Reads a network of any format from a file or folder."""

_HUGGING_FACE = "https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep-{}-{}"
_IVCLAB = (
    "https://github.com/ivclab/BigGAN-Generator-Pretrained-Pytorch/releases/download/v0.0.0/{}"
)
_TF_HUB = "https://tfhub.dev/deepmind/{}/{}?tf-hub-format=compressed"  # redirects to Kaggle


@dataclass(frozen=True)
class Place:
    """A place on the network that has, or had, one model's weights."""

    files: tuple[RemoteFile, ...] = ()
    repository: str = ""
    """Instead of files, an address `hf://owner/repo` whose listing names them."""

    @property
    def host(self) -> str:
        """What to call it in messages."""
        return self.repository or urlsplit(self.files[0].url).netloc


@dataclass(frozen=True)
class PublishedModel:
    """One of DeepMind's generators: what it is and where it may be."""

    name: str
    config: GeneratorConfig
    grid: tuple[float, ...]
    """The truncations for which its BatchNorm statistics were recorded."""
    source: str
    places: tuple[Place, ...]
    """In the order in which they are tried."""
    licence: str = DEEPMIND_LICENCE

    @property
    def resolution(self) -> int:
        """Pixels a side."""
        return self.config.resolution

    @property
    def num_classes(self) -> int:
        """Number of classes, all of them ImageNet's."""
        return self.config.num_classes


def _deep(resolution: int, *mirrors: Place) -> PublishedModel:
    module = f"biggan-deep-{resolution}"
    hugging_face = tuple(
        RemoteFile(_HUGGING_FACE.format(resolution, name), name)
        for name in ("config.json", "pytorch_model.bin")
    )
    return PublishedModel(
        name=module,
        config=dataclasses.replace(PRESETS[module].generator, rgb_channels=128),
        grid=hub_grid(51),
        source=f"DeepMind, TF Hub module {module}/1, 2019",
        places=(Place(hugging_face), *mirrors, _tf_hub(module, 1)),
    )


def _original(resolution: int, z_dim: int) -> PublishedModel:
    module = f"biggan-{resolution}"
    release = f"biggan{resolution}-release.pt"
    return PublishedModel(
        name=module,
        # z_dim is not always the paper's, of which the preset is.
        config=dataclasses.replace(PRESETS[module].generator, z_dim=z_dim),
        grid=hub_grid(50),
        source=f"DeepMind, TF Hub module {module}/2, 2018",
        places=(
            Place((RemoteFile(_IVCLAB.format(release), release),)),
            _tf_hub(module, 2),  # not 1, whose statistics suffered from a race
        ),
    )


def _tf_hub(module: str, version: int) -> Place:
    archive = RemoteFile(_TF_HUB.format(module, version), f"{module}_{version}.tar.gz")
    return Place((archive,))


PUBLISHED: dict[str, PublishedModel] = {
    model.name: model
    for model in (
        _original(128, z_dim=120),
        _original(256, z_dim=140),
        _original(512, z_dim=128),
        _deep(128, Place(repository="hf://osanseviero/BigGAN-deep-128")),
        _deep(256),
        _deep(512),
    )
}
"""The published models by name."""


def cached_path(name: str) -> Path:
    """Where a published model is kept once it has been fetched."""
    return cache_dir() / f"{name}.safetensors"


def obtain(name: str, read: Read, *, offline: bool = False) -> Path:
    """The file of a published model, fetched and converted if it is not in the cache.

    Args:
        name: A key of `PUBLISHED`.
        read: Reads what was downloaded.
        offline: Whether to look no further than the cache.

    Raises:
        InputError: It cannot be had; the message says why and how to give its files by hand.
    """
    model = PUBLISHED[name]
    path = cached_path(name)
    if path.is_file():
        return path
    if is_offline(offline):
        raise InputError(
            f"{name} is not in the cache {cache_dir()}, and nothing is fetched offline. "
            f"{_by_hand(model)}"
        )
    with exclusive(path, name):
        if not path.is_file():
            _fetch_and_convert(model, path, read)
    return path


def _fetch_and_convert(model: PublishedModel, path: Path, read: Read) -> None:
    """Write a model to a file, from the first place that has it."""
    downloads = cache_dir() / "downloads" / model.name
    failures = []
    for place in model.places:
        try:
            loaded = _read_from(place, model, downloads / _folder_name(place), read)
        except _PlaceFailedError as error:
            _LOG.warning("%s from %s: %s", model.name, place.host, error)
            failures.append(f"{place.host}: {error}")
            continue
        # With its own description: the model is the same, by name and from a file by hand.
        files.save_generator(path, loaded.network, loaded.description)
        shutil.rmtree(downloads)
        return
    raise InputError(f"{model.name} cannot be fetched ({'; '.join(failures)}). {_by_hand(model)}")


class _PlaceFailedError(Exception):
    """A place does not have what is wanted of it; the message says why."""


def _read_from(place: Place, model: PublishedModel, folder: Path, read: Read) -> LoadedModel[Any]:
    """Read a model from a place, by way of a folder.

    Raises:
        _PlaceFailedError: It has none, or none that can be used.
        InputError: Its files cannot be written here.
    """
    _LOG.info("downloading %s from %s", model.name, place.host)
    try:
        wanted = place.files or repository_files(place.repository)
    except InputError as error:
        raise _PlaceFailedError(
            error.reason if isinstance(error, DownloadError) else error
        ) from None
    try:
        fetch_all(wanted, folder)
    except DownloadError as error:  # and no other: a full disk is not this place's fault
        raise _PlaceFailedError(error.reason) from None
    try:
        loaded = read(only_file_or_folder(folder))
        _check(loaded, model)
    except InputError as error:
        shutil.rmtree(folder)
        raise _PlaceFailedError(str(error).replace(f"{folder}/", "")) from None
    return loaded


def _check(loaded: LoadedModel[Any], model: PublishedModel) -> None:
    """Make sure that a generator is the one that a name promises."""
    if loaded.kind != "generator":
        raise InputError(f"a discriminator, not {model.name}")
    found, promised = loaded.network.config.to_dict(), model.config.to_dict()
    for fact, value in promised.items():
        if found[fact] != value:
            raise InputError(f"another network than {model.name}: its {fact} is {found[fact]}")
    grid = files.statistics_grid(loaded.network)
    if grid != model.grid:
        raise InputError(
            f"BatchNorm statistics for {len(grid)} truncations, not for the {len(model.grid)} of "
            f"{model.name}"
        )


def _folder_name(place: Place) -> str:
    """Different for different files, so that no download is gone on with at another place."""
    parts = [place.repository, *(file.url for file in place.files)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _by_hand(model: PublishedModel) -> str:
    """How to use files that were got in another way."""
    wanted = dict.fromkeys(_names(place.files) for place in model.places if place.files)
    return (
        f"If you have {', or '.join(wanted)}, say --model FILE, biggan.load(FILE) or, "
        "once and for all, biggan convert FILE OUT.safetensors"
    )


def _names(remote: Sequence[RemoteFile]) -> str:
    return " with ".join(file.name for file in reversed(remote))
