"""Engines: what runs a finished generator. All make the same pictures."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from biggan.devices import describe_out_of_memory, has_bfloat16, is_out_of_memory
from biggan.errors import InputError, quoted
from biggan.inference import ENGINES, PRECISIONS, EngineName, Precision
from biggan.inference.convolution import FrozenConv2d, MakeConvolution, packed_conv2d
from biggan.inference.folded import FoldedGenerator
from biggan.models import Generator, GeneratorConfig

_LOG = logging.getLogger("biggan.inference")

# Largest difference of a pixel, of a range of 2, from PyTorch's in the same precision and from
# float32: rounding differs from one library to the next, and 8 bits more or less do, too.
TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.3}

_MAX_BATCH = 64

_Result = TypeVar("_Result")


class Engine:
    """A folded generator in eager PyTorch, on a CPU with packed convolutions.

    Called as the generator is, without gradients. Other engines override `_render`; of `folded`
    they may keep `prepare` alone, and then it has no `layers`.

    Args:
        generator: In eval mode; not changed, and later changes of its weights do not reach it. Of
            one in float64 it makes the images of the same weights in float32.
        precision: Of the convolutions; on a CPU float32, or bfloat16 if it has AMX or AVX-512 BF16.
        portable: Standard operations alone, on a CPU too.

    Raises:
        InputError: A precision that this CPU would only emulate.
    """

    name: ClassVar[str] = "pytorch"

    def __init__(
        self, generator: Generator, precision: Precision = "float32", *, portable: bool = False
    ) -> None:
        self.config: GeneratorConfig = generator.config
        self.device = next(generator.parameters()).device
        self.precision: Precision = precision
        on_cpu = self.device.type == "cpu"
        check_precision(precision, self.device)
        dtype = getattr(torch, precision)
        make: MakeConvolution = FrozenConv2d
        if on_cpu and not portable:
            make = partial(packed_conv2d, dtype=dtype)
        if generator.linear.bias.dtype != torch.float32:
            generator = copy.deepcopy(generator).float()
        self.folded = FoldedGenerator(generator, make).eval()
        if precision != "float32":
            self.folded.convolve_in(dtype)
        # Graphs and compiled networks have one set of inputs; and threads that make images at once
        # are slower than in turn.
        self._lock = Lock()

    def __call__(self, z: Tensor, labels: Tensor, truncation: float | None = None) -> Tensor:
        """Make images; see `Generator.forward`."""
        return self.synthesize(z, self.embed(labels), truncation)

    @torch.inference_mode()
    def embed(self, labels: Tensor) -> Tensor:
        """Class vectors for labels; see `Generator.embed`."""
        return self.folded.embed(labels)

    def synthesize(
        self, z: Tensor, class_vectors: Tensor, truncation: float | None = None
    ) -> Tensor:
        """Make images from class vectors; see `FoldedGenerator.synthesize`."""
        return self.run(self._render, z, class_vectors, truncation)

    @torch.inference_mode()
    def run(
        self,
        render: Callable[[Tensor, Tensor, Tensor], _Result],
        z: Tensor,
        class_vectors: Tensor,
        truncation: float | None = None,
    ) -> _Result:
        """Call a method of `folded` with what `FoldedGenerator.prepare` makes of the others."""
        with torch.autocast(self.device.type, enabled=False):  # the engine decides the precision
            prepared = self.folded.prepare(_for_all(z), _for_all(class_vectors), truncation)
            with self._lock:
                return render(*prepared)

    def _render(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """See `FoldedGenerator.render`."""
        return self.folded.render(grid, scale, shift)

    @cached_property
    def batch_size(self) -> int:
        """Images at once that suit the device.

        One on a CPU, whose cache is the limit; on a GPU as many as fill it without exceeding half
        of the memory that is free when this is first asked for.
        """
        if self.device.type == "cpu":
            return 1
        if self.device.type != "cuda":
            return _MAX_BATCH
        free, _ = torch.cuda.mem_get_info(self.device)
        fits = free // 2 // bytes_per_image(self.config, self.precision)
        return int(min(max(fits, 1), _MAX_BATCH))


def _for_all(rows: Tensor) -> Tensor:
    """Rows for each layer (N, layers, dim) as rows for all (N, dim), where they are the same.

    Sums are taken in another order otherwise, and images differ by rounding.
    """
    same = rows.ndim == 3 and bool((rows == rows[:, :1]).all())
    return rows[:, 0] if same else rows


def check_choice(name: EngineName, precision: Precision) -> None:
    """Refuse an engine or a precision that does not exist.

    Raises:
        InputError: No engine or precision has this name.
    """
    if name not in ENGINES:
        raise InputError(f"there is no engine {quoted(name)}; there are {', '.join(ENGINES)}")
    check_precision(precision)


def check_precision(precision: Precision, device: torch.device | None = None) -> None:
    """Refuse a precision that does not exist, or that this device would only emulate.

    Raises:
        InputError: Which one, and which devices have it.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"there is no precision {quoted(precision)}; there are {', '.join(PRECISIONS)}"
        )
    if device is None or device.type != "cpu":
        return
    if precision == "float16":
        raise InputError("float16 needs a GPU: omit the precision on a CPU")
    if precision == "bfloat16" and not has_bfloat16():
        raise InputError(
            "bfloat16 needs a GPU, or a CPU with AMX or AVX-512 BF16, which this one lacks: "
            "omit the precision"
        )


