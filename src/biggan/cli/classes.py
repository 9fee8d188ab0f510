"""`biggan classes`: the classes of a model."""

from __future__ import annotations

import json

import click

from biggan.cli.options import model_option
from biggan.errors import InputError


@click.command
@model_option
@click.option("--search", metavar="TEXT", help="Only classes whose name contains this.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, index to name.")
def command(model: str | None, search: str | None, as_json: bool) -> None:
    """List or search the classes of a model.

    \b
    Examples:
      biggan classes
      biggan classes --model runs/pets --search terrier
    """
    from biggan.classes import class_choices, search_classes
    from biggan.gan import load

    gan = load(model)
    if not gan.class_names:
        raise InputError(f"{gan.name} is unconditional: it has no classes")
    found = (
        range(len(gan.class_names)) if search is None else search_classes(search, gan.class_names)
    )
    if as_json:
        click.echo(json.dumps({index: gan.class_names[index] for index in found}, indent=2))
        return
    choices = class_choices(gan.class_names)
    for index in found:
        click.echo(choices[index])
    if not found:
        raise InputError(f"no class of {gan.name} contains {search!r}; `biggan classes` lists all")
