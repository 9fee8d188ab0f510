"""`biggan bench`: which engine runs a model fastest on this machine, and how close to its limit."""

from __future__ import annotations

import json
from typing import Any

import click

from biggan.cli import options


@click.command
@options.model
@options.offline
@options.device
@options.as_json
def command(model: str | None, offline: bool, device: str | None, as_json: bool) -> None:
    """Measure which engine is the fastest on this machine.

    The result is stored for `--engine auto`, the default of all commands. The table also has the
    plain network, the pytorch engine in the lower precisions that the device has (`--precision`),
    and the rate of this machine's matrix products in float32. `compile` is not measured, because
    it takes minutes to start.

    \b
    Examples:
      biggan bench
      biggan bench --model biggan-deep-256 --json
    """
    options.set_environment()
    from biggan.atomic_write import make_folder
    from biggan.inference.measurements import measure_all
    from biggan.weights.files import measurements_file

    options.check_writable(measurements_file().parent)
    gan = options.load_gan(model, device=device, offline=offline)
    make_folder(measurements_file().parent)

    def report(progress: str) -> None:
        click.echo(progress, err=True)

    card = {"model": gan.name} | measure_all(gan.generator, measurements_file(), report)
    click.echo(json.dumps(card, indent=2) if as_json else _as_table(card))


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
    lines.append(
        f"auto uses {card['auto']}. Matrix products run at "
        f"{card['matrix_product_rate'] / 1e9:.0f} GFLOP/s, and the folded network needs "
        f"{card['operations_per_image'] / 1e9:.3g} GFLOP per image."
    )
    return "\n".join(lines)
