"""The data's side of an evaluation: images, looked at once, or statistics of them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.classes import is_imagenet, wordnet_ids
from biggan.data import ImageDataset, load_dataset
from biggan.data.dataset import DIGITS
from biggan.data.decoding import open_image
from biggan.data.packed import is_packed, read_header
from biggan.data.reading import Source, containers, open_source
from biggan.errors import InputError
from biggan.evaluation.collection import FeatureCollection, Task
from biggan.evaluation.protocol import describe_extractor, versions
from biggan.metrics.extractor import FeatureExtractor
from biggan.metrics.statistics import FeatureSource, FeatureStatistics, load_statistics

_AT_ONCE = 64
_LOOKED_AT = 100  # images, to tell how large all are
_STATISTICS = (".npz", ".safetensors")


@dataclass(frozen=True)
class ReferenceStatistics:
    """Data of which nothing is known but the statistics of their features.

    Attributes:
        statistics: Of all images.
        source: The file's name, for people.
    """

    statistics: FeatureStatistics = field(repr=False)
    source: str

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over mean and covariance."""
        digest = hashlib.sha256(self.statistics.mean.numpy().data)
        digest.update(self.statistics.covariance().contiguous().numpy().data)
        return digest.hexdigest()


Reference = ImageDataset | ReferenceStatistics
"""What images are compared with."""


def open_reference(
    path: str | Path,
    resolution: int,
    channels: int,
    *,
    with_classes: bool,
    may_enlarge: bool = False,
) -> Reference:
    """Open a folder, an archive, a packed dataset, the built-in one, or a file of statistics.

    Args:
        path: Where it is, or the word "digits".
        resolution: To which the images are cropped and scaled, in pixels.
        channels: 1 for grey, 3 for colour.
        with_classes: Whether they are needed; if not, any folder of images will do.
        may_enlarge: Whether all images may be smaller than that.

    Raises:
        InputError: See `load_dataset` and `load_statistics`; or the images are of a smaller
            resolution, and were blurred if they were enlarged.
    """
    file = Path(path).expanduser()
    if is_statistics(file):
        return ReferenceStatistics(load_statistics(file), file.name)
    if path != DIGITS and not is_packed(file) and not may_enlarge:
        _check_large_enough(file, resolution)
    try:
        return load_dataset(path, resolution, channels, unconditional=not with_classes)
    except InputError as error:
        if with_classes:
            raise InputError(f"{error}. Without classes leave intra-fid and cas out") from None
        raise


