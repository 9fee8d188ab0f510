"""Making a packed dataset, in parallel, so that nothing that was done is lost.

The work lies in a hidden folder beside the result: the pixels, each image at its place, and a
journal with a line for every chunk of images that is decoded, with its checksum. Whoever starts
again, after kill -9 or a power cut, believes a line of the journal only where the pixels still have
that checksum. The result appears in one rename.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from biggan.atomic_write import make_folder, write_atomically
from biggan.data.dataset import DIGITS
from biggan.data.decoding import MODES, WHITE, strict_pillow
from biggan.data.packed import (
    HEADER,
    IMAGES,
    LABELS,
    PackedHeader,
    fingerprint_start,
    is_packed,
    read_header,
    read_pieces,
    write_header,
    write_labels,
)
from biggan.data.reading import (
    Findings,
    Source,
    check_findings,
    decode_chunk,
    in_parallel,
    open_source,
)
from biggan.data.sources import raise_disk_fault
from biggan.errors import InputError
from biggan.locks import locked

logger = logging.getLogger("biggan.data")

_CHUNK_BYTES = 2**22  # of pixels that one line of the journal stands for
_MOST_IN_CHUNK = 256
_MOVE_BYTES = 2**24  # of pixels that are moved at a time
_PLAN, _JOURNAL, _LOCK, _MOVING = "plan.json", "journal.jsonl", "lock", "moving-"
_ALL_DECODED, _WHITE = "all decoded", "white"
_VERSION = 2  # of the journal: what was begun with another one begins anew


@dataclass(frozen=True)
class _Work:
    """A packing under way: what is being packed, and the folder it lies in."""

    source: Source
    folder: Path
    channels: int
    resolution: int
    progress: bool

    @property
    def image_bytes(self) -> int:
        return self.channels * self.resolution**2

    @property
    def chunks(self) -> list[NDArray[np.int64]]:
        """Positions in the layout, in reading order: the same cuts on every machine."""
        size = max(1, min(_MOST_IN_CHUNK, _CHUNK_BYTES // self.image_bytes))
        order = self.source.order
        return [order[start : start + size] for start in range(0, len(order), size)]


def pack_dataset(
    source: str | Path,
    out: str | Path,
    resolution: int,
    image_channels: int = 3,
    *,
    unconditional: bool = False,
    strict: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> PackedHeader:
    """Pack a dataset: decode every image once, to be mapped into memory ever after.

    Args:
        source: A folder of class folders, a .zip of one, parquet files or WebDataset shards.
        out: The folder to make. Where an interrupted packing of the same lies beside it, that is
            finished; where it is finished, nothing is done.
        resolution: The side of the images in pixels.
        image_channels: 1 for grey, 3 for colour.
        unconditional: Ignore classes.
        strict: Refuse corrupt images; without it they are left out with one warning.
        workers: Decoding threads; one per processor by default.
        progress: Show bars where it takes over two seconds, on a terminal.

    Returns:
        What the packed dataset says of itself.

    Raises:
        InputError: Something about the source or the place must be mended; the message says what.
    """
    if image_channels not in MODES:
        raise InputError(f"images have 1 channel (grey) or 3 (colour), not {image_channels}")
    if resolution < 1:
        raise InputError(f"the resolution must be at least 1 pixel, not {resolution}")
    path, out = Path(source).expanduser(), Path(out).expanduser().absolute()
    if source == DIGITS and not path.exists():
        raise InputError(
            f"the built-in {DIGITS} need no packing: give them to training as they are, "
            f"`--data {DIGITS}`"
        )
    if is_packed(path):
        raise InputError(f"{path} is packed already: pack from what it was packed from")
    with open_source(path, unconditional=unconditional) as opened:
        signature = _signature(path, opened, resolution, image_channels)
        finished = _finished(out, path.name, signature, strict=strict)
        if finished is not None:
            return finished
        folder = out.with_name(f".{out.name}.packing")
        work = _Work(opened, folder, image_channels, resolution, progress)
        _check_room(work)
        with _keeping_what_is_done(out), _locked(out, folder):
            if not is_packed(folder):
                _begin(work, path, signature)
                findings = _decode(work, workers)
                check_findings(path, opened, findings, strict=strict)
                corrupt = sorted(findings.corrupt)
                _close_gaps(work, corrupt)
                _describe(work, corrupt, path.resolve().name, signature)
            header = read_header(folder)
            for file in [*_progress_files(folder), *folder.glob(f"{_LOCK}*")]:
                file.unlink()
            if out.is_dir():
                out.rmdir()  # empty: an empty folder may be named as the place
            folder.rename(out)
    return header


def _progress_files(folder: Path) -> list[Path]:
    """What a packing under way keeps beside its result."""
    named = (folder / _PLAN, folder / _JOURNAL)
    return [*(file for file in named if file.exists()), *folder.glob(f"{_MOVING}*")]


def _signature(path: Path, source: Source, resolution: int, channels: int) -> str:
    """Changes whenever the result might: by the settings, and by names, sizes and dates."""
    layout = source.layout
    settings = (resolution, channels, layout.class_names)
    digest = hashlib.sha256(repr(settings).encode())
    for member, label in zip(layout.members, layout.labels, strict=True):
        digest.update(f"{member}\0{label}\0".encode("utf-8", "surrogateescape"))
    files = source.containers or tuple(path / member for member in layout.members)
    for file in files:
        try:
            about = file.stat()
        except OSError as error:
            if not file.is_symlink():
                raise_disk_fault(file, error)
            # A link to nothing is skipped as corrupt when it is read.
            digest.update(b"missing ")
            continue
        digest.update(f"{about.st_size} {about.st_mtime_ns} ".encode())
    return digest.hexdigest()


def _finished(out: Path, source: str, signature: str, *, strict: bool) -> PackedHeader | None:
    """What is there, if it is what is asked for; None if nothing is."""
    if not out.exists() and not out.is_symlink():
        return None
    if not out.is_dir():
        raise InputError(f"{out} is there and no folder: choose another place")
    if not is_packed(out):
        if any(out.iterdir()):
            raise InputError(f"{out} is there and no packed dataset: choose another place")
        return None
    header = read_header(out)
    if header.signature != signature:
        raise InputError(
            f"{out} was packed from another source, before {source} changed, or with other "
            "settings: choose another place, or delete it first"
        )
    if strict and header.skipped:
        raise InputError(
            f"{out} was packed without --strict: {len(header.skipped)} corrupt images were "
            f"skipped, such as {header.skipped[0]}"
        )
    return header


@contextlib.contextmanager
def _keeping_what_is_done(out: Path) -> Iterator[None]:
    """Turn a full disk and the like into one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot write {out}: {reason}; what is done is kept, and the same command goes on"
        ) from error


