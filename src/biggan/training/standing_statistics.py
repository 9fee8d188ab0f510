"""Standing statistics: BatchNorm's means and variances for a finished generator (Appendix C.1).

Moving averages lag behind the weights, and belong to the weights before averaging. So the finished
(averaged) generator is run once more over fresh noise with the batches' own statistics, and what
its layers see is recorded: for N(0, I), and for a grid of truncations, each with its own noise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from biggan.data import TrainingData
from biggan.distributed import is_first, own_share, synchronize_batch_norm
from biggan.latents import make_noise
from biggan.models import Generator
from biggan.nn import StandingBatchNorm2d, hold_power_iteration, iterate_power
from biggan.training.config import TrainConfig
from biggan.training.randomness import Purpose, derive_seed, random_generator
from biggan.training.step import draw_labels
from biggan.weights.files import set_statistics_grid

HUB_GRID = tuple(round(0.02 * i, 2) for i in range(1, 51))
"""The truncations of the published modules: 0.02, 0.04, ... 1.00."""

COARSE_GRID = (0.2, 0.4, 0.6, 0.8, 1.0)
"""What a run's intermediate generators get."""

_POWER_ITERATIONS = 50


def finish(
    generator: Generator,
    config: TrainConfig,
    dataset: TrainingData,
    grid: Sequence[float],
    images: int,
    *,
    progress: bool = True,
) -> Generator:
    """A copy of a generator, ready to sample from.

    Several processes must call it together: each runs its share of every batch, and all of them
    get the same network.

    Args:
        generator: The moving average, as training left it; not changed.
        config: The recipe.
        dataset: For the classes of the noise.
        grid: Truncations to record, ascending.
        images: Generated images behind each of them.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        A network in eval mode, its spectral norms and all its statistics up to date.
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
        record_statistics(finished, config, dataset, truncation, images)
    return finished.eval()


@torch.no_grad()
def record_statistics(
    generator: Generator,
    config: TrainConfig,
    dataset: TrainingData,
    truncation: float | None,
    images: int,
) -> None:
    """Measure and store the statistics for one truncation (None: for N(0, I)).

    Several processes must call it together.

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
            z, labels = _latents(config, dataset, truncation, i, batch_size)
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


def _latents(
    config: TrainConfig, dataset: TrainingData, truncation: float | None, batch: int, size: int
) -> tuple[Tensor, Tensor]:
    # The same uniform numbers and classes at every truncation: the table is smooth along its grid.
    seed = derive_seed(config.seed, Purpose.STATISTICS, batch, 0)
    z = torch.from_numpy(make_noise(size, config.generator.z_dim, truncation, seed)).float()
    random = random_generator(config.seed, Purpose.STATISTICS, batch, 1)
    return z, draw_labels(config, dataset, random, size)
