"""What can be said of a dataset without decoding it: what a plan of a run needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from biggan.data.dataset import DIGITS, ImageDataset, check_memory, load_dataset
from biggan.data.decoding import MODES
from biggan.data.packed import is_packed
from biggan.data.reading import open_source, warn_of_other_files
from biggan.errors import InputError


@dataclass(frozen=True)
class DatasetOutline:
    """A dataset before it is loaded.

    Attributes:
        num_images: Images in it. Where they are not decoded, corrupt ones are among them, which
            loading leaves out.
        class_names: The classes in order; empty for an unconditional dataset.
        source: A name for people, without the way to it.
        fingerprint: As `ImageDataset` has it; None where only the pixels could tell.
        is_mapped: Whether its images stay on the disk and are mapped into memory.
    """

    num_images: int
    class_names: tuple[str, ...]
    source: str
    fingerprint: str | None
    is_mapped: bool

    def __len__(self) -> int:
        return self.num_images

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 for an unconditional dataset."""
        return len(self.class_names)


def outline_dataset(
    source: str | Path,
    resolution: int,
    image_channels: int,
    *,
    strict: bool = False,
    unconditional: bool = False,
) -> DatasetOutline:
    """Look at a dataset: list its files, or read the header of a packed one.

    Args:
        source: As for `load_dataset`, like all that follows.
        resolution: The side of the images in pixels.
        image_channels: 1 for grey, 3 for colour.
        strict: Refuse corrupt images; to find them, everything is decoded after all.
        unconditional: Ignore classes.

    Raises:
        InputError: What `load_dataset` would refuse; but corrupt images only if `strict`.
    """
    if image_channels not in MODES:
        raise InputError(f"images have 1 channel (grey) or 3 (colour), not {image_channels}")
    path = Path(source).expanduser()
    is_mapped = source != DIGITS and is_packed(path)
    if strict or is_mapped or source == DIGITS:
        dataset = load_dataset(
            source, resolution, image_channels, strict=strict, unconditional=unconditional
        )
        return DatasetOutline(
            len(dataset),
            dataset.class_names,
            dataset.source,
            _cheap_fingerprint(dataset, is_mapped=is_mapped),
            is_mapped,
        )
    with open_source(path, unconditional=unconditional) as opened:
        layout = opened.layout
        warn_of_other_files(opened.files.left_out)
    check_memory(path, (len(layout.members), image_channels, resolution, resolution), None)
    return DatasetOutline(
        len(layout.members), layout.class_names, path.resolve().name, None, is_mapped=False
    )


def _cheap_fingerprint(dataset: ImageDataset, *, is_mapped: bool) -> str | None:
    """That of a packed dataset as it is recorded; what is in memory is digested."""
    return dataset.recorded_fingerprint if is_mapped else dataset.fingerprint
