"""Published models by name: where to get them, and what they must be.

DeepMind published BigGAN (November 2018) and BigGAN-deep (March 2019) as TF Hub modules, and never
a discriminator. PyTorch-StudioGAN published its BigGANs under the MIT licence, with discriminators.
Hosts come and go, so all known ones are tried in turn, first those of conversions, which need no
graph to be read. A download is converted once, into a file of our own in the cache.

A file must have the sha256 that its publisher states. Where none is stated, the one of the first
download is recorded in the cache (`published-lock.json`), and later downloads must have it; the
other checks are the length that the host announces, the checksums inside an archive, the name and
shape of every tensor, and that the network is the one that was asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.hub import is_offline
from biggan.weights.files import Kind, LoadedModel, cache_dir, exclusive, save_network

if TYPE_CHECKING:
    from biggan.models import DiscriminatorConfig, GeneratorConfig
    from biggan.weights.download import Report

_LOG = logging.getLogger("biggan.weights")

DEEPMIND_LICENCE = "not established: DeepMind's module pages state none"
"""Licence of DeepMind's weights, whoever converted them."""

_HUGGING_FACE = "https://s3.amazonaws.com/models.huggingface.co/biggan/"
_HUB = "https://huggingface.co/"
_MIRROR = f"{_HUB}osanseviero/BigGAN-deep-128/resolve/main/"
_STUDIOGAN = f"{_HUB}Mingguksky/PyTorch-StudioGAN/resolve/main/studiogan_official_ckpt/"
_IVCLAB = "https://github.com/ivclab/BigGAN-Generator-Pretrained-Pytorch/releases/download/v0.0.0/"
_TF_HUB = "https://tfhub.dev/deepmind/{}/{}?tf-hub-format=compressed"  # redirects to Kaggle
_TF_HUB_STORAGE = "https://storage.googleapis.com/tfhub-modules/deepmind/{}/{}.tar.gz"
_KAGGLE = "https://www.kaggle.com/api/v1/models/deepmind/biggan/tensorFlow1/"
_MMGENERATION = "https://download.openmmlab.com/mmgen/biggan/"

SHA256: dict[str, str] = {
    # Stated by two public packages.
    f"{_HUGGING_FACE}biggan-deep-256-pytorch_model.bin": (
        "5900ef4065047e3aa0d1b66197b7f2664dceb59b27080e414ad57e203c485bc5"
    ),
    f"{_HUGGING_FACE}biggan-deep-256-config.json": (
        "edd106f65ff28ee1638491a978cfa6bc50dfa0344aab70749a7b8eb08bbec677"
    ),
    # Stated by the Hub.
    f"{_MIRROR}pytorch_model.bin": (
        "b86146a8cfcde4cda135adba4b2806f78b3abe2dac9d0fd090cc3ab318604ad9"
    ),
}
"""Of the bytes of files whose publishers state it, by address; `scripts/check_places.py` prints
those of the others."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network and what it is called here."""

    url: str
    name: str
    sha256: str | None = None  # in hex, or the beginning of it; None where nobody has published it
    is_kaggle_model: bool = False  # in Kaggle's API, whose newest version is to be taken


Place = tuple[RemoteFile, ...]
"""A host's files of one model, which are read together."""


@dataclass(frozen=True)
class PublishedModel:
    """A published generator, perhaps with its discriminator: what it is and where it may be."""

    name: str
    preset: str
    changes: Mapping[str, Any]  # what differs in its network from this preset
    rows: int  # truncations for which its BatchNorm statistics were recorded; 0 for one set
    source: str
    licence: str
    places: tuple[Place, ...]  # in the order in which they are tried
    discriminator: Place | None = None
    class_names: tuple[str, ...] | None = None  # None for ImageNet's, or for numbers

    @property
    def config(self) -> GeneratorConfig:
        """The generator's shape."""
        from biggan.models import PRESETS

        return dataclasses.replace(PRESETS[self.preset].generator, **self.changes)

    @property
    def discriminator_config(self) -> DiscriminatorConfig:
        """The discriminator's shape."""
        from biggan.models import PRESETS

        shared = ("num_classes", "attention_resolution", "sn_eps")
        changes = {name: value for name, value in self.changes.items() if name in shared}
        preset = PRESETS[self.preset].discriminator
        return dataclasses.replace(preset, **changes, relu_before_shortcut=True)

    @property
    def is_open(self) -> bool:
        """Whether its licence is known."""
        return not self.licence.startswith("not established")


def host_of(place: Place) -> str:
    """What to call a place in messages."""
    return urlsplit(place[0].url).netloc


