"""Graphs of TensorFlow: constants and stacks of them come out, whatever else a graph may hold."""

import re

import numpy as np
import pytest

from biggan.errors import InputError
from biggan.weights.containers.graph_def import find_tables
from biggan.weights.containers.tensor_bundle import VARIABLES, read_bundle
from mutations import read_damaged
from tensorflow_formats import (
    const,
    field,
    floats,
    meta_graph,
    node,
    saved_model,
    tensor_proto,
    varint,
)
from tiny import refusal

PADDING = node("padding", "NoOp", label=bytes(500))  # a file may claim no more values than bytes


@pytest.fixture
def read(tmp_path):
    """The tables of three rows that a graph of these nodes has."""

    def read(*nodes):
        path = tmp_path / "saved_model.pb"
        path.write_bytes(saved_model(PADDING, *nodes))
        return find_tables(path, (3,))

    return read


def vectors(rows=3, width=2):
    return [floats(f"c{i}", [i + 0.5 * j for j in range(width)]) for i in range(rows)]


def stack(*inputs, **attributes):
    return node("stack", "Pack", inputs or ("c0", "c1", "c2"), **attributes)


@pytest.mark.parametrize("kind", ["tfhub-biggan", "tfhub-biggan-deep"])
def test_what_tensorflow_wrote(modules, kind):
    """One of the two has stacks of constants, the other's were folded to one constant each."""
    tables = find_tables(modules / kind / "saved_model.pb", (50, 51))
    deep = kind.endswith("deep")
    numbers = (1, 3, 6, 8) if deep else (1, 3)
    assert [t.name for t in tables][: len(numbers)] == [f"stack_{n}" for n in numbers]
    assert len(tables) == (82 if deep else 22)
    assert {t.rows for t in tables} == {51 if deep else 50}
    assert all(t.tensor().shape == (t.rows, t.width) for t in tables)
    if not deep:  # whose last rows are variables as well
        bundle = read_bundle(modules / kind / VARIABLES)
        scope = "Generator/GBlock_1/CrossReplicaBN_1"
        assert tables[6].tensor()[-1].equal(bundle[f"{scope}/accumulated_mean"])
        assert tables[7].tensor()[-1].equal(bundle[f"{scope}/accumulated_var"])


def test_a_stack_of_constants(read):
    [table] = read(*vectors(), stack())
    assert (table.name, table.rows, table.width) == ("stack", 3, 2)
    assert table.tensor().tolist() == [[0, 0.5], [1, 1.5], [2, 2.5]]


def test_a_stack_is_made_of_what_it_names(read):
    nodes = [
        *vectors(),
        node("i", "Identity", ["c2:0"]),
        node("j", "Identity", ["i", "^c0"]),
        stack("j", "c1:0", "c0", "^c2", axis=field(3, 0)),
    ]
    [table] = read(*nodes)
    assert table.tensor()[:, 0].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    "stored",
    [
        {"content": np.array([[1, 2], [3, 3], [3, 3]], "<f4").tobytes()},
        {"floats": [1, 2, 3, 3, 3, 3]},
        {"floats": [1, 2, 3]},  # the last is repeated
        {"float_fields": [1, 2, 3]},
        {"floats": [1], "float_fields": [2, 3]},
    ],
)
def test_every_way_to_store_a_constant(read, stored):
    [table] = read(const("table", tensor_proto([3, 2], **stored)))
    assert table.name == "table"
    assert table.tensor().tolist() == [[1, 2], [3, 3], [3, 3]]


def test_a_constant_of_which_nothing_is_stored_is_zero(read):
    [table] = read(const("table", tensor_proto([3, 2])))
    assert table.tensor().tolist() == [[0, 0]] * 3


