"""`biggan sample`: pictures of a class, as PNG files that carry their own recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from biggan.cli.options import (
    TruncationType,
    check_writable,
    choose_device,
    device_option,
    make_folder,
    model_option,
    noise_option,
    offline_option,
    share_processor,
)
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.images import Recipe


@click.command
@model_option
@offline_option
@click.option(
    "--class",
    "classes",
    metavar="NAME|INDEX",
    multiple=True,
    help="A class; may be given several times. All classes in turn if left out.",
)
@click.option("--num", default=1, show_default=True, help="Pictures (of each class given).")
@click.option(
    "--truncation",
    type=TruncationType(),
    default=0.4,
    show_default=True,
    help="Small for typical pictures, 1 for varied ones, none for untruncated noise.",
)
@click.option("--seed", default=0, show_default=True, help="The same seed, the same pictures.")
@noise_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("samples"),
    show_default=True,
    help="Folder for the PNG files.",
)
@click.option("--grid", is_flag=True, help="Write one grid.png instead of a file a picture.")
@click.option(
    "--like",
    metavar="PICTURE",
    type=click.Path(path_type=Path),
    help="Make this picture again, by the recipe in its PNG file.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of files and recipes.")
def command(
    model: str | None,
    offline: bool,
    classes: tuple[str, ...],
    num: int,
    truncation: float | None,
    seed: int,
    noise: str,
    out: Path,
    grid: bool,
    like: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Make pictures of a class.

    \b
    Examples:
      biggan sample --class seven --num 10 --truncation 0.4 --out pictures
      biggan sample --class three --class eight --num 5 --grid
      biggan sample --like pictures/007-seven-hub0.4-seed0-0003.png --out again

    Every PNG says in its metadata how it was made, and --like makes it again.
    """
    share_processor()
    from biggan.gan import load
    from biggan.images import make_grid, read_recipe, save_png
    from biggan.latents import check_truncation

    check_writable(out)
    check_truncation(truncation, noise)  # type: ignore[arg-type]
    if like is not None:
        _check_alone_with_like()
    wanted = None if like is None else read_recipe(like)
    gan = load(model, device=choose_device(device), offline=offline)
    if wanted is None:
        recipes = gan.recipes(classes or (None,), num, truncation, seed, noise=noise)  # type: ignore[arg-type]
    else:
        recipes = [wanted]
    make_folder(out)
    pictures = tqdm(gan.draw(recipes), total=len(recipes), unit="picture", delay=2, disable=None)
    if grid:
        path = out / "grid.png"
        save_png(make_grid(list(pictures), columns=_columns(classes, num)), path)
        files = [path]
    else:
        files = []
        for recipe, picture in zip(recipes, pictures, strict=True):
            files.append(out / _file_name(recipe))
            save_png(picture, files[-1], recipe)
    _report(files, recipes, as_json=as_json)


def _check_alone_with_like() -> None:
    context = click.get_current_context()
    for name in ("classes", "num", "truncation", "seed", "noise"):
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            option = "class" if name == "classes" else name
            raise InputError(f"--like takes all from the picture: leave --{option} out")


def _columns(classes: Sequence[str], num: int) -> int:
    return num if len(classes) > 1 else min(num, 5)


def _file_name(recipe: Recipe) -> str:
    """Such as 007-seven-hub0.4-seed0-0003.png: sorted by class, unique within a model."""
    name = "".join(c if c.isalnum() else "-" for c in (recipe.class_name or "").split(",")[0])
    label = "" if recipe.class_index is None else f"{recipe.class_index:03d}-{name}-"
    truncation = "none" if recipe.truncation is None else f"{recipe.truncation:g}"
    return f"{label}{recipe.noise}{truncation}-seed{recipe.seed}-{recipe.index:04d}.png"


def _report(files: list[Path], recipes: list[Recipe], *, as_json: bool) -> None:
    if not as_json:
        for path in files:
            click.echo(path)
        return
    plain = [json.loads(recipe.to_json()) for recipe in recipes]
    if len(files) < len(recipes):  # a grid
        click.echo(json.dumps([{"file": str(files[0]), "recipes": plain}], indent=2))
        return
    entries = [{"file": str(f), "recipe": r} for f, r in zip(files, plain, strict=True)]
    click.echo(json.dumps(entries, indent=2))
