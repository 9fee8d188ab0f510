"""Whole runs on eight-pixel noise, small enough for a test, and what they leave."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from biggan.data import ImageDataset
from biggan.supervision.settings import EvaluationConfig
from biggan.training import TrainConfig, export, plan, train
from biggan.training.state import TrainState

CPU = torch.device("cpu")
SMALL = {
    "preset": "biggan-32",
    "total_steps": 8,
    "batch_size": 8,
    "d_steps": 1,
    "checkpoint_every": 2,
    "log_every": 1,
    "statistics_images": 8,
    "flip": True,
    "generator": {
        "resolution": 8,
        "channels": 4,
        "widths": [2, 2],
        "z_dim": 8,
        "class_dim": 4,
        "attention_resolution": 0,
    },
    "discriminator": {
        "resolution": 8,
        "channels": 4,
        "widths": [2, 2],
        "down_blocks": 1,
        "attention_resolution": 0,
    },
    "watch": {"every": 1},
}

ADDITIONS: dict[str, Any] = {
    "r1": {"gamma": 2.0},
    "dropout": {"keep": 0.8},
    "instance_noise": {"std": 0.2, "until": 100},
    "loss": {"margin": 1.5},
    "augmentation": {"kind": "diffaugment"},
    "lecam": {"strength": 0.5, "start": 0},
}
"""Everything that can be added to the steps, but for bounds on singular values:"""

BOUNDS = {"generator": "clamp", "discriminator": "regularize", "bound": 0.9}


def recipe(**changes: Any) -> TrainConfig:
    return TrainConfig.from_dict({**SMALL, **changes}).fitted(2)


def noise_images(
    num: int = 32,
    side: int = 8,
    names: tuple[str, ...] = ("blue", "red"),
    *,
    channels: int = 3,
    seed: int = 0,
) -> ImageDataset:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num, channels, side, side), dtype=torch.uint8, generator=random)
    return ImageDataset(images, torch.arange(num) % max(1, len(names)), names, "noise")


IMAGES = noise_images()


def run(
    config: TrainConfig, folder: str | Path, dataset: Any = IMAGES, **options: Any
) -> TrainState:
    return train(config, dataset, folder, device=CPU, progress=False, **options)


def until(step: int) -> Callable[[], bool]:
    """Asks a run to stop after so many steps."""
    steps = iter(range(1, 1000))
    return lambda: next(steps) == step


def in_parts(config: TrainConfig, folder: Path, stops: list[int]) -> TrainState:
    """A run that is stopped at these steps on its way."""
    for stop in stops:
        run(dataclasses.replace(config, total_steps=stop), folder)
    return run(config, folder)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def steps(path: Path) -> list[int]:
    return [line["step"] for line in lines(path)]


def final_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((folder / "checkpoints").glob("step-*"))[-1])


def assert_same_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def assert_same_run(folder: Path, other: Path, *logs: str) -> None:
    """The same state to the bit, and the same text of these logs."""
    assert_same_tensors(final_tensors(folder), final_tensors(other))
    for name in logs:
        assert (folder / name).read_text() == (other / name).read_text(), name


@contextmanager
def short_exports() -> Iterator[None]:
    """Exports within have statistics for two truncations, where fifty and five are usual."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HUB_GRID", "COARSE_GRID"):
            patch.setattr(export, name, (0.2, 1.0))
        yield


@contextmanager
def simulated_once() -> Iterator[None]:
    """Plans of recipes that differ in their schedule alone share one simulation within.

    It is what takes the time.
    """
    simulate = functools.cache(plan._simulate)
    schedule = {
        "total_steps": 6,
        "checkpoint_every": 3,
        "keep_every": 0,
        "d_steps": 2,
        "evaluation": EvaluationConfig(),
        "interventions": (),
    }

    def shared(config: TrainConfig) -> Any:
        update, *rest = simulate(dataclasses.replace(config, **schedule))
        return update.copy(), *rest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_simulate", shared)
        yield


@contextmanager
def float64() -> Iterator[None]:
    """Networks and random numbers that are made within are in float64: rounding hides nothing."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
