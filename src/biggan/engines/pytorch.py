"""PyTorch itself as the engine, in the form that suits the device."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from biggan.engine_names import Precision
from biggan.engines.engine import Engine
from biggan.errors import InputError
from biggan.models import Generator
from biggan.models.folded import FoldedGenerator
from biggan.nn import FrozenConv2d, packed_conv2d

_WARM_UPS = 3


class PyTorchEngine(Engine):
    """The folded generator in eager PyTorch.

    On a CPU with packed convolutions. On a CUDA device as a CUDA graph for each batch size, so that
    small images are not held up by the processor that launches their kernels.

    Args:
        generator: In eval mode; not changed.
        precision: Of the convolutions; float32 on a CPU.

    Raises:
        InputError: A lower precision on a CPU, where it would be slower.
    """

    name: ClassVar[str] = "pytorch"

    def __init__(self, generator: Generator, precision: Precision = "float32") -> None:
        device = next(generator.parameters()).device
        folded = fold(generator, precision)
        super().__init__(folded, device, precision)
        self._graphs: dict[int, _Graph] = {}

    def _render(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return self._folded.render(grid, scale, shift)
        inputs = (grid, scale, shift)
        batch = len(grid)
        if batch not in self._graphs:
            self._graphs.clear()  # each holds the memory of its activations
            self._graphs[batch] = _Graph(self._folded, inputs)
        return self._graphs[batch](inputs)


class CompiledEngine(Engine):
    """The folded generator through `torch.compile`: its first image takes minutes.

    Args:
        generator: In eval mode; not changed.
        precision: Of the convolutions; float32 on a CPU.

    Raises:
        InputError: A lower precision on a CPU.
    """

    name: ClassVar[str] = "compile"

    def __init__(self, generator: Generator, precision: Precision = "float32") -> None:
        device = next(generator.parameters()).device
        # Standard operations: the compiler fuses what is between them, and packs by itself.
        folded = fold(generator, precision, portable=True)
        super().__init__(folded, device, precision)
        mode = "max-autotune-no-cudagraphs" if device.type == "cuda" else None
        self._compiled = torch.compile(folded.render, mode=mode, dynamic=False)

    def _render(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self._compiled(grid, scale, shift)


def fold(generator: Generator, precision: Precision, *, portable: bool = False) -> FoldedGenerator:
    """A generator folded for its device.

    Args:
        generator: In eval mode.
        precision: Of its convolutions.
        portable: Standard operations alone, on a CPU too.

    Raises:
        InputError: A lower precision on a CPU.
    """
    on_cpu = next(generator.parameters()).device.type == "cpu"
    if on_cpu and precision != "float32":
        raise InputError(f"{precision} is for GPUs: leave the precision out on a CPU")
    folded = FoldedGenerator(generator, packed_conv2d if on_cpu and not portable else FrozenConv2d)
    if precision != "float32":
        folded.convolve_in(getattr(torch, precision))
    return folded.eval()


class _Graph:
    """A recording of what rendering a batch launches, replayed on other values.

    Args:
        folded: The network.
        inputs: What `render` takes, for the shapes.
    """

    def __init__(self, folded: FoldedGenerator, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        stream = torch.cuda.Stream(device=inputs[0].device)
        stream.wait_stream(torch.cuda.current_stream(inputs[0].device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):  # libraries choose their kernels and take their memory
                folded.render(*self._inputs)
        torch.cuda.current_stream(inputs[0].device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = folded.render(*self._inputs)

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._output.clone()  # the next replay writes there again
