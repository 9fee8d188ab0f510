"""OpenVINO as the engine, on CPUs."""

from __future__ import annotations

import importlib.metadata
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from biggan.errors import InputError
from biggan.inference.engine import Engine
from biggan.inference.folded import FoldedGenerator
from biggan.models import Generator


class OpenVinoEngine(Engine):
    """The folded generator through OpenVINO, on the CPU. Converting it takes seconds, once.

    Raises:
        InputError: OpenVINO is not installed, or the generator is on another device.
    """

    name: ClassVar[str] = "openvino"

    def __init__(self, generator: Generator) -> None:
        device = next(generator.parameters()).device
        if device.type != "cpu":
            raise InputError(f"the openvino engine needs the CPU, but the model is on {device}")
        super().__init__(generator, portable=True)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        model = convert(self.folded)
        self._network = import_openvino().compile_model(model, "CPU", settings)
        # The weights are in the converted network; of the folded one `prepare` alone is used.
        self.folded.blocks, self.folded.attention = nn.ModuleList(), None
        self.folded.layers = {}

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
    """A folded generator's `render` as an `openvino.Model`, for any number of images."""
    openvino = import_openvino()
    config = folded.config
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about itself
        embedding = torch.zeros(2, config.embedding_dim)
        example = folded.prepare(torch.zeros(2, config.z_dim), embedding)
        model = openvino.convert_model(_Render(folded), example_input=example)
    for port, tensor in zip(model.inputs, example, strict=True):
        port.get_node().set_partial_shape(openvino.PartialShape([-1, *tensor.shape[1:]]))
    model.validate_nodes_and_infer_types()
    return model


class _Render(nn.Module):
    """`render` as a module's forward."""

    def __init__(self, folded: FoldedGenerator) -> None:
        super().__init__()
        self._folded = folded

    def forward(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self._folded.render(grid, scale, shift)


def import_openvino() -> Any:
    """The module; InputError where it is not installed, or cannot be loaded."""
    try:
        import openvino  # type: ignore[import-untyped]
    except ImportError as error:
        if version() is not None:
            raise InputError(f"OpenVINO is installed, but cannot be loaded: {error}") from None
        raise InputError(
            "the openvino engine needs OpenVINO: pip install 'biggan[openvino]'"
        ) from None
    return openvino
