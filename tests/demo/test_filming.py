"""Videos that are made in the background."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from biggan.demo.drawing import video_recipe
from biggan.demo.filming import write_video
from biggan.provenance import read_provenance
from biggan.video import make_frame

if TYPE_CHECKING:
    from pathlib import Path

    from biggan import Gan
    from biggan.provenance import VideoProvenance


def test_the_files_show_the_path_there_and_back(make_gan: Any, tmp_path: Path) -> None:
    gan = make_gan()
    recipe = video_recipe(gan, 2, 1, 0.2, 4, 5, "one", "six")
    files = [tmp_path / "a.webp", *([tmp_path / "a.mp4"] if find_spec("av") else [])]

    shown = list(write_video(gan, recipe, files, every=0.001))

    assert shown == sorted(shown)
    assert shown[-1] <= recipe.frames == 20
    with Image.open(files[0]) as video:
        assert video.n_frames == 20
        for number, pictures in enumerate(gan.draw_video(recipe)):
            video.seek(number)
            expected = np.asarray(make_frame(pictures).convert("RGB"))
            np.testing.assert_array_equal(np.asarray(video.convert("RGB")), expected)
    for file in files:
        assert read_provenance(file) == recipe
    if len(files) > 1:
        _check_mp4(files[1], gan, recipe)


def _check_mp4(file: Path, gan: Gan, recipe: VideoProvenance) -> None:
    import av

    with av.open(file) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 20
    for shown, pictures in zip(frames, gan.draw_video(recipe), strict=True):
        expected = np.asarray(make_frame(pictures).convert("RGB"), int)
        height, width, _ = expected.shape
        assert np.abs(shown[:height, :width] - expected).mean() < 5  # it is not lossless


def test_a_video_that_nobody_waits_for_is_not_made(make_gan: Any, tmp_path: Path) -> None:
    gan = make_gan(resolution=128)
    recipe = video_recipe(gan, 5, 10, 0.2, 4, 5, "one", "six")
    making = write_video(gan, recipe, [tmp_path / "a.webp"], every=0.05)

    assert next(making) < recipe.frames
    making.close()
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_told(make_gan: Any, tmp_path: Path) -> None:
    recipe = video_recipe(make_gan(), 1, 1, 0.2, 4, 5, "one", "six")

    with pytest.raises(ValueError, match="ending must be"):
        list(write_video(make_gan(), recipe, [tmp_path / "a.avi"]))
