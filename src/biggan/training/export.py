"""The averaged generator, ready to sample from: what a run exports at a checkpoint.

It gets standing statistics (Appendix C.1). BatchNorm's moving averages lag behind the weights, and
belong to the weights before averaging. So the averaged generator is run once more over fresh noise
with the batches' own statistics, and what its layers see is recorded: for N(0, I), and for a grid
of truncations, each with its own noise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from biggan.distributed import is_first, on_any_process, own_share, synchronize_batch_norm
from biggan.images import make_grid, to_pil, to_uint8
from biggan.latents import make_noise
from biggan.models import Generator, hub_grid, set_statistics_grid
from biggan.nn import StandingBatchNorm2d, hold_power_iteration, iterate_power
from biggan.training.config import TrainConfig
from biggan.training.randomness import Purpose, derive_seed, random_generator
from biggan.training.state import TrainState
from biggan.training.step import draw_labels

_PREVIEW_CLASSES = 10
_PREVIEW_COLUMNS = 10
_POWER_ITERATIONS = 50

HUB_GRID = hub_grid(50)
"""What a finished run's generator gets: the truncations of the published modules."""

COARSE_GRID = (0.2, 0.4, 0.6, 0.8, 1.0)
"""What a run's intermediate generators get."""


class RunInterruptedError(Exception):
    """What follows a checkpoint was interrupted. The same command does it after resuming."""


def statistics_plan(state: TrainState, config: TrainConfig) -> tuple[tuple[float, ...], int]:
    """The truncations to record, and the images for each: in a short run no more than it saw."""
    grid = HUB_GRID if state.step >= config.total_steps else COARSE_GRID
    trained_on = state.step * config.batch_size // len(HUB_GRID)
    return grid, min(config.statistics_images, max(config.micro_batch_size, trained_on))


@torch.no_grad()
def preview(generator: Generator) -> Image.Image:
    """A grid of pictures, a class a row, with the same noise in each."""
    config = generator.config
    noise = torch.from_numpy(make_noise(_PREVIEW_COLUMNS, config.z_dim, 1.0, seed=0)).float()
    z = noise.to(next(generator.parameters()).device)
    labels = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    rows = max(1, min(config.num_classes, _PREVIEW_CLASSES))
    images = torch.cat([generator(z, labels + label, 1.0).cpu() for label in range(rows)])
    return make_grid(to_pil(to_uint8(images)), columns=_PREVIEW_COLUMNS)


def real_preview(images: Tensor, labels: Tensor, num_classes: int) -> Image.Image:
    """Real images, uint8 (N, C, R, R), in the layout of `preview`: the first of each class.

    White where there are none; `num_classes` is 0 for an unconditional model.
    """
    rows = []
    for label in range(max(1, min(num_classes, _PREVIEW_CLASSES))):
        found = images[torch.nonzero(labels == label)[:_PREVIEW_COLUMNS, 0]]
        white = torch.full((_PREVIEW_COLUMNS - len(found), *images.shape[1:]), 255).to(images)
        rows += [found, white]
    return make_grid(to_pil(torch.cat(rows)), columns=_PREVIEW_COLUMNS)


def finish(
    generator: Generator,
    config: TrainConfig,
    class_counts: Sequence[int],
    grid: Sequence[float],
    images: int,
    *,
    progress: bool = True,
    interrupted: Callable[[], bool] = lambda: False,
) -> Generator:
    """A copy of a generator, ready to sample: in eval mode, its norms and statistics up to date.

    The generator is the moving average as training left it. The truncations of the grid ascend;
    behind each of them are so many generated images. Several processes must call it together: each
    runs its share of every batch, and all of them get the same network.

    Raises:
        RunInterruptedError: `interrupted`, asked before every batch, is true on any process.
    """
    finished = copy.deepcopy(generator)
    synchronize_batch_norm(finished)
    iterate_power(finished, _POWER_ITERATIONS)
    set_statistics_grid(finished, list(grid))
    bar = tqdm(
        (None, *grid),
        desc="statistics",
        unit="truncation",
        leave=False,
        delay=2,
        disable=None if progress and is_first() else True,
    )
    for truncation in bar:
        record_statistics(finished, config, class_counts, truncation, images, interrupted)
    return finished.eval()


@torch.no_grad()
def record_statistics(
    generator: Generator,
    config: TrainConfig,
    class_counts: Sequence[int],
    truncation: float | None,
    images: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Measure and store the statistics for one truncation (None: for N(0, I)).

    Means are averaged over batches; a variance is the mean of the batches' variances plus the
    variance of their means, so that the size of a batch does not matter.
    """
    layers = [layer for layer in generator.modules() if isinstance(layer, StandingBatchNorm2d)]
    batch_size = min(config.micro_batch_size, images)
    batches = math.ceil(images / batch_size)
    kept = [(layer.running_mean.clone(), layer.running_var.clone()) for layer in layers]
    seen: list[list[tuple[Tensor, Tensor]]] = [[] for _ in layers]
    with hold_power_iteration(generator):
        generator.train()
        for layer in layers:
            layer.momentum = 1.0  # the moving average is the newest batch
        for i in range(batches):
            if on_any_process(interrupted()):
                raise RunInterruptedError
            # The same uniform numbers and classes at every truncation: the table is smooth.
            seed = derive_seed(config.seed, Purpose.STATISTICS, i, 0)
            noise = make_noise(batch_size, config.generator.z_dim, truncation, seed)
            z = torch.from_numpy(noise).float()
            random = random_generator(config.seed, Purpose.STATISTICS, i, 1)
            labels = draw_labels(config, class_counts, random, batch_size)
            device = layers[0].running_mean.device
            generator(own_share(z).to(device), own_share(labels).to(device))
            for layer, record in zip(layers, seen, strict=True):
                record.append((layer.running_mean.clone(), layer.running_var.clone()))
        generator.eval()
    for layer, record, (running_mean, running_var) in zip(layers, seen, kept, strict=True):
        layer.momentum = StandingBatchNorm2d.MOMENTUM
        means = torch.stack([mean for mean, _ in record]).double()  # (batches, C)
        variances = torch.stack([var for _, var in record]).double()
        mean = means.mean(dim=0)
        var = variances.mean(dim=0) + means.var(dim=0, correction=0)
        if truncation is None:
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(var)
        else:
            row = layer.grid.index(truncation)
            layer.table_mean[row].copy_(mean)
            layer.table_var[row].copy_(var)
            layer.running_mean.copy_(running_mean)
            layer.running_var.copy_(running_var)
