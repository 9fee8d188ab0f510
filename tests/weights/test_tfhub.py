"""DeepMind's modules: the images that TensorFlow made, and one line for whatever does not fit.

`fixtures/write_tfhub_modules.py` made the modules and the images.
"""

import functools
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from biggan.weights.containers import graph_def
from biggan.weights.containers.graph_def import GRAPH
from biggan.weights.containers.tensor_bundle import VARIABLES, read_bundle
from biggan.weights.formats import tfhub
from biggan.weights.formats.conversion import ForeignTensors
from biggan.weights.load import assemble, read_network
from tensorflow_formats import floats, saved_model, write_bundle
from tiny import refusal

FIXTURES = Path(__file__).parent / "fixtures"
ORIGINAL, DEEP = "tfhub-biggan", "tfhub-biggan-deep"
EMA, DEEP_EMA = "ema_b999900", "ema_0.9999"


@pytest.fixture(scope="module", autouse=True)
def _graphs_read_once():
    """Most tests change the variables alone, and a graph takes a second to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_def, "_find_tables", functools.cache(graph_def._find_tables))
        yield


@pytest.fixture(scope="module")
def converted(modules):
    return {name: convert(modules / name) for name in (ORIGINAL, DEEP)}


@pytest.fixture
def changed(modules, tmp_path):
    """A copy of a module with some variables changed, or taken away with None, or another graph."""

    def changed(name, variables=(), graph=None):
        folder, bundle = tmp_path / name, read_bundle(modules / name / VARIABLES)
        arrays = {key: tensor.numpy() for key, tensor in bundle.items()} | dict(variables)
        write_bundle(folder / VARIABLES, {k: v for k, v in arrays.items() if v is not None})
        (folder / GRAPH).write_bytes(graph or (modules / name / GRAPH).read_bytes())
        return folder

    return changed


def convert(folder):
    return tfhub.convert(ForeignTensors(read_bundle(folder / VARIABLES), folder))


def build(found, **changes):
    return assemble(found.config.updated(changes), found.grid, found.tensors, Path("x"))


@torch.no_grad()
def difference(generator, name, truncation):
    """The largest from what TensorFlow made."""
    expected = np.load(FIXTURES / f"{name}-expected.npz")
    z, labels = torch.from_numpy(expected["z"]), torch.from_numpy(expected["labels"])
    images = generator(truncation * z, labels, truncation)[..., ::3, ::3]
    return (images - torch.from_numpy(expected[f"images_{truncation}"])).abs().max()


@pytest.mark.parametrize(
    ("name", "truncation"),
    [(name, t) for name in (ORIGINAL, DEEP) for t in (0.02, 0.5, 0.58, 1.0)] + [(DEEP, 0.51)],
)
def test_images_are_those_of_tensorflow(converted, name, truncation):
    assert difference(build(converted[name]), name, truncation) < 2e-5


@pytest.mark.parametrize("name", [ORIGINAL, DEEP])
@pytest.mark.parametrize("truncation", [0.02, 0.405, 0.58])
def test_images_between_two_truncations_are_those_of_the_ports(converted, name, truncation):
    assert difference(build(converted[name], off_grid="hub"), name, truncation) < 2e-5


def test_statistics_matter(converted):
    assert difference(build(converted[DEEP]), DEEP, 0.405) > 0.1


def test_the_network_and_its_truncations(converted):
    config = converted[ORIGINAL].config
    assert (config.family, config.resolution, config.channels) == ("biggan", 128, 4)
    assert config.widths == (16, 16, 8, 4, 2, 1)
    assert (config.z_dim, config.class_dim, config.num_classes) == (24, 8, 10)
    assert (config.attention_resolution, config.rgb_channels) == (64, 0)
    assert (config.bn_eps, config.sn_eps) == (1e-4, 1e-4)
    deep = converted[DEEP].config
    assert (deep.family, deep.z_dim, deep.rgb_channels) == ("biggan-deep", 8, 16)
    assert (deep.widths, deep.attention_resolution) == (config.widths, 64)
    assert converted[ORIGINAL].grid == tuple(round(0.02 * i, 2) for i in range(1, 51))
    assert converted[DEEP].grid == tuple(round(0.02 * i, 2) for i in range(51))
    for found in converted.values():  # untruncated noise takes the last statistics
        for kind in ("mean", "var"):
            last = found.tensors[f"head.bn.table_{kind}"][-1]
            assert found.tensors[f"head.bn.running_{kind}"].equal(last)


def test_the_weights_are_no_maps_of_the_file(changed):
    folder = changed(ORIGINAL)
    tensors = convert(folder).tensors
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    data = folder / "variables" / "variables.data-00000-of-00001"
    with data.open("r+b") as file:  # in place: a map would show it
        file.write(bytes(data.stat().st_size))
    assert all(tensor.equal(copies[name]) for name, tensor in tensors.items())


def test_a_network_without_attention(changed, modules):
    names = read_bundle(modules / DEEP / VARIABLES)
    without = {name: None for name in names if name.startswith("Generator/attention/")}
    found = convert(changed(DEEP, without))
    assert found.config.attention_resolution == 0
    build(found)


def test_an_original_module_without_v_makes_a_power_iteration(changed, modules, converted):
    names = read_bundle(modules / ORIGINAL / VARIABLES)
    without = {name: None for name in names if name.endswith("/u1")}
    layer = build(convert(changed(ORIGINAL, without))).blocks[0].conv1
    stored = build(converted[ORIGINAL]).blocks[0].conv1
    v = stored.weight.flatten(1).mT @ stored.u
    assert layer.v.allclose(v / v.norm(), atol=1e-6)
    assert not layer.v.allclose(stored.v, atol=1e-2)


def test_variables_of_the_training_are_left(changed):
    others = {"Discriminator/w": np.float32([1]), "global_step": np.int64(7)}
    convert(changed(ORIGINAL, others))


def test_vectors_with_and_without_axes_before_their_own(changed, converted):
    gain = converted[ORIGINAL].tensors["head.bn.gain"]
    flat = {
        f"Generator/ScaledCrossReplicaBN/gamma/{EMA}": gain.numpy(),
        f"Generator/attention/gamma/{EMA}": np.float32(0.7),
    }
    tensors = convert(changed(ORIGINAL, flat)).tensors
    assert tensors["head.bn.gain"].equal(gain)
    assert tensors["attention.gamma"].shape == ()


WIDTHS = [64, 64, 64, 32, 32, 16, 16, 8, 8, 4, 4]
PUBLISHED = [5 * layer + place for layer in range(len(WIDTHS)) for place in (1, 3)]


def tables(widths=WIDTHS, name="stack", numbers=()):
    """A mean and a variance table for each width, under given numbers, or as TensorFlow's."""
    both = [width for width in widths for _ in range(2)]
    numbers = numbers or [0, *range(11, 10 + len(both))]
    return [
        floats(f"{name}_{number}" if number else name, np.full((50, width), i))
        for i, (number, width) in enumerate(zip(numbers, both, strict=True))
    ]


