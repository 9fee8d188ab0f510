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
from collections.abc import Mapping
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

_HUGGING_FACE = "https://s3.amazonaws.com/models.huggingface.co/biggan/"
_MIRROR = "https://huggingface.co/osanseviero/BigGAN-deep-128/resolve/main/"
_IVCLAB = "https://github.com/ivclab/BigGAN-Generator-Pretrained-Pytorch/releases/download/v0.0.0/"
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


_MIRROR_OF_128 = (
    RemoteFile(f"{_MIRROR}config.json", "config.json"),
    RemoteFile(
        f"{_MIRROR}pytorch_model.bin",
        "pytorch_model.bin",
        sha256="b86146a8cfcde4cda135adba4b2806f78b3abe2dac9d0fd090cc3ab318604ad9",
    ),
)

PUBLISHED: dict[str, PublishedModel] = {}
"""The published models by name."""

for _resolution, _z_dim in ((128, 120), (256, 140), (512, 128)):
    _name, _release = f"biggan-{_resolution}", f"biggan{_resolution}-release.pt"
    PUBLISHED[_name] = PublishedModel(
        _name,
        {"z_dim": _z_dim},
        rows=50,
        source=f"DeepMind, TF Hub module {_name}/2, 2018",
        # Not version 1 of the module, whose statistics suffered from a race.
        places=(
            (RemoteFile(_IVCLAB + _release, _release),),
            (RemoteFile(_TF_HUB.format(_name, 2), f"{_name}_2.tar.gz"),),
        ),
    )
for _resolution in (128, 256, 512):
    _name = f"biggan-deep-{_resolution}"
    PUBLISHED[_name] = PublishedModel(
        _name,
        {"rgb_channels": 128},
        rows=51,
        source=f"DeepMind, TF Hub module {_name}/1, 2019",
        places=(
            (
                RemoteFile(f"{_HUGGING_FACE}{_name}-config.json", "config.json"),
                RemoteFile(f"{_HUGGING_FACE}{_name}-pytorch_model.bin", "pytorch_model.bin"),
            ),
            *((_MIRROR_OF_128,) if _resolution == 128 else ()),
            (RemoteFile(_TF_HUB.format(_name, 1), f"{_name}_1.tar.gz"),),
        ),
    )


def cached_path(name: str) -> Path:
    """Where a published model is kept once it has been fetched."""
    return cache_dir() / f"{name}.safetensors"


def obtain_published(name: str, *, offline: bool = False) -> Path:
    """The file of a published model, fetched and converted if it is not in the cache.

    Args:
        name: A key of `PUBLISHED`.
        offline: Whether to look no further than the cache.
    """
    model, path = PUBLISHED[name], cached_path(name)
    if path.is_file():
        return path
    by_hand = dict.fromkeys(
        " with ".join(file.name for file in reversed(place)) for place in model.places
    )
    advice = (
        f"If you have {', or '.join(by_hand)}, use --model FILE, biggan.load(FILE) or biggan "
        "convert FILE OUT.safetensors"
    )
    if is_offline(offline):
        raise InputError(
            f"{name} is not in the cache {cache_dir()}, and nothing is downloaded offline. {advice}"
        )
    with exclusive(path, name):
        if not path.is_file() and (failures := _fetch_and_convert(model, path)):
            raise InputError(f"{name} cannot be downloaded ({'; '.join(failures)}). {advice}")
    return path


def _fetch_and_convert(model: PublishedModel, path: Path) -> list[str]:
    """Write a model to a file, from the first place that has it; or say why none has."""
    from biggan.weights.download import DownloadError, fetch
    from biggan.weights.files import save_generator
    from biggan.weights.load import read_network

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
                loaded = read_network(folder / place[0].name if len(place) == 1 else folder)
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
            raise InputError(f"not {model.name}: its {fact} is {found[fact]}")
    grid = statistics_grid(loaded.network)
    if grid != hub_grid(model.rows):
        raise InputError(
            f"BatchNorm statistics for {len(grid)} truncations, not for the {model.rows} of "
            f"{model.name}"
        )
