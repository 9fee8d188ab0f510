"""From provenance to pictures, files and words. No Gradio here."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from biggan import Gan, InputError
from biggan.demo.drawing import (
    columns,
    count,
    draw_grid,
    draw_sheet,
    draw_video,
    unfinished,
)
from biggan.demo.forms import DIRECTIONS, EXPLORE, INTERPOLATE, SWEEP, SWEPT, VIDEO, Form
from biggan.demo.renderer import AbandonedError, Job
from biggan.directions import find_directions
from biggan.images import make_grid, save_png, to_pil, to_uint8
from biggan.latents import make_noise
from biggan.provenance_files import read_provenance
from biggan.video import make_frame
from demo_app import SETTINGS, make_gan


@pytest.mark.parametrize(("num", "wide"), [(1, 1), (5, 5), (7, 5), (20, 5)])
def test_samples_are_those_of_the_shell_in_at_most_five_columns(
    gan: Gan, num: int, wide: int
) -> None:
    grid = draw_grid(gan, EXPLORE.plan(gan, num=num, seed=7, category="3) three"))
    samples = make_grid(gan.sample("three", num=num, truncation=0.4, seed=7), wide)
    assert (grid.tobytes(), grid.size) == (samples.tobytes(), samples.size)


def test_interpolations_are_those_of_the_shell(gan: Gan) -> None:
    grid = draw_grid(gan, INTERPOLATE.plan(gan, **SETTINGS[1][1]))
    rows = gan.interpolate("one", "six", 3, 1, 0.5, 4, 5)
    assert grid.tobytes() == make_grid([p for row in rows for p in row], 3).tobytes()


@pytest.mark.parametrize("noise", ["paper", "hub"])
def test_a_sweep_has_a_column_for_each_truncation_and_a_row_for_each_sample(
    gan: Gan, noise: Any
) -> None:
    sheet = SWEEP.plan(gan, num=2, seed=9, noise=noise, category="two")
    pictures = list(draw_sheet(gan, sheet))
    wide = columns(sheet)
    assert wide == len(SWEPT[noise])
    for column, truncation in enumerate(SWEPT[noise]):
        samples = gan.sample("two", num=2, truncation=truncation, seed=9, noise=noise)
        for row, made in enumerate(samples):
            shown = np.asarray(pictures[row * wide + column], int)
            assert np.abs(shown - np.asarray(made, int)).max() <= 1


def test_a_picture_before_and_after_its_noise_is_moved(gan: Gan) -> None:
    before, after = draw_sheet(gan, DIRECTIONS.plan(gan, **SETTINGS[3][1]))
    assert before.tobytes() == gan.sample("two", 1, 0.6, 3)[0].tobytes()
    z = torch.from_numpy(make_noise(1, gan.config.z_dim, 0.6, 3)).float()
    found = find_directions(gan, "sefa", 2, layers=[0])
    moved = found.apply(z, {0: 2.5, 1: -1})
    assert after.tobytes() == to_pil(to_uint8(gan.generate(moved, "two", 0.6)))[0].tobytes()
    assert after.tobytes() != before.tobytes()


@pytest.mark.parametrize(("form", "values"), SETTINGS)
def test_a_file_makes_its_picture_again(
    gan: Gan, form: Form, values: dict[str, Any], tmp_path: Path
) -> None:
    sheet = form.plan(gan, **values)
    grid = draw_grid(gan, sheet)
    save_png(grid, tmp_path / "grid.png", sheet)
    again: Any = read_provenance(tmp_path / "grid.png")
    assert again == sheet
    assert draw_grid(gan, again).tobytes() == grid.tobytes()
    with pytest.raises(InputError, match="was made by tiny"):
        draw_grid(make_gan(resolution=8), INTERPOLATE.plan(replace_sha(gan)))


def replace_sha(gan: Gan) -> Gan:
    return Gan(gan.generator, gan.description, "1" * 64)


@pytest.mark.parametrize(("form", "values"), SETTINGS[:2])
def test_a_picture_is_laid_out_while_it_is_made(
    gan: Gan, form: Form, values: dict[str, Any]
) -> None:
    sheet = form.plan(gan, **values)
    whole, done = draw_grid(gan, sheet), list(draw_sheet(gan, sheet))
    for number in range(1, count(sheet)):
        coarse = unfinished(done[:number], sheet)
        assert coarse.size == whole.size
        for cell in range(count(sheet)):
            row, column = divmod(cell, columns(sheet))
            box = (17 * column, 17 * row, 17 * column + 16, 17 * row + 16)
            part = np.asarray(coarse.crop(box))
            assert (part[..., 3] == (255 if cell < number else 0)).all()
            if cell < number:
                np.testing.assert_array_equal(part[..., :3], whole.convert("RGB").crop(box))


def test_the_files_of_a_video_show_the_path_there_and_back(gan: Gan, tmp_path: Path) -> None:
    video = VIDEO.plan(gan, seconds=1, seed_a=4, seed_b=5, category_a="one", category_b="six")
    files = [tmp_path / "a.webp", *([tmp_path / "a.mp4"] if find_spec("av") else [])]
    reported: list[int] = []
    draw_video(gan, video, files, reported.append)

    assert reported[:20] == list(range(1, 21))
    assert set(reported[20:]) <= {20}
    frames = [np.asarray(make_frame(p).convert("RGB")) for p in gan.draw_video(video)]
    with Image.open(files[0]) as webp:
        assert webp.n_frames == len(frames) == 20
        for number, frame in enumerate(frames):
            webp.seek(number)
            np.testing.assert_array_equal(np.asarray(webp.convert("RGB")), frame)
    for file in files:
        assert read_provenance(file) == video
    if len(files) > 1:
        import av

        with av.open(files[1]) as mp4:
            shown = [frame.to_ndarray(format="rgb24") for frame in mp4.decode(video=0)]
        for got, frame in zip(shown, frames, strict=True):
            height, width, _ = frame.shape
            assert np.abs(got[:height, :width] - frame.astype(int)).mean() < 5  # not lossless


def test_an_abandoned_video_leaves_no_file(gan: Gan, tmp_path: Path) -> None:
    job = Job()

    def report(number: int) -> None:
        if number == 3:
            job.abandoned.set()
        job.add(number)

    with pytest.raises(AbandonedError):
        draw_video(gan, VIDEO.plan(gan), [tmp_path / "a.webp", tmp_path / "a.gif"], report)
    assert job.parts == [1, 2]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="ending must be"):
        draw_video(gan, VIDEO.plan(gan, seconds=1), [tmp_path / "a.avi"], lambda _: None)