def _file(url: str, name: str) -> RemoteFile:
    return RemoteFile(url, name, SHA256.get(url))


def _studiogan(
    name: str,
    preset: str,
    source: str,
    run: str,
    step: int,
    sha256: str,
    *,
    discriminator: tuple[str, str] | None = None,
    class_names: str = "",
    **changes: Any,
) -> PublishedModel:
    """A model of PyTorch-StudioGAN; of its discriminator, which one it is and the sha256."""

    def place(kind: str, sha256: str) -> Place:
        file = f"model={kind}-weights-step={step}.pth"
        url = f"{_STUDIOGAN}{run}/{file}".replace("=", "%3D")
        return (RemoteFile(url, file, sha256),)

    return PublishedModel(
        f"studiogan-{name}",
        preset,
        {**changes, "sn_eps": 1e-6},
        rows=0,
        source=f"PyTorch-StudioGAN, BigGAN of {source}, 2022",
        licence="MIT (StudioGAN's model card)",
        places=(place("G_ema-best", sha256),),
        discriminator=place(*discriminator) if discriminator else None,
        class_names=tuple(class_names.split()) or None,
    )


def _module_places(name: str, version: int) -> tuple[Place, ...]:
    """A TF Hub module's."""
    archive, kaggle = f"{name}_{version}.tar.gz", _KAGGLE + name.removeprefix("biggan-")
    return (
        (RemoteFile(kaggle, archive, SHA256.get(kaggle), is_kaggle_model=True),),
        (_file(_TF_HUB.format(name, version), archive),),
        (_file(_TF_HUB_STORAGE.format(name, version), archive),),
    )


_STUDIOGANS = (
    _studiogan(
        *("imagenet-128", "biggan-128", "ImageNet with batches of 256"),
        "ImageNet_tailored/ImageNet-BigGAN-256-train-2022_02_13_09_14_45",
        200_000,
        "1014feb2fd3f7aec2fa8d0d01b4fedd1943cfd07c48a45e093272053aa439919",
        discriminator=(
            "D-current",
            "16d66424991a7da67a87cbfcf402b796837977714313e87e2707ed45fbad6bce",
        ),
    ),
    _studiogan(
        *("afhqv2-256", "biggan-256", "AFHQv2"),
        "Efficient-AFHQ-V2-256/AFHQv2-BigGAN-256Res-train-2022_02_28_00_38_33",
        24_000,
        "8c70cf13e32201899b0c6786d44e44629699c2c624155d4cbabc94a8edd92f43",
        discriminator=(
            "D-best",
            "99f4a45354ae3947de0ad7f6b172f2505d1580f6f2e78bc74467126790fc4eeb",
        ),
        class_names="cat dog wild",
        num_classes=3,
        attention_resolution=0,
    ),
    _studiogan(
        *("imagenet-64", "biggan-64", "100 classes of ImageNet (Papa ImageNet)"),
        "Papa_ImageNet_tailored/Papa_ImageNet-BigGAN-train-2022_02_23_16_26_07",
        48_000,
        "de2eb0ab50af91e4dc0781cc869d93fbbe09aefb536181dab8cfcea6ddfcc326",
        channels=80,
        widths=(16, 8, 4, 2, 1),
        z_dim=100,
        num_classes=100,
    ),
    _studiogan(
        *("cifar10-32", "biggan-32", "CIFAR-10 with consistency regularization"),
        "CIFAR10_tailored/CIFAR10-BigGAN-CR-train-2022_03_10_14_20_11",
        98_000,
        "ff672764c4cad60eeb7e78324e158c1f02581283447b0beb110882fbd8223ecf",
        class_names="airplane automobile bird cat deer dog frog horse ship truck",
    ),
)
PUBLISHED = {model.name: model for model in _STUDIOGANS}
"""The published models by name: first those whose licence is clear."""

for _resolution, _z_dim in ((128, 120), (256, 140), (512, 128)):
    _name, _release = f"biggan-{_resolution}", f"biggan{_resolution}-release.pt"
    PUBLISHED[_name] = PublishedModel(
        _name,
        _name,
        {"z_dim": _z_dim},
        rows=50,
        source=f"DeepMind, TF Hub module {_name}/2, 2018",
        licence=DEEPMIND_LICENCE,
        # Not version 1 of the module, whose statistics suffered from a race.
        places=((_file(_IVCLAB + _release, _release),), *_module_places(_name, 2)),
    )
