"""Training on a GPU: steps per second and memory, against the plain eager form in float32.

A step is a recipe's discriminator updates and one of the generator, on synthetic images that lie on
the GPU: CIFAR-10 as its recipe says, and biggan-128 at ch 96 and a batch of 64, or half, a quarter
and so on where that does not fit. The peer is the same networks without fused resampling
(plain_form.py), not compiled, in float32. All are measured twice, in turn, each from new weights.

    python benchmarks/training_gpu.py [cifar10 biggan-128]
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from biggan.training import TrainConfig, load_recipe
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step

PASSES, ROUNDS = 2, 5
WARM_UP = 5  # steps; compilation and the choice of kernels happen here
SECONDS = 2.0  # of a round, about
BATCHES = {"cifar10": None, "biggan-128": 64}  # None: the recipe's
FORMS = {  # name: plain networks, changes to the recipe
    "plain, float32": (True, {"precision": "float32"}),
    "float32": (False, {"precision": "float32"}),
    "bfloat16": (False, {"precision": "bfloat16"}),
    "float32, compiled": (False, {"precision": "float32", "compile": True}),
    "bfloat16, compiled": (False, {"precision": "bfloat16", "compile": True}),
}


def step(state: TrainState, config: TrainConfig, real: tuple[Tensor, Tensor]) -> None:
    for _ in range(config.d_steps):
        discriminator_step(state, real, config)
    generator_step(state, config)


def seconds(
    steps: int,
    state: TrainState,
    config: TrainConfig,
    real: tuple[Tensor, Tensor],
) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step(state, config, real)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(config: TrainConfig, device: torch.device, *, plain: bool) -> tuple[float, int]:
    """Median steps per second, and the peak of allocated bytes."""
    torch.manual_seed(0)
    state = TrainState.create(config, device)
    if plain:
        import plain_form

        plain_form.plain(state.generator)
        plain_form.plain(state.discriminator)
    shape = config.generator
    pixels = (config.batch_size, shape.image_channels, shape.resolution, shape.resolution)
    labels = torch.randint(max(shape.num_classes, 1), pixels[:1], device=device)
    real = (torch.rand(pixels, device=device) * 2 - 1, labels)
    seconds(WARM_UP, state, config, real)
    torch.cuda.reset_peak_memory_stats()
    steps = max(1, round(SECONDS / seconds(2, state, config, real) * 2))
    rounds = [steps / seconds(steps, state, config, real) for _ in range(ROUNDS)]
    return statistics.median(rounds), torch.cuda.max_memory_allocated()


def batches(size: int) -> Iterator[int]:
    while size:
        yield size
        size //= 2


def largest_that_fits(config: TrainConfig, device: torch.device) -> TrainConfig:
    """The recipe at the largest batch of its halves at which the plain form runs."""
    for size in batches(config.batch_size):
        config = dataclasses.replace(config, batch_size=size, accumulation=1)
        try:
            measure(config, device, plain=True)
            return config
        except torch.OutOfMemoryError:
            pass
        clear()  # not above: while the error is handled, it holds what was allocated
    sys.exit(f"{config.name} does not fit on this GPU")


def clear() -> None:
    gc.collect()
    torch._dynamo.reset()
    torch.cuda.empty_cache()


def compare(name: str, device: torch.device) -> None:
    config = load_recipe(name)
    config = dataclasses.replace(
        config, batch_size=BATCHES[name] or config.batch_size, accumulation=1, compile=False
    )
    config = largest_that_fits(config, device)
    measured: dict[str, list[tuple[float, int]]] = {form: [] for form in FORMS}
    for _ in range(PASSES):
        for form, (plain, changes) in FORMS.items():
            clear()
            try:
                changed = dataclasses.replace(config, **changes)
                measured[form].append(measure(changed, device, plain=plain))
            except Exception as error:  # one form that fails should not hide the others
                print(f"{name}, {form}: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"{name}: batch {config.batch_size}, {config.d_steps} + 1 updates a step")
    print(f"  {'':20} {'steps/s':>9} {'GiB':>7} {'speed':>7} {'memory':>7}")
    peer = summary(measured["plain, float32"])
    for form, results in measured.items():
        if results:
            rate, peak = summary(results)
            print(
                f"  {form:20} {rate:9.2f} {peak / 2**30:7.2f} {rate / peer[0]:6.2f}x "
                f"{peak / peer[1]:6.2f}x"
            )


def summary(results: list[tuple[float, int]]) -> tuple[float, float]:
    return statistics.median(rate for rate, _ in results), max(peak for _, peak in results)


def main() -> None:
    if not torch.cuda.is_available():
        print("training_gpu: there is no CUDA device here, nothing measured")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    tf32 = "TF32" if torch.backends.cudnn.allow_tf32 else "full float32"
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}")
    print(f"convolutions in float32 run as {tf32}; medians of {PASSES} x {ROUNDS} rounds")
    for name in sys.argv[1:] or BATCHES:
        compare(name, device)


if __name__ == "__main__":
    main()
