"""The packed form of a dataset: pixels at the training resolution, mapped into memory.

A folder with three files, all of them readable without this package:

    images.bin      uint8, N x C x R x R, nothing else: numpy.memmap opens it
    labels.npy      int64, N
    dataset.json    shape, class names, where it came from, what was skipped, checksums

Opening reads none of the pixels: only the sizes of the files, the labels and dataset.json, which
has a checksum of its own. `verify` reads everything.

While a set is packed, the pixels are in a hidden folder beside the result, each image at its place,
with a journal of every chunk of images that is decoded, and its checksum. The next start, after
kill -9 or a power cut, trusts a line only where the pixels still have that checksum. Last the good
images move over the places of the corrupt ones, and the result appears in one rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biggan.atomic_write import make_folder, write_atomically
from biggan.data.dataset import DIGITS, ImageDataset, Reading, Resize, check_form, fingerprint_start
from biggan.data.decoding import WHITE
from biggan.data.folders import raise_disk_fault
from biggan.data.sources import (
    Findings,
    Source,
    check_findings,
    decode,
    in_parallel,
    open_source,
    progress_bar,
)
from biggan.errors import InputError, quoted
from biggan.locks import locked

logger = logging.getLogger("biggan.data")

IMAGES, LABELS, HEADER = "images.bin", "labels.npy", "dataset.json"
FORMAT = "biggan packed images, version 1"
_PIECE = 2**24  # bytes of images.bin for one checksum: how finely damage is located
_NAMED = 3  # damaged pieces that a message names

_CHUNK_BYTES = 2**22  # of pixels in a chunk
_MOST_IN_CHUNK = 256
_MOVE_BYTES = 2**24  # of pixels that are moved at a time
_PLAN, _JOURNAL, _LOCK = "plan.json", "journal.jsonl", "lock"
_VERSION = 5  # of the journal: what was begun with another one begins anew


@dataclass(frozen=True)
class PackedHeader:
    """The contents of dataset.json."""

    num_images: int
    image_channels: int
    resolution: int
    class_names: tuple[str, ...]
    histogram: tuple[int, ...]  # images per class
    source: str  # the basename of what it was packed from
    skipped: tuple[str, ...]  # corrupt files that were left out
    fingerprint: str  # that of `ImageDataset`
    signature: str  # of the source's files and the settings: shows that the same is packed again
    labels_sha256: str
    piece_bytes: int  # images.bin has a checksum for every so many bytes
    images_sha256: tuple[str, ...]
    resize: Resize = "crop"
    label_column: str | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the images: (N, C, R, R)."""
        return (self.num_images, self.image_channels, self.resolution, self.resolution)

    @property
    def num_bytes(self) -> int:
        """Size of the images."""
        return math.prod(self.shape)


def is_packed(path: Path) -> bool:
    """Whether a path is a packed dataset, whole or damaged."""
    return (path / HEADER).is_file() and ((path / IMAGES).exists() or (path / LABELS).exists())


def read_header(path: Path) -> PackedHeader:
    """The header of a packed dataset, checked against the sizes of its files."""
    if not is_packed(path):
        raise InputError(f"{path} is not a packed dataset: create one with `biggan data pack`")
    try:
        values = json.loads((path / HEADER).read_text(encoding="utf-8", errors="surrogateescape"))
        stated, kind = values.pop("sha256"), values.pop("format")
        if kind != FORMAT:
            raise InputError(
                f"{path} is {quoted(kind)}, and this version of biggan reads {FORMAT!r}"
            )
        if stated != _digest(values):
            raise ValueError
        names = {field.name for field in fields(PackedHeader)} & values.keys()
        frozen: dict[str, Any] = {
            name: tuple(v) if isinstance(v := values[name], list) else v for name in names
        }
        header = PackedHeader(**frozen)
        labels_size = len(_labels_file(np.zeros(header.num_images, np.int64)))
        expected = {path / IMAGES: header.num_bytes, path / LABELS: labels_size}
        sizes = {file: file.stat().st_size for file in expected}
    except OSError as error:
        raise InputError(
            f"cannot read {error.filename}: {error.strerror}; pack the dataset again"
        ) from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path / HEADER} was changed or is damaged: copy the dataset again, or pack it again"
        ) from error
    for file, size in sizes.items():
        if size != expected[file]:
            fault = "truncated" if size < expected[file] else "too long"
            raise InputError(
                f"{file} is {fault}: {size} bytes instead of {expected[file]}; copy the dataset "
                "again, or pack it again"
            )
    return header


