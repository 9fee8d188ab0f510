"""Images in Hugging Face's parquet files: the column `image`, and beside it `label`.

A row of the image column holds the bytes of an image file, alone or in a struct {bytes, path}. The
names of the classes stand in the schema's metadata, where the `datasets` library keeps its
ClassLabel. https://huggingface.co/docs/hub/datasets-image
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from biggan.data.decoding import CorruptImageError
from biggan.data.labelled import Label, arrange_labelled
from biggan.data.sources import ImageFiles, raise_disk_fault
from biggan.errors import InputError

_GROUPS_KEPT = 3  # row groups in memory: the one being read, and those of slower threads


class ParquetFiles(ImageFiles):
    """The images of some parquet files, read in place; see `ImageFiles`.

    Args:
        path: What the user named, for messages.
        files: The parquet files in order.
        unconditional: Ignore labels.

    Attributes:
        layout: The images in order with their classes.
        order: Positions in the layout, in the order of the rows: the fastest to read.

    Raises:
        InputError: pyarrow is missing, a file is damaged, or images or labels are not as expected.
    """

    def __init__(self, path: Path, files: Sequence[Path], *, unconditional: bool) -> None:
        self.path = path
        self.left_out = Counter()
        self._parquet = _pyarrow_parquet()
        self._files = [self._open(file) for file in files]
        self._image, self._label = _columns(path, self._files[0].schema_arrow, unconditional)
        self._nested = "." in self._image
        names, places, labels = self._rows(files)
        if not places:
            raise InputError(f"{path} holds no rows")
        table = _class_table(self._files[0].schema_arrow, self._label)
        self.layout, rows = arrange_labelled(path, names, places, labels, table)
        self.members = self.layout.members
        self.order = np.argsort(np.array(rows, np.int64))
        self._row_of = dict(zip(self.members, rows, strict=True))
        groups = [
            (file, group, opened.metadata.row_group(group).num_rows)
            for file, opened in enumerate(self._files)
            for group in range(opened.num_row_groups)
        ]
        self._groups = [(file, group) for file, group, _ in groups]
        self._starts = np.cumsum([0, *(rows for _, _, rows in groups)])
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, member: str) -> bytes:
        """The bytes of one image; see `ImageFiles`."""
        row = self._row_of[member]
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        try:
            value = self._group(number)[row - int(self._starts[number])].as_py()
        except Exception as error:  # a damaged page: arrow has many errors for that
            raise_disk_fault(self.path, error)
            raise CorruptImageError(error) from error
        if value is None:
            raise CorruptImageError("the row has no image")
        return bytes(value)

    def close(self) -> None:
        """Close the parquet files."""
        for file in self._files:
            file.close()

    def _open(self, file: Path) -> Any:
        try:
            return self._parquet.ParquetFile(file)
        except PermissionError:
            raise
        except (OSError, ValueError) as error:
            raise_disk_fault(file, error)
            raise InputError(
                f"{file} is not a whole parquet file: copy or download it again"
            ) from error

    def _rows(
        self, files: Sequence[Path]
    ) -> tuple[list[str | None], list[str], list[Label] | None]:
        """Of every row: the image's own name, the row's place, and the label."""
        names: list[str | None] = []
        places: list[str] = []
        labels: list[Label] | None = None if self._label is None else []
        name_column = self._image.removesuffix("bytes") + "path" if self._nested else None
        for file, opened in zip(files, self._files, strict=True):
            image, label = _columns(self.path, opened.schema_arrow, self._label is None)
            if (image, label) != (self._image, self._label):
                raise InputError(f"{file} has other columns than {files[0].name}")
            count = opened.metadata.num_rows
            places += [f"{file.name}:{row:08}" for row in range(count)]
            wanted = [column for column in (name_column, label) if column]
            try:
                table = opened.read(columns=wanted) if wanted else None
            except (OSError, ValueError) as error:
                raise_disk_fault(file, error)
                raise InputError(f"{file} is damaged: copy or download it again") from error
            if labels is not None:
                labels += table.column(label).to_pylist()  # type: ignore[union-attr]
            has_names = name_column is not None and self._image.split(".")[0] in table.column_names  # type: ignore[union-attr]
            if has_names:
                structs = table.column(self._image.split(".")[0]).to_pylist()  # type: ignore[union-attr]
                names += [struct and struct.get("path") for struct in structs]
            else:
                names += [None] * count
        return names, places, labels

    def _group(self, number: int) -> Any:
        """The image column of a row group."""
        # One thread at a time: the others wait for the very group that this one reads.
        with self._lock:
            if number not in self._kept:
                file, group = self._groups[number]
                table = self._files[file].read_row_group(group, columns=[self._image])
                column = table.column(0).combine_chunks()
                self._kept[number] = column.field("bytes") if self._nested else column
                while len(self._kept) > _GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return self._kept[number]


def _pyarrow_parquet() -> ModuleType:
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError("parquet files need pyarrow: pip install 'biggan[data]'") from error
    module: ModuleType = pyarrow.parquet
    return module


def _features(schema: Any) -> dict[str, Any]:
    """What the `datasets` library says of the columns; empty where it did not write the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _columns(path: Path, schema: Any, unconditional: bool) -> tuple[str, str | None]:
    """The columns of the images' bytes and of the labels; None without classes."""
    image = _column(path, schema, "image", "Image")
    kind = schema.field(image).type
    if str(kind).startswith("struct<"):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        if not any(field.name == "bytes" and _is_binary(field.type) for field in fields):
            raise InputError(f"{path}: the column {image!r} holds no bytes but {_shown(kind)}")
        image += ".bytes"
    elif not _is_binary(kind):
        raise InputError(f"{path}: the column {image!r} holds no image files but {_shown(kind)}")
    if unconditional:
        return image, None
    label = _column(path, schema, "label", "ClassLabel", "; or go without it (--unconditional)")
    kind = schema.field(label).type
    if not _is_label(kind):
        raise InputError(
            f"{path}: the column {label!r} holds neither numbers nor names but {_shown(kind)}: "
            "make a column with one label for each image, or go without it (--unconditional)"
        )
    return image, label


def _is_binary(kind: Any) -> bool:
    return _plain(kind).startswith(("binary", "large_binary", "fixed_size_binary"))


def _is_label(kind: Any) -> bool:
    """Whether a column's type is integers or strings, and not a list of them."""
    return re.fullmatch(r"u?int\d+|(large_)?string(_view)?", _plain(kind)) is not None


def _plain(kind: Any) -> str:
    return str(kind.value_type if str(kind).startswith("dictionary<") else kind)


def _shown(kind: Any) -> str:
    return " ".join(str(kind).split())[:100]


def _column(path: Path, schema: Any, name: str, feature: str, way_out: str = "") -> str:
    """The column of this name, or else the only one that is declared to be such."""
    if name in schema.names:
        return name
    declared = [
        column
        for column, about in _features(schema).items()
        if isinstance(about, dict) and about.get("_type") == feature and column in schema.names
    ]
    if len(declared) == 1:
        return declared[0]
    columns = ", ".join(schema.names)
    raise InputError(f"{path} has no column {name!r}, only {columns}{way_out}")


def _class_table(schema: Any, label: str | None) -> list[str] | None:
    about = _features(schema).get(label or "")
    names = about.get("names") if isinstance(about, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else None
