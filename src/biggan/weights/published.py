"""The bundled models, and DeepMind's six published generators by name: where to get them.

DeepMind published BigGAN (November 2018) and BigGAN-deep (March 2019) as TF Hub modules, and never
a discriminator. Hosts come and go, so all known ones are tried in turn, first those of conversions,
which need no graph to be read. A download is converted once, into a file of our own in the cache.

Where no sha256 is known, the checks are the length that the host announces, the checksums inside an
archive, the name and shape of every tensor, and that the network is the one that was asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from biggan.errors import InputError
from biggan.weights.cache import cache_dir, exclusive, is_offline

if TYPE_CHECKING:
    from biggan.models import GeneratorConfig
    from biggan.weights.files import LoadedModel

_LOG = logging.getLogger("biggan.weights")

BUNDLED = ("fruits", "digits")
"""Names of the models that come with the package, the default first. They precede equal paths."""

BUNDLED_FOLDER = Path(__file__).parent / "bundled"

DEEPMIND_LICENCE = "not established: DeepMind's module pages state none"
"""Licence of DeepMind's weights, whoever converted them."""

_HUGGING_FACE = "https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep-{}-"
_MIRROR = "https://huggingface.co/osanseviero/BigGAN-deep-128/resolve/main/"
_IVCLAB = (
    "https://github.com/ivclab/BigGAN-Generator-Pretrained-Pytorch/releases/download/v0.0.0/{}"
)
_TF_HUB = "https://tfhub.dev/deepmind/{}/{}?tf-hub-format=compressed"  # redirects to Kaggle


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network and what it is called here."""

    url: str
    name: str
    sha256: str | None = None
    """Of its bytes, in hex; None where nobody has published it."""


Place = tuple[RemoteFile, ...]
"""A host's files of one model, which are read together."""


@dataclass(frozen=True)
class PublishedModel:
    """One of DeepMind's generators: what it is and where it may be."""

    name: str
    changes: Mapping[str, int]
    """What differs in its network from the preset of this name, which is the paper's."""
    rows: int
    """Number of truncations for which its BatchNorm statistics were recorded."""
    source: str
    places: tuple[Place, ...]
    """In the order in which they are tried."""

    @property
    def config(self) -> GeneratorConfig:
        """The network's shape."""
        from biggan.models import PRESETS

        return dataclasses.replace(PRESETS[self.name].generator, **self.changes)  # type: ignore[arg-type]


def host_of(place: Place) -> str:
    """What to call a place in messages."""
    return urlsplit(place[0].url).netloc


def _deep(resolution: int, *mirrors: Place) -> PublishedModel:
    name, address = f"biggan-deep-{resolution}", _HUGGING_FACE.format(resolution)
    files = ("config.json", "pytorch_model.bin")
    return PublishedModel(
        name,
        {"rgb_channels": 128},
        rows=51,
        source=f"DeepMind, TF Hub module {name}/1, 2019",
        places=(
            tuple(RemoteFile(address + file, file) for file in files),
            *mirrors,
            _tf_hub(name, 1),
        ),
    )


def _original(resolution: int, z_dim: int) -> PublishedModel:
    name, release = f"biggan-{resolution}", f"biggan{resolution}-release.pt"
    return PublishedModel(
        name,
        {"z_dim": z_dim},
        rows=50,
        source=f"DeepMind, TF Hub module {name}/2, 2018",
        # Not version 1 of the module, whose statistics suffered from a race.
        places=((RemoteFile(_IVCLAB.format(release), release),), _tf_hub(name, 2)),
    )


def _tf_hub(module: str, version: int) -> Place:
    return (RemoteFile(_TF_HUB.format(module, version), f"{module}_{version}.tar.gz"),)


_MIRROR_OF_128 = (
    RemoteFile(f"{_MIRROR}config.json", "config.json"),
    RemoteFile(
        f"{_MIRROR}pytorch_model.bin",
        "pytorch_model.bin",
        sha256="b86146a8cfcde4cda135adba4b2806f78b3abe2dac9d0fd090cc3ab318604ad9",
    ),
)