@contextlib.contextmanager
def _locked(out: Path, folder: Path) -> Iterator[None]:
    """Keep a second process out of the folder."""
    make_folder(folder)
    busy = f"another process is packing {out}: wait for it, or end it"
    with locked(folder / _LOCK, busy):
        yield


def _check_room(work: _Work) -> None:
    """Refuse what cannot fit before any work is done for it."""
    if (work.folder / _PLAN).exists():
        return  # what is missing of a packing under way is anyone's guess: writing will tell
    total = len(work.source.order)
    needed = total * work.image_bytes
    place = next(folder for folder in work.folder.parents if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"{total} images at {work.resolution} px need {needed / 2**20:.0f} MiB in {place}, "
            f"and {free / 2**20:.0f} MiB are free: make room, or choose another place or a smaller "
            "resolution"
        )


def _begin(work: _Work, path: Path, signature: str) -> None:
    """Lay out the folder, or make sure that what it holds is the beginning of the same.

    Where the source was changed since, such as by deleting the images that --strict refused, what
    was done so far is of no use, and all begins anew.
    """
    plan = work.folder / _PLAN
    asked = f"{path.resolve()} {work.resolution} {work.channels}"
    signature = f"{signature} {_VERSION}"
    if plan.exists():
        begun, _, what = plan.read_text("utf-8", "surrogateescape").partition("\n")
        if begun == signature:
            return
        if what != asked:
            raise InputError(
                f"{work.folder} holds the beginning of another packing: delete that folder, or "
                "choose another place"
            )
        logger.warning("%s has changed since its packing began: beginning anew", path)
        for old in _progress_files(work.folder):
            old.unlink()
    with (work.folder / IMAGES).open("wb") as file:
        file.truncate(len(work.source.order) * work.image_bytes)
    write_atomically(plan, f"{signature}\n{asked}".encode("utf-8", "surrogateescape"))


