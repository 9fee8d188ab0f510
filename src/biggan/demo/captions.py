"""The words beside a picture."""

from __future__ import annotations

import html
import shlex
from typing import Any

from biggan.classes import class_choices
from biggan.demo.drawing import SheetRecipe
from biggan.gan import Gan
from biggan.provenance import GridProvenance, MorphProvenance
from biggan.weights.published import BUNDLED


def caption(gan: Gan, recipe: SheetRecipe, file: str, model: str | None) -> str:
    """Below a picture: the shell command that makes it again.

    Args:
        gan: What made it.
        recipe: The picture's.
        file: Its name when it is downloaded.
        model: What `biggan sample --model` takes; None if visitors may not see it.
    """
    if model is None:
        return ""
    words: list[Any] = [] if model == BUNDLED[0] else ["--model", model]
    entries, where = class_choices(gan.class_names), "In a shell"
    if isinstance(recipe, MorphProvenance):
        verb = "interpolate"
        if recipe.class_a is not None and recipe.class_b is not None:
            words += ["--from", entries[recipe.class_a], "--to", entries[recipe.class_b]]
        words += ["--num", recipe.num, "--steps", recipe.steps]
        words += ["--truncation", recipe.truncation]
        words += ["--seed-a", recipe.seed_a, "--seed-b", recipe.seed_b]
    elif _is_sweep(recipe):
        verb, words = "sample", [*words, "--grid", "--like", file]
        where = "In a shell, in the folder of the downloaded picture"
    else:
        verb, first = "sample", recipe.pictures[0]
        classes = {picture.class_index for picture in recipe.pictures}
        if first.class_index is not None and len(classes) == 1:
            words += ["--class", entries[first.class_index]]
        words += ["--num", len(recipe.pictures), "--truncation", first.truncation]
        words += ["--seed", first.seed, "--grid"]
    command = shlex.join(["biggan", verb, *map(str, words)])
    return f"{where}: <code>{html.escape(command)}</code>"


def column_heads(recipe: SheetRecipe) -> str:
    """Above a picture: what its columns are, one span of HTML each; empty where all are alike."""
    if isinstance(recipe, MorphProvenance):
        ends = recipe.class_a_name or "A", recipe.class_b_name or "B"
        labels = [ends[0].split(",")[0], *[""] * (recipe.steps - 2), ends[1].split(",")[0]]
    elif _is_sweep(recipe):
        labels = [f"{picture.truncation:g}" for picture in recipe.pictures[: recipe.columns]]
    else:
        return ""
    return "".join(f"<span>{html.escape(label)}</span>" for label in labels)


def in_words(recipe: SheetRecipe) -> str:
    """What a picture shows, for those who cannot see it."""
    if isinstance(recipe, MorphProvenance):
        ends = f"from {recipe.class_a_name or 'one picture'} to {recipe.class_b_name or 'another'}"
        return f"{recipe.num} paths {ends} in {recipe.steps} steps, by {recipe.model}"
    first = recipe.pictures[0]
    of = f" of {first.class_name}" if first.class_name else ""
    return f"{len(recipe.pictures)} pictures{of}, {recipe.columns} a row, by {first.model}"


def _is_sweep(recipe: GridProvenance) -> bool:
    return len({picture.truncation for picture in recipe.pictures}) > 1