@torch.inference_mode(mode=False)  # tensors made in that mode cannot be traced
def build_engine(
    generator: Generator,
    name: EngineName = "auto",
    precision: Precision = "float32",
    measurements: Path | None = None,
) -> Engine:
    """An engine for a finished generator in eval mode.

    All but PyTorch in float32 on a CPU make two check images first. An engine that fails, or whose
    images differ from the generator's, is replaced with PyTorch in float32 and without CUDA graphs,
    with a warning. `auto` is the fastest of those that `measurements`, the file that `biggan bench`
    writes, knows for this machine and architecture, else PyTorch.

    Raises:
        InputError: No engine has this name; it is not installed; it cannot run on the generator's
            device or in this precision; the device's memory does not suffice.
    """
    check_choice(name, precision)
    device = next(generator.parameters()).device
    asked_for = name != "auto"
    if name == "auto":
        name = "pytorch"
        if device.type == "cpu" and measurements is not None and measurements.is_file():
            from biggan.inference.measurements import fastest_engine

            name = fastest_engine(generator, measurements) if precision == "float32" else name
    if name == "pytorch" and precision == "float32" and device.type == "cpu":
        return Engine(generator)
    try:
        engine = _build(generator, name, precision)
        fault = check_engine(engine, generator)
    except Exception as error:  # of a library: whatever it may raise, pictures can still be made
        if isinstance(error, InputError):
            if asked_for or precision != "float32":
                raise
        elif is_out_of_memory(error):  # the replacement needs as much
            raise InputError(
                f"{describe_out_of_memory(error, device)}; close other programs on the device, or "
                "choose another"
            ) from error
        fault = " ".join(str(error).split())[:200] or type(error).__name__
    if fault is None:
        return engine
    _LOG.warning("not using the %s engine in %s: %s", name, precision, fault)
    return Engine(generator)


def _build(generator: Generator, name: EngineName, precision: Precision) -> Engine:
    from biggan.inference.openvino import OpenVinoEngine
    from biggan.inference.pytorch import CompiledEngine, CudaGraphEngine

    if name == "openvino":
        if precision != "float32":
            raise InputError("the openvino engine runs in float32: omit the precision")
        return OpenVinoEngine(generator)
    if name == "compile":
        return CompiledEngine(generator, precision)
    on_cuda = next(generator.parameters()).device.type == "cuda"
    return (CudaGraphEngine if on_cuda else Engine)(generator, precision)


def check_engine(engine: Engine, generator: Generator) -> str | None:
    """Make two images, one after the other, with an engine and with the generator.

    The second one differs if the engine repeats the first.

    Returns:
        What is wrong, in words; None if they agree within the precision's tolerance.
    """
    config = generator.config
    z = torch.randn(2, config.z_dim, generator=torch.Generator().manual_seed(0))
    z, labels = z.to(engine.device), torch.zeros(1, dtype=torch.int64, device=engine.device)
    with torch.inference_mode():
        images = [engine(row, labels) - generator(row, labels) for row in z.split(1)]
        difference = torch.cat(images).abs().max().item()
    tolerance = TOLERANCE[engine.precision]
    if engine.device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        tolerance = max(tolerance, TOLERANCE["float16"])  # whose mantissa TF32 has
    if difference <= tolerance:  # false for NaN
        return None
    return f"its check images differ from PyTorch's by {difference:.2g}"


def bytes_per_image(config: GeneratorConfig, precision: Precision) -> int:
    """Memory that an image takes while it is made, roughly: the largest layers' activations."""
    stages = zip((4, *config.stage_resolutions), config.widths, strict=True)
    largest = max(resolution**2 * width * config.channels for resolution, width in stages)
    # The input of a block that upsamples is as wide as the one before, at twice its side.
    return 6 * largest * (4 if precision == "float32" else 2)
