"""TensorFlow's checkpoints, read without TensorFlow: `variables.index` and `variables.data-*`.

The index is a table in LevelDB's format (tensorflow/core/lib/io/format.h: data blocks of
prefix-compressed keys, an index block, a footer) from each variable's name to a BundleEntryProto
that says where its bytes are (tensorflow/core/protobuf/tensor_bundle.proto). Every block and every
variable has a checksum, CRC-32C, and each is verified when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
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
    decode_name,
    known_shape,
    last,
    read_message,
    read_varint,
)

VARIABLES = "variables/variables"
"""Path of a module's variables, without endings."""

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48  # bytes: two block handles, padding, the magic number
_TRAILER = 5  # bytes after a block: its compression and checksum
_RESTART_INTERVAL = 16  # at least every so many entries of a block, TensorFlow writes a key in full
_HEADER = {1: ("shards", int), 2: ("big_endian", int)}
_ENTRY = {
    1: ("dtype", int),
    2: ("shape", SHAPE),
    3: ("shard", int),
    4: ("offset", int),
    5: ("size", int),
    6: ("checksum", bytes),
    7: ("slices", bytes),
}

_DTYPES: dict[int, np.dtype[Any]] = {  # by their numbers in tensorflow/core/framework/types.proto
    1: np.dtype(np.float32),
    2: np.dtype(np.float64),
    3: np.dtype(np.int32),
    4: np.dtype(np.uint8),
    5: np.dtype(np.int16),
    6: np.dtype(np.int8),
    9: np.dtype(np.int64),
    19: np.dtype(np.float16),
}

Words = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Entry:
    """Where a variable is, and what the index says of it."""

    dtype: int  # TensorFlow's number of the type
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # in bytes
    checksum: int  # masked CRC-32C of the bytes


def read_bundle(prefix: Path) -> dict[str, Tensor]:
    """The variables of a checkpoint by name, each verified; those of strings and the like are left.

    Tensors are parts of private maps of the files, not copies: they take memory as they are read.

    Args:
        prefix: The checkpoint's path without `.index`, such as `variables/variables`.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    try:
        shards, entries = _read_index(memoryview(index.read_bytes()))
        files = {
            number: prefix.with_name(f"{prefix.name}.data-{number:05d}-of-{shards:05d}")
            for number in {entry.shard for entry in entries.values()}
        }
        sizes = {number: file.stat().st_size for number, file in files.items()}
        _check_places(entries, files, sizes, index)
        # Writable, for torch wants that; what is written stays in memory.
        maps = {n: np.memmap(files[n], np.uint8, "c") for n, size in sizes.items() if size}
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror or error}") from None
    except MalformedError as error:
        raise DamagedFileError(
            f"{index} is not a whole index of TensorFlow variables: {error}; download it again"
        ) from None
    tensors = {}
    for name, entry in entries.items():
        stored = np.empty(0, np.uint8)
        if entry.size:
            stored = maps[entry.shard][entry.offset : entry.offset + entry.size]
        if masked(crc32c(stored)) != entry.checksum:
            raise DamagedFileError(
                f"{files[entry.shard]} is damaged: {name} has a wrong checksum; download it again"
            )
        if dtype := _DTYPES.get(entry.dtype):
            aligned = np.require(stored.view(dtype), requirements="A")  # few are out of step
            tensors[name] = torch.from_numpy(aligned.reshape(entry.shape))
    return tensors


def _check_places(
    entries: Mapping[str, Entry], files: Mapping[int, Path], sizes: Mapping[int, int], index: Path
) -> None:
    """Make sure that every variable lies within its file and outside of all others."""
    by_place = sorted(entries.items(), key=lambda item: (item[1].shard, item[1].offset))
    for name, entry in by_place:
        if entry.offset + entry.size > sizes[entry.shard]:
            raise DamagedFileError(
                f"{files[entry.shard]} is cut short: {name} reaches beyond its end"
            )
    for (first, before), (second, after) in pairwise(by_place):
        if before.shard == after.shard and before.offset + before.size > after.offset:
            raise DamagedFileError(
                f"{index} is damaged: {first} and {second} overlap; download it again"
            )


# --- the index ---


def _read_index(data: memoryview) -> tuple[int, dict[str, Entry]]:
    """The number of data files, and the entries by name."""
    shards = 0
    entries: dict[str, Entry] = {}
    for key, value in _table_entries(data):
        if key == b"":
            message = read_message(value, _HEADER)
            shards = last(message["shards"], 0)
            if any(message["big_endian"]):
                raise MalformedError("it was written on a big-endian machine")
            if not 0 < shards < 100_000:  # their names have five digits
                raise MalformedError(f"it claims {shards} data files")
        elif shards == 0:
            raise MalformedError("it has no header")
        else:
            name = decode_name(key)
            entries[name] = _read_entry(name, value, shards)
    return shards, entries


def _read_entry(name: str, data: memoryview, shards: int) -> Entry:
    """A BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto)."""
    message = read_message(data, _ENTRY)
    if message["slices"]:
        raise MalformedError(f"{name} is stored in slices, which are not read here")
    entry = Entry(
        dtype=last(message["dtype"], 0),
        shape=known_shape(last(message["shape"], {"axes": [], "unknown": []})),
        shard=last(message["shard"], 0),
        offset=last(message["offset"], 0),
        size=last(message["size"], 0),
        checksum=int.from_bytes(last(message["checksum"], b""), "little"),
    )
    if not 0 <= entry.shard < shards or entry.offset < 0 or entry.size < 0:
        raise MalformedError(f"{name} has an impossible place")
    numbers = math.prod(entry.shape)
    dtype = _DTYPES.get(entry.dtype)
    # No type takes less than a byte.
    if entry.size < numbers or (dtype and entry.size != numbers * dtype.itemsize):
        raise MalformedError(
            f"{name} has {entry.size} bytes, which is not the size of its shape {entry.shape}"
        )
    return entry


def _table_entries(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The keys, ascending, and values of a table."""
    footer = len(data) - _FOOTER
    if footer < 0 or data[-len(_MAGIC) :] != _MAGIC:
        raise MalformedError("it does not end as one")
    _, position = _read_handle(data, footer)  # of the metaindex, which is empty
    index, _ = _read_handle(data, position)
    last_key: bytes | None = None
    end = 0
    for _, handle in _block_entries(_block(data[:footer], *index)):
        (offset, size), _ = _read_handle(handle, 0)
        if offset < end:
            raise MalformedError("its blocks overlap")
        end = offset + size + _TRAILER
        for key, value in _block_entries(_block(data[:footer], offset, size)):
            if last_key is not None and key <= last_key:
                raise MalformedError("its names are not in order")
            last_key = key
            yield key, value


