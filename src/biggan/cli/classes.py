"""`biggan classes`: the classes of a model, or ImageNet's."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from biggan.cli import options
from biggan.errors import InputError


@click.command
@options.model
@options.offline
@click.option(
    "--imagenet", is_flag=True, help="List ImageNet's 1000 classes without loading a model."
)
@click.option(
    "--search",
    metavar="TEXT",
    help="List only classes whose names contain this text, or else resemble it.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON list with one object per class."
)
def command(
    model: str | None, offline: bool, imagenet: bool, search: str | None, as_json: bool
) -> None:
    """List or search the classes of a model.

    --class accepts a whole entry, its index, or one of its names. ImageNet's classes are listed
    with their WordNet ids, after a tab. Search results are listed best first.

    \b
    Examples:
      biggan classes
      biggan classes --model runs/pets --search terrier
      biggan classes --imagenet --search "golden retreiver"
      biggan classes --imagenet --search n02099601 --json
    """
    from biggan.classes import class_choices, is_imagenet, search_classes, wordnet_ids

    owner, class_names = _classes(model, imagenet, offline)
    found = range(len(class_names)) if search is None else search_classes(search, class_names)
    ids = wordnet_ids() if is_imagenet(class_names) else None
    if as_json:
        rows = [
            {"index": index, "name": class_names[index], "wordnet_id": ids[index] if ids else None}
            for index in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    choices = class_choices(class_names)
    for index in found:
        click.echo(f"{choices[index]}\t{ids[index]}" if ids else choices[index])
    if not found:
        raise InputError(
            f"no class of {owner} contains or resembles {search!r}; omit --search to list all"
        )
    if not imagenet:
        options.name_next("biggan", "sample", "--class", choices[found[0]], model=model)


def _classes(model: str | None, imagenet: bool, offline: bool) -> tuple[str, Sequence[str]]:
    """Whose classes to list, and their names."""
    from biggan.classes import default_class_names, imagenet_classes

    if imagenet and model is not None:
        raise InputError("--model and --imagenet exclude each other: omit one")
    if imagenet:
        return "ImageNet", imagenet_classes()

    from biggan.weights.load import load_class_names, means_published

    # A published model is not fetched to list its classes.
    if model is not None and means_published(model):
        from biggan.weights.published import PUBLISHED

        entry = PUBLISHED[model]
        number = entry.changes.get("num_classes", len(imagenet_classes()))
        return model, entry.class_names or default_class_names(number)
    name, class_names = load_class_names(model, offline=offline)
    if not class_names:
        raise InputError(f"{name} is unconditional: it has no classes")
    return name, class_names
