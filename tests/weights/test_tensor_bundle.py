"""TensorFlow's checkpoints: what TensorFlow wrote is read, and damage of any kind is one line."""

import re
import shutil

import numpy as np
import pytest
import torch

from biggan.weights.containers.tensor_bundle import VARIABLES, crc32c, masked, read_bundle
from mutations import read_damaged
from tensorflow_formats import (
    block,
    entry,
    field,
    finished,
    handle,
    header,
    sealed,
    table,
    varint,
    write_bundle,
)
from tiny import refusal


@pytest.fixture
def recorded(modules):
    """Variables that TensorFlow wrote."""
    return modules / "tfhub-biggan" / VARIABLES


@pytest.fixture
def prefix(tmp_path):
    return tmp_path / "variables"


def index_of(prefix, *entries, data=bytes(64)):
    """Write a checkpoint of these entries, after a header."""
    prefix.with_name("variables.data-00000-of-00001").write_bytes(data)
    prefix.with_name("variables.index").write_bytes(table(block([header(), *entries])))


@pytest.mark.parametrize(
    ("data", "checksum"),  # of RFC 3720, B.4, and of everybody's check
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksums_are_those_of_the_standard(data, checksum):
    assert crc32c(np.frombuffer(data, np.uint8)) == checksum


def bytewise(data):
    """CRC-32C as its definition has it."""
    steps = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        steps.append(byte)
    register = 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ steps[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize("size", [*range(70), 1023, 4096, 262_143, 262_144, 262_149, 600_001])
def test_checksums_of_any_length(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    assert crc32c(data) == bytewise(data.tolist())


def test_what_tensorflow_wrote(recorded):
    bundle = read_bundle(recorded)
    assert len(bundle) == 239
    kernel = bundle["Generator/GBlock_1/conv0/w/ema_b999900"]
    assert kernel.shape == (3, 3, 64, 32)
    assert kernel.dtype == torch.float32
    assert 0.09 < kernel.std() < 0.11
    assert bundle["Generator/GBlock/CrossReplicaBN/accumulation_counter"] == 1
    for name, tensor in bundle.items():  # every checksum
        assert tensor.isfinite().all(), name


def test_every_type_shape_and_alignment(prefix):
    variables = {
        "a/odd": np.arange(3, dtype=np.uint8),  # those after it are out of step
        "b/float": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
        "b/half": np.float16([1.5, -2]),
        "c/double": np.float64(0.1),
        "d/int": np.int32([-1, 2**31 - 1]),
        "d/long": np.int64([[-(2**63)]]),
        "e/short": np.int16([-300]),
        "f/byte": np.int8([-128, 127]),
        "g/empty": np.zeros((0, 5), np.float32),
        "π": np.float32([3.14]),
    }
    write_bundle(prefix, variables)
    bundle = read_bundle(prefix)
    assert list(bundle) == list(variables)
    for name, value in variables.items():
        assert torch.equal(bundle[name], torch.from_numpy(np.array(value))), name
        assert bundle[name].data_ptr() % bundle[name].element_size() == 0, name


def test_variables_in_two_files_and_two_blocks(prefix):
    blocks = []
    for number, name in enumerate("xy"):
        values = np.float32([number, 2])
        prefix.with_name(f"variables.data-0000{number}-of-00002").write_bytes(values.tobytes())
        checksum = masked(crc32c(values.view(np.uint8)))
        variable = entry([2], shard=number, size=8, checksum=checksum)
        blocks.append(block([*([] if blocks else [header(2)]), (name.encode(), variable)]))
    prefix.with_name("variables.index").write_bytes(table(*blocks))
    bundle = read_bundle(prefix)
    assert bundle["x"].tolist() == [0, 2]
    assert bundle["y"].tolist() == [1, 2]


def test_nothing_but_an_empty_variable(prefix):
    write_bundle(prefix, {"x": np.zeros((0, 5), np.float32)})
    assert read_bundle(prefix)["x"].shape == (0, 5)


def test_a_tensor_is_no_way_into_its_file(recorded):
    read_bundle(recorded)["linear/w/ema_b999900"].zero_()
    assert read_bundle(recorded)["linear/w/ema_b999900"].any()


FLOATS = {"size": 16, "checksum": 0}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([(b"x", entry([4], offset=56, **FLOATS))], "data-00000-of-00001 is cut short: x reaches"),
        ([(b"x", entry([4], offset=-1, **FLOATS))], "x has an impossible place"),
        ([(b"x", entry([4], shard=1, **FLOATS))], "x has an impossible place"),
        ([(b"x", entry([5], **FLOATS))], "x has 16 bytes"),
        ([(b"x", entry([2**62, 2**62], **FLOATS))], "x has 16 bytes"),
        ([(b"x", entry([2**62, 2**62], 7, **FLOATS))], "x has 16 bytes"),
        ([(b"x", entry([-4], **FLOATS))], "shape is impossible"),
        ([(b"x", entry([1] * 255, **FLOATS))], "shape is impossible"),
        ([(b"x", field(2, field(3, 1)))], "shape is unknown"),
        ([(b"x", entry([4], slices=field(7, b""), **FLOATS))], "x is stored in slices"),
        ([(b"x", field(1, b"four"))], "bytes instead of a number"),
        ([(b"x", field(2, 5))], "a number instead of bytes"),
        ([(b"x", b"\x0f")], "no wire type 7"),
        ([(b"x", b"\x08")], "ends within a number"),
        ([(b"x", b"\x08" + b"\xff" * 10 + b"\x01")], "longer than 64 bits"),
        ([(b"x", b"\x12\x7f")], "longer than the message"),
        ([(b"\xff", entry([4], **FLOATS))], "a name is not UTF-8"),
        ([(b"x\ny", entry([4], **FLOATS))], r"the name 'x\\ny' cannot be printed"),
        ([(b"y", entry([0])), (b"x", entry([0]))], "names are not in order"),
        ([(b"x", entry([0])), (b"x", entry([0]))], "names are not in order"),
        (
            [(b"x", entry([4], **FLOATS)), (b"y", entry([4], offset=12, **FLOATS))],
            "index is damaged: x and y overlap",
        ),
    ],
)
def test_impossible_entries_are_refused(prefix, entries, message):
    index_of(prefix, *entries)
    said = refusal(read_bundle, prefix)
    assert re.search(message, said)
    assert str(prefix) in said


def block_of_names(count, length):
    """A block in which every name repeats all of the one before it."""
    parts = [varint(0) + varint(0) + varint(2) + header()[1][:2]]
    value = field(1, 1) + field(2, field(2, b""))
    parts.append(varint(0) + varint(length) + varint(len(value)) + b"x" * length + value)
    for i in range(count):
        parts.append(varint(length + i) + varint(1) + varint(len(value)) + b"x" + value)
    return sealed(b"".join(parts) + (0).to_bytes(4, "little") + (1).to_bytes(4, "little"))


GOOD = block([header(), (b"x", entry([], 1, size=4))])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"", "does not end as one"),
        (b"a text file of some length, but none of TensorFlow's", "does not end as one"),
        (table(GOOD)[:-1] + b"\0", "does not end as one"),
        (bytes([1]) + table(GOOD)[1:], "a block has a wrong checksum"),
        (table(block([], compression=1)), r"compressed \(method 1\), which is not read here"),
        (table(block([(b"x", entry([]))])), "no header"),
        (table(block([header(0)])), "claims 0 data files"),
        (table(block([header(2**40)])), "claims 1099511627776 data files"),
        (table(block([header(1, 1)])), "big-endian"),
        (table(sealed(b"")), "a block has no end"),
        (table(sealed(b"\xff\xff\xff\xff")), "a block has no end"),
        (table(sealed(b"\0\x05\0" + bytes(4))), "reaches beyond its block"),
        (table(sealed(b"\x01\0\0" + bytes(4))), "reaches beyond its block"),
        (finished(GOOD, [(b"", varint(0) + varint(2**40))]), "a block reaches beyond its end"),
        (finished(GOOD, [(b"", varint(2**63) + varint(1))]), "a block reaches beyond its end"),
        (finished(GOOD, [(b"", handle(0, GOOD)), (b"x", handle(0, GOOD))]), "blocks overlap"),
        (table(block_of_names(1, 100_000)), "a name has 100000 bytes"),
        (table(block_of_names(400, 600)), "unpack to more than they can"),
    ],
)
def test_damaged_indices_are_refused(prefix, index, message):
    prefix.with_name("variables.data-00000-of-00001").write_bytes(bytes(64))
    path = prefix.with_name("variables.index")
    path.write_bytes(index)
    said = refusal(read_bundle, prefix)
    assert re.search(message, said)
    assert str(path) in said


