"""`biggan interpolate`: from class to class, as a grid of pictures or a video."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from biggan.cli import options
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.interpolation import Loop
    from biggan.interpolation import Path as NoisePath
    from biggan.latents import NoiseKind
    from biggan.provenance import MorphProvenance, VideoProvenance

_GRID_STEPS = 5
_SECONDS = 2.0  # from a keyframe to the next

_IN_PROVENANCE = (
    *("class_a", "class_b", "seed_a", "seed_b", "through", "steps", "num"),
    *("truncation", "path", "noise", "seconds", "fps", "loop"),
)


@click.command
@options.model
@options.offline
@click.option("--from", "class_a", metavar="NAME|INDEX", help="Class to start from.")
@click.option("--to", "class_b", metavar="NAME|INDEX", help="Class to end at.")
@click.option("--seed-a", default=0, help="Seed of the noise at the start.")
@click.option("--seed-b", default=0, help="Seed of the noise at the end.")
@click.option(
    "--through",
    metavar="KEYFRAMES",
    help='Instead of these four, for a video: "tabby cat@3, golden retriever@7, hen@1", classes '
    "with their seeds.",
)
@click.option(
    "--from-latents",
    "latents_a",
    metavar="FILE",
    type=options.PATH,
    help="Latents of biggan invert to start from, for a grid; with --to-latents.",
)
@click.option(
    "--to-latents", "latents_b", metavar="FILE", type=options.PATH, help="Latents to end at."
)
@click.option(
    "--steps",
    type=int,
    help=f"Images from one keyframe to the next, both included; {_GRID_STEPS} in a grid.",
)
@click.option("-n", "--num", default=2, help="Number of paths.")
@click.option(
    "--truncation",
    type=options.TRUNCATION,
    default=0.2,
    help="As in biggan sample, for the whole path.",
)
@click.option(
    "--path",
    type=click.Choice(["linear", "slerp"]),
    default="linear",
    help="Interpolation of the noise: linear, as in DeepMind's notebook, or along a great circle.",
)
@options.noise
@click.option(
    "--seconds",
    type=float,
    help=f"Length of a video.  [default: {_SECONDS:g} from each keyframe to the next]",
)
@click.option("--fps", type=float, default=20, help="Frames per second of a video.")
@click.option(
    "--loop",
    type=click.Choice(["there-and-back", "around", "none"]),
    default="there-and-back",
    help="What follows the last keyframe of a video; around: the first one.",
)
@click.option(
    "--out",
    type=options.FILE,
    default=Path("interpolation.png"),
    help=".png for a grid, one row per path; .mp4, .gif or .webp for a video, paths side by side.",
)
@options.like
@options.device
@options.engine
@options.precision
def command(
    class_a: str | None,
    class_b: str | None,
    seed_a: int,
    seed_b: int,
    through: str | None,
    latents_a: Path | None,
    latents_b: Path | None,
    steps: int | None,
    num: int,
    truncation: float | None,
    path: NoisePath,
    noise: NoiseKind,
    seconds: float | None,
    fps: float,
    loop: Loop,
    out: Path,
    like: Path | None,
    **how: Any,
) -> None:
    """Interpolate between classes, as a grid or a video.

    \b
    Examples:
      biggan interpolate --from lemon --to lime --steps 8 --num 4 --out grid.png
      biggan interpolate --from lemon --to lime --num 4 --out morph.webp
      biggan interpolate --through "lemon@0, lime@5, kiwi@1" --loop around --out morph.mp4
      biggan interpolate --like grid.png --out again.png
      biggan interpolate --from-latents a.safetensors --to-latents b.safetensors

    The file contains its provenance; --like generates it again. MP4 needs PyAV: pip install
    'biggan[video]'.
    """
    options.set_environment()
    from biggan.atomic_write import make_folder
    from biggan.devices import keep_freed_memory
    from biggan.images import make_grid, save_png
    from biggan.provenance import VideoProvenance
    from biggan.video import check_video, make_frame, save_video

    if os.environ.get("WORLD_SIZE", "1") != "1":
        _refuse_torchrun()
    options.check_writable(out.parent)
    is_video = out.suffix.lower() != ".png"
    wanted = None if like is None else _read_like(like, is_video=is_video)
    if is_video:
        check_video(out, wanted.fps if isinstance(wanted, VideoProvenance) else fps)
    elif option := options.given_option(("through", "seconds", "fps", "loop")):
        raise InputError(f"{option} applies to videos, not to a .png: omit it")
    if latents_a is not None or latents_b is not None:
        _interpolate_latents(
            latents_a, latents_b, _GRID_STEPS if steps is None else steps, path, out, how
        )
        return
    keyframes, frames = [(class_a, seed_a), (class_b, seed_b)], 0
    if wanted is None and is_video:
        if through is not None:
            keyframes = _parse_keyframes(through)
        frames = _num_frames(len(keyframes), loop, steps, seconds, fps)
    gan = options.load_gan(**how)
    if wanted is None and is_video:
        wanted = gan.plan_video(
            keyframes, frames, fps, num, truncation, loop=loop, path=path, noise=noise
        )
    elif wanted is None:
        steps = _GRID_STEPS if steps is None else steps
        wanted = gan.plan_morph(
            class_a, class_b, steps, num, truncation, seed_a, seed_b, path=path, noise=noise
        )
    _ = gan.engine
    keep_freed_memory()  # see biggan sample
    if isinstance(wanted, VideoProvenance):
        drawn = options.progress(gan.draw_video(wanted), wanted.frames, "frame")
        make_folder(out.parent)
        repeat = wanted.loop != "none"
        save_video(map(make_frame, drawn), out, wanted.fps, repeat=repeat, provenance=wanted)
    else:
        pictures = options.progress(gan.draw_morph(wanted), wanted.num * wanted.steps, "picture")
        make_folder(out.parent)
        grid = make_grid(list(pictures), columns=wanted.steps)
        if not options.given_option(["out"]):
            out = options.unused_picture(out, wanted)
        save_png(grid, out, wanted)
    click.echo(out)
    again = ("--like", out, "--out", f"again{out.suffix}")
    options.name_next("biggan", "interpolate", *again, model=how["model"])


def _interpolate_latents(
    start: Path | None,
    end: Path | None,
    steps: int,
    path: NoisePath,
    out: Path,
    how: Mapping[str, Any],
) -> None:
    """Write a grid of the paths between two files of latents, which biggan sample --like reads."""
    from biggan.atomic_write import make_folder
    from biggan.images import make_grid, save_png
    from biggan.interpolation import plan_latent_morph
    from biggan.inversion import load_latents
    from biggan.provenance import as_grid

    if start is None or end is None:
        raise InputError("give both --from-latents and --to-latents")
    taken = ("steps", "path", "out")
    if option := options.given_option({*_IN_PROVENANCE, "like"} - {*taken}):
        raise InputError(f"--from-latents takes all settings from the files: omit {option}")
    if out.suffix.lower() != ".png":
        raise InputError(f"{out} must end in .png: paths between latents are drawn as a grid")
    a, b = load_latents(start), load_latents(end)
    if a.truncation != b.truncation:
        raise InputError(
            f"{start} is of truncation {a.truncation} and {end} of {b.truncation}: invert both "
            "pictures with the same"
        )
    gan = options.load_gan(**how)
    for latents in (a, b):
        latents.check_model(gan)
    planned = plan_latent_morph(
        gan,
        (a.z, a.class_vectors),
        (b.z, b.class_vectors),
        steps,
        a.truncation,
        path,
        name=f"{a.name or start.stem}-to-{b.name or end.stem}",
    )
    grid = as_grid(steps, planned)
    pictures = list(options.progress(gan.draw(planned), len(planned), "picture"))
    make_folder(out.parent)
    if not options.given_option(["out"]):
        out = options.unused_picture(out, grid)
    save_png(make_grid(pictures, steps), out, grid)
    click.echo(out)
    options.name_next("biggan", "sample", "--like", out, "--out", "again", model=how["model"])


def _refuse_torchrun() -> None:
    import torch

    from biggan.distributed import num_processes, process_group

    with process_group(torch.device("cpu")):  # so that of several one speaks
        if num_processes() > 1:
            raise InputError("biggan interpolate runs in one process: start it without torchrun")


def _read_like(path: Path, *, is_video: bool) -> MorphProvenance | VideoProvenance:
    from biggan.provenance import MorphProvenance, VideoProvenance
    from biggan.provenance_files import read_provenance
    from biggan.video import VIDEO_ENDINGS

    if option := options.given_option(_IN_PROVENANCE):
        raise InputError(f"--like takes all settings from the picture: omit {option}")
    wanted = read_provenance(path)
    if not isinstance(wanted, MorphProvenance | VideoProvenance):
        raise InputError(f"{path} was made by biggan sample: use biggan sample --like")
    if is_video and isinstance(wanted, MorphProvenance):
        raise InputError(f"{path} is a grid: --out must end in .png")
    if not is_video and isinstance(wanted, VideoProvenance):
        raise InputError(f"{path} is a video: --out must end in {', '.join(VIDEO_ENDINGS)}")
    return wanted


def _parse_keyframes(through: str) -> list[tuple[str | None, int]]:
    from biggan.interpolation import parse_keyframes

    if option := options.given_option(("class_a", "class_b", "seed_a", "seed_b")):
        raise InputError(f"--through gives all classes and seeds: omit {option}")
    return parse_keyframes(through)


def _num_frames(
    num_keyframes: int, loop: Loop, steps: int | None, seconds: float | None, fps: float
) -> int:
    from biggan.interpolation import frames_of_seconds, frames_of_steps

    if seconds is None:
        steps = max(2, round(_SECONDS * fps) + 1) if steps is None else steps
        return frames_of_steps(num_keyframes, steps, loop)
    if option := options.given_option(["steps"]):
        raise InputError(f"--seconds gives the length of the video: omit {option}")
    return frames_of_seconds(seconds, fps, loop)
