"""What is in each shard: found by reading it once, and remembered in a file beside the shards.

A stream must know how long an epoch is and where in it each shard begins, and training must know
the classes. Neither can be seen from outside of a tar.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from biggan.atomic_write import write_atomically
from biggan.classes import normal_name
from biggan.data.labelled import Label, numbered_classes, without_images
from biggan.data.layout import check_class_names
from biggan.data.reading import in_parallel, warn_of_other_files
from biggan.data.shard_files import is_address, read_shard, shard_name
from biggan.data.tars import read_class_table, read_names
from biggan.errors import InputError

INDEX = "shards-index.json"
_FORMAT = "biggan shard index, version 2"
_SAVE_EVERY = 5.0  # seconds: the file grows with the shards, and is written whole


@dataclass(frozen=True)
class ShardContents:
    """What one shard holds.

    Attributes:
        labels: How many samples have each label, in an order that depends on nothing else.
        stored_bytes: The images, as they are stored.
    """

    labels: tuple[tuple[Label, int], ...]
    stored_bytes: int

    @property
    def samples(self) -> int:
        """Images in the shard."""
        return sum(count for _, count in self.labels)


def index_file(urls: Sequence[str], otherwise: Path | None = None) -> Path:
    """Where the contents of shards are remembered.

    Args:
        urls: The shards.
        otherwise: A folder for the index of shards that are addresses, or lie where nothing can be
            written.

    Raises:
        InputError: They are addresses, and there is no other folder.
    """
    if not is_address(urls[0]):
        folder = Path(urls[0]).parent
        if otherwise is None or (folder / INDEX).is_file() or os.access(folder, os.W_OK):
            return folder / INDEX
    if otherwise is None:
        raise InputError(f"say where the samples' count shall be remembered (index=...{INDEX})")
    return otherwise / INDEX


def read_index(urls: Sequence[str], file: Path) -> list[ShardContents] | None:
    """The contents of shards, as they are remembered; None where some are not.

    Raises:
        InputError: The file is no index, or damaged.
    """
    known = _read(file)
    keys = [_key(url) for url in urls]
    return [known[key] for key in keys] if all(key in known for key in keys) else None


def count_shards(
    urls: Sequence[str],
    file: Path,
    *,
    workers: int | None = None,
    seconds: float = math.inf,
    progress: bool = True,
) -> bool:
    """Read the shards that the index does not know yet, and add them to it.

    After an interruption of any kind, what was counted stays counted.

    Args:
        urls: The shards.
        file: The index; its folder exists.
        workers: Threads that read; one per processor by default.
        seconds: Stop at the first shard that is counted after so long.
        progress: Show a bar where it takes over two seconds, on a terminal.

    Returns:
        Whether the index knows all shards now.

    Raises:
        InputError: A shard cannot be read, or the index not be written.
    """
    known = _read(file)
    missing = [url for url in urls if _key(url) not in known]
    if not missing:
        return True
    if not file.parent.is_dir():
        raise InputError(f"cannot write {file}: there is no such folder")
    bar = tqdm(
        total=len(urls),
        initial=len(urls) - len(missing),
        desc="counting",
        unit=" shards",
        delay=2,
        disable=None if progress else True,  # None: only on a terminal
    )
    begun = saved = time.monotonic()
    left_out = Counter[str]()
    try:
        with bar, contextlib.closing(in_parallel(_count, missing, workers)) as counted:
            for number, (url, (contents, others)) in enumerate(
                zip(missing, counted, strict=True), 1
            ):
                known[_key(url)] = contents
                left_out += others
                bar.update()
                now = time.monotonic()
                if now - begun > seconds:
                    return number == len(missing)
                if now - saved > _SAVE_EVERY:
                    _write(file, known)
                    saved = now
        return True
    finally:
        _write(file, known)
        warn_of_other_files(left_out)


def class_table(
    urls: Sequence[str], contents: Sequence[ShardContents], given: Sequence[str] | None
) -> tuple[str, ...]:
    """The classes of shards, in the order of their numbers.

    Args:
        urls: The shards.
        contents: What is in each.
        given: The names of the classes; none for shards without classes. If it is None they are
            those of `classes.txt` beside the first shard, else the labels themselves.

    Raises:
        InputError: A sample has no label, or one that is none of the classes; a class has no
            sample; there is only one class.
    """
    if given is not None and not given:
        return ()
    table = known_classes(urls) if given is None else list(given)
    table = table and [normal_name(name) for name in table]
    found: dict[Label, str] = {}  # and a shard that has it
    for url, shard in zip(urls, contents, strict=True):
        for label, _ in shard.labels:
            found.setdefault(label, shard_name(url))
    if None in found:
        raise InputError(
            f"{found[None]} has samples without a label: choose shards with labels, or train "
            "without classes (--set unconditional=true)"
        )
    if table is None:
        table = _named_after(found)
    numbers = number_labels(found, table)
    for label, place in found.items():
        if label not in numbers:
            raise InputError(
                f"{place} has the label {label!r:.100}, and the classes are {len(table)}: mend the "
                "shard or the class names"
            )
    check_names(table, "the classes of the shards")
    missing = sorted(set(range(len(table))) - set(numbers.values()))
    if missing:
        raise without_images("the shards", len(missing), len(table), table[missing[0]])
    return tuple(table)


def known_classes(urls: Sequence[str]) -> list[str] | None:
    """The class names beside the first shard; None where there are none, or it is an address."""
    return None if is_address(urls[0]) else read_class_table(Path(urls[0]))


def read_class_names(file: str | Path) -> tuple[str, ...]:
    """The class names in a text file, one a line.

    Raises:
        InputError: It cannot be read, or names fewer than two classes, or one twice.
    """
    names = tuple(read_names(Path(file).expanduser()))
    check_names(names, str(file))
    return names


def check_names(names: Sequence[str], source: str) -> None:
    """Make sure that there are several classes, and that they can be told apart.

    Raises:
        InputError: They cannot; the message begins with the source.
    """
    check_class_names(source, names)
    if len(names) < 2:
        raise InputError(
            f"{source}: a conditional model needs several classes, and there are {len(names)}; "
            "without classes it is --set unconditional=true"
        )


def number_labels(labels: Iterable[Label], class_names: Sequence[str]) -> dict[Label, int]:
    """The classes of those labels that have one: a number is its own, a name has its place."""
    places = {normal_name(name): number for number, name in enumerate(class_names)}
    numbers = {}
    for label in labels:
        number = places.get(normal_name(label), -1) if isinstance(label, str) else label
        if number is not None and 0 <= number < len(class_names):
            numbers[label] = number
    return numbers


def _named_after(found: Mapping[Label, str]) -> list[str]:
    """Class names where nobody gave any: the labels themselves, as for shards that are loaded."""
    numbers = [label for label in found if isinstance(label, int)]
    names = [label for label in found if isinstance(label, str)]
    if numbers and names:
        raise InputError(
            f"some labels are numbers and some are names ({numbers[0]} in {found[numbers[0]]}, "
            f"{names[0]!r:.100} in {found[names[0]]}): say which class is which "
            "(--set classes=FILE, one name a line)"
        )
    if names:
        return sorted({normal_name(name) for name in names})
    return numbered_classes("the shards", set(numbers))


def _key(url: str) -> str:
    """What the index calls a shard: another file of the same name and size is another shard."""
    if is_address(url):
        return url
    about = Path(url).stat()
    return f"{Path(url).name} {about.st_size} {about.st_mtime_ns}"


def _count(url: str) -> tuple[ShardContents, Counter[str]]:
    """What a shard holds, and its files that are left out, by ending."""
    left_out = Counter[str]()
    labels: Counter[Label] = Counter()
    stored_bytes = 0
    for sample in read_shard(url, left_out):
        labels[sample.label] += 1
        stored_bytes += len(sample.data)
    ordered = sorted(labels.items(), key=lambda item: (str(type(item[0])), item[0] or 0))
    return ShardContents(tuple(ordered), stored_bytes), left_out


def _read(file: Path) -> dict[str, ShardContents]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != _FORMAT:
            raise ValueError
        return {key: _from_json(shard) for key, shard in values["shards"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{file} is no index of shards, of another version, or damaged: delete it to count "
            "again"
        ) from None


def _from_json(shard: Mapping[str, Any]) -> ShardContents:
    labels = tuple((label, count) for label, count in shard["labels"])
    good = isinstance(shard["bytes"], int) and all(
        isinstance(label, (int, str, type(None))) and isinstance(count, int)
        for label, count in labels
    )
    if not good:
        raise ValueError
    return ShardContents(labels, shard["bytes"])


def _write(file: Path, known: Mapping[str, ShardContents]) -> None:
    shards = {
        key: {"bytes": shard.stored_bytes, "labels": shard.labels} for key, shard in known.items()
    }
    text = json.dumps({"format": _FORMAT, "shards": shards})
    write_atomically(file, text.encode())
