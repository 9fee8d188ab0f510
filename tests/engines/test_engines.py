"""Engines against the generator that they run."""

import json
import logging
import sys
from importlib.util import find_spec

import pytest
import torch

from biggan.engine_names import ENGINES
from biggan.engines import build_engine, choice, measure_engines, openvino
from biggan.engines.engine import bytes_per_image, check_engine
from biggan.engines.openvino import OpenVinoEngine
from biggan.engines.pytorch import CompiledEngine, PyTorchEngine
from biggan.errors import InputError
from tiny import tiny_generator

HERE = ["pytorch", *(["openvino"] if openvino.version() else [])]
TRUNCATIONS = [None, 0.4, 0.405, 1.0]


def inputs(generator, num=3):
    random = torch.Generator().manual_seed(7)
    return torch.randn(num, generator.config.z_dim, generator=random), torch.arange(num) % 3


@pytest.mark.parametrize("family", ["biggan", "biggan-deep"])
@pytest.mark.parametrize("name", HERE)
@torch.inference_mode()
def test_every_engine_makes_the_generators_images(name, family):
    width = {"channels": 16, "z_dim": 10} if family == "biggan-deep" else {}
    generator = tiny_generator(family=family, **width)
    engine = build_engine(generator, name)
    assert engine.name == name
    z, labels = inputs(generator)
    for truncation in TRUNCATIONS:  # one engine serves them all
        for rows in (slice(0, 1), slice(0, 3)):  # and any number of images
            images = engine(z[rows], labels[rows], truncation)
            expected = generator(z[rows], labels[rows], truncation)
            torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)
    soft = torch.tensor([[0.5, 0.25, 0.25]])
    torch.testing.assert_close(
        engine(z[:1], soft, 0.4), generator(z[:1], soft, 0.4), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("name", HERE)
def test_images_made_before_stay_as_they_were(name):
    generator = tiny_generator()
    engine = build_engine(generator, name)
    z, labels = inputs(generator)
    first = engine(z[:1], labels[:1])
    kept = first.clone()
    engine(z[1:2], labels[1:2])
    assert torch.equal(first, kept)


def test_the_compiled_network_is_the_folded_one(monkeypatch):
    """The compiler itself takes minutes here; what it is given must be right."""
    given = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: given.append(function) or function)
    generator = tiny_generator()
    engine = build_engine(generator, "compile")
    assert isinstance(engine, CompiledEngine)
    assert given
    z, labels = inputs(generator)
    with torch.inference_mode():
        torch.testing.assert_close(
            engine(z, labels, 0.4), generator(z, labels, 0.4), atol=1e-4, rtol=0
        )


def test_auto_is_pytorch_where_nothing_was_measured(tmp_path):
    assert build_engine(tiny_generator()).name == "pytorch"
    assert build_engine(tiny_generator(), "auto", measurements=tmp_path / "none.json").name == (
        "pytorch"
    )


@pytest.mark.skipif(not openvino.version(), reason="OpenVINO is not installed")
@pytest.mark.parametrize("faster", ["pytorch", "openvino"])
def test_auto_is_what_was_measured_to_be_faster(tmp_path, monkeypatch, faster):
    file = tmp_path / "engines.json"
    seconds = iter(range(1, 1000))

    def pretend(engine):
        return next(seconds) * (0.001 if engine.name == faster else 1000)

    monkeypatch.setattr(choice, "_seconds_per_image", pretend)
    generator = tiny_generator()
    names = []
    measured = measure_engines(generator, file, names.append)
    assert names == ["pytorch", "openvino"]
    assert min(measured, key=measured.get) == faster
    assert build_engine(generator, measurements=file).name == faster
    # Another architecture, another number of threads: not measured.
    assert build_engine(tiny_generator(channels=16), measurements=file).name == "pytorch"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert build_engine(generator, measurements=file).name == "pytorch"


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": 3}', "{"])
def test_a_damaged_file_of_measurements_is_as_none(tmp_path, text):
    file = tmp_path / "engines.json"
    file.write_text(text)
    assert build_engine(tiny_generator(), measurements=file).name == "pytorch"
    measure_engines(tiny_generator(), file)
    assert "pytorch" in next(iter(json.loads(file.read_text()).values()))


@pytest.mark.parametrize("times", ['{"pytorch": null}', '{"openvino": "fast"}', "[]", "[" * 10**5])
def test_nonsense_about_this_machine_is_as_none(tmp_path, times):
    file, generator = tmp_path / "engines.json", tiny_generator()
    measure_engines(generator, file)
    key = next(iter(json.loads(file.read_text())))
    file.write_text(f'{{"{key}": {times}}}')
    assert build_engine(generator, measurements=file).name == "pytorch"


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs OpenVINO")
def test_an_openvino_that_cannot_be_loaded_stops_nobody_who_did_not_ask(
    tmp_path, monkeypatch, caplog
):
    file, generator = tmp_path / "engines.json", tiny_generator()
    measure_engines(generator, file)
    known = json.loads(file.read_text())
    file.write_text(json.dumps({key: {"pytorch": 1.0, "openvino": 0.5} for key in known}))
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert build_engine(generator, measurements=file).name == "pytorch"
    assert "cannot be loaded" in caplog.text
    assert list(measure_engines(generator)) == ["pytorch"]
    with pytest.raises(InputError, match="cannot be loaded"):
        build_engine(generator, "openvino")


class Wrong(PyTorchEngine):
    """An engine whose pictures are a little too bright."""

    def _render(self, grid, scale, shift):
        return super()._render(grid, scale, shift) + 0.01


class NotANumber(PyTorchEngine):
    def _render(self, grid, scale, shift):
        return super()._render(grid, scale, shift) * float("nan")


class Failing(PyTorchEngine):
    def _render(self, grid, scale, shift):
        raise RuntimeError("no kernel\nfor this processor")


@pytest.mark.parametrize(
    ("broken", "word"),
    [(Wrong, "differs from PyTorch's by 0.01"), (NotANumber, "nan"), (Failing, "no kernel for")],
)
def test_a_wrong_engine_is_replaced_with_a_warning(monkeypatch, caplog, broken, word):
    monkeypatch.setattr(choice, "CompiledEngine", lambda generator, _: broken(generator))
    generator = tiny_generator()
    with caplog.at_level(logging.WARNING):
        engine = build_engine(generator, "compile")
    assert type(engine) is PyTorchEngine
    assert len(caplog.records) == 1
    assert word in caplog.text
    assert check_engine(engine, generator) is None


def test_what_cannot_be_is_refused_in_one_line(monkeypatch):
    generator = tiny_generator()
    with pytest.raises(InputError, match="no engine 'tensorflow'; there are auto, pytorch"):
        build_engine(generator, "tensorflow")
    with pytest.raises(InputError, match="bfloat16 is for GPUs"):
        build_engine(generator, "pytorch", "bfloat16")
    with pytest.raises(InputError, match="runs in float32"):
        build_engine(generator, "openvino", "float16")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with monkeypatch.context() as patch:
        patch.setattr("biggan.engines.openvino.version", lambda: None)
        with pytest.raises(InputError, match=r"pip install 'biggan\[openvino\]'"):
            OpenVinoEngine(generator)
    assert ENGINES[0] == "auto"


def test_memory_of_an_image_grows_with_its_size_and_shrinks_with_precision():
    small, large = tiny_generator().config, tiny_generator(channels=16).config
    assert bytes_per_image(large, "float32") == 2 * bytes_per_image(small, "float32")
    assert bytes_per_image(large, "bfloat16") == bytes_per_image(small, "float32")