def load_packed(
    path: Path, shape: tuple[int, int, int], reading: Reading, *, strict: bool
) -> ImageDataset:
    """A packed dataset of images (C, R, R), mapped into memory; see `load_dataset`.

    The images are for reading only: writing into them ends the process.
    """
    header = read_header(path)
    (channels, resolution, _), unconditional = shape, reading.get("unconditional", False)
    resize, label_column = reading.get("resize", "crop"), reading.get("label_column")
    if resize not in ("crop", header.resize) or label_column not in (None, header.label_column):
        raise InputError(
            f"{path} is packed already: give --resize and --label-column to `data pack`"
        )
    if (header.resolution, header.image_channels) != (resolution, channels):
        raise InputError(
            f"{path} was packed at {header.resolution} px with {header.image_channels} channels, "
            f"and {resolution} px with {channels} are needed: pack it again, `biggan data pack "
            f"SOURCE OUT --resolution {resolution} --channels {channels}`"
        )
    if strict and header.skipped:
        raise InputError(
            f"{path} was packed without {len(header.skipped)} corrupt images, such as "
            f"{header.skipped[0]}"
        )
    if not header.class_names and not unconditional:
        raise InputError(
            f"{path} was packed without classes: pack it again without --unconditional, or train "
            "without classes (--set unconditional=true)"
        )
    labels = _read_labels(path, header)
    pixels = np.memmap(path / IMAGES, np.uint8, "r", shape=header.shape)
    with warnings.catch_warnings():
        # PyTorch has no read-only tensors and warns of that. A private mapping, which could be
        # written, is refused by Linux where it is larger than the memory.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        images = torch.from_numpy(pixels)
    if unconditional and header.class_names:
        return ImageDataset(images, torch.zeros_like(labels), (), header.source, header.skipped)
    return ImageDataset(
        images, labels, header.class_names, header.source, header.skipped, header.fingerprint
    )


def _read_labels(path: Path, header: PackedHeader) -> Tensor:
    """The labels of a packed dataset, int64 (N,)."""
    data = (path / LABELS).read_bytes()
    if _sha256(data) != header.labels_sha256:
        raise InputError(f"{path / LABELS} is damaged: copy the dataset again, or pack it again")
    return torch.from_numpy(np.load(io.BytesIO(data), allow_pickle=False))


def verify(path: Path) -> PackedHeader:
    """Read all of a packed dataset; an InputError says where it is damaged."""
    header = read_header(path)
    _read_labels(path, header)
    piece, image_bytes = header.piece_bytes, math.prod(header.shape[1:])
    starts = range(0, header.num_bytes, piece)
    found = [checksum for _, checksum in _pieces(path / IMAGES)]
    damaged = [
        f"{start // image_bytes} to {(min(start + piece, header.num_bytes) - 1) // image_bytes}"
        for start, checksum, stated in zip(starts, found, header.images_sha256, strict=True)
        if checksum != stated
    ]
    if damaged:
        more = f" and {len(damaged) - _NAMED} more ranges" if len(damaged) > _NAMED else ""
        raise InputError(
            f"{path / IMAGES} is damaged, somewhere in the images {', '.join(damaged[:_NAMED])}"
            f"{more}: pack it again"
        )
    return header


