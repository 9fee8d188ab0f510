"""What an engine is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from threading import Lock
from typing import ClassVar

import torch
from torch import Tensor

from biggan.engine_names import Precision
from biggan.models import Generator, GeneratorConfig
from biggan.models.folded import FoldedGenerator

# Largest difference of a pixel, of a range of 2, from PyTorch's in the same precision and from
# float32: rounding differs from one library to the next, and 8 bits more or less do, too.
TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.3}


class Engine(ABC):
    """Runs one finished generator; called as the generator is, without gradients.

    Args:
        folded: The generator's network.
        device: Where noise, labels and images are.
        precision: Of its convolutions.

    Attributes:
        name: The engine's, as users write it.
        config: The generator's shape.
        device: Where noise, labels and images are.
        precision: Of its convolutions.
    """

    name: ClassVar[str]

    def __init__(self, folded: FoldedGenerator, device: torch.device, precision: Precision) -> None:
        self.config: GeneratorConfig = folded.config
        self.device = device
        self.precision: Precision = precision
        self._folded = folded
        # Graphs and compiled networks have one set of inputs; and threads that make images at once
        # are slower than in turn.
        self._turn = Lock()

    @torch.inference_mode()
    def __call__(self, z: Tensor, labels: Tensor, truncation: float | None = None) -> Tensor:
        """Make images; see `BigGANGenerator.forward`."""
        with torch.autocast(self.device.type, enabled=False):  # precision is the engine's to say
            embedding = self._folded.embed(labels)
            prepared = self._folded.prepare(z, embedding, truncation)
            with self._turn:
                return self._render(*prepared)

    @abstractmethod
    def _render(self, grid: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """See `FoldedGenerator.render`."""

    @cached_property
    def batch_size(self) -> int:
        """Images at once that suit the device.

        One on a CPU, whose cache is the limit; on a GPU as many as fill it without exceeding half
        of the memory that is free when this is first asked for.
        """
        if self.device.type == "cpu":
            return 1
        if self.device.type != "cuda":
            return _MOST_AT_ONCE
        free, _ = torch.cuda.mem_get_info(self.device)
        fits = free // 2 // bytes_per_image(self.config, self.precision)
        return int(min(max(fits, 1), _MOST_AT_ONCE))


_MOST_AT_ONCE = 64


def bytes_per_image(config: GeneratorConfig, precision: Precision) -> int:
    """Memory that an image takes while it is made, roughly: the largest layers' activations."""
    stages = zip((4, *config.stage_resolutions), config.widths, strict=True)
    largest = max(resolution**2 * width * config.channels for resolution, width in stages)
    # The input of a block that upsamples is as wide as the one before, at twice its side.
    return 6 * largest * (4 if precision == "float32" else 2)


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
