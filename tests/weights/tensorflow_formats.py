"""Writes TensorFlow's formats byte by byte, whole or faulty, for the tests of their readers."""

import numpy as np

from biggan.weights.containers.tensor_bundle import crc32c, masked

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
DTYPES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "int64": 9,
    "float16": 19,
}


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    """A field: integers as varints, all else as bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed32(number, value):
    return varint(number << 3 | 5) + value.to_bytes(4, "little")


def shape_proto(shape):
    return b"".join(field(2, field(1, size)) for size in shape)


def node(name, op, inputs=(), **attributes):
    """A NodeDef; attributes are AttrValue messages."""
    parts = [field(1, name), field(2, op), *(field(3, i) for i in inputs)]
    parts += [field(5, field(1, key) + field(2, value)) for key, value in attributes.items()]
    return b"".join(parts)


def tensor_proto(shape, dtype=1, **stored):
    """A TensorProto; `stored` has content, floats (packed), float_fields or ints."""
    parts = [field(1, dtype), field(2, shape_proto(shape))]
    if "content" in stored:
        parts.append(field(4, stored["content"]))
    if "floats" in stored:
        parts.append(field(5, np.array(stored["floats"], "<f4").tobytes()))
    for value in stored.get("float_fields", ()):
        parts.append(fixed32(5, int(np.array(value, "<f4").view("<u4"))))
    if "ints" in stored:
        parts.append(field(7, b"".join(varint(value) for value in stored["ints"])))
    return b"".join(parts)


def const(name, proto):
    return node(name, "Const", value=field(8, proto))


def floats(name, values):
    """A constant of float32, stored as most are."""
    values = np.asarray(values, "<f4")
    return const(name, tensor_proto(values.shape, content=values.tobytes()))


def saved_model(*nodes, tags=()):
    return field(1, 1) + meta_graph(*nodes, tags=tags)


def meta_graph(*nodes, tags=()):
    """A MetaGraphDef as a field of a SavedModel."""
    info = b"".join(field(4, tag) for tag in tags)
    graph = b"".join(field(1, n) for n in nodes)
    return field(2, field(1, info) + field(2, graph))


def block(entries, *, compression=0):
    """A block of a table without shared prefixes, and its trailer."""
    parts = [varint(0) + varint(len(key)) + varint(len(v)) + key + v for key, v in entries]
    return sealed(
        b"".join(parts) + (0).to_bytes(4, "little") + (1).to_bytes(4, "little"), compression
    )


def sealed(contents, compression=0):
    contents += bytes([compression])
    return contents + masked(crc32c(np.frombuffer(contents, np.uint8))).to_bytes(4, "little")


def handle(offset, sealed_block):
    return varint(offset) + varint(len(sealed_block) - 5)


def table(*blocks):
    """A whole table of sealed data blocks."""
    data, handles = b"", []
    for number, data_block in enumerate(blocks):
        handles.append((bytes([number]), handle(len(data), data_block)))
        data += data_block
    return finished(data, handles)


def finished(data, handles):
    """A table of data blocks that are already there: metaindex, index, footer."""
    meta, index = block([]), block(handles)
    footer = handle(len(data), meta) + handle(len(data + meta), index)
    return data + meta + index + footer.ljust(40, b"\0") + MAGIC


def header(shards=1, endianness=0):
    return b"", field(1, shards) + field(2, endianness)


def entry(shape, dtype=1, *, shard=0, offset=0, size=0, checksum=0, slices=b""):
    """A BundleEntryProto."""
    parts = [field(1, dtype), field(2, shape_proto(shape)), field(3, shard), field(4, offset)]
    return b"".join([*parts, field(5, size), fixed32(6, checksum), slices])


def write_bundle(prefix, variables):
    """Write arrays as a checkpoint of one shard."""
    data = b""
    entries = [header()]
    for name, value in sorted(variables.items(), key=lambda item: item[0].encode()):
        stored = np.asarray(value)
        raw = np.frombuffer(stored.tobytes(), np.uint8)
        place = {"offset": len(data), "size": len(raw), "checksum": masked(crc32c(raw))}
        entries.append((name.encode(), entry(stored.shape, DTYPES[str(stored.dtype)], **place)))
        data += raw.tobytes()
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(block(entries)))