for _resolution in (128, 256, 512):
    _name = f"biggan-deep-{_resolution}"
    PUBLISHED[_name] = PublishedModel(
        _name,
        _name,
        {"rgb_channels": 128},
        rows=51,
        source=f"DeepMind, TF Hub module {_name}/1, 2019",
        licence=DEEPMIND_LICENCE,
        places=tuple(
            (
                _file(f"{base}config.json", "config.json"),
                _file(f"{base}pytorch_model.bin", "pytorch_model.bin"),
            )
            for base in (f"{_HUGGING_FACE}{_name}-", *((_MIRROR,) if _resolution == 128 else ()))
        )
        + _module_places(_name, 1),
    )
_CONVERSIONS = {
    "biggan-deep-128": "128x128_cvt_hugging-face_rgb_20210728_111659-099e96f9.pth",
    "biggan-deep-256": "256x256_cvt_hugging-face_rgb_20210728_111735-28651569.pth",
    "biggan-deep-512": "512x512_cvt_hugging-face_rgb_20210728_112346-a42585f2.pth",
    "biggan-128": "128x128_cvt_BigGAN-PyTorch_rgb_20210730_125223-3e353fef.pth",
}
for _of, _release in _CONVERSIONS.items():
    _release = f"{_of.rpartition('-')[0]}_imagenet1k_{_release}"
    _name, _is_deep = f"mmgeneration-{_of}", "deep" in _of
    PUBLISHED[_name] = PublishedModel(
        _name,
        _of,
        {"bn_eps": 1e-5, "sn_eps": 1e-6},
        rows=0,
        source=f"DeepMind, TF Hub module {_of}/1, 2019, with one of its 51 sets of statistics"
        if _is_deep
        else "ajbrock's BigGAN-PyTorch, 138,000 steps, 2019",
        licence=DEEPMIND_LICENCE if _is_deep else "not established",
        # Their names end with the beginning of their sha256.
        places=((RemoteFile(_MMGENERATION + _release, _release, _release[-12:-4]),),),
    )


def cached_path(name: str, kind: Kind = "generator") -> Path:
    """Where a published network is kept once it has been fetched."""
    return cache_dir() / f"{name}{'' if kind == 'generator' else f'-{kind}'}.safetensors"


def is_cached_network(path: Path) -> bool:
    """Whether a path is that of a published network in the cache."""
    return any(path in (cached_path(n), cached_path(n, "discriminator")) for n in PUBLISHED)


def downloads_folder(model: PublishedModel, place: Place) -> Path:
    """Where the files of a place are kept until they are converted; one may put them there."""
    # A folder for these very files: what another host has is not resumed with them.
    key = hashlib.sha256(" ".join(file.url for file in place).encode()).hexdigest()[:16]
    return cache_dir() / "downloads" / model.name / key


def obtain_published(
    name: str, kind: Kind = "generator", *, offline: bool = False, report: Report | None = None
) -> Path:
    """The file of a published network, fetched and converted if it is not in the cache.

    `report` is called while a file is downloaded, as by `biggan.weights.download.fetch`.
    """
    model, path = PUBLISHED[name], cached_path(name, kind)
    if path.is_file():
        return path
    judge = model.discriminator if kind == "discriminator" else None
    places = model.places if judge is None else (judge,)
    by_hand = dict.fromkeys(" with ".join(file.name for file in reversed(p)) for p in places)
    advice = (
        f"If you have {', or '.join(by_hand)}, use --model FILE, biggan.load(FILE) or biggan "
        "convert FILE OUT.safetensors"
    )
    if is_offline(offline):  # but somebody may have put the files there
        folders = {place: downloads_folder(model, place) for place in places}
        places = tuple(p for p in places if all((folders[p] / file.name).exists() for file in p))
        if not places:
            raise InputError(
                f"{name} is not in the cache {cache_dir()}, and nothing is downloaded offline. "
                f"{advice}"
            )
    with exclusive(path, name):
        if not path.is_file() and (
            failures := _fetch_and_convert(model, kind, places, path, report)
        ):
            raise InputError(f"{name} cannot be downloaded ({'; '.join(failures)}). {advice}")
    return path


def _fetch_and_convert(
    model: PublishedModel, kind: Kind, places: tuple[Place, ...], path: Path, report: Report | None
) -> list[str]:
    """Write a network to a file, from the first place that has it; or say why none has."""
    from biggan.weights.download import DownloadError

    failures = []
    for place in places:
        folder = downloads_folder(model, place)
        _LOG.info("downloading %s from %s", model.name, host_of(place))
        try:
            digests = {file.url: fetch_file(file, folder, report) for file in place}
        except DownloadError as error:  # and no other: a full disk is not this place's fault
            reason = error.reason
        else:
            try:
                loaded = read_place(model, kind, place, folder)
            except InputError as error:
                shutil.rmtree(folder)
                reason = str(error).replace(f"{folder}/", "")
            else:
                model_digest = save_network(path, loaded.network, loaded.description)
                _record(digests, {path.name: model_digest})
                shutil.rmtree(folder.parent)
                return []
        _LOG.warning("%s from %s: %s", model.name, host_of(place), reason)
        failures.append(f"{host_of(place)}: {reason}")
    return failures


