"""Where the time of a training step goes: operations, rate and seconds by group of layers.

A step of D and one of G, each timed operation by operation. The operations of a convolution are
those of the direct form, whichever computes it. The limit is the rate of float32 matrix products,
measured beside: its share of a group's time says how near the group is to it; Winograd's
convolutions, which need fewer operations, may exceed it. Waiting for other programs counts, so the
smallest time of each operation over the rounds is taken.

    python benchmarks/budget.py [--size cifar biggan-128] [--batch 4] [--threads 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry

import biggan.nn.winograd as winograd
from biggan.devices import keep_freed_memory
from biggan.inference.measurements import matrix_product_rate
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step
from training import RECIPES, real_batch, recipe

CPU = torch.device("cpu")
Part = tuple[str, float, float]
"""A group's name, operations, seconds."""


class Budget(TorchDispatchMode):
    """Records every operation that runs, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Part] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        start = time.perf_counter()
        result = function(*args, **(kwargs or {}))
        taken = time.perf_counter() - start
        count = flop_registry.get(function.overloadpacket)
        operations = 0 if count is None else count(*args, **(kwargs or {}), out_val=result)
        self.parts.append((group(function.__name__, args), operations, taken))
        return result

    def whole(self, function: Callable[..., Tensor], count: Callable[..., Part]) -> Any:
        """A function that is recorded as one operation, and uses threads as it does by itself."""

        def recorded(*args: Any, **kwargs: Any) -> Tensor:
            with _disable_current_modes():
                start = time.perf_counter()
                result = function(*args, **kwargs)
                taken = time.perf_counter() - start
            name, operations, _ = count(*args)
            self.parts.append((name, operations, taken))
            return result

        return recorded


def group(name: str, args: Any) -> str:
    """The group of an operation."""
    name = name.split(".")[0]
    shapes = [tuple(arg.shape) for arg in args if isinstance(arg, Tensor)]
    if "convolution" in name:
        gradient = name.endswith("backward")
        image, weight = shapes[1:3] if gradient else shapes[:2]
        return convolution(image[-1], weight[-1])
    if "attention" in name:
        return "attention"
    if "adam" in name:
        return "Adam"
    if name in ("mm", "addmm", "bmm"):
        return "matrix products"
    of_weights = shapes and (len(shapes[0]) < 3 or shapes[0][-1] in (1, 3))
    if name in ("mv", "dot", "addr_") or (of_weights and name in ("div", "mul", "neg", "add")):
        return "spectral norms"
    if "batch_norm" in name or (shapes and len(shapes[0]) == 4):
        return "BatchNorm, ReLU, pooling, sums"
    return "others"


def convolution(resolution: int, size: int) -> str:
    if size == 1:
        return "1x1 convolutions"
    return f"3x3 convolutions, {'up to 9' if resolution < 10 else 'from 16'} px"


def record(budget: Budget) -> None:
    """Let Winograd's convolutions count as direct ones."""

    def convolved(x: Tensor, kernel: Tensor, *_: Any) -> Part:
        operations = 2 * 9 * kernel.shape[1] * kernel.shape[2] * x[:, 0].numel()
        return convolution(x.shape[-1], 3), operations, 0.0

    def weight_gradient(x: Tensor, gradient: Tensor) -> Part:
        operations = 2 * 9 * x.shape[1] * gradient[:, 0].numel() * gradient.shape[1]
        return convolution(x.shape[-1], 3), operations, 0.0

    winograd.winograd_convolve = budget.whole(winograd.winograd_convolve, convolved)
    winograd.winograd_weight_gradient = budget.whole(
        winograd.winograd_weight_gradient, weight_gradient
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=RECIPES, default="biggan-128")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    config = recipe(arguments.size, batch_size=arguments.batch)
    state = TrainState.create(config, CPU)
    real = real_batch(config)
    budget = Budget()
    record(budget)
    steps: dict[str, Callable[[], object]] = {
        "D": lambda: discriminator_step(state, real, config),
        "G": lambda: generator_step(state, config),
    }
    rate = matrix_product_rate(CPU)
    print(
        f"{arguments.size}, batch {arguments.batch}, {arguments.threads} threads, "
        f"matrix products {rate / 1e9:.0f} GFLOP/s"
    )
    for name, step in steps.items():
        step()
        rounds = []
        for _ in range(arguments.rounds):
            budget.parts = []
            with budget:
                step()
            rounds.append(budget.parts)
        print(f"| {name} step | GFLOP | seconds | GFLOP/s | share of the limit |")
        print("| --- | --- | --- | --- | --- |")
        totals: dict[str, tuple[float, float]] = {}
        for same in zip(*rounds, strict=True):
            operations, seconds = totals.get(same[0][0], (0.0, 0.0))
            fastest = min(taken for _, _, taken in same)
            totals[same[0][0]] = operations + same[0][1], seconds + fastest
        whole = [sum(column) for column in zip(*totals.values(), strict=True)]
        rows = sorted(totals.items(), key=lambda row: -row[1][1])
        for title, (operations, seconds) in (*rows, ("all", whole)):
            counts = operations > 0.05 * rate * seconds
            figures = f"{operations / seconds / 1e9:.0f} | {operations / seconds / rate:.0%}"
            print(f"| {title} | {operations / 1e9:.1f} | {seconds:.3f} |", end=" ")
            print(f"{figures if counts else '- | -'} |", flush=True)


if __name__ == "__main__":
    main()
