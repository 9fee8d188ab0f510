"""What images are compared with: a dataset, or the statistics of one."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import torch

from biggan.atomic_write import make_folder
from biggan.classes import is_imagenet, wordnet_ids
from biggan.data import DIGITS, ImageDataset, load_dataset
from biggan.data.dataset import Reading
from biggan.data.decoding import open_image
from biggan.data.packed import is_packed, read_header
from biggan.data.sources import Source, containers, open_source
from biggan.errors import InputError
from biggan.evaluation.features import FeatureCollection
from biggan.evaluation.result import versions
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.statistics import FeatureSource, FeatureStatistics, load_statistics

_SAMPLED = 100  # images whose size is looked up
_STATISTICS = (".npz", ".safetensors")


@dataclass(frozen=True)
class ReferenceStatistics:
    """The statistics of a dataset's features; `source` is the file's name."""

    statistics: FeatureStatistics = field(repr=False)
    source: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over mean and covariance."""
        digest = hashlib.sha256(self.statistics.mean.numpy().data)
        digest.update(self.statistics.covariance().contiguous().numpy().data)
        return digest.hexdigest()


Reference = ImageDataset | ReferenceStatistics


def open_reference(
    path: str | Path,
    resolution: int,
    channels: int,
    *,
    with_classes: bool,
    may_enlarge: bool = False,
    **reading: Unpack[Reading],
) -> Reference:
    """Open a file of statistics, or a dataset as `open_dataset` does."""
    file = Path(path).expanduser()
    if is_statistics(file):
        return ReferenceStatistics(load_statistics(file), file.name)
    return open_dataset(
        path, resolution, channels, with_classes=with_classes, may_enlarge=may_enlarge, **reading
    )


def open_images(
    images: str,
    data: str,
    resolution: int | None,
    channels: int,
    *,
    with_classes: bool,
    **reading: Unpack[Reading],
) -> tuple[ImageDataset, Reference]:
    """Open images to be evaluated and their reference, at the images' own resolution if None."""
    if is_statistics(images):
        raise InputError(
            f"{images} contains statistics, but images to evaluate (--images) must be images"
        )
    size = common_resolution(images) if resolution is None else resolution
    classes, larger = with_classes, resolution is not None
    return (
        open_dataset(images, size, channels, with_classes=classes, may_enlarge=larger),
        open_reference(data, size, channels, with_classes=classes, may_enlarge=larger, **reading),
    )


def open_dataset(
    path: str | Path,
    resolution: int,
    channels: int,
    *,
    with_classes: bool,
    may_enlarge: bool,
    **reading: Unpack[Reading],
) -> ImageDataset:
    """Open a folder, an archive, a packed dataset or the built-in "digits".

    Without classes any folder of images will do. `may_enlarge` allows smaller images.

    Raises:
        InputError: See `load_dataset`; or all images are smaller.
    """
    file = Path(path).expanduser()
    if path != DIGITS and not is_packed(file) and not may_enlarge:
        _check_large_enough(file, resolution)
    if not with_classes:
        reading |= {"unconditional": True, "label_column": None}
    try:
        return load_dataset(path, resolution, channels, **reading)
    except InputError as error:
        if with_classes:
            raise InputError(f"{error}. Without classes omit intra-fid and cas") from None
        raise


