"""Training steps against the plain form of the same networks: time and memory.

Peer: `plain_form.py`, upsampling before and pooling after every 3x3 convolution, shortcuts on the
large side, all by the library; same weights, same layout, same process, in turn. Orthogonal
regularization is off: it costs both forms the same. Prints medians and the median of the ratios.

    python benchmarks/training.py            # time at both sizes
    python benchmarks/training.py --memory   # peak of a biggan-128 step at batch 8, a process each
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch
from plain_form import plain

from biggan.devices import keep_freed_memory
from biggan.training.config import TrainConfig
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step

CPU = torch.device("cpu")
RECIPES = {
    "cifar": {
        "preset": "biggan-32",
        "batch_size": 16,
        "generator": {"channels": 64},
        "discriminator": {"channels": 128},  # 256 channels in every block, as in the generator
    },
    "biggan-128": {"preset": "biggan-128", "batch_size": 4},
}
ROUNDS = {"cifar": 9, "biggan-128": 5}
FORMS = ("plain", "ours", "recomputing")


def recipe(name: str, **changes: object) -> TrainConfig:
    return TrainConfig.from_dict({**RECIPES[name], "orthogonal": 0.0, **changes})


def state_of(form: str, config: TrainConfig) -> TrainState:
    state = TrainState.create(config, CPU)
    if form == "plain":
        plain(state.generator)
        plain(state.discriminator)
    return state


def real_batch(config: TrainConfig) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shape = (config.batch_size, 3, config.generator.resolution, config.generator.resolution)
    labels = torch.randint(config.generator.num_classes, (config.batch_size,), generator=random)
    images = torch.rand(shape, generator=random) * 2 - 1
    return images, labels


def seconds_per_image(state: TrainState, config: TrainConfig) -> tuple[float, float]:
    real = real_batch(config)
    start = time.perf_counter()
    discriminator_step(state, real, config)
    middle = time.perf_counter()
    generator_step(state, config)
    end = time.perf_counter()
    return (middle - start) / config.batch_size, (end - middle) / config.batch_size


def compare_time(name: str) -> None:
    config = recipe(name)
    plain_state, own_state = state_of("plain", config), state_of("ours", config)
    seconds_per_image(plain_state, config), seconds_per_image(own_state, config)
    pairs = [
        (seconds_per_image(plain_state, config), seconds_per_image(own_state, config))
        for _ in range(ROUNDS[name])
    ]
    for i, step in enumerate("DG"):
        before = statistics.median(p[i] for p, _ in pairs)
        after = statistics.median(o[i] for _, o in pairs)
        ratio = statistics.median(p[i] / o[i] for p, o in pairs)
        print(
            f"{name:12} batch {config.batch_size:2}  {step} step: plain {before:.3f}, "
            f"ours {after:.3f} s per image, ratio {ratio:.2f}",
            flush=True,
        )


def peak(form: str) -> None:
    """Print the peak memory of one D and one G step beyond what the state itself holds."""
    config = recipe("biggan-128", batch_size=8, checkpoint_activations=form == "recomputing")
    state = state_of(form, config)
    for optimizer, network in (
        (state.d_optimizer, state.discriminator),
        (state.g_optimizer, state.generator),
    ):  # Adam's moments and the gradients exist from the first step on
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    real = real_batch(config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    discriminator_step(state, real, config)
    middle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    generator_step(state, config)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{(middle - before) / 2**20:.2f} {(after - before) / 2**20:.2f} {after / 2**20:.2f}")


def compare_memory() -> None:
    print("biggan-128, batch 8, GiB: D step, both steps (beyond weights, gradients, Adam); process")
    for form in FORMS:
        result = subprocess.run(
            [sys.executable, __file__, "--peak", form], capture_output=True, text=True, check=True
        )
        print(f"{form:12} {result.stdout.strip()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", choices=FORMS)
    parser.add_argument("--only", choices=RECIPES)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(arguments.peak)
        return
    if arguments.memory:
        compare_memory()
        return
    keep_freed_memory()
    a = torch.randn(2048, 2048)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    rate = 2 * 2048**3 / statistics.median(times) / 1e9
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, sgemm {rate:.0f} GFLOP/s")
    for name in [arguments.only] if arguments.only else RECIPES:
        compare_time(name)


if __name__ == "__main__":
    main()