def _pieces(file: Path, progress: bool = True) -> Iterator[tuple[bytes, str]]:
    """Read images.bin in pieces, each with its checksum."""

    def read(start: int) -> tuple[bytes, str]:
        with file.open("rb") as opened:
            opened.seek(start)
            data = opened.read(_PIECE)
        return data, _sha256(data)

    size = file.stat().st_size
    with progress_bar(size, "checksums", progress, unit="B", unit_scale=True) as bar:
        for data, checksum in in_parallel(read, range(0, size, _PIECE), None):
            yield data, checksum
            bar.update(len(data))


def _labels_file(labels: NDArray[np.int64]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, labels, allow_pickle=False)
    return buffer.getvalue()


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return _sha256(text.encode())


def pack_dataset(
    source: str | Path,
    out: str | Path,
    resolution: int,
    image_channels: int = 3,
    *,
    strict: bool = False,
    workers: int | None = None,
    progress: bool = True,
    **reading: Unpack[Reading],
) -> PackedHeader:
    """Pack a dataset: decode every image once, to be mapped into memory from then on.

    The arguments are those of `load_dataset`, but for `out`, the folder to make. An interrupted
    packing of the same is continued; where it is finished, nothing is done.

    Raises:
        InputError: Something about the source or the place must be corrected; the message says
            what.
    """
    check_form(resolution, image_channels)
    path, out = Path(source).expanduser(), Path(out).expanduser().absolute()
    if source == DIGITS and not path.exists():
        raise InputError(f"the built-in {DIGITS} need no packing: use `--data {DIGITS}`")
    if is_packed(path):
        raise InputError(f"{path} is packed already: use its source")
    with open_source(path, **reading) as opened:
        signature = _signature(opened, resolution, image_channels)
        finished = _finished(out, path.name, signature, strict=strict)
        if finished is not None:
            return finished
        if path.is_dir() and path.resolve() in out.resolve().parents:
            raise InputError(
                f"{out} is inside {path}, among its class folders: choose another name"
            )
        folder = out.with_name(f".{out.name}.packing")
        work = _Work(opened, folder, image_channels, resolution, progress)
        work.check_room()
        make_folder(work.folder)
        busy = f"another process is packing {out}: wait for it, or end it"
        try:
            with locked(work.folder / _LOCK, busy):
                if not is_packed(work.folder):
                    work.begin(path, signature)
                    findings = work.decode(workers)
                    check_findings(path, opened, findings, strict=strict)
                    work.finish(findings, signature, reading.get("label_column"))
                header = read_header(work.folder)
                for file in work.folder.iterdir():
                    if file.name not in (IMAGES, LABELS, HEADER):
                        file.unlink()
                if out.is_dir():
                    out.rmdir()  # an empty folder may be named as the place
                work.folder.rename(out)
        except OSError as error:
            raise InputError(
                f"cannot write {out}: {error.strerror or error}; finished images are kept; the "
                "same command continues"
            ) from error
    return header


def _signature(source: Source, resolution: int, channels: int) -> str:
    """A digest of the settings, and of names, sizes and dates: changes when the result might."""
    how = () if source.resize == "crop" else (source.resize,)
    digest = hashlib.sha256(repr((resolution, channels, source.class_names, *how)).encode())
    for member, label in zip(source.members, source.labels, strict=True):
        digest.update(f"{member}\0{label}\0".encode("utf-8", "surrogateescape"))
    for file in source.files:
        try:
            about = file.stat()
        except OSError as error:
            if not file.is_symlink():
                raise_disk_fault(file, error)
            digest.update(b"missing ")  # a broken link is skipped as corrupt when it is read
            continue
        digest.update(f"{about.st_size} {about.st_mtime_ns} ".encode())
    return digest.hexdigest()