def _check_large_enough(path: Path, resolution: int) -> None:
    """Refuse images that are all smaller, by a sample; shards are only read in order."""
    if containers(path):
        return
    with open_source(path, unconditional=True) as source:
        sampled = range(0, len(source), max(1, len(source) // _SAMPLED))
        sides = {min(size) for size in _sizes(source, sampled)}
    if sides and max(sides) < resolution:
        raise InputError(
            f"the images of {path} have at most {max(sides)} pixels a side, but the comparison is "
            f"at {resolution}: enlarged images are blurred and give meaningless figures. Use "
            f"images of {resolution} pixels or more"
        )


def _sizes(source: Source, positions: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Width and height of images, without those that cannot be read."""
    for position in positions:
        try:
            with open_image(source.read(position)) as image:
                yield image.size
        except Exception:  # noqa: S112  # reading the images will complain
            continue


def common_resolution(path: str | Path) -> int:
    """The side of the square images in a place, in pixels.

    Raises:
        InputError: They are not square or differ in size.
    """
    if path == DIGITS:
        raise InputError(
            "give the resolution (--resolution), because digits have no size of their own"
        )
    path = Path(path).expanduser()
    if is_packed(path):
        return read_header(path).resolution
    with open_source(path, unconditional=True) as source:
        sizes = Counter(_sizes(source, range(len(source))))
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        if width == height:
            return width
    found = ", ".join(f"{n} of {w}x{h}" for (w, h), n in sizes.most_common(3)) or "none readable"
    raise InputError(
        f"the images of {path} are not all squares of one size ({found}): give the size to crop "
        "and scale them to (--resolution)"
    )


def in_order_of(reference: Reference, class_names: Sequence[str]) -> Reference:
    """Number a dataset's classes as a model does that has the same ones in another order.

    Folders that are named by ImageNet's WordNet ids are the classes of ImageNet's names. A
    reference without the same classes is returned as it is.
    """
    if not isinstance(reference, ImageDataset):
        return reference
    theirs, ours = (
        wordnet_ids() if is_imagenet(names) else tuple(names)
        for names in (reference.class_names, class_names)
    )
    if sorted(theirs) != sorted(ours) or len(set(ours)) < len(ours):
        return reference
    number = torch.tensor([ours.index(name) for name in theirs], dtype=torch.int64)
    fingerprint = reference.fingerprint
    if theirs != ours:
        fingerprint = hashlib.sha256(json.dumps([fingerprint, ours]).encode()).hexdigest()
    return dataclasses.replace(
        reference,
        labels=number[reference.labels] if ours else reference.labels,
        class_names=tuple(class_names),
        recorded_fingerprint=fingerprint,
    )


def is_statistics(path: str | Path) -> bool:
    """Whether a path means a file of statistics, by its suffix; a .npz file may hold images."""
    file = Path(path)
    if file.suffix.lower() not in _STATISTICS or file.is_dir():
        return False
    if not zipfile.is_zipfile(file):
        return True
    with zipfile.ZipFile(file) as arrays:
        return "mu.npy" in arrays.namelist()


def check_statistics_name(path: Path) -> None:
    """Refuse a name that would not be recognized as a file of statistics."""
    if path.suffix.lower() not in _STATISTICS:
        raise InputError(
            f"{path} must end in .safetensors, or in .npz for the mean and covariance alone, for "
            "other software"
        )


def save_statistics(
    features: FeatureCollection, dataset: ImageDataset, extractor: FeatureExtractor, path: Path
) -> None:
    """Write the statistics of a dataset's features, to be compared with instead of the images.

    A .safetensors file has provenance, an .npz file the mean and covariance alone.
    """
    check_statistics_name(path)
    make_folder(path.parent)
    statistics = FeatureStatistics.from_state_dict(
        features.statistics.state_dict(),
        FeatureSource(extractor.name, extractor.sha256, extractor.resize),
        {"data": describe_reference(dataset), "versions": versions()},
    )
    if path.suffix.lower() == ".npz":
        statistics.save_npz(path)
    else:
        statistics.save(path)


def size_of(reference: Reference) -> dict[str, int | None]:
    """How many images there are, their resolution and channels; None where it is unknown."""
    if isinstance(reference, ImageDataset):
        num, channels, resolution, _ = reference.images.shape
        return {"num": num, "resolution": resolution, "channels": channels}
    data = reference.statistics.provenance.get("data")
    data = data if isinstance(data, dict) else {}
    count = reference.statistics.count
    return {"num": count, "resolution": data.get("resolution"), "channels": data.get("channels")}


def describe_reference(reference: Reference) -> dict[str, Any]:
    """What an evaluation says of images or statistics that it was given."""
    about = {"name": reference.source, "fingerprint": reference.fingerprint, **size_of(reference)}
    if isinstance(reference, ImageDataset):
        return about | {"skipped": len(reference.skipped)}
    del about["channels"]
    return about | {"statistics": reference.statistics.provenance or "of an unknown extractor"}