def _check_large_enough(path: Path, resolution: int) -> None:
    """Refuse images that are all smaller, by a look at some; not in shards, read in order."""
    if containers(path):
        return
    with open_source(path, unconditional=True) as source:
        members = source.layout.members
        some = [members[i] for i in range(0, len(members), max(1, len(members) // _LOOKED_AT))]
        sides = {min(size) for size in _sizes(source, some)}
    if sides and max(sides) < resolution:
        raise InputError(
            f"the images of {path} have at most {max(sides)} pixels a side, and are to be compared "
            f"at {resolution}: enlarged they were blurred, and no figure would mean anything. Name "
            f"images of {resolution} pixels or more"
        )


def _sizes(source: Source, members: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Width and height of images, without those that cannot be read."""
    for member in members:
        try:
            with open_image(source.files.read(member)) as image:
                yield image.size
        except Exception:  # noqa: S112  # of many kinds; reading the images will complain
            continue


def in_order_of(reference: Reference, class_names: Sequence[str]) -> Reference:
    """Number a dataset's classes as a model does that has the same ones in another order.

    Folders are in the order of the alphabet, classes of a model need not be. Folders that are
    called by ImageNet's WordNet ids are the classes of ImageNet's names.

    Args:
        reference: With classes; anything else stays as it is.
        class_names: The model's.

    Returns:
        The reference itself where the classes are not the same.
    """
    if not isinstance(reference, ImageDataset):
        return reference
    theirs, ours = _identities(reference.class_names), _identities(class_names)
    if sorted(theirs) != sorted(ours) or len(set(ours)) < len(ours):
        return reference
    number = torch.tensor([ours.index(name) for name in theirs], dtype=torch.int64)
    fingerprint = reference.fingerprint
    if theirs != ours:
        fingerprint = hashlib.sha256(json.dumps([fingerprint, ours]).encode()).hexdigest()
    return dataclasses.replace(
        reference,
        labels=number[reference.labels] if len(ours) else reference.labels,
        class_names=tuple(class_names),
        recorded_fingerprint=fingerprint,
    )


def _identities(class_names: Sequence[str]) -> tuple[str, ...]:
    """By what classes are the same whoever names them."""
    return wordnet_ids() if is_imagenet(class_names) else tuple(class_names)


def is_statistics(path: str | Path) -> bool:
    """Whether a path means statistics of images, not images: told by how its name ends."""
    file = Path(path)
    return file.suffix.lower() in _STATISTICS and not file.is_dir()


def dataset_task(
    dataset: ImageDataset, extractor: dict[str, Any], what: str, *, per_class: bool = False
) -> Task:
    """Looking at the images of a dataset."""

    def batches(numbers: range) -> Iterator[tuple[int, Tensor]]:
        for start in range(numbers.start, numbers.stop, _AT_ONCE):
            yield start, dataset.images[start : min(start + _AT_ONCE, numbers.stop)]

    about = {
        "fingerprint": dataset.fingerprint,
        "extractor": extractor,
        "biggan": versions()["biggan"],  # another may resize or look otherwise
    }
    return Task(
        total=len(dataset),
        labels=dataset.labels,
        batches=batches,
        provenance=about,
        what=what,
        per_class=per_class,
    )


def save_statistics(
    collection: FeatureCollection, dataset: ImageDataset, extractor: FeatureExtractor, path: Path
) -> None:
    """Write the statistics of a dataset's features, to be compared with instead of the images.

    Args:
        collection: What was kept of all images.
        dataset: The images.
        extractor: Whose features they are.
        path: A .safetensors file of ours, which says all that decides them; or an .npz file of
            mean and covariance alone, for other software.

    Raises:
        InputError: The name ends otherwise, or the file cannot be written.
    """
    check_statistics_name(path)
    about = describe_extractor(extractor)
    statistics = FeatureStatistics.from_state_dict(
        collection.statistics.state_dict(),
        FeatureSource(about["name"], about["sha256"], about["resize"]),
        {"data": describe_dataset(dataset), "versions": versions()},
    )
    if path.suffix.lower() == ".npz":
        statistics.save_npz(path)
    else:
        statistics.save(path)


def check_statistics_name(path: Path) -> None:
    """Refuse a name for a file of statistics that would not be known again as one.

    Raises:
        InputError: It ends otherwise than in .npz or .safetensors.
    """
    if path.suffix.lower() not in _STATISTICS:
        raise InputError(
            f"{path} must end in .safetensors, or in .npz for mean and covariance alone as other "
            "software reads them"
        )


def describe_reference(reference: Reference) -> dict[str, Any]:
    """What an evaluation says of what images were compared with."""
    if isinstance(reference, ImageDataset):
        return describe_dataset(reference)
    statistics = reference.statistics
    return {
        "name": reference.source,
        "fingerprint": reference.fingerprint,
        "num": num_images(reference),
        "resolution": resolution_of(reference),
        "statistics": statistics.provenance or "of an unknown extractor",
    }


def num_images(reference: Reference) -> int | None:
    """How many images there are; None where statistics do not say."""
    if isinstance(reference, ImageDataset):
        return len(reference)
    return reference.statistics.count


def resolution_of(reference: Reference) -> int | None:
    """The side of the images in pixels; None where statistics do not say."""
    if isinstance(reference, ImageDataset):
        return reference.images.shape[-1]
    return _recorded(reference, "resolution")


def channels_of(reference: Reference) -> int | None:
    """1 for grey, 3 for colour; None where statistics do not say."""
    if isinstance(reference, ImageDataset):
        return reference.images.shape[1]
    return _recorded(reference, "channels")


def _recorded(reference: ReferenceStatistics, what: str) -> int | None:
    about = reference.statistics.provenance.get("data")
    return about.get(what) if isinstance(about, dict) else None


def describe_dataset(dataset: ImageDataset) -> dict[str, Any]:
    """What an evaluation says of images that it was given."""
    return {
        "name": dataset.source,
        "fingerprint": dataset.fingerprint,
        "num": len(dataset),
        "resolution": dataset.images.shape[-1],
        "channels": dataset.images.shape[1],
        "skipped": len(dataset.skipped),
    }


def common_resolution(path: str | Path) -> int:
    """The side of the square images in a place, in pixels.

    Raises:
        InputError: They are not square or differ in size: somebody has to say what to do.
    """
    if path == DIGITS:
        raise InputError("digits are drawn at any size: say with --resolution at which")
    path = Path(path).expanduser()
    if is_packed(path):
        return read_header(path).resolution
    with open_source(path, unconditional=True) as source:
        sizes = Counter(_sizes(source, source.layout.members))
    if len(sizes) == 1:
        width, height = next(iter(sizes))
        if width == height:
            return width
    found = ", ".join(f"{n} of {w}x{h}" for (w, h), n in sizes.most_common(3)) or "none readable"
    raise InputError(
        f"the images of {path} are not all squares of one size ({found}): say with --resolution "
        "to which size they shall be cropped and scaled"
    )