def fetch_file(file: RemoteFile, folder: Path, report: Report | None = None) -> str:
    """Download a file into a folder, if it is not there; its sha256.

    DownloadError says that the host does not give it, or not the right one.
    """
    from biggan.weights.download import DownloadError, fetch, newest_kaggle_version

    path, url = folder / file.name, file.url
    recorded = _recorded()["files"].get(url)
    expected = file.sha256 or recorded
    if not path.exists():
        if url.startswith(_HUB):
            if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
                raise DownloadError(url, "HF_HUB_OFFLINE is set")
            endpoint = os.environ.get("HF_ENDPOINT") or _HUB
            url = f"{endpoint.rstrip('/')}/{url.removeprefix(_HUB)}"
        if file.is_kaggle_model:
            url = newest_kaggle_version(url)
        try:
            fetch(url, path, sha256=expected, report=report)
        except DownloadError as error:
            if file.sha256 or not recorded or "sha256" not in error.reason:
                raise
            raise DownloadError(
                url, f"{error.reason} (recorded at the first download, in {_lock_file()})"
            ) from None
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if expected and not digest.startswith(expected):  # somebody put it there
        raise DownloadError(url, f"{path} has the sha256 {digest}, not {expected}: delete it")
    return digest


def read_place(model: PublishedModel, kind: Kind, place: Place, folder: Path) -> LoadedModel:
    """The network of a place's files, which are in this folder, with what is known of it.

    It must be the one that the model's name promises.
    """
    from biggan.models import hub_grid, statistics_grid
    from biggan.weights.load import read_network

    loaded = read_network(folder / place[0].name if len(place) == 1 else folder, kind)
    if loaded.kind != kind:
        raise InputError(f"a {loaded.kind}, not the {kind} of {model.name}")
    config = model.config if kind == "generator" else model.discriminator_config
    found = loaded.network.config.to_dict()
    for fact, value in config.to_dict().items():
        if found[fact] != value:
            raise InputError(f"not {model.name}: its {fact} is {found[fact]}")
    grid = statistics_grid(loaded.network) if kind == "generator" else hub_grid(model.rows)
    if grid != hub_grid(model.rows):
        raise InputError(
            f"BatchNorm statistics for {len(grid)} truncations, not for the {model.rows} of "
            f"{model.name}"
        )
    if model.rows:
        return loaded  # as it is: the same model by name and from a file by hand
    description = dataclasses.replace(
        loaded.description,
        source=model.source,
        licence=model.licence,
        class_names=model.class_names or loaded.description.class_names,
    )
    return dataclasses.replace(loaded, description=description)


# --- the record of first downloads ---


def _lock_file() -> Path:
    return cache_dir() / "published-lock.json"


def _recorded() -> dict[str, dict[str, str]]:
    """The sha256 of downloaded files by address, and of converted ones by name."""
    try:
        found = json.loads(_lock_file().read_text(encoding="utf-8"))
        return {part: dict(found[part]) for part in ("files", "models")}
    except FileNotFoundError:
        return {"files": {}, "models": {}}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{_lock_file()} cannot be read: it records the digests of downloads; restore or "
            "delete it"
        ) from None


def _record(files: Mapping[str, str], models: Mapping[str, str]) -> None:
    with exclusive(_lock_file(), "digests"):
        recorded = _recorded()
        recorded["files"].update(files)
        recorded["models"].update(models)
        text = json.dumps(recorded, indent=2, sort_keys=True)
        write_atomically(_lock_file(), f"{text}\n".encode())


def verify_cached() -> dict[str, str]:
    """What each published network in the cache is, by the name of its file.

    "verified": as it was converted; "changed": whole, but not what was converted; "damaged";
    "not recorded": whole, but from before digests were recorded.
    """
    from biggan.weights.load import read_network

    recorded = _recorded()["models"]
    states = {}
    for name in PUBLISHED:
        for kind in ("generator", "discriminator"):
            path = cached_path(name, kind)
            if not path.is_file():
                continue
            try:
                digest = read_network(path, kind).sha256
            except InputError:
                states[path.name] = "damaged"
            else:
                expected = recorded.get(path.name, "")
                right = "verified" if digest == expected else "changed"
                states[path.name] = right if expected else "not recorded"
    return states
