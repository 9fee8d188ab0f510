"""What watching costs: a look at both networks beside the steps from one look to the next.

Peer: the same training with watch.every = 0, in the same process. A look is timed by itself, after
a step that moved the weights, for a hundredth of a run's time drowns in the noise between two runs.
Prints medians, and the ratio (steps + look) / steps at the recipe's `watch.every`.

    python benchmarks/stability.py                  # digits as it is, CIFAR-10 at a batch of 16
    python benchmarks/stability.py --only digits
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from biggan.data import ImageDataset
from biggan.supervision.signals import Signals
from biggan.training import TrainConfig, load_recipe
from biggan.training.run import Run
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step

CPU = torch.device("cpu")
# On a CPU a step of the recipe's 128 images takes minutes; a look would be a smaller part of it.
CHANGES = {"digits": [], "cifar10": ["batch_size=16", "precision=float32"]}
ROUNDS = {"digits": 15, "cifar10": 3}


def step(state: TrainState, config: TrainConfig) -> None:
    shape = config.discriminator
    for _ in range(config.d_steps):
        size = (config.batch_size, shape.image_channels, shape.resolution, shape.resolution)
        images = torch.rand(size) * 2 - 1
        labels = torch.randint(10, (config.batch_size,))
        discriminator_step(state, (images, labels), config)
    generator_step(state, config)


def compare(name: str) -> None:
    config = load_recipe(name, [*CHANGES[name], "augmentation.kind=none"]).fitted(10)
    state = TrainState.create(config, CPU)
    dataset = ImageDataset(
        torch.zeros((0, 3, 1, 1), dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), (), "noise"
    )
    signals = Signals(Run(config, dataset, Path(), CPU))
    steps, looks = [], []
    for i in range(ROUNDS[name] + 1):
        start = time.perf_counter()
        step(state, config)
        middle = time.perf_counter()
        signals.measure(state)
        if i > 0:  # the first of each has allocations, and the first look many iterations, to do
            steps.append(middle - start)
            looks.append(time.perf_counter() - middle)
        else:
            first = time.perf_counter() - middle
    one, look = statistics.median(steps), statistics.median(looks)
    ratio = (config.watch.every * one + look) / (config.watch.every * one)
    print(
        f"{name:8} batch {config.batch_size:3}: a step {one:.3f} s, a look {look:.3f} s (the first "
        f"{first:.3f} s), every {config.watch.every} steps: ratio {ratio:.4f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=CHANGES)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in [arguments.only] if arguments.only else CHANGES:
        compare(name)


if __name__ == "__main__":
    main()