def _decode(work: _Work, workers: int | None) -> Findings:
    """Decode what is not decoded yet."""
    chunks = work.chunks
    journal = _read_journal(work.folder / _JOURNAL)
    findings = Findings(journal.pop(_WHITE, WHITE))
    done = set()
    with (work.folder / IMAGES).open("r+b", buffering=0) as pixels:
        if _ALL_DECODED in journal:
            findings.update(_from_json(journal[_ALL_DECODED]))
            return findings
        for number, (checksum, found) in journal.items():
            if _checksum(_read_images(work, pixels, chunks[int(number)])) == checksum:
                done.add(int(number))
                findings.update(_from_json(found))
        left = [number for number in range(len(chunks)) if number not in done]
        if done:
            kept = sum(len(chunks[number]) for number in done)
            logger.info("going on: %d of %d images are done", kept, len(work.source.order))
        with (work.folder / _JOURNAL).open("a", encoding="utf-8") as lines:
            if left:
                _decode_chunks(work, pixels, lines, left, findings, workers)
            again = findings.white == WHITE and findings.range_used < WHITE
            if again:
                _note(lines, _WHITE, findings.range_used)
            else:
                os.fsync(pixels.fileno())
                _note(lines, _ALL_DECODED, _to_json(findings))
            os.fsync(lines.fileno())
    return _decode(work, workers) if again else findings


def _decode_chunks(
    work: _Work,
    pixels: Any,
    lines: IO[str],
    left: Sequence[int],
    findings: Findings,
    workers: int | None,
) -> None:
    chunks = work.chunks

    def decode(number: int) -> tuple[NDArray[np.uint8], Findings]:
        return decode_chunk(
            work.source, work.channels, work.resolution, chunks[number], findings.white
        )

    total = len(work.source.order)
    bar = tqdm(
        total=total,
        initial=total - sum(len(chunks[number]) for number in left),
        desc="packing",
        unit=" images",
        delay=2,
        disable=None if work.progress else True,  # None: only on a terminal
    )
    with strict_pillow(), bar, contextlib.closing(in_parallel(decode, left, workers)) as results:
        for number, (images, found) in zip(left, results, strict=True):
            _write_images(work, pixels, chunks[number], images)
            # After the pixels: a line that is there without them is found out by its checksum.
            _note(lines, str(number), [_checksum(images), _to_json(found)])
            findings.update(found)
            bar.update(len(chunks[number]))


def _runs(positions: NDArray[np.int64]) -> Iterator[slice]:
    """The parts of some positions that lie side by side."""
    cuts = (np.flatnonzero(np.diff(positions) != 1) + 1).tolist()
    for start, end in zip([0, *cuts], [*cuts, len(positions)], strict=True):
        yield slice(start, end)


def _write_images(
    work: _Work, pixels: Any, positions: NDArray[np.int64], images: NDArray[np.uint8]
) -> None:
    for run in _runs(positions):
        pixels.seek(int(positions[run.start]) * work.image_bytes)
        _write_all(pixels, images[run].data.cast("B"))


def _write_all(file: Any, data: memoryview) -> None:
    # Unbuffered, so that a full disk is reported here and not when the file is closed.
    while data:
        written = file.write(data)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[written:]