@pytest.mark.parametrize("name", ["stack", "module_apply_default/stack", "Generator/stack"])
def test_tables_in_any_scope_and_order(changed, name):
    folder = changed(ORIGINAL, graph=saved_model(*reversed(tables(name=name))))
    tensors = convert(folder).tensors
    assert tensors["blocks.0.bn1.table_mean"].eq(0).all()
    assert tensors["blocks.0.bn1.table_var"].eq(1).all()
    assert tensors["blocks.2.bn2.table_mean"].eq(10).all()
    assert tensors["head.bn.table_var"].eq(21).all()


@pytest.mark.parametrize(
    "others",
    [
        # The published numbers go before other tables of that name.
        [floats(f"stack_{5 * i + 2}", np.full((50, width), 99)) for i, width in enumerate(WIDTHS)],
        # Tables of another name that fit nothing are passed over.
        [floats("labels", np.zeros((50, 7)))],
    ],
)
def test_which_tables_are_chosen(changed, others):
    folder = changed(ORIGINAL, graph=saved_model(*tables(numbers=PUBLISHED), *others))
    assert convert(folder).tensors["head.bn.table_var"].eq(21).all()


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (tables(WIDTHS[:-1]), r"has 0 sets .* that fit the 11 layers, not one \(20 stack\)"),
        (tables([*WIDTHS, 4]), r"\(24 stack\)"),
        (tables([64, 64, 32, 64, *WIDTHS[4:]]), r"\(22 stack\)"),
        (
            [floats("stack", np.zeros((50, 4))), floats("a/stack_1", np.zeros((50, 4)))],
            r"\(1 stack, 1 a/stack\)",
        ),
        (tables() + tables(name="a/stack", numbers=PUBLISHED), "has 2 sets of tables"),
        # One with another number of rows does not fit.
        ([*tables()[:-1], floats("stack_31", np.zeros((51, 4)))], "has 0 sets of tables"),
    ],
)
def test_tables_that_do_not_fit_are_refused(changed, nodes, message):
    folder = changed(ORIGINAL, graph=saved_model(*nodes))
    assert re.search(message, refusal(convert, folder))


