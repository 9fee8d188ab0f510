"""Labels of image files in tables beside them.

    dataset.json                StyleGAN's tools: {"labels": [["00000/img00000000.png", 6], ...]}
    metadata.csv, .jsonl        the imagefolder convention of Hugging Face: `file_name`, `label`
    labels.csv, .tsv, .jsonl    a column of file names, with extensions or without, and a label

https://github.com/NVlabs/stylegan3/blob/main/dataset_tool.py
https://huggingface.co/docs/datasets/image_dataset
"""

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from biggan.classes import normal_name
from biggan.data.decoding import CorruptImageError
from biggan.data.layout import NUMBER, WITHOUT_CLASSES, Label
from biggan.errors import InputError, quoted

_TABLE = re.compile(r"dataset\.json|(labels|metadata)\.(csv|tsv|jsonl)", re.IGNORECASE)
_FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")
_NAMED = 8  # columns that a message names


def is_table(name: str) -> bool:
    """Whether a file may hold the labels of others, by its relative path."""
    return _TABLE.fullmatch(PurePosixPath(name).name) is not None


def read_tables(
    path: Path,
    tables: Collection[str],
    images: Sequence[str],
    known: Sequence[str],
    column: str | None,
    read: Callable[[str], bytes],
) -> list[Label] | None:
    """The labels of images, from the outermost table above them that has some; None without one.

    `tables` are files that may be tables, `images` the sorted names of those to label, `known`
    those of all images: a table may have labels for the others, too. Without `column` the labels
    are in the column that is meant; `read` reads a file by name.

    Raises:
        InputError: A table is damaged, lacks a label, has two for one image, or names missing ones.
    """
    for table in sorted(tables, key=lambda name: (name.count("/"), name)):
        folder = table[: table.rfind("/") + 1]
        if not all(image.startswith(folder) for image in (images[0], images[-1])):
            continue  # the others lie between
        try:
            names, rows = _parse(path / table, read(table))
        except InputError:
            raise
        except UnicodeDecodeError as error:
            raise InputError(f"{path / table} is not UTF-8: save it as UTF-8") from error
        except (CorruptImageError, ValueError, RecursionError, csv.Error) as error:
            raise InputError(f"{path / table} is damaged: correct it, or remove it") from error
        places = _places(folder, known)
        if any(places.get(_plain(name), -1) >= 0 and "." in name for name in names):
            rows.insert(0, names)  # the table has no header
            names = [str(number + 1) for number in range(len(names))]
        if chosen := _choose(path / table, names, rows, places, column):
            pairs = [(row[chosen[0]], row[chosen[1]]) for row in rows]
            return _labels(path, table, pairs, places, known, images)
    if column is not None:
        raise InputError(f"{path} has no table with the column {quoted(column)}")
    return None


def _parse(place: Path, data: bytes) -> tuple[list[str], list[list[Any]]]:
    """The names of a table's columns, and its rows; no columns where it is another program's."""
    ending = place.suffix.lower()
    if ending == ".json":
        about = json.loads(data)
        if not (isinstance(about, dict) and "labels" in about):
            return [], []
        labels = about["labels"]
        pairs = labels.items() if isinstance(labels, dict) else labels
        try:
            return ["file_name", "label"], [[_plain(name), label] for name, label in pairs]
        except (TypeError, ValueError):
            raise InputError(
                f"{place} has no labels [file, number]: {WITHOUT_CLASSES}, or remove {place.name}"
            ) from None
    text = data.decode("utf-8-sig")
    if ending == ".jsonl":
        # Not `splitlines`: JSON's strings may hold other separators of lines as they are.
        about = [json.loads(line) for line in text.split("\n") if line.strip()]
        if not all(isinstance(line, dict) for line in about):
            raise ValueError
        names = list(dict.fromkeys(key for line in about for key in line))
        return names, [[line.get(name) for name in names] for line in about]
    delimiter = max(",;\t|", key=text.partition("\n")[0].count)
    lines = csv.reader(io.StringIO(text, None), delimiter=delimiter, strict=True)
    rows: list[list[Any]] = [row for row in lines if any(row)]
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise InputError(
                f"{place}: row {number} has {len(row)} fields, the first one {len(rows[0])}"
            )
    return (rows[0], rows[1:]) if rows else ([], [])


