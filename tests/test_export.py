"""Exported networks, run by the software that they are for, against the generator."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from biggan import _version, export
from biggan.errors import InputError
from biggan.export import export_generator
from biggan.gan import Gan
from biggan.nn import StandingBatchNorm2d
from biggan.weights.files import Description
from tiny import DEEP, TINY_CLASSES, tiny_generator

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")
pytest.importorskip("onnxscript")

TRUNCATIONS = [0.001, 0.02, 0.405, 0.58, 0.99999, 1.0]  # 0.58 = 29 * 0.02, but not in floats


def tiny_gan(**changes):
    generator = tiny_generator(**changes)
    with torch.no_grad():  # attention that counts, at a fresh network's gamma of 0 it does not
        generator.attention.gamma.fill_(1)
        generator.attention.theta.u.mul_(0.2)  # the weight is divided by less
    names = TINY_CLASSES if generator.config.num_classes else ()
    description = Description(name="tiny", class_names=names, source="here", licence="any")
    return Gan(generator, description, sha256="5ha256")


def inputs(gan, num):
    random = torch.Generator().manual_seed(7)
    z = torch.randn(num, gan.config.z_dim, generator=random)
    weights = torch.rand(num, gan.config.num_classes, generator=random)
    weights[0] = torch.tensor([0.0, 1.0, 0.0])[: gan.config.num_classes]
    return z.numpy(), weights.numpy()


def run_onnx(path, z, weights, truncation):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {"z": z, "class_weights": weights, "truncation": truncation}
    arrays = {i.name: np.asarray(given[i.name], np.float32) for i in session.get_inputs()}
    return torch.from_numpy(session.run(["images"], arrays)[0])


def run_openvino(path, z, weights, truncation):
    network = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    given = {"z": z, "class_weights": weights, "truncation": truncation}
    arrays = {p.any_name: np.asarray(given[p.any_name], np.float32) for p in network.inputs}
    return torch.from_numpy(network(arrays)["images"].copy())


@torch.inference_mode()
def assert_same(run, path, gan, num, truncation):
    """What a file makes, which may take the truncation or hold its statistics, is right."""
    z, weights = inputs(gan, num)
    images = run(path, z, weights, truncation)
    labels = torch.from_numpy(weights) if gan.config.num_classes else torch.zeros(num).long()
    expected = gan.generator(torch.from_numpy(z), labels, truncation)
    torch.testing.assert_close(images, expected, atol=2e-5, rtol=0)


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    """An ONNX file with everything dynamic, its model, and what was reported of it."""
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    gan, steps = tiny_gan(), []
    exported = export_generator(gan, path, truncation="dynamic", report=steps.append)
    assert len(steps) == 2
    return path, gan, exported


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_the_truncation_is_an_input_of_an_onnx_file(dynamic, truncation):
    path, gan, _ = dynamic
    for num in (1, 3):
        assert_same(run_onnx, path, gan, num, truncation)


def test_what_an_onnx_file_says(dynamic):
    path, gan, exported = dynamic
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shapes = {"z": ["N", 12], "class_weights": ["N", 3], "truncation": []}
    assert {i.name: i.shape for i in session.get_inputs()} == shapes
    assert {name: list(shape) for name, shape in exported.inputs.items()} == shapes
    assert {i.type for i in session.get_inputs()} == {"tensor(float)"}
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("images", ["N", 3, 16, 16])]
    about = session.get_modelmeta()
    assert about.producer_name == "biggan"
    said = about.custom_metadata_map
    assert json.loads(said.pop("class_names")) == list(TINY_CLASSES)
    assert json.loads(said.pop("truncation_grid")) == list(gan.generator.head.bn.grid)
    assert said == {
        "name": "tiny",
        "source": "here",
        "licence": "any",
        "sha256": "5ha256",
        "truncation": "dynamic",
        "producer": f"biggan {_version.__version__}",
    }
    assert 0 <= exported.difference < 1e-5


def test_an_onnx_file_is_one_of_standard_operations_and_nothing_private(dynamic):
    path, *_ = dynamic
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", export.OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert list(path.parent.iterdir()) == [path]  # no weights beside it
    for folder in (Path(export.__file__).parent, Path(torch.__file__).parent, Path.home()):
        assert str(folder).encode() not in path.read_bytes()


def test_an_onnx_file_for_one_truncation_and_batch(tmp_path):
    gan = tiny_gan(**DEEP)
    exported = export_generator(gan, str(tmp_path / "a.onnx"), truncation=0.405, batch=3)
    assert exported.inputs == {"z": (3, 10), "class_weights": (3, 3)}
    assert_same(run_onnx, exported.path, gan, 3, 0.405)
    with pytest.raises(Exception, match="Expected: 3"):
        run_onnx(exported.path, *inputs(gan, 2), None)
    assert not any(
        "table_mean" in tensor.name for tensor in onnx.load(exported.path).graph.initializer
    )


def test_an_openvino_model_without_classes(tmp_path):
    gan = tiny_gan(num_classes=0)
    exported = export_generator(gan, tmp_path / "a.xml", "openvino", truncation=None)
    assert exported.inputs == {"z": ("N", 12)}
    for num in (1, 3):
        assert_same(run_openvino, exported.path, gan, num, None)
    assert {path.name for path in tmp_path.iterdir()} == {"a.xml", "a.bin"}


def test_the_truncation_is_an_input_of_an_openvino_model(tmp_path):
    gan = tiny_gan(shared_embedding=False)  # class weights reach every BatchNorm as they are
    path = tmp_path / "a.xml"
    path.with_suffix(".bin").write_text("older")
    with pytest.raises(InputError, match=r"a.bin exists: .* --force"):
        export_generator(gan, path, "openvino", truncation="dynamic")
    assert not path.exists()
    exported = export_generator(gan, path, "openvino", truncation="dynamic", batch=2, force=True)
    assert list(exported.inputs) == ["z", "class_weights", "truncation"]
    for truncation in TRUNCATIONS:
        assert_same(run_openvino, path, gan, 2, truncation)
    about = openvino.Core().read_model(path)
    assert about.get_rt_info(["biggan", "name"]).astype(str) == "tiny"
    assert {tuple(port.names): port.shape for port in about.inputs} == {
        ("z",): [2, 12],
        ("class_weights",): [2, 3],
        ("truncation",): [],
    }


def table(grid, channels=4):
    layer = StandingBatchNorm2d(channels, grid=grid)
    layer.table_mean.normal_()
    layer.table_var.uniform_(0.5, 2)
    return layer


@pytest.mark.parametrize(
    "grid", [[round(0.02 * i, 2) for i in range(1, 51)], [0.1, 0.15, 0.4, 0.5, 1.0], [0.5]]
)
def test_statistics_in_the_graph_are_the_layers(grid):
    layer = table(grid)
    tabulated = export._Tabulated(layer)
    for truncation in grid:  # bit for bit
        for got, expected in zip(
            tabulated.statistics(torch.tensor(truncation)),
            layer.statistics(truncation),
            strict=True,
        ):
            assert torch.equal(got, expected)
    for truncation in np.linspace(0.001, 1.2, 77):
        got = tabulated.statistics(torch.tensor(truncation, dtype=torch.float32))
        for values, rows in zip(got, (layer.table_mean, layer.table_var), strict=True):
            columns = rows.double().T.numpy()
            expected = [np.interp(truncation, grid, column) for column in columns]
            np.testing.assert_allclose(values.numpy(), expected, atol=3e-5)


def test_another_networks_file_is_not_written(dynamic, monkeypatch, tmp_path):
    """The check runs the file that was written: here one of the weights before a small change."""
    _, gan, _ = dynamic
    program = export._onnx_program(export._Network(gan, 0.4), "dynamic")
    monkeypatch.setattr(export, "_onnx_program", lambda *_: program)
    other = tiny_gan()
    with torch.no_grad():
        other.generator.blocks[0].conv1.weight[0] += 0.1
    path = tmp_path / "a.onnx"
    path.write_text("older")
    with pytest.raises(InputError, match=r"nothing was written: .* differ from PyTorch's by \d"):
        export_generator(other, path, force=True)
    assert path.read_text() == "older"
    with torch.no_grad():
        other.generator.linear.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="by nan"):
        export_generator(other, path, force=True)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "older"


@pytest.mark.parametrize(
    ("form", "name", "part"),
    [("onnx", "a.onnx", "_onnx_program"), ("openvino", "a.xml", "_openvino_model")],
)
def test_a_library_that_fails_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, form, name, part
):
    def fail(*_):
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr(export, part, fail)
    with pytest.raises(InputError, match="nothing was written: .* failed: no such operation"):
        export_generator(tiny_gan(), tmp_path / name, form)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path, monkeypatch):
    gan, path = tiny_gan(), tmp_path / "a.onnx"

    def refused(message, gan=gan, path=path, form="onnx", **how):
        with pytest.raises(InputError, match=message):
            export_generator(gan, path, form, **how)
        assert not path.is_file()

    refused("truncation must be above 0", truncation=1.5)
    for batch in (0, -1, export.MAX_BATCH + 1, 10**30, 1.5, "four"):
        refused(r"batch must be 1 to 1024, or dynamic, not \S+$", batch=batch)
    refused("has the ending of openvino", path=tmp_path / "a.xml")
    refused("must end in .xml", form="openvino", path=tmp_path / "a")
    refused("is a folder", path=tmp_path)
    bare = tiny_gan()
    for layer in bare.generator.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.set_grid(())
    refused("one set of statistics for all truncations", bare, truncation="dynamic")
    hub = tiny_gan(off_grid="hub")
    refused("give one truncation, or convert it with --off-grid linear", hub, truncation="dynamic")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    refused(r"onnx needs onnxruntime: pip install 'biggan\[export\]'")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    refused(
        r"openvino needs openvino: pip install 'biggan\[openvino\]'",
        form="openvino",
        path=tmp_path / "a.xml",
    )
