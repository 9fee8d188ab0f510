"""Protocol buffers, read without their library: the wire format, and messages by a table of fields.

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MAX_NAME = 1000  # bytes, so that a message can hold it

Schema = Mapping[int, tuple[str, Any]]
"""Of the fields that are read, the number, the name and the kind: int, str (a name that can be
printed on one line), bytes (as it is), or the schema of a nested message."""


class MalformedError(ValueError):
    """Bytes that are not what they should be; caught where the file's name is known."""


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
    """The numbers of a message's fields, and their values: integers, or bytes for other types."""
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


def read_message(data: memoryview, schema: Schema) -> dict[str, list[Any]]:
    """The values of a message's fields by name, each a list: a field may be there many times."""
    message: dict[str, list[Any]] = {name: [] for name, _ in schema.values()}
    for number, value in read_fields(data):
        if number in schema:
            name, kind = schema[number]
            message[name].append(_typed(value, kind))
    return message


def last(values: list[Any], default: Any) -> Any:
    """The value of a field that is not repeated: the last one, or the default of its type."""
    return values[-1] if values else default


def _typed(value: int | memoryview, kind: Any) -> Any:
    if kind is int:
        if not isinstance(value, int):
            raise MalformedError("a field holds bytes instead of a number")
        return value - (1 << 64) if value >> 63 else value
    if isinstance(value, int):
        raise MalformedError("a field holds a number instead of bytes")
    if kind is bytes:
        return value
    return decode_name(bytes(value)) if kind is str else read_message(value, kind)


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


# --- of TensorFlow (tensorflow/core/framework/tensor_shape.proto) ---

_MAX_AXES = 254  # TensorFlow's own limit

SHAPE: Schema = {2: ("axes", {1: ("size", int)}), 3: ("unknown", int)}


def known_shape(message: Mapping[str, list[Any]]) -> tuple[int, ...]:
    """The shape in a TensorShapeProto; all its sizes must be known."""
    if any(message["unknown"]):
        raise MalformedError("a tensor's shape is unknown")
    shape = tuple(last(axis["size"], 0) for axis in message["axes"])
    if len(shape) > _MAX_AXES or any(size < 0 for size in shape):
        raise MalformedError("a tensor's shape is impossible")
    return shape
