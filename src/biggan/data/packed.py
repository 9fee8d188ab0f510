"""The packed form of a dataset: pixels at the training resolution, mapped into memory.

A folder with three files, all of them readable without this package:

    images.bin      uint8, N x C x R x R, nothing else: numpy.memmap opens it
    labels.npy      int64, N
    dataset.json    shape, class names, where it came from, what was skipped, checksums

Opening reads none of the pixels: only the sizes of the files, the labels and dataset.json, which
has a checksum of its own. `verify` reads everything.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from biggan.atomic_write import write_atomically
from biggan.data.reading import in_parallel
from biggan.errors import InputError, quoted

IMAGES, LABELS, HEADER = "images.bin", "labels.npy", "dataset.json"
FORMAT = "biggan packed images, version 1"
_PIECE = 2**24  # bytes that have one checksum: what is damaged is named this finely
_NAMED = 3  # damaged pieces that a message names


@dataclass(frozen=True)
class PackedHeader:
    """What dataset.json says.

    Attributes:
        num_images: N.
        image_channels: 1 for grey, 3 for colour.
        resolution: The side in pixels.
        class_names: The classes in order; empty for a dataset without classes.
        histogram: Images per class.
        source: A name for people: of what it was packed from, without the way to it.
        skipped: Corrupt files that were left out, as relative paths.
        fingerprint: sha256 over shape, class names, pixels and labels, as `ImageDataset` has it.
        signature: Of the source and its files' sizes and dates, and of the settings: tells whether
            the same is being packed again.
        labels_sha256: Checksum of labels.npy.
        piece_bytes: images.bin has a checksum for every so many bytes.
        images_sha256: These checksums in order.
    """

    num_images: int
    image_channels: int
    resolution: int
    class_names: tuple[str, ...]
    histogram: tuple[int, ...]
    source: str
    skipped: tuple[str, ...]
    fingerprint: str
    signature: str
    labels_sha256: str
    piece_bytes: int
    images_sha256: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the images: (N, C, R, R)."""
        return (self.num_images, self.image_channels, self.resolution, self.resolution)

    @property
    def num_bytes(self) -> int:
        """Size of the images."""
        return int(np.prod(self.shape, dtype=np.int64))


def is_packed(path: Path) -> bool:
    """Whether a path is a packed dataset, whole or damaged."""
    return (path / HEADER).is_file() and ((path / IMAGES).exists() or (path / LABELS).exists())


def read_header(path: Path) -> PackedHeader:
    """What a packed dataset says of itself, checked against the sizes of its files.

    Args:
        path: The folder.

    Raises:
        InputError: It is no packed dataset, or a damaged one.
    """
    if not is_packed(path):
        raise InputError(f"{path} is no packed dataset: `biggan data pack` makes one")
    try:
        values = json.loads((path / HEADER).read_text(encoding="utf-8", errors="surrogateescape"))
        stated = values.pop("sha256")
        kind = values.pop("format")
        if kind != FORMAT:
            raise InputError(
                f"{path} is {quoted(kind)}, and this version of biggan reads {FORMAT!r}"
            )
        if stated != _header_digest(values):
            raise ValueError
        names = {field.name for field in fields(PackedHeader)}
        header = PackedHeader(**{name: _frozen(values[name]) for name in names})
    except OSError as error:
        raise InputError(f"cannot read {path / HEADER}: {error.strerror}") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path / HEADER} was changed or is damaged: copy the dataset again, or pack it again"
        ) from error
    _check_size(path / IMAGES, header.num_bytes)
    _check_size(path / LABELS, len(_labels_file(np.zeros(header.num_images, np.int64))))
    return header


def write_header(path: Path, header: PackedHeader) -> None:
    """Write dataset.json into a folder."""
    values = asdict(header)
    values = {"format": FORMAT, **values, "sha256": _header_digest(values)}
    text = json.dumps(values, indent=1, ensure_ascii=False)
    write_atomically(path / HEADER, text.encode("utf-8", "surrogateescape"))


def open_images(path: Path, header: PackedHeader) -> Tensor:
    """The images of a packed dataset, mapped into memory and not read.

    Args:
        path: The folder.
        header: What it says of itself.

    Returns:
        uint8 (N, C, R, R), for reading only: writing into it ends the process.
    """
    pixels = np.memmap(path / IMAGES, np.uint8, "r", shape=header.shape)
    with warnings.catch_warnings():
        # Torch knows no read-only tensors and warns of that. A private mapping, which could be
        # written, is refused by Linux where it is larger than the memory.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(pixels)


