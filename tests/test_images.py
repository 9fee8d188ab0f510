"""Floats to pixels, grids, and PNG files that appear whole or not at all."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from biggan.errors import InputError
from biggan.images import from_uint8, make_grid, save_png, to_pil, to_uint8
from biggan.provenance_files import read_provenance
from test_provenance import PICTURE

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_pixels_follow_the_notebook():
    floats = np.linspace(-1.2, 1.2, 4801, dtype=np.float32)
    notebook = np.uint8(np.clip((floats + 1) / 2.0 * 256, 0, 255))
    ours = to_uint8(torch.from_numpy(floats).reshape(1, 1, 1, -1))
    assert (ours.dtype, ours.shape) == (torch.uint8, (1, 1, 1, 4801))
    np.testing.assert_array_equal(ours.flatten().numpy(), notebook)
    values = torch.tensor([-1.0, -0.0001, 0.0, 0.9921874, 0.9921876, 1.0])
    assert to_uint8(values).tolist() == [0, 127, 128, 254, 255, 255]


def test_every_level_survives_the_way_there_and_back():
    floats = from_uint8(LEVELS)
    assert floats.dtype == torch.float32
    assert floats.mean() == 0
    for shift in (0, 0.99 / 256, -0.99 / 256):  # from the middle of the level
        assert torch.equal(to_uint8(floats + shift), LEVELS)
    for dtype in (torch.float16, torch.bfloat16):  # counted in full precision
        assert torch.equal(to_uint8(floats.to(dtype)), to_uint8(floats.to(dtype).float()))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pictures_hold_the_same_pixels(channels, mode):
    images = torch.randint(0, 256, (2, channels, 3, 5), dtype=torch.uint8)
    pictures = to_pil(images)
    assert [picture.mode for picture in pictures] == [mode, mode]
    assert pictures[0].size == (5, 3)
    for picture, image in zip(pictures, images, strict=True):
        pixels = np.asarray(picture).reshape(3, 5, channels).transpose(2, 0, 1)
        np.testing.assert_array_equal(pixels, image.numpy())


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4).byte(), torch.zeros(1, 2, 4, 4).byte()]
)
def test_what_is_no_picture_is_refused(images):
    with pytest.raises(InputError, match="expected uint8 images"):
        to_pil(images)


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 4, 4).byte(), np.zeros((1, 3, 4, 4)), None])
def test_what_is_no_output_of_a_generator_is_refused(images):
    with pytest.raises(InputError, match="expected a tensor of floats"):
        to_uint8(images)


def notebook_grid(images, columns, pad):
    """The notebook's imgrid, which pads every cell and cuts the last padding off."""
    count, height, width, channels = images.shape
    rows = count // columns + int(count % columns != 0)
    padding = [[0, rows * columns - count], [0, pad], [0, pad], [0, 0]]
    images = np.pad(images, padding, "constant", constant_values=255)
    height, width = height + pad, width + pad
    grid = images.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    grid = grid.reshape(rows * height, columns * width, channels)
    return grid[:-pad, :-pad] if pad else grid


@pytest.mark.parametrize(("count", "columns", "pad"), [(10, 5, 1), (7, 3, 1), (4, 4, 0), (1, 2, 3)])
def test_the_grid_is_the_notebooks(count, columns, pad):
    images = np.random.default_rng(0).integers(0, 255, (count, 4, 6, 3), dtype=np.uint8)
    grid = make_grid([Image.fromarray(image) for image in images], columns, pad)
    np.testing.assert_array_equal(np.asarray(grid), notebook_grid(images, columns, pad))
    for mode, white in (("L", 255), ("RGBA", (255, 255, 255, 255))):
        grid = make_grid([Image.new(mode, (2, 2))] * 3, columns=2)
        assert grid.mode == mode
        assert grid.getpixel((2, 0)) == grid.getpixel((4, 4)) == white != grid.getpixel((0, 4))


def test_a_grid_of_nothing_or_of_unlike_pictures_is_refused():
    small, large = Image.new("L", (2, 2)), Image.new("L", (3, 3))
    for images, columns, pad in [([], 1, 1), ([small], 0, 1), ([small], 1, -1)]:
        with pytest.raises(InputError, match="at least one image"):
            make_grid(images, columns, pad)
    for other in [large, small.convert("RGB")]:
        with pytest.raises(InputError, match="one size and one mode"):
            make_grid([small, other], 2)
    with pytest.raises(InputError, match="columns must be a whole number, not 'two'"):
        make_grid([small], "two")


def test_a_png_holds_the_same_pixels_and_replaces_an_older_one(tmp_path):
    path = tmp_path / "image.png"
    save_png(Image.new("L", (3, 3)), str(path))
    image = to_pil(torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8))[0]
    save_png(image, path, PICTURE)
    with Image.open(path) as again:
        np.testing.assert_array_equal(np.asarray(again), np.asarray(image))
        assert json.loads(again.info["biggan"])["class_index"] == 207
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path, folder = tmp_path / "image.png", tmp_path / "folder"
    save_png(Image.new("L", (2, 2)), path, PICTURE)
    folder.mkdir()
    with pytest.raises(OSError, match="cannot write mode"):
        save_png(Image.new("HSV", (2, 2)), path)
    with pytest.raises(InputError, match="cannot write .*folder"):
        save_png(Image.new("L", (2, 2)), folder)
    assert set(tmp_path.iterdir()) == {path, folder}
    assert read_provenance(path) == PICTURE