def test_an_original_module_without_tables_has_its_accumulated_statistics(changed, caplog):
    folder = changed(ORIGINAL, graph=saved_model())
    with caplog.at_level(logging.WARNING, "biggan.weights"):
        found = convert(folder)
    assert found.grid == ()
    assert [record.name for record in caplog.records] == ["biggan.weights"]
    assert "accumulated" in caplog.text
    assert difference(build(found), ORIGINAL, 1.0) < 2e-5  # for which they were accumulated


def test_a_deep_module_without_tables_is_refused(changed):
    folder = changed(DEEP, graph=saved_model())
    assert "saved_model.pb has no BatchNorm statistics" in refusal(convert, folder)


G = "Generator"


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("name", "variable", "value", "message"),
    [
        (ORIGINAL, f"{G}/GBlock/conv1/u0", None, "missing Generator/GBlock/conv1/u0"),
        (DEEP, f"{G}/GBlock_9/conv2/b/{DEEP_EMA}", None, "missing Generator/GBlock_9/conv2/b"),
        (ORIGINAL, f"{G}/GBlock/conv0/w/{EMA}", None, "missing Generator/GBlock/conv0/w"),
        (ORIGINAL, f"linear/w/{EMA}", None, "lacks linear/w"),
        (DEEP, f"{G}/extra", zeros(), "unexpected Generator/extra"),
        (DEEP, "linear/b/ema", zeros(), "unexpected linear/b/ema"),
        (DEEP, f"{G}/GBlock/conv0/u1", zeros(), "unexpected Generator/GBlock/conv0/u1"),
        (ORIGINAL, f"{G}/GBlock_5/conv1/u0", zeros(), "unexpected Generator/GBlock_5"),
        (ORIGINAL, f"{G}/GBlock/conv1/u0", zeros(1, 63), r"u0 is \(1, 63\), not \(64,\)"),
        (DEEP, f"{G}/BatchNorm/scale/{DEEP_EMA}", zeros(2, 2), r"is \(2, 2\), not \(4,\)"),
        (DEEP, f"{G}/conv_to_rgb/b/{DEEP_EMA}", np.zeros(16), "is float64, not float32"),
        (ORIGINAL, f"{G}/GBlock_1/conv1/w/{EMA}", zeros(0, 3, 64, 10**6), "none of them empty"),
        (ORIGINAL, f"{G}/attention/theta/w/{EMA}", zeros(1, 1, 9, 1), "9 channels fits nowhere"),
        (DEEP, f"{G}/attention/theta/w/{DEEP_EMA}", zeros(1, 1, 16, 2), r"not \(1, 1, 8, 1\)"),
        (DEEP, f"{G}/GBlock_10/conv0/w/{DEEP_EMA}", zeros(1, 1, 4, 1), "has 11 blocks, not two"),
    ],
)
def test_variables_that_fit_no_network_are_refused(changed, name, variable, value, message):
    folder = changed(name, {variable: value})
    assert re.search(message, refusal(convert, folder))


def test_attention_that_fits_twice_is_refused(changed):
    theta, wide = f"{G}/attention/theta/w/{EMA}", f"{G}/GBlock_1/conv1/w/{EMA}"
    folder = changed(ORIGINAL, {theta: zeros(1, 1, 64, 8), wide: zeros(3, 3, 64, 64)})
    assert "attention on 64 channels fits at 8, 16 pixels alike" in refusal(convert, folder)


def test_a_claim_of_enormous_layers_is_refused_without_making_them(changed):
    """Weights of ten megabytes say that the others must have terabytes."""
    wide = np.zeros((1, 1, 1, 2_500_000), np.float32)
    names = [f"Generator/GBlock{i}/conv1/w/{EMA}" for i in ("", "_1")]
    assert "cannot be above" in refusal(convert, changed(ORIGINAL, dict.fromkeys(names, wide)))


def test_damage_is_named(changed):
    folder = changed(ORIGINAL)
    data = folder / "variables" / "variables.data-00000-of-00001"
    contents = bytearray(data.read_bytes())
    embedding = read_bundle(folder / VARIABLES)[f"linear/w/{EMA}"]
    contents[contents.index(embedding.numpy().tobytes()) + 5] ^= 1
    data.write_bytes(contents)
    assert f"linear/w/{EMA} has a wrong checksum" in refusal(convert, folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    assert re.search(r"cannot read .*variables\.index", refusal(convert, tmp_path))
    write_bundle(tmp_path / VARIABLES, {"x": np.float32([1])})
    (tmp_path / GRAPH).write_bytes(saved_model())
    assert "tensors of an unknown format (such as x)" in refusal(read_network, tmp_path)