def _read_images(work: _Work, pixels: Any, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    images = np.zeros((len(positions), work.image_bytes), np.uint8)
    for run in _runs(positions):
        pixels.seek(int(positions[run.start]) * work.image_bytes)
        data = pixels.read((run.stop - run.start) * work.image_bytes)
        images[run].reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
    return images


def _checksum(images: NDArray[np.uint8]) -> str:
    return hashlib.sha256(images.data).hexdigest()


def _note(lines: IO[str], what: str, about: Any) -> None:
    lines.write(json.dumps([what, about]) + "\n")
    lines.flush()


def _read_journal(path: Path) -> dict[str, Any]:
    """What is noted; a line that was cut off in the middle counts for nothing.

    Where another level becomes white, what was decoded before is of no use.
    """
    noted: dict[str, Any] = {}
    if not path.exists():
        return noted
    text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        try:
            what, about = json.loads(line)
        except ValueError:
            continue
        if what == _WHITE:
            noted.clear()
        noted[what] = about
    if text and not text.endswith("\n"):
        with path.open("a", encoding="utf-8") as lines:
            lines.write("\n")  # the next line shall not grow onto the torn one
    return noted


def _to_json(findings: Findings) -> list[Any]:
    return [list(findings.corrupt.items()), list(findings.levels.items())]


def _from_json(values: Any) -> Findings:
    corrupt, levels = values
    return Findings(corrupt=dict(corrupt), levels=dict(levels))


def _close_gaps(work: _Work, corrupt: Sequence[int]) -> None:
    """Move the images together over the places of the corrupt ones.

    A block is first put aside, in a file whose name says which it is, and then written to its new
    place, so that being killed at any moment only means writing the same again.
    """
    if not corrupt:
        return
    total = len(work.source.order)
    block = max(1, _MOVE_BYTES // work.image_bytes)
    good = np.delete(np.arange(total), corrupt)
    with (work.folder / IMAGES).open("r+b", buffering=0) as pixels:
        begun = [int(file.name.split("-")[1]) for file in work.folder.glob(f"{_MOVING}*")]
        first = corrupt[0]  # from here on the k-th good image is not in the k-th place
        start = max(begun, default=first)
        for target in range(start, len(good), block):
            aside = work.folder / f"{_MOVING}{target}"
            if target not in begun:
                images = _read_images(work, pixels, good[target : target + block])
                write_atomically(aside, images.tobytes())
            pixels.seek(target * work.image_bytes)
            _write_all(pixels, memoryview(aside.read_bytes()))
            if target - block >= first:
                os.fsync(pixels.fileno())  # a power cut must not lose what is nowhere else
                (work.folder / f"{_MOVING}{target - block}").unlink(missing_ok=True)
        os.fsync(pixels.fileno())
        pixels.truncate(len(good) * work.image_bytes)


def _describe(work: _Work, corrupt: Sequence[int], name: str, signature: str) -> None:
    """Write the labels, read the pixels for their checksums, and last write dataset.json."""
    layout = work.source.layout
    labels = np.delete(np.array(layout.labels, np.int64), corrupt)
    shape = (len(labels), work.channels, work.resolution, work.resolution)
    labels_sha256 = write_labels(work.folder, labels)
    digest = fingerprint_start(shape, layout.class_names)
    checksums = []
    piece_bytes = 0
    for data, checksum in read_pieces(work.folder, "checksums" if work.progress else None):
        digest.update(data)
        checksums.append(checksum)
        piece_bytes = max(piece_bytes, len(data))
    digest.update(labels.data)
    classes = len(layout.class_names)
    header = PackedHeader(
        num_images=len(labels),
        image_channels=work.channels,
        resolution=work.resolution,
        class_names=layout.class_names,
        histogram=tuple(np.bincount(labels, minlength=classes)[:classes].tolist()),
        source=name,
        skipped=tuple(layout.members[position] for position in corrupt),
        fingerprint=digest.hexdigest(),
        signature=signature,
        labels_sha256=labels_sha256,
        piece_bytes=piece_bytes,
        images_sha256=tuple(checksums),
    )
    _sync(work.folder / LABELS)
    _sync(work.folder / IMAGES)
    write_header(work.folder, header)
    _sync(work.folder / HEADER)


def _sync(file: Path) -> None:
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())
