"""Engines against the generator that they run."""

import json
import logging
import sys
import weakref
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from biggan.devices import has_bfloat16
from biggan.errors import InputError
from biggan.inference import ENGINES, engine, openvino, pytorch
from biggan.inference.engine import Engine, build_engine, bytes_per_image, check_engine
from biggan.inference.measurements import measure_engines
from biggan.inference.openvino import OpenVinoEngine
from biggan.inference.pytorch import CompiledEngine, CudaGraphEngine
from biggan.sampling import generate_batches
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
    first = engine(z[:1], labels[:1])
    kept = first.clone()
    for truncation in TRUNCATIONS:  # one engine serves them all
        for rows in (slice(0, 1), slice(0, 3)):  # and any number of images
            images = engine(z[rows], labels[rows], truncation)
            expected = generator(z[rows], labels[rows], truncation)
            torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)
    assert torch.equal(first, kept)
    soft = torch.tensor([[0.5, 0.25, 0.25]])
    torch.testing.assert_close(
        engine(z[:1], soft, 0.4), generator(z[:1], soft, 0.4), atol=1e-4, rtol=0
    )


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
    for measurements in ({}, {"measurements": tmp_path / "none.json"}):
        assert build_engine(tiny_generator(), **measurements).name == "pytorch"


def measure_pytorch(generator, file):
    """Measure no other engine, which would have to be compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("biggan.inference.measurements._candidates", lambda _: ["pytorch"])
        assert list(measure_engines(generator, file)) == ["pytorch"]


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"a": 3}', "{"])
def test_a_damaged_file_of_measurements_is_as_none(tmp_path, text):
    file = tmp_path / "engines.json"
    file.write_text(text)
    assert build_engine(tiny_generator(), measurements=file).name == "pytorch"
    measure_pytorch(tiny_generator(), file)
    assert "pytorch" in next(iter(json.loads(file.read_text()).values()))


@pytest.mark.parametrize("times", ['{"pytorch": null}', '{"openvino": "fast"}', "[]", "[" * 10**5])
def test_nonsense_about_this_machine_is_as_none(tmp_path, times):
    file, generator = tmp_path / "engines.json", tiny_generator()
    measure_pytorch(generator, file)
    key = next(iter(json.loads(file.read_text())))
    file.write_text(f'{{"{key}": {times}}}')
    assert build_engine(generator, measurements=file).name == "pytorch"


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs OpenVINO")
def test_an_openvino_that_cannot_be_loaded_stops_nobody_who_did_not_ask(
    tmp_path, monkeypatch, caplog
):
    file, generator = tmp_path / "engines.json", tiny_generator()
    measure_pytorch(generator, file)
    known = json.loads(file.read_text())
    file.write_text(json.dumps({key: {"pytorch": 1.0, "openvino": 0.5} for key in known}))
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert build_engine(generator, measurements=file).name == "pytorch"
    assert "cannot be loaded" in caplog.text
    assert list(measure_engines(generator)) == ["pytorch"]
    with pytest.raises(InputError, match="cannot be loaded"):
        build_engine(generator, "openvino")


def fail(_):
    raise RuntimeError("no kernel\nfor this processor")


FIRST = []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda images: images + 0.01, "differ from PyTorch's by 0.01"),
        # As a graph does that has recorded nothing.
        (lambda images: FIRST.append(images) or FIRST[0], "differ from PyTorch's by"),
        (lambda images: images * float("nan"), "nan"),
        (fail, "no kernel for"),
    ],
)
def test_a_wrong_engine_is_replaced_with_a_warning(monkeypatch, caplog, change, word):
    class Wrong(Engine):
        def _render(self, grid, scale, shift):
            return change(super()._render(grid, scale, shift))

    monkeypatch.setattr(pytorch, "CompiledEngine", lambda generator, _: Wrong(generator))
    generator = tiny_generator()
    with caplog.at_level(logging.WARNING):
        made = build_engine(generator, "compile")
    assert type(made) is Engine
    assert len(caplog.records) == 1
    assert word in caplog.text
    assert check_engine(made, generator) is None


class Full(Engine):
    def _render(self, grid, scale, shift):
        torch.empty(2**46)


def test_an_engine_for_which_memory_does_not_suffice_is_one_line_and_not_replaced(monkeypatch):
    monkeypatch.setattr(pytorch, "CompiledEngine", lambda generator, _: Full(generator))
    with pytest.raises(InputError, match=r"out of memory on cpu: .* GiB .*; close other programs"):
        build_engine(tiny_generator(), "compile")


class OnAnotherDevice(torch.nn.Module):
    """A stand-in for a generator on a GPU, of which there is none here."""

    def __init__(self, generator, kind):
        super().__init__()
        self._generator, self.config, self._kind = generator, generator.config, kind

    def parameters(self):
        yield SimpleNamespace(device=SimpleNamespace(type=self._kind))

    def forward(self, z, labels, truncation=None):
        return self._generator(z, labels, truncation)


@pytest.mark.parametrize(("kind", "checked"), [("cpu", 0), ("cuda", 2), ("mps", 2)])
def test_float32_is_checked_on_every_device_but_a_cpu(monkeypatch, kind, checked):
    made = []

    class Counting(Engine):
        def __init__(self, generator, *_, **__):
            super().__init__(generator._generator)

        def _render(self, grid, scale, shift):
            made.append(len(grid))
            return super()._render(grid, scale, shift)

    monkeypatch.setattr(engine, "Engine", Counting)
    monkeypatch.setattr(pytorch, "CudaGraphEngine", Counting)
    build_engine(OnAnotherDevice(tiny_generator(), kind), "pytorch")
    assert made == [1] * checked


class _Recording:
    """A stand-in for a CUDA graph; only so many fit the memory at once."""

    alive, made, fits = weakref.WeakSet(), [], 9

    def __init__(self, folded, inputs):
        self._folded = folded
        if len(self.alive) >= self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.alive.add(self)
        self.made.append(len(inputs[0]))

    def __call__(self, inputs):
        return self._folded.render(*inputs)


@pytest.fixture
def recording(monkeypatch):
    """An engine that believes to be on a GPU, and the batch sizes of which it makes graphs."""
    monkeypatch.setattr(pytorch, "_Graph", _Recording)
    monkeypatch.setattr(_Recording, "alive", weakref.WeakSet())
    monkeypatch.setattr(_Recording, "made", [])
    return CudaGraphEngine(tiny_generator()), _Recording.made


def test_a_smaller_last_batch_does_not_cost_the_graph_of_the_full_one(recording):
    engine, made = recording
    z, labels = inputs(tiny_generator(), 7)
    for _ in range(3):
        list(generate_batches(engine, labels, z, 0.4, 3))
    assert made == [3, 1]
    list(generate_batches(engine, labels, z, 0.4, 2))  # the least recently used makes room
    assert made == [3, 1, 2]
    assert len(_Recording.alive) == 2
    list(generate_batches(engine, labels, z, 0.4, 3))
    assert made == [3, 1, 2, 3]


def test_graphs_give_way_where_memory_does_not_suffice_for_another(recording, monkeypatch):
    monkeypatch.setattr(_Recording, "fits", 1)
    engine, made = recording
    z, labels = inputs(tiny_generator(), 5)
    images = torch.cat([batch.images for batch in generate_batches(engine, labels, z, 0.4, 4)])
    assert made == [4, 1]
    with torch.inference_mode():
        torch.testing.assert_close(images, tiny_generator()(z, labels, 0.4), atol=1e-4, rtol=0)


@pytest.mark.skipif(not has_bfloat16(), reason="no bfloat16")
def test_bfloat16_on_a_cpu(caplog):
    generator = tiny_generator()
    engine = build_engine(generator, "pytorch", "bfloat16")
    assert (engine.precision, engine.folded.dtype, caplog.text) == ("bfloat16", torch.bfloat16, "")
    z, labels = inputs(generator, 3)
    difference = (engine(z, labels, 0.4) - Engine(generator)(z, labels, 0.4)).abs()
    assert 0 < difference.mean() < 0.02


def test_what_cannot_be_is_refused_in_one_line(monkeypatch):
    generator = tiny_generator()
    with pytest.raises(InputError, match="no engine 'tensorflow'; there are auto, pytorch"):
        build_engine(generator, "tensorflow")
    with pytest.raises(InputError, match="float16 needs a GPU: "):
        build_engine(generator, "pytorch", "float16")
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    with pytest.raises(InputError, match="bfloat16 needs a GPU, or a CPU with AMX or AVX-512"):
        build_engine(generator, "pytorch", "bfloat16")
    with pytest.raises(InputError, match="runs in float32"):
        build_engine(generator, "openvino", "float16")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with monkeypatch.context() as patch:
        patch.setattr("biggan.inference.openvino.version", lambda: None)
        with pytest.raises(InputError, match=r"pip install 'biggan\[openvino\]'"):
            OpenVinoEngine(generator)
    assert ENGINES[0] == "auto"


def test_memory_of_an_image_grows_with_its_size_and_shrinks_with_precision():
    small, large = tiny_generator().config, tiny_generator(channels=16).config
    assert bytes_per_image(large, "float32") == 2 * bytes_per_image(small, "float32")
    assert bytes_per_image(large, "bfloat16") == bytes_per_image(small, "float32")