def test_the_graph_for_sampling_is_read(tmp_path):
    path = tmp_path / "saved_model.pb"
    training = saved_model(PADDING, floats("training", np.zeros((3, 1))), tags=["train"])
    path.write_bytes(training + meta_graph(PADDING, floats("plain", np.zeros((3, 1)))))
    assert [table.name for table in find_tables(path, (3,))] == ["plain"]


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [*vectors(2), stack("c0", "c1")],  # too few rows
        [*vectors(4), stack("c0", "c1", "c2", "c3")],
        [*vectors(), stack(axis=field(3, 1))],
        [*vectors(), node("concat", "ConcatV2", ["c0", "c1", "c2"])],
        [*vectors(2), floats("c2", [1, 2, 3]), stack()],  # of different widths
        [*vectors(2), floats("c2", 1), stack()],
        [*vectors(2), floats("c2", [[1, 2]]), stack()],
        [*vectors(2), node("c2", "Placeholder"), stack()],
        [*vectors(2), stack()],
        [*vectors(2), const("c2", tensor_proto([2], 3, ints=[-1, 2])), stack()],
        [const("c", tensor_proto([3, 2], 3, ints=[-1, 2])), stack("c", "c", "c")],
        [const("c", tensor_proto([3, 2], 2, content=bytes(48)))],  # of doubles
        [const("c", tensor_proto([3, 2], 7)), node("d", "Const"), stack("d", "d", "d")],
        [floats(f"c{i}", 1.0) for i in range(3)] + [stack()],  # of scalars
        [node("a", "Identity", ["b"]), node("b", "Identity", ["a"]), stack("a", "a", "a")],
        [node("a", "Identity"), stack("a", "a", "a")],
    ],
)
def test_what_is_no_table(read, nodes):
    assert read(*nodes) == []


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "holds no graph"),
        (b"no protocol buffer", "."),
        (field(1, 1), "holds no graph"),
        (field(2, 1), "a number instead of bytes"),
        (saved_model(node("x", "NoOp"), node("x", "NoOp")), "it has two nodes x"),
        (saved_model(field(1, b"\xff")), "a name is not UTF-8"),
        (saved_model(field(1, "x\n")), "cannot be printed"),
        (saved_model(field(1, "x" * 1001)), "a name has 1001 bytes"),
        (saved_model(field(3, 7)), "a number instead of bytes"),
        (saved_model(PADDING)[:-9], "longer than the message"),
        (b"\x0b", "no wire type 3"),
        (varint(2 << 3 | 2) + b"\xff\xff\xff\xff\x0f", "longer than the message"),
    ],
)
def test_no_graph_is_refused(tmp_path, contents, message):
    path = tmp_path / "saved_model.pb"
    path.write_bytes(contents)
    said = refusal(find_tables, path, (3,))
    assert re.search(message, said)
    assert str(path) in said


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (tensor_proto([3, 2], content=bytes(20)), "c has 20 bytes for 6 values"),
        (tensor_proto([3, 2], content=bytes(28)), "c has 28 bytes for 6 values"),
        (tensor_proto([3, 2], floats=[0] * 7), "c has 28 bytes for 6 values"),
        (tensor_proto([3, 2]) + field(5, b"123"), "c has 3 bytes for 6 values"),
        (tensor_proto([3, 2**40], floats=[0]), "c claims to have 3298534883328 values"),
        (tensor_proto([3, 2**62, 2**62]), "c claims to have"),
        (tensor_proto([3, -1]), "shape is impossible"),
        (field(1, 1) + field(2, field(3, 1)), "shape is unknown"),
    ],
)
def test_impossible_constants_are_refused(read, proto, message):
    assert re.search(message, refusal(read, const("c", proto)))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*saved_model\.pb: No such file"):
        find_tables(tmp_path / "saved_model.pb", (3,))


def test_damage_at_random_is_no_crash(tmp_path):
    """A graph has no checksum: it is refused, or it is another graph."""
    path = tmp_path / "saved_model.pb"
    others = [node("i", "Identity", ["c0"]), const("ints", tensor_proto([2], 3, ints=[-1, 2]))]
    repeated = const("repeated", tensor_proto([3, 9], floats=[1, 2]))
    path.write_bytes(saved_model(*vectors(), stack(), *others, repeated, tags=["serve"]))
    found = list(read_damaged(lambda path: find_tables(path, (3,)), path, 800))
    assert 80 < found.count(None) < 800
    for table in (table for tables in found for table in tables or ()):
        assert table.tensor().shape == (table.rows, table.width)
