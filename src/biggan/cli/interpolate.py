"""`biggan interpolate`: from one class to another, as a grid or an animation."""

from __future__ import annotations

from pathlib import Path

import click

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


@click.command
@model_option
@offline_option
@click.option("--from", "class_a", metavar="NAME|INDEX", help="Class to start from.")
@click.option("--to", "class_b", metavar="NAME|INDEX", help="Class to end at.")
@click.option("--steps", type=int, help="Pictures on each path: 5 for a grid, 40 for an animation.")
@click.option("--num", default=2, show_default=True, help="Paths.")
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
@device_option
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
    path: str,
    noise: str,
    fps: int,
    out: Path,
    device: str | None,
) -> None:
    """Morph pictures of one class into pictures of another.

    \b
    Examples:
      biggan interpolate --from three --to eight --steps 8 --num 4 --out grid.png
      biggan interpolate --from three --to eight --num 4 --out morph.webp
    """
    share_processor()
    from biggan.gan import load
    from biggan.images import make_grid, save_png
    from biggan.video import check_animation, save_animation

    check_writable(out.parent)
    is_grid = out.suffix.lower() == ".png"
    if not is_grid:
        check_animation(out, fps)
    gan = load(model, device=choose_device(device), offline=offline)
    rows = gan.interpolate(
        class_a,
        class_b,
        steps if steps is not None else (5 if is_grid else 40),
        num,
        truncation,
        seed_a,
        seed_b,
        path=path,  # type: ignore[arg-type]
        noise=noise,  # type: ignore[arg-type]
    )
    make_folder(out.parent)
    if is_grid:
        save_png(make_grid([picture for row in rows for picture in row], len(rows[0])), out)
    else:
        frames = [make_grid(list(frame), columns=num) for frame in zip(*rows, strict=True)]
        save_animation(frames, out, fps)
    click.echo(out)
