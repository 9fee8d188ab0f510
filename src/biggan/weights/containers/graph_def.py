"""The tables in a TensorFlow graph as a SavedModel stores it, read without TensorFlow.

A graph carries no checksum: what is refused here is bytes that cannot be a graph at all. The field
numbers are those of tensorflow/core/framework/*.proto.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from biggan.errors import DamagedFileError, InputError
from biggan.weights.containers.protobuf import (
    SHAPE,
    MalformedError,
    known_shape,
    last,
    read_message,
)

GRAPH = "saved_model.pb"  # a module's

_FLOAT = 1  # of tensorflow/core/framework/types.proto
_MAX_IDENTITIES = 8  # looked through in a row; they may form a circle
_EMPTY = memoryview(b"")

_META_GRAPH = {1: ("info", {4: ("tags", bytes)}), 2: ("graph", bytes)}
_NODE = {
    1: ("name", str),
    2: ("op", str),
    3: ("inputs", str),
    5: ("attributes", {1: ("name", str), 2: ("value", bytes)}),
}
_ATTRIBUTE = {3: ("int", int), 8: ("tensor", bytes)}
_TENSOR = {
    1: ("dtype", int),
    2: ("shape", SHAPE),
    4: ("content", bytes),
    5: ("floats", bytes),  # packed, or a field for each value: the bytes are the same
}


# The shape of a constant, and its first values: the last of them is that of all the others, too.
_Constant = tuple[tuple[int, ...], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Table:
    """A float32 matrix that a graph holds, as one constant or as a stack of one for each row."""

    name: str
    rows: int
    width: int
    stored: tuple[npt.NDArray[np.float32], ...]  # the first values of each constant

    def tensor(self) -> Tensor:
        """The matrix (rows, width); zeros where nothing is stored, as TensorFlow has it."""
        values = np.zeros(
            (len(self.stored), self.rows * self.width // len(self.stored)), np.float32
        )
        for constant, stored in zip(values, self.stored, strict=True):
            constant[: len(stored)] = stored
            constant[len(stored) :] = stored[-1] if len(stored) else 0
        return torch.from_numpy(values.reshape(self.rows, self.width))


def find_tables(path: Path, rows: Collection[int]) -> list[Table]:
    """The float32 matrices with so many rows in a `saved_model.pb`.

    They are constants, or stacks of constant vectors. Of several graphs, the one with the fewest
    tags is read: the others are for training.
    """
    try:
        data = memoryview(path.read_bytes())
        return _find_tables(data, rows)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except MalformedError as error:
        raise DamagedFileError(
            f"{path} is not a whole SavedModel: {error}; download it again"
        ) from None


def _find_tables(data: memoryview, rows: Collection[int]) -> list[Table]:
    graphs = read_message(data, {2: ("graphs", _META_GRAPH)})["graphs"]
    if not graphs:
        raise MalformedError("it holds no graph")
    chosen = min(graphs, key=lambda graph: len(last(graph["info"], {"tags": ()})["tags"]))
    nodes: dict[str, dict[str, Any]] = {}
    for node in read_message(last(chosen["graph"], _EMPTY), {1: ("nodes", _NODE)})["nodes"]:
        name = last(node["name"], "")
        if name in nodes:
            raise MalformedError(f"it has two nodes {name}")
        nodes[name] = node

    @cache
    def constant(name: str) -> _Constant | None:
        """The constant float32 that a name means, behind nodes that only pass a value on."""
        node = nodes.get(name)
        for _ in range(_MAX_IDENTITIES):
            if node is None or last(node["op"], "") != "Identity" or not node["inputs"]:
                break
            node = nodes.get(node["inputs"][0].removesuffix(":0"))
        if node is None or last(node["op"], "") != "Const":
            return None
        return _constant(last(node["name"], ""), node, len(data))

    tables = []
    for name, node in nodes.items():
        op = last(node["op"], "")
        if op == "Const":
            whole = constant(name)
            if whole is not None and len(whole[0]) == 2 and whole[0][0] in rows:
                tables.append(Table(name, *whole[0], (whole[1],)))
        elif op == "Pack":
            parts = [part.removesuffix(":0") for part in node["inputs"] if part[:1] != "^"]
            if len(parts) not in rows or last(_attribute(node, "axis")["int"], 0) != 0:
                continue
            vectors = [vector for vector in map(constant, parts) if vector is not None]
            shapes = {shape for shape, _ in vectors}
            if len(vectors) == len(parts) and len(shapes) == 1 and len(vectors[0][0]) == 1:
                stored = tuple(values for _, values in vectors)
                tables.append(Table(name, len(parts), *vectors[0][0], stored))
    return tables


def _attribute(node: Mapping[str, list[Any]], name: str) -> dict[str, list[Any]]:
    values = [last(a["value"], _EMPTY) for a in node["attributes"] if last(a["name"], "") == name]
    return read_message(last(values, _EMPTY), _ATTRIBUTE)


def _constant(name: str, node: Mapping[str, list[Any]], limit: int) -> _Constant | None:
    """The value of a Const node; None for another type than float32.

    At most `limit` values are believed: a few bytes can claim any number of equal ones.
    """
    message = read_message(last(_attribute(node, "value")["tensor"], _EMPTY), _TENSOR)
    if last(message["dtype"], 0) != _FLOAT:
        return None
    shape = known_shape(last(message["shape"], {"axes": [], "unknown": []}))
    content = last(message["content"], _EMPTY)
    stored = content or b"".join(message["floats"])
    size = math.prod(shape)
    if size > limit:
        raise MalformedError(f"the constant {name} claims to have {size} values")
    if len(stored) % 4 or len(stored) > 4 * size or (content and len(stored) < 4 * size):
        raise MalformedError(f"the constant {name} has {len(stored)} bytes for {size} values")
    return shape, np.frombuffer(stored, "<f4")
