"""PyTorch itself as the engine, in the form that suits the device."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from biggan.devices import is_out_of_memory
from biggan.engine_names import Precision
from biggan.engines.engine import Engine
from biggan.errors import InputError
from biggan.models import Generator
from biggan.models.folded import FoldedGenerator
from biggan.nn import FrozenConv2d, packed_conv2d

_WARM_UPS = 3
_MOST_GRAPHS = 2  # of a full batch and of the last one, which is smaller


class PyTorchEngine(Engine):
    """The folded generator in eager PyTorch.

    On a CPU with packed convolutions. On a CUDA device as a CUDA graph for each batch size, so that
    small images are not held up by the processor that launches their kernels. The two batch sizes
    that were used last keep their graphs.

    Args:
        generator: In eval mode; not changed.
        precision: Of the convolutions; float32 on a CPU.
        graphs: Whether to record CUDA graphs on a CUDA device.

    Raises:
        InputError: A lower precision on a CPU, where it would be slower.
    """

    name: ClassVar[str] = "pytorch"

    def __init__(
        self, generator: Generator, precision: Precision = "float32", *, graphs: bool = True
    ) -> None:
        device = next(generator.parameters()).device
        folded = fold(generator, precision)
        super().__init__(folded, device, precision)
        self._records = graphs and device.type == "cuda"
        self._graphs: dict[int, _Graph] = {}  # by batch size, the least recently used first

    def _render(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if not self._records:
            return self._folded.render(grid, scale, shift)
        inputs = (grid, scale, shift)
        batch = len(grid)
        graph = self._graphs.pop(batch, None) or self._record(inputs)
        self._graphs[batch] = graph
        return graph(inputs)

    def _record(self, inputs: tuple[Tensor, ...]) -> _Graph:
        while len(self._graphs) >= _MOST_GRAPHS:  # each holds the memory of its activations
            del self._graphs[next(iter(self._graphs))]
        try:
            return _Graph(self._folded, inputs)
        except RuntimeError as error:
            if not (self._graphs and is_out_of_memory(error)):
                raise
        self._graphs.clear()
        return _Graph(self._folded, inputs)


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
        inputs: What `render` takes, for the shapes, on a CUDA device that need not be the current
            one.
    """

    def __init__(self, folded: FoldedGenerator, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        with torch.cuda.device(inputs[0].device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):  # libraries choose their kernels and take their memory
                    folded.render(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            # Without a stream of its own it would record one of the device that was current when
            # the first graph of this process was recorded, and replay nothing.
            with torch.cuda.graph(self._graph, stream=stream):
                self._output = folded.render(*self._inputs)

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._output.clone()  # the next replay writes there again
