"""OpenVINO as the engine, on CPUs."""

from __future__ import annotations

import importlib.metadata
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from biggan.engines.engine import Engine
from biggan.engines.pytorch import fold
from biggan.errors import InputError
from biggan.models import Generator
from biggan.models.folded import FoldedGenerator


class OpenVinoEngine(Engine):
    """The folded generator through OpenVINO. Converting it takes seconds, once.

    Args:
        generator: In eval mode, on the CPU; not changed.

    Raises:
        InputError: OpenVINO is not installed, or the generator is on another device.
    """

    name: ClassVar[str] = "openvino"

    def __init__(self, generator: Generator) -> None:
        device = next(generator.parameters()).device
        if device.type != "cpu":
            raise InputError(f"the openvino engine is for CPUs, and the model is on {device}")
        folded = fold(generator, "float32", portable=True)
        super().__init__(folded, device, "float32")
        self._network = _compile(convert(folded))
        # The weights are in the converted network; of the folded one `prepare` alone is used.
        folded.blocks, folded.attention = nn.ModuleList(), None

    def _render(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        inputs = [tensor.contiguous().numpy() for tensor in (grid, scale, shift)]
        # A copy: the next call writes to the same memory.
        return torch.from_numpy(self._network(inputs)[0].copy())


def version() -> str | None:
    """OpenVINO's version; None where it is not installed."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return None


def convert(folded: FoldedGenerator) -> Any:
    """A folded generator's `render` as an `openvino.Model`, for any number of images.

    Raises:
        InputError: OpenVINO is not installed.
    """
    openvino = _openvino()
    example = _example(folded)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about itself
        model = openvino.convert_model(_Render(folded), example_input=example)
    for port, tensor in zip(model.inputs, example, strict=True):
        port.get_node().set_partial_shape(openvino.PartialShape([-1, *tensor.shape[1:]]))
    model.validate_nodes_and_infer_types()
    return model


def _compile(model: Any) -> Any:
    threads = torch.get_num_threads()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return _openvino().compile_model(model, "CPU", settings)


class _Render(nn.Module):
    """`render` as a module's forward."""

    def __init__(self, folded: FoldedGenerator) -> None:
        super().__init__()
        self._folded = folded

    def forward(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self._folded.render(grid, scale, shift)


def _example(folded: FoldedGenerator) -> tuple[Tensor, Tensor, Tensor]:
    config = folded.config
    embedding = torch.zeros(2, config.embedding_dim)
    with torch.no_grad():
        return folded.prepare(torch.zeros(2, config.z_dim), embedding)


def _openvino() -> Any:
    try:
        import openvino  # type: ignore[import-untyped]
    except ImportError as error:
        if version() is not None:
            raise InputError(f"OpenVINO is installed, but cannot be loaded: {error}") from None
        raise InputError(
            "the openvino engine needs OpenVINO: pip install 'biggan[openvino]'"
        ) from None
    return openvino
