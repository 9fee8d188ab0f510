"""Images in Hugging Face's parquet files: the column `image`, and beside it `label`.

A row of the image column holds the bytes of an image file, alone or in a struct {bytes, path}. The
names of the classes are in the schema's metadata, where the `datasets` library keeps its
ClassLabel. https://huggingface.co/docs/hub/datasets-image
"""

from __future__ import annotations

import bisect
import functools
import json
import operator
import re
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from biggan.data.decoding import CorruptImageError, one_line
from biggan.data.folders import Choice, Reader, raise_disk_fault
from biggan.data.layout import WITHOUT_CLASSES, Item
from biggan.errors import InputError, quoted

_GROUPS_KEPT = 3  # row groups in memory: the one being read, and those of slower threads


def read_parquet(files: Sequence[Path], path: Path, choice: Choice, opened: ExitStack) -> Reader:
    """The images in some parquet files, read in place."""
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError("parquet files need pyarrow: pip install 'biggan[data]'") from error
    if choice.part is not None:
        raise InputError(f"{path}: name the parquet files of a part, not ::{choice.part[:80]}")
    columns: tuple[str, str | None] = ("", None)
    class_table = None
    items: list[Item] = []
    groups: list[tuple[int, Any, int]] = []  # the first row, the file, and the number in it
    for file in files:
        try:
            parquet = opened.enter_context(pyarrow.parquet.ParquetFile(file))
            found = _columns(path, parquet.schema_arrow, choice)
            if file == files[0]:
                columns = found
                names = _features(parquet.schema_arrow).get(found[1] or "", {}).get("names")
                class_table = list(map(str, names)) if isinstance(names, list) else None
            elif found != columns:
                raise InputError(f"{file} and {files[0].name} have different columns")
            start, (image, label) = len(items), columns
            wanted = [image.removesuffix("bytes") + "path"] * ("." in image) + [label] * bool(label)
            for row, values in enumerate(parquet.read(columns=wanted).to_pylist()):
                name = (values.get(image.split(".")[0]) or {}).get("path")
                items.append(Item(name, f"{file.name}:{row:08}", start + row, values.get(label)))
            for group in range(parquet.num_row_groups):
                groups.append((start, parquet, group))
                start += parquet.metadata.row_group(group).num_rows
        except (InputError, PermissionError):
            raise
        except (OSError, ValueError) as error:
            raise_disk_fault(file, error)
            raise InputError(
                f"{file} is not a whole parquet file: copy or download it again"
            ) from error
    lock = threading.Lock()

    @functools.lru_cache(_GROUPS_KEPT)
    def read_group(number: int) -> Any:
        _, parquet, group = groups[number]
        column = parquet.read_row_group(group, columns=[columns[0]]).column(0).combine_chunks()
        return column.field("bytes") if "." in columns[0] else column

    def read(row: int) -> bytes:
        group = bisect.bisect_right(groups, row, key=operator.itemgetter(0)) - 1
        try:
            with lock:  # the other threads wait for the group that this one reads
                column = read_group(group)
            value = column[row - groups[group][0]].as_py()
        except Exception as error:  # a damaged page: arrow has many errors for that
            raise_disk_fault(path, error)
            raise CorruptImageError(error) from error
        if value is None:
            raise CorruptImageError("the row has no image")
        return bytes(value)

    return Reader(items, read, files, class_table=class_table)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What the `datasets` library says of the columns; empty where it did not write the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: about for name, about in features.items() if isinstance(about, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _columns(path: Path, schema: Any, choice: Choice) -> tuple[str, str | None]:
    """The columns of the images' bytes and of the labels; None without classes."""
    image = _column(path, schema, "image", "Image")
    kind = schema.field(image).type
    if str(kind).startswith("struct<"):
        fields = {field.name: field.type for field in map(kind.field, range(kind.num_fields))}
        if not _is_binary(fields.get("bytes")):
            raise InputError(f"{path}: the column {image!r} contains {one_line(kind)}, not bytes")
        image += ".bytes"
    elif not _is_binary(kind):
        raise InputError(f"{path}: the column {image!r} contains {one_line(kind)}, not image files")
    if choice.unconditional:
        return image, None
    way_out = f": choose that of the labels with --label-column, or {WITHOUT_CLASSES}"
    kind = "ClassLabel" if choice.column is None else None
    label = _column(path, schema, choice.column or "label", kind, way_out)
    kind = schema.field(label).type
    if not re.fullmatch(r"u?int\d+|(large_)?string(_view)?", _plain(kind)):
        raise InputError(
            f"{path}: the column {label!r} contains {one_line(kind)}, not numbers or names: "
            f"make a column with one label per image, or {WITHOUT_CLASSES}"
        )
    return image, label


def _is_binary(kind: Any) -> bool:
    return _plain(kind).startswith(("binary", "large_binary", "fixed_size_binary"))


def _plain(kind: Any) -> str:
    return str(kind.value_type if str(kind).startswith("dictionary<") else kind)


def _column(path: Path, schema: Any, name: str, feature: str | None, way_out: str = "") -> str:
    """The column of this name, or else the only one that is declared to be such a feature."""
    if name in schema.names:
        return name
    declared = [
        column
        for column, about in _features(schema).items()
        if about.get("_type") == feature and column in schema.names
    ]
    if len(declared) == 1:
        return declared[0]
    listed = ", ".join(schema.names)[:200]
    raise InputError(f"{path} has no column {quoted(name)}, only {listed}{way_out}")
