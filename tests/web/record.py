"""Values of Python that the page's scripts must reproduce, in `recorded.json`.

Write them anew with `python tests/web/record.py`.
"""

import json
from pathlib import Path
from typing import Any

import torch

from biggan.interpolation import interpolate_noise
from biggan.latents import truncated_noise
from biggan.models import hub_grid
from biggan.nn import StandingBatchNorm2d

RECORDED = Path(__file__).with_name("recorded.json")

SEEDS = (0, 1, 42, 2**31, 2**32 - 1)
TRUNCATIONS = (0.02, 0.4, 1.0)
DIM = 30
ROW = 22  # beyond the generator's first 624 words


def record() -> dict[str, Any]:
    """All values; float32 as the shortest decimals that are read back the same."""
    noise = [
        {"seed": seed, "truncation": t, "dim": DIM, "row": ROW, "values": _noise(seed, t).tolist()}
        for seed in SEEDS
        for t in TRUNCATIONS
    ]
    start, end = (truncated_noise(1, DIM, 0.4, seed) for seed in (0, 1))
    path = torch.from_numpy(interpolate_noise(start, end, 30)[0]).float()
    return {
        "noise": noise,
        "path": {"seeds": [0, 1], "truncation": 0.4, "steps": 30, "frame": 11, "dim": DIM}
        | {"values": path[11].tolist()},
        "statistics": [
            _statistics((0.1, 0.15, 0.4, 1.0), "linear"),
            _statistics(hub_grid(50), "hub"),
            _statistics(hub_grid(51), "hub"),
            _statistics((), "linear"),
        ],
    }


def _noise(seed: int, truncation: float) -> torch.Tensor:
    return torch.from_numpy(truncated_noise(ROW + 1, DIM, truncation, seed)[ROW]).float()


def _statistics(grid: tuple[float, ...], off_grid: Any) -> dict[str, Any]:
    """A table of one channel, and what it says at some truncations."""
    table = StandingBatchNorm2d(1, grid=grid, off_grid=off_grid)
    rows = torch.arange(2.0 * len(grid)).view(-1, 2)
    table.table_mean.copy_(rows[:, :1])
    table.table_var.copy_(rows[:, 1:] ** 2)
    table.running_mean.fill_(-3)
    return {
        "grid": list(grid),
        "off_grid": off_grid,
        "table": torch.stack([torch.cat(table.statistics(t)) for t in (*grid, None)])
        .flatten()
        .tolist(),
        "at": {
            str(t): torch.cat(table.statistics(t)).tolist()
            for t in (0.001, 0.02, 0.13, 0.405, 0.415, 0.58, 0.837, 0.995, 1.0)
        },
    }


if __name__ == "__main__":
    RECORDED.write_text(f"{json.dumps(record())}\n")