def _finished(out: Path, source: str, signature: str, *, strict: bool) -> PackedHeader | None:
    """The header of what is there, if it is what is asked for; None if nothing is there."""
    if not out.exists() and not out.is_symlink():
        return None
    if not out.is_dir():
        raise InputError(f"{out} exists and is not a folder: choose another name")
    if not is_packed(out):
        if any(out.iterdir()):
            raise InputError(f"{out} exists and is not a packed dataset: choose another name")
        return None
    header = read_header(out)
    if header.signature != signature:
        raise InputError(
            f"{out} was packed from another source, before {source} changed, or with other "
            "settings: choose another folder, or delete it first"
        )
    if strict and header.skipped:
        raise InputError(
            f"{out} was packed without --strict: {len(header.skipped)} corrupt images were "
            f"skipped, such as {header.skipped[0]}"
        )
    return header


@dataclass
class _Work:
    """A packing under way: what is being packed, and the folder that it is in."""

    source: Source
    folder: Path
    channels: int
    resolution: int
    progress: bool

    def __post_init__(self) -> None:
        self.image_bytes = self.channels * self.resolution**2
        # Positions in reading order, divided in the same way on every machine.
        size = max(1, min(_MOST_IN_CHUNK, _CHUNK_BYTES // self.image_bytes))
        self.chunks = np.split(self.source.order, range(size, len(self.source), size))
        self.images, self.journal = self.folder / IMAGES, self.folder / _JOURNAL

    def check_room(self) -> None:
        """Refuse what cannot fit before any work is done for it."""
        if self.images.exists():
            return  # how much a packing under way still needs is unknown: writing will show
        needed = len(self.source) * self.image_bytes
        place = next(folder for folder in self.folder.parents if folder.is_dir())
        free = shutil.disk_usage(place).free
        if needed > free:
            raise InputError(
                f"{len(self.source)} images at {self.resolution} px need {needed / 2**20:.0f} "
                f"MiB in {place}, and {free / 2**20:.0f} MiB are free: free some space, or choose "
                "another disk or a smaller resolution"
            )

    def begin(self, path: Path, signature: str) -> None:
        """Prepare the folder, or make sure that what it holds is the beginning of the same.

        If the source has changed since, such as by deleting corrupt images, all begins anew.
        """
        plan = self.folder / _PLAN
        asked = f"{path.resolve()} {self.resolution} {self.channels}"
        signature = f"{signature} {_VERSION}"
        if plan.exists():
            begun, _, what = plan.read_text("utf-8", "surrogateescape").partition("\n")
            if begun == signature:
                return
            if what != asked:
                raise InputError(
                    f"{self.folder} contains an unfinished packing of other data: delete that "
                    "folder, or choose another name"
                )
            logger.warning("%s has changed since its packing started: starting again", path)
            for old in self.folder.iterdir():
                if not old.name.startswith(_LOCK):
                    old.unlink()
        with self.images.open("wb") as file:
            file.truncate(len(self.source) * self.image_bytes)
        write_atomically(plan, f"{signature}\n{asked}".encode("utf-8", "surrogateescape"))

    def decode(self, workers: int | None, white: int | None = None) -> Findings:
        """Decode what is not decoded yet.

        Where all images together show that another level is white, all are decoded again with it.
        """
        noted: dict[int, Any] = {}  # by chunk: its level of white, its checksum, what was found
        if self.journal.exists():
            for line in self.journal.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):  # it was cut off in the middle
                    number, *about = json.loads(line)
                    noted[number] = about
        white = white or min((level for level, *_ in noted.values()), default=WHITE)
        findings, left, done = Findings(white), [], 0
        with self.images.open("r+b") as pixels, self.journal.open("a", encoding="utf-8") as lines:
            for number, chunk in enumerate(self.chunks):
                level, checksum, corrupt, levels = noted.get(number, (0, "", (), ()))
                if level == white and _sha256(self._read(pixels, chunk)) == checksum:
                    findings.update(Findings(white, dict(corrupt), dict(levels)))
                    done += len(chunk)
                else:
                    left.append((number, chunk))
            total, chunks = len(self.source), [chunk for _, chunk in left]
            if done:
                logger.info("continuing: %d of %d images are done", done, total)
            bar = progress_bar(total, "packing", self.progress, unit=" images", initial=done)
            pieces = decode(self.source, chunks, self.channels, self.resolution, white, workers)
            with bar, contextlib.closing(pieces) as decoded:
                for (number, chunk), (images, found) in zip(left, decoded, strict=True):
                    cuts = np.flatnonzero(np.diff(chunk) != 1) + 1  # between them, adjacent images
                    for run, part in zip(
                        np.split(chunk, cuts), np.split(images, cuts), strict=True
                    ):
                        pixels.seek(int(run[0]) * self.image_bytes)
                        pixels.write(part.data)
                    pixels.flush()  # so that a full disk is reported here
                    # After the pixels: a line that is there without them fails its checksum.
                    about = [list(found.corrupt.items()), list(found.levels.items())]
                    _note(lines, [number, white, _sha256(images.data), *about])
                    findings.update(found)
                    bar.update(len(chunk))
        if white == WHITE and findings.range_used < WHITE:
            return self.decode(workers, findings.range_used)
        return findings

    def _read(self, pixels: IO[bytes], positions: NDArray[np.int64]) -> bytes:
        images = []
        for position in positions.tolist():
            pixels.seek(position * self.image_bytes)
            images.append(pixels.read(self.image_bytes))
        return b"".join(images)

    def finish(self, findings: Findings, signature: str, label_column: str | None) -> None:
        """Leave out the corrupt images, write the labels, and last dataset.json."""
        corrupt = sorted(findings.corrupt)
        good = np.delete(np.arange(len(self.source)), corrupt)
        if corrupt:  # the good images move over their places
            # After a kill in between, chunks that have moved fail their checksums.
            block = max(1, _MOVE_BYTES // self.image_bytes)
            with self.images.open("r+b") as pixels:
                for place in range(corrupt[0], len(good), block):
                    moved = self._read(pixels, good[place : place + block])
                    pixels.seek(place * self.image_bytes)
                    pixels.write(moved)
                pixels.truncate(len(good) * self.image_bytes)
        class_names = self.source.class_names
        labels = np.array(self.source.labels, np.int64)[good]
        shape = (len(labels), self.channels, self.resolution, self.resolution)
        data = _labels_file(labels)
        (self.folder / LABELS).write_bytes(data)
        for file in (self.folder / LABELS, self.images):
            with file.open("r+b") as opened:
                os.fsync(opened.fileno())
        fingerprint, checksums = fingerprint_start(shape, class_names), []
        for piece, checksum in _pieces(self.images, self.progress):
            fingerprint.update(piece)
            checksums.append(checksum)
        fingerprint.update(labels.data)
        histogram = np.bincount(labels, minlength=len(class_names))[: len(class_names)]
        header = PackedHeader(
            num_images=len(labels),
            image_channels=self.channels,
            resolution=self.resolution,
            class_names=class_names,
            histogram=tuple(histogram.tolist()),
            source=self.source.name,
            skipped=tuple(self.source.members[position] for position in corrupt),
            fingerprint=fingerprint.hexdigest(),
            signature=signature,
            labels_sha256=_sha256(data),
            piece_bytes=min(_PIECE, self.images.stat().st_size),
            images_sha256=tuple(checksums),
            resize=self.source.resize,
            label_column=label_column,
        )
        values = asdict(header)
        values = {"format": FORMAT, **values, "sha256": _digest(values)}
        text = json.dumps(values, indent=1, ensure_ascii=False)
        write_atomically(self.folder / HEADER, text.encode("utf-8", "surrogateescape"))


def _note(lines: IO[str], about: list[Any]) -> None:
    # The line end comes first: a line that was cut off does not damage the next one.
    lines.write("\n" + json.dumps(about))
    lines.flush()