PUBLISHED: dict[str, PublishedModel] = {
    model.name: model
    for model in (
        _original(128, z_dim=120),
        _original(256, z_dim=140),
        _original(512, z_dim=128),
        _deep(128, _MIRROR_OF_128),
        _deep(256),
        _deep(512),
    )
}
"""The published models by name."""


def cached_path(name: str) -> Path:
    """Where a published model is kept once it has been fetched."""
    return cache_dir() / f"{name}.safetensors"


def obtain_published(
    name: str, read: Callable[[Path], LoadedModel[Any]], *, offline: bool = False
) -> Path:
    """The file of a published model, fetched and converted if it is not in the cache.

    Args:
        name: A key of `PUBLISHED`.
        read: Reads a network of any format from a file or folder.
        offline: Whether to look no further than the cache.
    """
    model, path = PUBLISHED[name], cached_path(name)
    if path.is_file():
        return path
    by_hand = dict.fromkeys(
        " with ".join(file.name for file in reversed(place)) for place in model.places
    )
    advice = (
        f"If you have {', or '.join(by_hand)}, say --model FILE, biggan.load(FILE) or, "
        "once and for all, biggan convert FILE OUT.safetensors"
    )
    if is_offline(offline):
        raise InputError(
            f"{name} is not in the cache {cache_dir()}, and nothing is fetched offline. {advice}"
        )
    with exclusive(path, name):
        if not path.is_file() and (failures := _fetch_and_convert(model, path, read)):
            raise InputError(f"{name} cannot be fetched ({'; '.join(failures)}). {advice}")
    return path


def _fetch_and_convert(
    model: PublishedModel, path: Path, read: Callable[[Path], LoadedModel[Any]]
) -> list[str]:
    """Write a model to a file, from the first place that has it; or say why none has."""
    from biggan.weights.download import DownloadError, fetch
    from biggan.weights.files import save_generator

    failures = []
    for place in model.places:
        # A folder for these very files: what another host has is not resumed with them.
        key = hashlib.sha256(" ".join(file.url for file in place).encode()).hexdigest()[:16]
        folder = cache_dir() / "downloads" / model.name / key
        _LOG.info("downloading %s from %s", model.name, host_of(place))
        try:
            for file in place:
                if not (folder / file.name).exists():
                    fetch(file.url, folder / file.name, sha256=file.sha256)
        except DownloadError as error:  # and no other: a full disk is not this place's fault
            reason = error.reason
        else:
            try:
                loaded = read(folder / place[0].name if len(place) == 1 else folder)
                _check(loaded, model)
            except InputError as error:
                shutil.rmtree(folder)
                reason = str(error).replace(f"{folder}/", "")
            else:
                # With its own description: the same model by name and from a file by hand.
                save_generator(path, loaded.network, loaded.description)
                shutil.rmtree(folder.parent)
                return []
        _LOG.warning("%s from %s: %s", model.name, host_of(place), reason)
        failures.append(f"{host_of(place)}: {reason}")
    return failures


def _check(loaded: LoadedModel[Any], model: PublishedModel) -> None:
    """Make sure that a generator is the one that a name promises."""
    from biggan.weights.networks import hub_grid, statistics_grid

    if loaded.kind != "generator":
        raise InputError(f"a discriminator, not {model.name}")
    found, promised = loaded.network.config.to_dict(), model.config.to_dict()
    for fact, value in promised.items():
        if found[fact] != value:
            raise InputError(f"another network than {model.name}: its {fact} is {found[fact]}")
    grid = statistics_grid(loaded.network)
    if grid != hub_grid(model.rows):
        raise InputError(
            f"BatchNorm statistics for {len(grid)} truncations, not for the {model.rows} of "
            f"{model.name}"
        )
