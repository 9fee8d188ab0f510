"""Images in Hugging Face's parquet files: the column `image`, and beside it `label`.

A row of the image column holds the bytes of an image file, alone or in a struct {bytes, path}. The
names of the classes are in the schema's metadata, where the `datasets` library keeps its
ClassLabel. https://huggingface.co/docs/hub/datasets-image
"""

from __future__ import annotations

import bisect
import functools
import json
import re
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biggan.data.decoding import CorruptImageError
from biggan.data.folders import Choice, Item, Reader, raise_disk_fault
from biggan.data.layout import WITHOUT_CLASSES, Label
from biggan.errors import InputError, quoted

_GROUPS_KEPT = 3  # row groups in memory: the one being read, and those of slower threads


class ParquetReader(Reader):
    """The images of some parquet files, read in place.

    Raises:
        InputError: pyarrow is missing, a file is damaged, or images or labels are not as expected.
    """

    def __init__(self, files: Sequence[Path], path: Path, choice: Choice) -> None:
        try:
            import pyarrow.parquet  # type: ignore[import-untyped]
        except ImportError as error:
            raise InputError("parquet files need pyarrow: pip install 'biggan[data]'") from error
        if choice.part is not None:
            raise InputError(f"{path}: name the parquet files of a part, not ::{choice.part[:80]}")
        self._path, self.containers = path, files
        self.left_out = Counter()
        self.items = []
        self._opened: list[Any] = []
        self._groups: list[tuple[Any, int]] = []  # files, and numbers of row groups in them
        self._starts: list[int] = []  # the first row of each group
        self._lock = threading.Lock()
        self._column = functools.lru_cache(_GROUPS_KEPT)(self._read_group)
        try:
            for file in files:
                try:
                    self._opened.append(pyarrow.parquet.ParquetFile(file))
                    self._list(file, files[0], choice)
                except (InputError, PermissionError):
                    raise
                except (OSError, ValueError) as error:
                    raise_disk_fault(file, error)
                    raise InputError(
                        f"{file} is not a whole parquet file: copy or download it again"
                    ) from error
        except (InputError, PermissionError):
            self.close()
            raise

    def _list(self, file: Path, first: Path, choice: Choice) -> None:
        """Add the rows of the file that was opened last."""
        opened = self._opened[-1]
        schema = opened.schema_arrow
        columns = _columns(self._path, schema, choice)
        if file == first:
            self._columns = columns
            about = _features(schema).get(columns[1] or "")
            names = about.get("names") if isinstance(about, dict) else None
            self.class_table = list(map(str, names)) if isinstance(names, list) else None
        elif columns != self._columns:
            raise InputError(f"{file} and {first.name} have different columns")
        image, label = columns
        wanted = [image.removesuffix("bytes") + "path"] * ("." in image) + [label] * bool(label)
        table = opened.read(columns=wanted)
        rows = opened.metadata.num_rows
        labels: list[Label] = table.column(label).to_pylist() if label else [None] * rows
        structs: list[Any] = [None] * rows
        if image.split(".")[0] in table.column_names:
            structs = table.column(image.split(".")[0]).to_pylist()
        start = len(self.items)
        for row, (struct, own) in enumerate(zip(structs, labels, strict=True)):
            name = struct and struct.get("path")
            self.items.append(Item(name, f"{file.name}:{row:08}", start + row, own))
        for group in range(opened.num_row_groups):
            self._groups.append((opened, group))
            self._starts.append(start)
            start += opened.metadata.row_group(group).num_rows

    def read(self, handle: int) -> bytes:
        """The bytes of one image file; see `Reader`."""
        group = bisect.bisect_right(self._starts, handle) - 1
        try:
            with self._lock:  # the other threads wait for the group that this one reads
                column = self._column(group)
            value = column[handle - self._starts[group]].as_py()
        except Exception as error:  # a damaged page: arrow has many errors for that
            raise_disk_fault(self._path, error)
            raise CorruptImageError(error) from error
        if value is None:
            raise CorruptImageError("the row has no image")
        return bytes(value)

    def _read_group(self, number: int) -> Any:
        """The image column of a row group."""
        image = self._columns[0]
        opened, group = self._groups[number]
        column = opened.read_row_group(group, columns=[image]).column(0).combine_chunks()
        return column.field("bytes") if "." in image else column

    def close(self) -> None:
        """Close the parquet files."""
        for file in self._opened:
            file.close()


def _features(schema: Any) -> dict[str, Any]:
    """What the `datasets` library says of the columns; empty where it did not write the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _columns(path: Path, schema: Any, choice: Choice) -> tuple[str, str | None]:
    """The columns of the images' bytes and of the labels; None without classes."""
    image = _column(path, schema, "image", "Image")
    kind = schema.field(image).type
    if str(kind).startswith("struct<"):
        fields = {field.name: field.type for field in map(kind.field, range(kind.num_fields))}
        if not _is_binary(fields.get("bytes")):
            raise InputError(f"{path}: the column {image!r} contains {_shown(kind)}, not bytes")
        image += ".bytes"
    elif not _is_binary(kind):
        raise InputError(f"{path}: the column {image!r} contains {_shown(kind)}, not image files")
    if choice.unconditional:
        return image, None
    way_out = f": choose that of the labels with --label-column, or {WITHOUT_CLASSES}"
    kind = "ClassLabel" if choice.column is None else None
    label = _column(path, schema, choice.column or "label", kind, way_out)
    kind = schema.field(label).type
    if not re.fullmatch(r"u?int\d+|(large_)?string(_view)?", _plain(kind)):
        raise InputError(
            f"{path}: the column {label!r} contains {_shown(kind)}, not numbers or names: "
            f"make a column with one label per image, or {WITHOUT_CLASSES}"
        )
    return image, label


def _is_binary(kind: Any) -> bool:
    return _plain(kind).startswith(("binary", "large_binary", "fixed_size_binary"))


def _plain(kind: Any) -> str:
    return str(kind.value_type if str(kind).startswith("dictionary<") else kind)


def _shown(kind: Any) -> str:
    return " ".join(str(kind).split())[:100]


def _column(path: Path, schema: Any, name: str, feature: str | None, way_out: str = "") -> str:
    """The column of this name, or else the only one that is declared to be such a feature."""
    if name in schema.names:
        return name
    declared = [
        column
        for column, about in _features(schema).items()
        if isinstance(about, dict) and about.get("_type") == feature and column in schema.names
    ]
    if len(declared) == 1:
        return declared[0]
    listed = ", ".join(schema.names)[:200]
    raise InputError(f"{path} has no column {quoted(name)}, only {listed}{way_out}")
