"""`biggan interpolate`: from one class to another, as a grid or an animation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from biggan.cli.options import (
    TruncationType,
    check_alone_with_like,
    check_writable,
    choose_device,
    device_option,
    engine_options,
    like_option,
    make_folder,
    model_option,
    noise_option,
    offline_option,
    share_processor,
)
from biggan.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from biggan.engine_names import EngineName, Precision
    from biggan.gan import Gan
    from biggan.images import MorphRecipe
    from biggan.interpolation import Path as NoisePath
    from biggan.latents import NoiseKind


@click.command
@model_option
@offline_option
@click.option("--from", "class_a", metavar="NAME|INDEX", help="Class to start from.")
@click.option("--to", "class_b", metavar="NAME|INDEX", help="Class to end at.")
@click.option("--steps", type=int, help="Pictures on each path: 5 for a grid, 40 for an animation.")
@click.option("-n", "--num", default=2, show_default=True, help="Paths.")
@click.option(
    "--truncation",
    type=TruncationType(),
    default=0.2,
    show_default=True,
    help="As for sample; one value for the whole path.",
)
@click.option("--seed-a", default=0, show_default=True, help="Seed of the noise at the start.")
@click.option("--seed-b", default=0, show_default=True, help="Seed of the noise at the end.")
@click.option(
    "--path",
    type=click.Choice(["linear", "slerp"]),
    default="linear",
    show_default=True,
    help="How the noise moves: straight, as in DeepMind's notebook, or along a great circle.",
)
@noise_option
@click.option("--fps", default=20, show_default=True, help="Frames a second of an animation.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("interpolation.png"),
    show_default=True,
    help=".png for a grid, a row per path; .gif or .webp for an animation there and back.",
)
@like_option
@device_option
@engine_options
def command(
    model: str | None,
    offline: bool,
    class_a: str | None,
    class_b: str | None,
    steps: int | None,
    num: int,
    truncation: float | None,
    seed_a: int,
    seed_b: int,
    path: NoisePath,
    noise: NoiseKind,
    fps: int,
    out: Path,
    like: Path | None,
    device: str | None,
    engine: EngineName,
    precision: Precision,
) -> None:
    """Morph pictures of one class into pictures of another.

    \b
    Examples:
      biggan interpolate --from three --to eight --steps 8 --num 4 --out grid.png
      biggan interpolate --from three --to eight --num 4 --out morph.webp
      biggan interpolate --like grid.png --out again.png

    A grid says in its PNG's metadata how it was made, and --like makes it again.
    """
    share_processor()
    import torch

    from biggan.distributed import num_processes, process_group
    from biggan.gan import load
    from biggan.images import make_grid, save_png
    from biggan.video import check_animation, save_animation

    with process_group(torch.device("cpu")):  # so that of several one speaks
        if num_processes() > 1:
            raise InputError("biggan interpolate works in one process: start it without torchrun")
    check_writable(out.parent)
    is_grid = out.suffix.lower() == ".png"
    if not is_grid:
        check_animation(out, fps)
    wanted = None if like is None else _read_like(like)
    gan = load(
        model, device=choose_device(device), offline=offline, engine=engine, precision=precision
    )
    if wanted is None:
        if steps is None:
            steps = 5 if is_grid else 40
        wanted = _plan(gan, class_a, class_b, steps, num, truncation, seed_a, seed_b, path, noise)
    rows = _draw(gan, wanted)
    make_folder(out.parent)
    if is_grid:
        pictures = [picture for row in rows for picture in row]
        save_png(make_grid(pictures, columns=wanted.steps), out, wanted)
    else:
        frames = [make_grid(list(frame), columns=wanted.num) for frame in zip(*rows, strict=True)]
        save_animation(frames, out, fps)
    click.echo(out)


def _read_like(path: Path) -> MorphRecipe:
    from biggan.images import MorphRecipe, read_recipe

    check_alone_with_like(
        "class_a", "class_b", "steps", "num", "truncation", "seed_a", "seed_b", "path", "noise"
    )
    wanted = read_recipe(path)
    if not isinstance(wanted, MorphRecipe):
        raise InputError(f"{path} is of biggan sample, which makes it again with --like")
    return wanted


def _plan(
    gan: Gan,
    class_a: str | None,
    class_b: str | None,
    steps: int,
    num: int,
    truncation: float | None,
    seed_a: int,
    seed_b: int,
    path: NoisePath,
    noise: NoiseKind,
) -> MorphRecipe:
    from biggan._version import __version__
    from biggan.images import MorphRecipe

    a, b = (None if given is None else gan.class_index(given) for given in (class_a, class_b))
    return MorphRecipe(
        model=gan.name,
        sha256=gan.sha256,
        class_a=a,
        class_a_name=None if a is None else gan.class_names[a],
        class_b=b,
        class_b_name=None if b is None else gan.class_names[b],
        steps=steps,
        num=num,
        truncation=truncation,
        noise=noise,
        seed_a=seed_a,
        seed_b=seed_b,
        path=path,
        version=__version__,
    )


def _draw(gan: Gan, recipe: MorphRecipe) -> list[list[Image.Image]]:
    """The pictures, a row per path."""
    if recipe.sha256 != gan.sha256:
        raise InputError(
            f"the picture was made by {recipe.model} (sha256 {recipe.sha256[:12]}...), not by "
            f"{gan.name} ({gan.sha256[:12]}...); name that model's file"
        )
    return gan.interpolate(
        recipe.class_a,
        recipe.class_b,
        recipe.steps,
        recipe.num,
        recipe.truncation,
        recipe.seed_a,
        recipe.seed_b,
        path=cast("NoisePath", recipe.path),  # interpolate refuses what is none
        noise=cast("NoiseKind", recipe.noise),
    )
