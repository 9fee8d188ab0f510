"""`biggan models`: what can be loaded, what can be built, and how large it is."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from biggan.cli import options
from biggan.errors import InputError, printable

if TYPE_CHECKING:
    from biggan.weights.published import PublishedModel


@click.command
@click.argument("model", metavar="[NAME|PATH]", required=False)
@click.option(
    "--verify",
    is_flag=True,
    help="Check the published weights in the cache against the digests of their first download.",
)
@options.offline
@options.as_json
def command(model: str | None, verify: bool, offline: bool, as_json: bool) -> None:
    """List models and architectures, or describe a weights file.

    Without an argument: list the bundled models, the published weights, which are downloaded on
    first use, and the architectures. With an argument: describe that model.

    \b
    Examples:
      biggan models
      biggan models biggan-deep-256
      biggan models G_ema.pth --json
      biggan models --verify
    """
    if verify:
        if model is not None:
            raise InputError("--verify checks all published weights in the cache: omit the model")
        _verify(as_json=as_json)
        return
    if model is not None:
        card = _card(model, offline=offline)
        click.echo(json.dumps(card, indent=2) if as_json else _as_lines(card))
        if card.get("kind") != "discriminator":
            options.name_next("biggan", "sample", model=model)
        return
    from biggan.models import PRESETS
    from biggan.weights.files import BUNDLED
    from biggan.weights.published import PUBLISHED

    bundled = [_card(name, offline=True) for name in BUNDLED]
    published = [_published_row(entry) for entry in PUBLISHED.values()]
    architectures = [_architecture_row(name) for name in PRESETS]
    if as_json:
        tables = {"bundled": bundled, "published": published, "architectures": architectures}
        click.echo(json.dumps(tables, indent=2))
        return
    click.echo("Bundled weights (the first is the default of --model)")
    for row in bundled:
        click.echo(
            f"  {row['name']:16} {row['resolution']:4} px  {row['classes']} classes  "
            f"{row['parameters']:,} parameters  {row['statistics']}"
        )
    click.echo("\nPublished weights (downloaded on first use: biggan sample --model NAME)")
    click.echo(
        f"  {'name':28} {'px':>4} {'parameters':>11} {'classes':>8}  {'statistics':29}  from"
    )
    for licence, rows in groupby(published, key=lambda row: row["licence"]):
        for row in rows:
            places = "the cache" if row["cached"] else ", ".join(row["places"])
            click.echo(
                f"  {row['name']:28} {row['resolution']:4} {row['parameters']:11,} "
                f"{row['classes']:8}  {row['statistics']:29}  {places}"
            )
        click.echo(f"    Licence: {licence}.")
    click.echo("\nArchitectures (random weights; `preset` in a recipe)")
    click.echo(f"  {'name':16} {'px':>4} {'z':>4} {'ch':>4} {'generator':>12}  discriminator")
    for row in architectures:
        click.echo(
            f"  {row['name']:16} {row['resolution']:4} {row['z_dim']:4} {row['channels']:4} "
            f"{row['generator_parameters']:12,} {row['discriminator_parameters']:14,}"
            f"  {row['description']}"
        )
    options.name_next("biggan", "sample", model=BUNDLED[0])


def _verify(*, as_json: bool) -> None:
    from biggan.weights.files import cache_dir
    from biggan.weights.published import verify_cached

    states = verify_cached()
    if as_json:
        click.echo(json.dumps(states, indent=2))
    elif not states:
        click.echo(f"no published weights in {cache_dir()}")
    else:
        click.echo("\n".join(f"{name:45} {state}" for name, state in states.items()))
    if wrong := [name for name, state in states.items() if state in ("damaged", "changed")]:
        raise InputError(
            f"{', '.join(wrong)} in {cache_dir()}: not as downloaded; delete what is wrong to "
            "download it again"
        )


def _card(model: str, *, offline: bool) -> dict[str, Any]:
    """What a model is, as plain data. A published one is not fetched to say it."""
    from biggan.models import Generator, statistics_grid
    from biggan.weights.load import load_network, means_published
    from biggan.weights.published import PUBLISHED, cached_path

    if means_published(model) and not cached_path(model).is_file():
        return _published_row(PUBLISHED[model])
    loaded = load_network(model, None, offline=offline)
    network = loaded.network
    card = {
        "name": loaded.description.name,
        "kind": loaded.kind,
        "family": network.config.family,
        "resolution": network.config.resolution,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "classes": network.config.num_classes,
        "source": loaded.description.source,
        "licence": loaded.description.licence,
        "training": dict(loaded.description.training),
        "sha256": loaded.sha256,
    }
    if isinstance(network, Generator):
        card["statistics"] = _grid_in_words(statistics_grid(network))
    return card


def _as_lines(card: dict[str, Any]) -> str:
    shown = {name: str(value) for name, value in card.items() if name != "training"}
    shown["parameters"] = f"{card['parameters']:,}"
    if "places" in card:
        shown["places"] = ", ".join(card["places"])
        shown["cached"] = "yes" if card["cached"] else "no: downloaded on first use"
    training = card.get("training", {})
    if isinstance(step := training.get("step"), int):
        shown["training"] = (
            f"{step:,} steps on {printable(str(training.get('data', 'unknown data')))}"
        )
    width = max(map(len, shown))
    return "\n".join(f"{name:{width}}  {value}" for name, value in shown.items())


def _grid_in_words(grid: tuple[float, ...]) -> str:
    if not grid:
        return "one set for all truncations"
    return f"{len(grid)} truncations, {grid[0]:.2f} to {grid[-1]:.2f}"


def _published_row(entry: PublishedModel) -> dict[str, Any]:
    from biggan.models import count_parameters, hub_grid
    from biggan.weights.published import cached_path, host_of

    return {
        "name": entry.name,
        "resolution": entry.config.resolution,
        "parameters": count_parameters(entry.config),
        "classes": entry.config.num_classes,
        "statistics": _grid_in_words(hub_grid(entry.rows)),
        "source": entry.source,
        "licence": entry.licence,
        "places": [host_of(place) for place in entry.places],
        "cached": cached_path(entry.name).is_file(),
    }


def _architecture_row(name: str) -> dict[str, Any]:
    from biggan.models import count_parameters, get_preset

    preset = get_preset(name)
    return {
        "name": name,
        "description": preset.description,
        "resolution": preset.generator.resolution,
        "z_dim": preset.generator.z_dim,
        "channels": preset.generator.channels,
        "generator_parameters": count_parameters(preset.generator),
        "discriminator_parameters": count_parameters(preset.discriminator),
    }
