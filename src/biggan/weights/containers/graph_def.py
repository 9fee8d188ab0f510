"""TensorFlow graphs as a SavedModel stores them: nodes and constants, read without TensorFlow.

Of the protocol buffers in `saved_model.pb` only the wire format and a few field numbers are needed
(https://protobuf.dev/programming-guides/encoding, and tensorflow/core/framework/*.proto). A graph
carries no checksum: what is refused here is bytes that cannot be a graph at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from biggan.errors import DamagedFileError, InputError

GRAPH = "saved_model.pb"
"""Name of a module's graph."""

_FLOAT, _INT32 = 1, 3  # of tensorflow/core/framework/types.proto
_MAX_AXES = 254  # TensorFlow's own limit
_MAX_IDENTITIES = 8  # looked through in a row; they may form a circle
_MAX_NAME = 1000  # bytes, so that a message can hold it
_EMPTY = memoryview(b"")

Array = npt.NDArray[np.float32 | np.int32]


class MalformedError(ValueError):
    """Bytes that are not what they should be; caught where the file's name is known."""


# --- the wire format ---


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """An unsigned integer in groups of seven bits, and the position after it."""
    if position < len(data) and data[position] < 0x80:  # most are that short
        return data[position], position + 1
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            raise MalformedError("it ends within a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedError("a number is longer than 64 bits")


def read_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: their numbers, and their values.

    A value is an integer, or else bytes: nested messages, strings, packed lists, and the numbers of
    4 or 8 bytes.
    """
    position = 0
    while position < len(data):
        key, position = read_varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = read_varint(data, position)
            yield number, value
            continue
        if wire_type == 2:
            size, position = read_varint(data, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise MalformedError(f"there is no wire type {wire_type}")
        if size > len(data) - position:
            raise MalformedError("a field is longer than the message that holds it")
        yield number, data[position : position + size]
        position += size


def as_bytes(value: int | memoryview) -> memoryview:
    """The value of a field that holds bytes."""
    if isinstance(value, int):
        raise MalformedError("a field holds a number instead of bytes")
    return value


def as_int(value: int | memoryview) -> int:
    """The value of a field that holds a signed integer."""
    if not isinstance(value, int):
        raise MalformedError("a field holds bytes instead of a number")
    return value - (1 << 64) if value >> 63 else value


def as_text(value: int | memoryview) -> str:
    """The value of a field that holds a name."""
    return decode_name(bytes(as_bytes(value)))


def decode_name(name: bytes) -> str:
    """A name that can be printed on one line."""
    if len(name) > _MAX_NAME:
        raise MalformedError(f"a name has {len(name)} bytes")
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise MalformedError("a name is not UTF-8") from None
    if not text.isprintable():
        raise MalformedError(f"the name {ascii(text)[:80]} cannot be printed")
    return text


def read_shape(data: memoryview) -> tuple[int, ...]:
    """A TensorShapeProto whose sizes are all known."""
    shape: list[int] = []
    for number, value in read_fields(data):
        if number == 3 and value:
            raise MalformedError("a tensor's shape is unknown")
        if number == 2:
            sizes = [as_int(v) for n, v in read_fields(as_bytes(value)) if n == 1]
            shape.append(sizes[-1] if sizes else 0)
        if len(shape) > _MAX_AXES or (shape and shape[-1] < 0):
            raise MalformedError("a tensor's shape is impossible")
    return tuple(shape)


# --- graphs ---


@dataclass(frozen=True)
class Node:
    """An operation of a graph."""

    name: str
    op: str
    inputs: tuple[str, ...]
    """Names of the nodes whose first output each input is; control inputs and later outputs keep
    their marks, `^name` and `name:1`."""
    attributes: Mapping[str, memoryview]
    """AttrValue messages, unread."""


@dataclass(frozen=True)
class Graph:
    """The nodes of a SavedModel by name, in the file's order."""

    path: Path
    nodes: Mapping[str, Node]
    nbytes: int
    """Size of the file."""


@dataclass(frozen=True)
class Constant:
    """The value of a Const node, checked but not yet unpacked."""

    shape: tuple[int, ...]
    stored: Array
    """The first values, float32 or int32. The last stored is that of all the others too."""

    def unpacked(self) -> Array:
        """The whole tensor; zeros where nothing at all is stored, as TensorFlow has it."""
        values = np.zeros(math.prod(self.shape), self.stored.dtype)
        if len(self.stored):
            values[: len(self.stored)] = self.stored
            values[len(self.stored) :] = self.stored[-1]
        return values.reshape(self.shape)


@dataclass(frozen=True)
class Table:
    """A float32 matrix that a graph holds, as one constant or as a stack of one for each row."""

    name: str
    rows: int
    width: int
    constants: tuple[Constant, ...]

    def tensor(self) -> Tensor:
        """The matrix (rows, width)."""
        stacked = np.concatenate([constant.unpacked() for constant in self.constants], axis=None)
        return torch.from_numpy(stacked.reshape(self.rows, self.width))


def read_graph(path: Path) -> Graph:
    """Read the graph of a `saved_model.pb`.

    Of several graphs it is the one with the fewest tags: the others are for training.

    Raises:
        InputError: The file cannot be read, or is no SavedModel.
    """
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        graphs = [_tags_and_graph(as_bytes(v)) for n, v in read_fields(data) if n == 2]
        if not graphs:
            raise MalformedError("it holds no graph")
        _, graph = min(graphs, key=lambda found: found[0])
        return Graph(path, _nodes(graph), len(data))
    except MalformedError as error:
        raise _not_whole(path, error) from None


def find_tables(graph: Graph, rows: Collection[int]) -> list[Table]:
    """The float32 matrices with so many rows: constants, and stacks of constant vectors.

    Args:
        graph: Where to look.
        rows: The numbers of rows that count.

    Raises:
        InputError: A constant is not what its shape says.
    """
    constants: dict[str, Constant | None] = {}

    def constant(name: str) -> Constant | None:
        node = _behind_identities(graph.nodes, name)
        if node is None or node.op != "Const":
            return None
        if node.name not in constants:
            constants[node.name] = _constant(node, graph.nbytes)
        return constants[node.name]

    try:
        found = [_table(node, constant, rows) for node in graph.nodes.values()]
    except MalformedError as error:
        raise _not_whole(graph.path, error) from None
    return [table for table in found if table is not None]


def _not_whole(path: Path, error: MalformedError) -> DamagedFileError:
    return DamagedFileError(f"{path} is not a whole SavedModel: {error}; fetch it again")


def _tags_and_graph(meta_graph: memoryview) -> tuple[int, memoryview]:
    """Of a MetaGraphDef, the number of its tags and its GraphDef."""
    tags, graph = 0, memoryview(b"")
    for number, value in read_fields(meta_graph):
        if number == 1:
            tags = sum(n == 4 for n, _ in read_fields(as_bytes(value)))
        if number == 2:
            graph = as_bytes(value)
    return tags, graph


def _nodes(graph: memoryview) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for number, value in read_fields(graph):
        if number == 1:
            node = _node(as_bytes(value))
            if node.name in nodes:
                raise MalformedError(f"it has two nodes {node.name}")
            nodes[node.name] = node
    return nodes


def _node(data: memoryview) -> Node:
    name = op = ""
    inputs: list[str] = []
    attributes: dict[str, memoryview] = {}
    for number, value in read_fields(data):
        if number == 1:
            name = as_text(value)
        elif number == 2:
            op = as_text(value)
        elif number == 3:
            inputs.append(as_text(value).removesuffix(":0"))
        elif number == 5:
            entry = dict(read_fields(as_bytes(value)))
            attributes[as_text(entry.get(1, _EMPTY))] = as_bytes(entry.get(2, _EMPTY))
    return Node(name, op, tuple(inputs), attributes)


def _table(
    node: Node, constant: Callable[[str], Constant | None], rows: Collection[int]
) -> Table | None:
    """The table that a node is, if it is one."""
    if node.op == "Const":
        whole = constant(node.name)
        if whole is None or len(whole.shape) != 2 or whole.shape[0] not in rows:
            return None
        if whole.stored.dtype != np.float32:
            return None
        return Table(node.name, *whole.shape, (whole,))
    parts = [name for name in node.inputs if not name.startswith("^")]
    if node.op != "Pack" or len(parts) not in rows or _int_attribute(node, "axis") != 0:
        return None
    vectors = [vector for vector in map(constant, parts) if vector is not None]
    shapes = {vector.shape for vector in vectors}
    if len(vectors) < len(parts) or len(shapes) > 1 or len(vectors[0].shape) != 1:
        return None
    if any(vector.stored.dtype != np.float32 for vector in vectors):
        return None
    return Table(node.name, len(parts), *vectors[0].shape, tuple(vectors))


def _behind_identities(nodes: Mapping[str, Node], name: str) -> Node | None:
    """The node that a name means when nodes that only pass a value on are looked through."""
    node = nodes.get(name)
    for _ in range(_MAX_IDENTITIES):
        if node is None or node.op != "Identity" or not node.inputs:
            break
        node = nodes.get(node.inputs[0])
    return node


def _int_attribute(node: Node, name: str) -> int:
    fields = read_fields(node.attributes.get(name, _EMPTY))
    return next((as_int(value) for number, value in fields if number == 3), 0)


def _constant(node: Node, limit: int) -> Constant | None:
    """The value of a Const node; None for a type other than float32 and int32.

    Args:
        node: The node.
        limit: Most values that are believed: a few bytes can claim any number of equal values.
    """
    attribute = read_fields(node.attributes.get("value", _EMPTY))
    tensor = next((as_bytes(value) for number, value in attribute if number == 8), _EMPTY)
    shape: tuple[int, ...] = ()
    dtype, content, floats, ints = 0, _EMPTY, bytearray(), list[int]()
    for number, value in read_fields(tensor):
        if number == 1:
            dtype = as_int(value)
        elif number == 2:
            shape = read_shape(as_bytes(value))
        elif number == 4:
            content = as_bytes(value)
        elif number == 5:  # packed, or a field for each value: the bytes are the same
            floats += as_bytes(value)
        elif number == 7:
            ints += _int32_values(value)
    if dtype not in (_FLOAT, _INT32):
        return None
    listed = floats if dtype == _FLOAT else np.array(ints, "<i4").tobytes()
    stored: bytes | bytearray | memoryview = content or listed
    size = math.prod(shape)
    if size > limit:
        raise MalformedError(f"the constant {node.name} claims to have {size} values")
    if len(stored) % 4 or len(stored) > 4 * size or (content and len(stored) < 4 * size):
        raise MalformedError(f"the constant {node.name} has {len(stored)} bytes for {size} values")
    return Constant(shape, np.frombuffer(stored, "<f4" if dtype == _FLOAT else "<i4"))


def _int32_values(value: int | memoryview) -> list[int]:
    """Integers of 32 bits, packed or alone; written as 64 bits, of which the upper half repeats."""
    if isinstance(value, int):
        values = [value]
    else:
        values, position = [], 0
        while position < len(value):
            number, position = read_varint(value, position)
            values.append(number)
    return [(v & 0xFFFFFFFF) - ((v & 0x80000000) << 1) for v in values]
