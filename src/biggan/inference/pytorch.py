"""PyTorch's other ways to run a network: CUDA graphs, and its compiler."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from biggan.devices import is_out_of_memory
from biggan.inference import Precision
from biggan.inference.engine import Engine
from biggan.inference.folded import FoldedGenerator
from biggan.models import Generator

_WARM_UPS = 3
_MAX_GRAPHS = 2  # of a full batch and of the last one, which is smaller


class CudaGraphEngine(Engine):
    """The folded generator on a CUDA device, as a CUDA graph for each batch size.

    So small images are not held up by the processor that launches their kernels. The two batch
    sizes that were used last keep their graphs.
    """

    def __init__(self, generator: Generator, precision: Precision = "float32") -> None:
        super().__init__(generator, precision)
        self._graphs: dict[int, _Graph] = {}  # by batch size, the least recently used first

    def _render(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        inputs = (grid, scale, shift)
        graph = self._graphs.pop(len(grid), None) or self._record(inputs)
        self._graphs[len(grid)] = graph
        return graph(inputs)

    def _record(self, inputs: tuple[Tensor, ...]) -> _Graph:
        while len(self._graphs) >= _MAX_GRAPHS:  # each holds the memory of its activations
            del self._graphs[next(iter(self._graphs))]
        try:
            return _Graph(self.folded, inputs)
        except RuntimeError as error:
            if not (self._graphs and is_out_of_memory(error)):
                raise
        self._graphs.clear()
        return _Graph(self.folded, inputs)


class CompiledEngine(Engine):
    """The folded generator through `torch.compile`: its first image takes minutes."""

    name: ClassVar[str] = "compile"

    def __init__(self, generator: Generator, precision: Precision = "float32") -> None:
        # Standard operations: the compiler fuses what is between them, and packs by itself.
        super().__init__(generator, precision, portable=True)
        mode = "max-autotune-no-cudagraphs" if self.device.type == "cuda" else None
        self._compiled = torch.compile(self.folded.render, mode=mode, dynamic=False)

    def _render(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self._compiled(grid, scale, shift)


class _Graph:
    """A recording of what rendering a batch launches, replayed on other values.

    It is made of what `render` takes, on a CUDA device that need not be the current one.
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