def _plain(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError
    return normal_name(name.replace("\\", "/").removeprefix("./"))


def _places(folder: str, known: Sequence[str]) -> dict[str, int]:
    """Images by the names that a table may give them; -1 where a name means several.

    The path from the table's folder goes before it without extension, and that before the basename.
    """
    places: dict[str, int] = {}
    paths = [PurePosixPath(_plain(name.removeprefix(folder))) for name in known]
    for form in (str, lambda path: str(path.with_suffix("")), lambda p: p.name, lambda p: p.stem):
        found: dict[str, int] = {}
        for place, path in enumerate(paths):
            found[form(path)] = -1 if form(path) in found else place
        places = found | places
    return places


def _choose(
    table: Path,
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    places: Mapping[str, int],
    column: str | None,
) -> tuple[int, int] | None:
    """The columns of file names and of labels; None where the table is not about labels."""
    lower = [name.strip().casefold() for name in names]
    wanted = _LABEL_COLUMNS if column is None else (column.casefold(),)
    label = next((lower.index(name) for name in wanted if name in lower), None)
    if column is not None and label is None:
        return None
    file = next((lower.index(name) for name in _FILE_COLUMNS if name in lower), None)
    if file is None or file == label:
        found = [{places.get(str(row[i]).strip(), -1) for row in rows} for i in range(len(names))]
        counts = [len(each - {-1}) * (i != label) for i, each in enumerate(found)]
        if not any(counts):
            return None
        file = counts.index(max(counts))
    others = [i for i in range(len(names)) if i != file]
    if label is None and table.stem.lower() == "labels":
        if len(others) != 1:
            listed = ", ".join(names[i][:40] for i in others[:_NAMED])
            raise InputError(
                f"{table} has the columns {listed}: choose that of the labels with --label-column"
            )
        label = others[0]
    return None if label is None else (file, label)


def _labels(
    path: Path,
    table: str,
    pairs: Sequence[tuple[Any, Any]],
    places: Mapping[str, int],
    known: Sequence[str],
    images: Sequence[str],
) -> list[Label]:
    """The labels of the images in their order."""
    place, is_text = path / table, not table.lower().endswith(".json")
    by_image: dict[str, Any] = {}
    missing = []
    for name, label in pairs:
        found = places.get(_plain(str(name)), -1)
        if found < 0:
            missing.append((str(name), label))
        elif (before := by_image.setdefault(known[found], label)) != label:
            raise InputError(
                f"{place} has two labels for {known[found]}, {quoted(before)} and {quoted(label)}: "
                "keep one"
            )
    if missing and is_text:
        raise InputError(
            f"{place} names {len(missing)} images that do not exist, such as "
            f"{quoted(missing[0][0])}: add them, or remove their rows"
        )
    labels: list[Any] = [by_image.get(image) for image in images]
    if is_text:  # its labels are numbers where they count from 0 or mark a lack, else names
        labels = [label.strip() if isinstance(label, str) else label for label in labels]
        if all(isinstance(label, str) and NUMBER.fullmatch(label) for label in labels):
            numbers = list(map(int, labels))
            labels = numbers if min(numbers) < 1 else labels
    wrong = [
        f"{image} ({str(label)[:100]})"
        for image, label in zip(images, labels, strict=True)
        if isinstance(label, bool) or not isinstance(label, int | str) or label == ""
    ]
    if wrong:
        raise InputError(
            f"{place} has no label for {len(wrong)} of {len(images)} images, such as {wrong[0]}: "
            f"add them, or {WITHOUT_CLASSES}, or remove {place.name}"
        )
    if lost := {str(label) for _, label in missing} - set(map(str, labels)):
        raise InputError(
            f"{path} has no image of the class {min(lost)[:100]} that {place.name} names: copy or "
            "download it again"
        )
    return labels
