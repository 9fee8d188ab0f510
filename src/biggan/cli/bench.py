"""`biggan bench`: which engine runs a model fastest on this machine, and how close to its limit."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from biggan.atomic_write import make_folder
from biggan.cli.options import (
    check_writable,
    choose_device,
    device_option,
    model_option,
    offline_option,
    share_processor,
)

if TYPE_CHECKING:
    import torch

    from biggan.gan import Gan

_SIDE = 2048  # of the matrices: large enough for the library's best rate
_PRODUCTS = 7


@click.command
@model_option
@offline_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model: str | None, offline: bool, device: str | None, as_json: bool) -> None:
    """Measure which engine runs a model fastest on this machine.

    The result is kept: `--engine auto`, which all verbs use, takes the fastest from then on. Beside
    the engines stand the plain network, and the rate of this machine's matrix products. `compile`
    is not measured: it takes minutes to start.

    \b
    Examples:
      biggan bench
      biggan bench --model biggan-deep-256 --json
    """
    share_processor()
    from biggan.gan import load, measurements_file

    check_writable(measurements_file().parent)
    gan = load(model, device=choose_device(device), offline=offline)
    make_folder(measurements_file().parent)
    card = _measure(gan)
    click.echo(json.dumps(card, indent=2) if as_json else _as_table(card))


def matrix_product_rate(device: torch.device) -> float:
    """The best rate of float32 matrix products here, in floating-point operations per second."""
    import torch

    a = torch.randn(_SIDE, _SIDE, device=device)
    best = float("inf")
    for _ in range(_PRODUCTS):
        start = time.perf_counter()
        torch.mm(a, a)[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2 * _SIDE**3 / best


def _measure(gan: Gan) -> dict[str, Any]:
    """What the measurement found, as plain data."""
    import torch

    from biggan.gan import measurements_file
    from biggan.inference.folded import FoldedGenerator
    from biggan.inference.measurements import fastest_engine, measure_engines

    operations = FoldedGenerator(gan.generator).operations
    _say("measuring matrix products")
    rate = matrix_product_rate(gan.device)
    seconds = measure_engines(
        gan.generator,
        measurements_file(),
        lambda name: _say(f"building the {name} engine"),
        with_plain=True,
    )
    return {
        "model": gan.name,
        "device": str(gan.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "operations_per_image": operations,
        "matrix_product_rate": rate,
        "auto": fastest_engine(gan.generator, measurements_file()),
        "engines": [
            {
                "name": name,
                "seconds_per_image": of_image,
                "images_per_second": 1 / of_image,
                "speed_over_pytorch": seconds["pytorch"] / of_image,
                "share_of_rate": operations / of_image / rate,
            }
            for name, of_image in seconds.items()
        ],
    }


def _say(progress: str) -> None:
    click.echo(progress, err=True)


def _as_table(card: dict[str, Any]) -> str:
    lines = [
        f"{card['model']} on {card['device']}, {card['threads']} threads, torch {card['torch']}",
        f"{'engine':10} {'seconds':>10} {'images/s':>10} {'speed':>8} {'of rate':>8}",
    ]
    for row in card["engines"]:
        lines.append(
            f"{row['name']:10} {row['seconds_per_image']:10.5f} {row['images_per_second']:10.2f} "
            f"{row['speed_over_pytorch']:7.2f}x {row['share_of_rate']:8.0%}"
        )
    return "\n".join(
        [
            *lines,
            f"auto takes {card['auto']}. Matrix products run at "
            f"{card['matrix_product_rate'] / 1e9:.0f} GFLOP/s, and the folded network is "
            f"{card['operations_per_image'] / 1e9:.3g} GFLOP per image.",
        ]
    )
