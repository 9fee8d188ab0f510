"""How long a run takes on this machine, from a few measured updates; what fits into a night."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from biggan.training.config import TrainConfig
from biggan.training.plan import Plan, make_plan
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step

NIGHT = 8 * 3600  # seconds
FIRST_PREVIEW = 120  # seconds, of proposed settings
_USEFUL = 10_000  # steps, the fewest of proposed settings
_IMAGES = 8  # of a measured batch
_PATIENCE = 15.0  # seconds

# From the least change to the largest.
_SMALLER = (
    (),
    ("batch_size=32", "generator.channels=16", "discriminator.channels=16"),
    ("preset=biggan-32", "batch_size=32", "generator.channels=16", "discriminator.channels=16"),
)


def measure_rate(config: TrainConfig, device: torch.device) -> float:
    """Operations a second of training on a device, from some updates of a small batch."""
    size = min(config.batch_size, _IMAGES)
    small = replace(
        config, batch_size=size, accumulation=1, compile=False, label_sampling="uniform"
    )
    plan = make_plan(replace(small, total_steps=1, d_steps=1), None)
    state = TrainState.create(small, device)
    shape = config.discriminator
    images = torch.rand(size, shape.image_channels, shape.resolution, shape.resolution) * 2 - 1
    labels = torch.arange(size) % max(shape.num_classes, 1)
    real = images.to(device), labels.to(device)
    begun, fastest = time.monotonic(), float("inf")
    for _ in range(4):  # the first one also prepares much
        start = time.monotonic()
        metrics = discriminator_step(state, real, small) | generator_step(state, small)
        for value in metrics.values():
            float(value)  # waits for the device
        fastest = min(fastest, time.monotonic() - start)
        if time.monotonic() - begun > _PATIENCE:
            break
    return float(plan["d_update_flops"] + plan["g_update_flops"]) / fastest


def propose(
    load: Callable[[list[str]], TrainConfig], changes: list[str], rate: float
) -> list[str] | None:
    """Changes of a recipe with which it ends within a night; None if there are none.

    `load` makes a recipe, fitted to the data, of changes such as "batch_size=32"; `changes` are
    those that were asked for, and `rate` is in operations a second.
    """
    for smaller in _SMALLER:
        config = load([*changes, *smaller])
        step = make_plan(config, None)["step_flops"] / rate
        steps = int(NIGHT / step) // 1000 * 1000
        if steps >= min(_USEFUL, config.total_steps):
            every = max(10, min(config.checkpoint_every, round(FIRST_PREVIEW / step / 10) * 10))
            steps = min(steps, config.total_steps)
            return [*smaller, f"total_steps={steps}", f"checkpoint_every={every}"]
    return None


def differences(config: TrainConfig, smaller: TrainConfig) -> str:
    """What proposed settings change about the pictures and networks, in words."""
    old, new = config.generator, smaller.generator
    words = []
    if new.resolution != old.resolution:
        words.append(f"at {new.resolution} px instead of {old.resolution}")
    if new.channels < old.channels:
        words.append(f"with {new.channels} channels instead of {old.channels}")
    if smaller.batch_size < config.batch_size:
        words.append(f"in batches of {smaller.batch_size} instead of {config.batch_size}")
    return "".join(f", {each}" for each in words)


def answer(plan: Plan, config: TrainConfig, rate: float, device: torch.device) -> str:
    """What one asks first: hours, the first preview, memory and disk, in two lines."""
    step = plan["step_flops"] / rate
    memory = (
        plan["process_bytes"]
        if device.type == "cpu"
        else max(plan["d_peak_bytes"], plan["g_peak_bytes"])
    )
    first = min(config.checkpoint_every, config.total_steps)
    return (
        f"About {duration(plan['run_flops'] / rate)} on this machine ({device}): "
        f"{config.total_steps:,} steps of {duration(step)}.\n"
        f"First preview after {duration(first * step)}, at step {first:,}. "
        f"Memory about {memory / 2**30:.1f} GiB, disk at most {plan['run_bytes'] / 2**30:.1f} GiB."
    )


def duration(seconds: float) -> str:
    """A time in words, to two digits."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            count = seconds / size
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.2g} seconds"