def test_a_variable_of_a_type_that_is_not_read_is_left(prefix):
    index_of(prefix, (b"x", entry([], 7, size=5, checksum=masked(crc32c(np.zeros(5, np.uint8))))))
    assert read_bundle(prefix) == {}


def test_missing_files_are_refused(prefix):
    assert re.search(r"cannot read .*variables\.index: No such file", refusal(read_bundle, prefix))
    write_bundle(prefix, {"x": np.float32([1, 2])})
    data = prefix.with_name("variables.data-00000-of-00001")
    data.write_bytes(b"")
    assert "data-00000-of-00001 is cut short" in refusal(read_bundle, prefix)
    data.unlink()
    assert re.search(r"cannot read .*data-00000-of-00001", refusal(read_bundle, prefix))


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_no_damage_passes(recorded, tmp_path, suffix):
    shutil.copytree(recorded.parent, tmp_path / "v")
    prefix = tmp_path / "v" / "variables"
    whole, refusals = {name: tensor.clone() for name, tensor in read_bundle(prefix).items()}, 0
    path = prefix.with_name(f"variables.{suffix}")
    for found in read_damaged(lambda _: read_bundle(prefix), path, 60):
        refusals += found is None
        assert found is None or all(torch.equal(found[name], whole[name]) for name in whole)
    assert refusals > 40


def test_damage_that_the_checksums_do_not_see(prefix, tmp_path):
    """Every block is sealed again after it was damaged: whatever is made of it, it is no crash."""
    variables = {f"a/{i}": np.arange(i, dtype=np.float32) for i in range(9)}
    write_bundle(prefix, variables)
    path, data = prefix.with_name("variables.index"), tmp_path / "block"
    index = path.read_bytes()
    data.write_bytes(index[: index.index(sealed(bytes(4) + b"\x01\0\0\0")) - 5])  # the only one

    def read(_):
        path.write_bytes(table(sealed(data.read_bytes())))
        return read_bundle(prefix)

    assert list(read_damaged(read, data, 500)).count(None) > 150
