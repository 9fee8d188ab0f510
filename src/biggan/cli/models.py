"""`biggan models`: what can be loaded, what can be built, and how large it is."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

_PUBLISHED_RGB_CHANNELS = 128  # of the last convolution of DeepMind's deep generators


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the bundled model and the architectures, with their parameter counts.

    \b
    Examples:
      biggan models
      biggan models --json
    """
    from biggan.gan import load

    bundled = load()
    rows = [_architecture(name) for name in _preset_names()]
    if as_json:
        card = {
            "name": bundled.name,
            "resolution": bundled.config.resolution,
            "classes": len(bundled.class_names),
            "generator_parameters": _count(bundled.config),
            "source": bundled.description.source,
            "licence": bundled.description.licence,
            "sha256": bundled.sha256,
        }
        click.echo(json.dumps({"bundled": card, "architectures": rows}, indent=2))
        return
    click.echo("Bundled weights (used when --model is left out)")
    click.echo(
        f"  {bundled.name}: {bundled.config.resolution} px, {len(bundled.class_names)} classes, "
        f"{_count(bundled.config):,} parameters; {bundled.description.source}"
    )
    click.echo("\nArchitectures (random weights; `preset` in a recipe)")
    click.echo(
        f"  {'name':16} {'px':>4} {'z':>4} {'ch':>4} {'generator':>12} {'discriminator':>14}"
    )
    for row in rows:
        click.echo(
            f"  {row['name']:16} {row['resolution']:4} {row['z_dim']:4} {row['channels']:4} "
            f"{row['generator_parameters']:12,} {row['discriminator_parameters']:14,}"
            f"  {row['description']}"
        )
    click.echo(
        "\nWith the published deep weights' last convolution of 128 channels, 3 of them used"
    )
    for row in rows:
        if "generator_parameters_as_published" in row:
            click.echo(f"  {row['name']:16} {row['generator_parameters_as_published']:27,}")


def _preset_names() -> list[str]:
    from biggan.models import PRESETS

    return list(PRESETS)


def _architecture(name: str) -> dict[str, Any]:
    from biggan.models import get_preset

    preset = get_preset(name)
    row = {
        "name": name,
        "description": preset.description,
        "resolution": preset.generator.resolution,
        "z_dim": preset.generator.z_dim,
        "channels": preset.generator.channels,
        "generator_parameters": _count(preset.generator),
        "discriminator_parameters": _count(preset.discriminator),
    }
    if preset.generator.family == "biggan-deep":
        published = dataclasses.replace(preset.generator, rgb_channels=_PUBLISHED_RGB_CHANNELS)
        row["generator_parameters_as_published"] = _count(published)
    return row


def _count(config: Any) -> int:
    from biggan.models import count_parameters

    return count_parameters(config)