def read_labels(path: Path, header: PackedHeader) -> Tensor:
    """The labels of a packed dataset, int64 (N,).

    Raises:
        InputError: labels.npy is damaged.
    """
    data = (path / LABELS).read_bytes()
    if hashlib.sha256(data).hexdigest() != header.labels_sha256:
        raise InputError(f"{path / LABELS} is damaged: copy the dataset again, or pack it again")
    return torch.from_numpy(np.load(io.BytesIO(data), allow_pickle=False))


def write_labels(path: Path, labels: NDArray[np.int64]) -> str:
    """Write labels.npy into a folder; its checksum."""
    data = _labels_file(labels)
    (path / LABELS).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def fingerprint_start(shape: tuple[int, ...], class_names: tuple[str, ...]) -> Any:
    """A running sha256 that pixels and then labels are to be fed to: a dataset's fingerprint."""
    return hashlib.sha256(repr((tuple(shape), tuple(class_names))).encode())


def read_pieces(path: Path, progress: str | None) -> Iterator[tuple[bytes, str]]:
    """All of images.bin, piece by piece, with the checksum of each.

    Args:
        path: The folder.
        progress: What the bar says is being done; None for no bar.

    Yields:
        The bytes of a piece and their sha256.
    """
    file = path / IMAGES
    size = file.stat().st_size

    def read(start: int) -> tuple[bytes, str]:
        with file.open("rb") as opened:
            opened.seek(start)
            data = opened.read(_PIECE)
        return data, hashlib.sha256(data).hexdigest()

    bar = tqdm(
        total=size,
        desc=progress,
        unit="B",
        unit_scale=True,
        delay=2,
        disable=None if progress else True,  # None: only on a terminal
    )
    with bar:
        for data, checksum in in_parallel(read, range(0, size, _PIECE), None):
            yield data, checksum
            bar.update(len(data))


def verify(path: Path, *, progress: bool = True) -> PackedHeader:
    """Read all of a packed dataset and compare it with its checksums.

    Args:
        path: The folder.
        progress: Show a bar where it takes over two seconds, on a terminal.

    Returns:
        What it says of itself, which is true.

    Raises:
        InputError: It is damaged; the message says where.
    """
    header = read_header(path)
    labels = read_labels(path, header)
    counts = torch.bincount(labels, minlength=len(header.class_names)).tolist()
    if header.class_names and tuple(counts) != header.histogram:
        raise InputError(f"{path / LABELS} does not fit the class names: pack the dataset again")
    digest = fingerprint_start(header.shape, header.class_names)
    damaged = []
    pieces = read_pieces(path, "verifying" if progress else None)
    for number, ((data, checksum), stated) in enumerate(
        zip(pieces, header.images_sha256, strict=True)
    ):
        digest.update(data)
        if checksum != stated:
            damaged.append(number)
    if damaged:
        raise InputError(f"{path / IMAGES} is damaged: {_places(header, damaged)}; pack it again")
    digest.update(labels.numpy().data)
    if digest.hexdigest() != header.fingerprint:
        raise InputError(f"{path} does not have the fingerprint it states: pack it again")
    return header


def _places(header: PackedHeader, damaged: list[int]) -> str:
    """The images in which damaged pieces lie."""
    size = int(np.prod(header.shape[1:]))
    named = []
    for number in damaged[:_NAMED]:
        first = number * header.piece_bytes // size
        last = min((number + 1) * header.piece_bytes - 1, header.num_images * size - 1) // size
        named.append(f"{first} to {last}")
    more = f" and {len(damaged) - _NAMED} more places" if len(damaged) > _NAMED else ""
    return f"somewhere in the images {', '.join(named)}{more}"


def _check_size(file: Path, expected: int) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}; pack the dataset again") from error
    if size != expected:
        fault = "truncated" if size < expected else "too long"
        raise InputError(
            f"{file} is {fault}: {size} bytes where {expected} belong; copy the dataset again, or "
            "pack it again"
        )


def _labels_file(labels: NDArray[np.int64]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, labels, allow_pickle=False)
    return buffer.getvalue()


def _header_digest(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
