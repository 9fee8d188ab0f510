"""`biggan interpolate`: from class to class, as a grid of pictures or a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from biggan.atomic_write import make_folder
from biggan.cli.options import (
    TruncationType,
    check_alone_with_like,
    check_writable,
    choose_device,
    device_option,
    engine_options,
    is_default,
    like_option,
    model_option,
    noise_option,
    offline_option,
    share_processor,
    unused_picture,
)
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.gan import Gan
    from biggan.inference import EngineName, Precision
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

_BAR = {"delay": 2, "disable": None}  # after two seconds, on a terminal


@click.command
@model_option
@offline_option
@click.option("--from", "class_a", metavar="NAME|INDEX", help="Class to start from.")
@click.option("--to", "class_b", metavar="NAME|INDEX", help="Class to end at.")
@click.option("--seed-a", default=0, show_default=True, help="Seed of the noise at the start.")
@click.option("--seed-b", default=0, show_default=True, help="Seed of the noise at the end.")
@click.option(
    "--through",
    metavar="KEYFRAMES",
    help='Instead of these four, of a video: "tabby cat@3, golden retriever@7, hen@1", classes '
    "with their seeds.",
)
@click.option(
    "--steps",
    type=int,
    help=f"Pictures from one keyframe to the next, both included; {_GRID_STEPS} in a grid.",
)
@click.option("-n", "--num", default=2, show_default=True, help="Paths.")
@click.option(
    "--truncation",
    type=TruncationType(),
    default=0.2,
    show_default=True,
    help="As for sample; one value for the whole path.",
)
@click.option(
    "--path",
    type=click.Choice(["linear", "slerp"]),
    default="linear",
    show_default=True,
    help="How the noise moves: straight, as in DeepMind's notebook, or along a great circle.",
)
@noise_option
@click.option(
    "--seconds",
    type=float,
    help=f"Length of a video; {_SECONDS:g} from each keyframe to the next if left out.",
)
@click.option(
    "--fps", type=float, default=20, show_default=True, help="Frames a second of a video."
)
@click.option(
    "--loop",
    type=click.Choice(["there-and-back", "around", "none"]),
    default="there-and-back",
    show_default=True,
    help="How a video goes on behind the last keyframe; around: to the first one.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("interpolation.png"),
    show_default=True,
    help=".png for a grid, a row per path; .mp4, .gif or .webp for a video, paths side by side.",
)
@like_option
@device_option
@engine_options
def command(
    model: str | None,
    offline: bool,
    class_a: str | None,
    class_b: str | None,
    seed_a: int,
    seed_b: int,
    through: str | None,
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
    device: str | None,
    engine: EngineName,
    precision: Precision,
) -> None:
    """Morph pictures of one class into pictures of another.

    \b
    Examples:
      biggan interpolate --from three --to eight --steps 8 --num 4 --out grid.png
      biggan interpolate --from three --to eight --num 4 --out morph.webp
      biggan interpolate --through "one@0, two@5, three@1" --loop around --out morph.mp4
      biggan interpolate --like grid.png --out again.png

    What is written says in its metadata how it was made, and --like makes it again. MP4 needs PyAV:
    pip install 'biggan[video]'.
    """
    share_processor()
    import torch

    from biggan.distributed import num_processes, process_group
    from biggan.gan import load
    from biggan.provenance import VideoProvenance
    from biggan.video import check_video

    with process_group(torch.device("cpu")):  # so that of several one speaks
        if num_processes() > 1:
            raise InputError("biggan interpolate works in one process: start it without torchrun")
    check_writable(out.parent)
    is_video = out.suffix.lower() != ".png"
    wanted = None if like is None else _read_like(like, is_video=is_video)
    if is_video:
        check_video(out, wanted.fps if isinstance(wanted, VideoProvenance) else fps)
    else:
        _refuse("a grid has none, so for a .png", "through", "seconds", "fps", "loop")
    if wanted is None and is_video:
        keyframes = _keyframes(through, (class_a, seed_a), (class_b, seed_b))
        frames = _num_frames(len(keyframes), loop, steps, seconds, fps)
    gan = load(
        model, device=choose_device(device), offline=offline, engine=engine, precision=precision
    )
    if wanted is None and is_video:
        wanted = gan.plan_video(
            keyframes, frames, fps, num, truncation, loop=loop, path=path, noise=noise
        )
    elif wanted is None:
        steps = _GRID_STEPS if steps is None else steps
        wanted = gan.plan_morph(
            class_a, class_b, steps, num, truncation, seed_a, seed_b, path=path, noise=noise
        )
    if isinstance(wanted, VideoProvenance):
        _write_video(gan, wanted, out)
    else:
        out = _write_grid(gan, wanted, out)
    click.echo(out)


def _read_like(path: Path, *, is_video: bool) -> MorphProvenance | VideoProvenance:
    from biggan.provenance import MorphProvenance, VideoProvenance, read_provenance
    from biggan.video import VIDEO_ENDINGS

    check_alone_with_like(*_IN_PROVENANCE)
    wanted = read_provenance(path)
    if not isinstance(wanted, MorphProvenance | VideoProvenance):
        raise InputError(f"{path} is of biggan sample, which makes it again with --like")
    if is_video and isinstance(wanted, MorphProvenance):
        raise InputError(f"{path} is a grid: --out must end in .png")
    if not is_video and isinstance(wanted, VideoProvenance):
        raise InputError(f"{path} is a video: --out must end in {', '.join(VIDEO_ENDINGS)}")
    return wanted


def _refuse(why: str, *names: str) -> None:
    """Refuse the options of these parameters where they were given."""
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is click.core.ParameterSource.COMMANDLINE:
            raise InputError(f"{why} leave {max(parameter.opts, key=len)} out")


def _keyframes(
    through: str | None, *ends: tuple[str | None, int]
) -> Sequence[tuple[str | None, int]]:
    from biggan.interpolation import parse_keyframes

    if through is None:
        return ends
    _refuse("--through names all classes and seeds:", "class_a", "class_b", "seed_a", "seed_b")
    return parse_keyframes(through)


def _num_frames(
    num_keyframes: int, loop: Loop, steps: int | None, seconds: float | None, fps: float
) -> int:
    from biggan.interpolation import frames_of_seconds, frames_of_steps

    if seconds is not None:
        _refuse("--seconds says how long a video is:", "steps")
        return frames_of_seconds(seconds, fps, loop)
    if steps is None:
        steps = max(2, round(_SECONDS * fps) + 1)
    return frames_of_steps(num_keyframes, steps, loop)


def _write_grid(gan: Gan, provenance: MorphProvenance, out: Path) -> Path:
    from biggan.images import make_grid, save_png

    drawn = gan.draw_morph(provenance)
    make_folder(out.parent)
    pictures = list(tqdm(drawn, total=provenance.num * provenance.steps, unit="picture", **_BAR))
    if is_default("out"):
        out = unused_picture(out, provenance)
    save_png(make_grid(pictures, columns=provenance.steps), out, provenance)
    return out


def _write_video(gan: Gan, provenance: VideoProvenance, out: Path) -> None:
    from biggan.video import make_frame, save_video

    drawn = tqdm(gan.draw_video(provenance), total=provenance.frames, unit="frame", **_BAR)
    make_folder(out.parent)
    frames = (make_frame(pictures) for pictures in drawn)
    save_video(frames, out, provenance.fps, repeat=provenance.loop != "none", provenance=provenance)