def _read_handle(data: memoryview, position: int) -> tuple[tuple[int, int], int]:
    """The offset and size of a block, and the position after them."""
    offset, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return (offset, size), position


def _block(data: memoryview, offset: int, size: int) -> memoryview:
    """A block's contents, verified."""
    end = offset + size
    if end + _TRAILER > len(data):
        raise MalformedError("a block reaches beyond its end")
    checksum = int.from_bytes(data[end + 1 : end + _TRAILER], "little")
    if masked(crc32c(np.frombuffer(data[offset : end + 1], np.uint8))) != checksum:
        raise MalformedError("a block has a wrong checksum")
    if data[end] != 0:
        raise MalformedError(f"a block is compressed (method {data[end]}), which is not read here")
    return data[offset:end]


def _block_entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The keys and values of a block; a key repeats the first bytes of the one before it."""
    restarts = int.from_bytes(block[-4:], "little") if len(block) >= 4 else -1
    end = len(block) - 4 - 4 * restarts
    if restarts < 0 or end < 0:
        raise MalformedError("a block has no end")
    key = b""
    position = unpacked = 0
    while position < end:
        shared, position = read_varint(block, position)
        added, position = read_varint(block, position)
        size, position = read_varint(block, position)
        if shared > len(key) or added + size > end - position:
            raise MalformedError("a name or value reaches beyond its block")
        key = key[:shared] + bytes(block[position : position + added])
        unpacked += len(key)
        if unpacked > _RESTART_INTERVAL * len(block):
            raise MalformedError("its names unpack to more than they can")
        position += added
        yield key, block[position : position + size]
        position += size


# --- the checksum ---

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_LANES = 1 << 16


def masked(checksum: int) -> int:
    """A checksum as TensorFlow stores it, so that one over data with checksums is none of them."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: npt.NDArray[np.uint8]) -> int:
    """The CRC-32C of bytes, in numpy alone.

    A CRC is linear over bits: a word followed by n words contributes what the register becomes when
    it is loaded with the word and n zero words pass, whatever else there is. So the words are taken
    as rows of many lanes; the lanes' registers move on row by row, all at once, and in the end they
    are folded to one, the first half of them moving on past the second.
    """
    head = len(data) % 4
    register = 0xFFFFFFFF
    for byte in data[:head].tolist():
        register = _advance_bits(register ^ byte, 8)
    words = data[head:].view("<u4")
    if len(words) == 0:
        return register ^ 0xFFFFFFFF
    lanes = min(_LANES, 1 << (len(words) - 1).bit_length())
    first = (len(words) - 1) % lanes + 1  # words of the first row, which zeros fill from the left
    registers = np.zeros(lanes, np.uint32)
    registers[-first:] = words[:first]
    registers[-first] ^= np.uint32(register)
    for row in words[first:].reshape(-1, lanes):
        _advance(registers, lanes)
        registers ^= row
    while lanes > 1:
        lanes //= 2
        before, registers = registers[:lanes], registers[lanes:]
        _advance(before, lanes)
        registers ^= before
    _advance(registers, 1)
    return int(registers[0]) ^ 0xFFFFFFFF


def _advance_bits(register: int, bits: int) -> int:
    for _ in range(bits):
        register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
    return register


def _advance(registers: Words, words: int) -> None:
    """Move registers on past so many zero words, a power of two, in place."""
    low, high = _tables(words)
    # Indices of numpy's own type, and no check of their range: the loop is twice as fast.
    upper = np.take(high, (registers >> 16).astype(np.intp), mode="clip")
    np.take(low, (registers & 0xFFFF).astype(np.intp), mode="clip", out=registers)
    registers ^= upper


@cache
def _tables(words: int) -> tuple[Words, Words]:
    """What becomes of each lower and each upper half of a register past so many zero words."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if words == 1:
        bits = np.array([_advance_bits(int(bit), 32) for bit in bits], np.uint32)
    else:
        _advance(bits, words // 2)
        _advance(bits, words // 2)
    low, high = np.zeros(1, np.uint32), np.zeros(1, np.uint32)
    for i in range(16):
        low = np.concatenate([low, low ^ bits[i]])
        high = np.concatenate([high, high ^ bits[16 + i]])
    return low, high
