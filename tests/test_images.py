import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from biggan.errors import InputError
from biggan.images import from_uint8, make_grid, save_png, to_pil, to_uint8
from biggan.provenance import (
    GridProvenance,
    MorphProvenance,
    Provenance,
    provenance_from_json,
    read_provenance,
)

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)

RECIPE = Provenance(
    model="biggan-deep-256",
    sha256="0" * 64,
    class_index=207,
    class_name="golden retriever, ñandú",
    truncation=0.4,
    noise="hub",
    seed=0,
    index=3,
    version="0.1.0",
)

GRID = GridProvenance(2, (RECIPE, dataclasses.replace(RECIPE, index=4), RECIPE))

MORPH = MorphProvenance(
    model="biggan-deep-256",
    sha256="0" * 64,
    class_a=207,
    class_a_name="golden retriever, ñandú",
    class_b=None,
    class_b_name=None,
    steps=5,
    num=2,
    truncation=1.0,
    noise="hub",
    seed_a=0,
    seed_b=1,
    path="slerp",
    version="0.1.0",
)


def test_pixels_follow_the_notebook():
    floats = np.linspace(-1.2, 1.2, 4801, dtype=np.float32)
    notebook = np.uint8(np.clip((floats + 1) / 2.0 * 256, 0, 255))
    ours = to_uint8(torch.from_numpy(floats).reshape(1, 1, 1, -1))
    assert ours.dtype == torch.uint8
    assert ours.shape == (1, 1, 1, 4801)
    np.testing.assert_array_equal(ours.flatten().numpy(), notebook)


def test_the_ends_and_the_middle_of_the_range():
    values = torch.tensor([-1.0, -0.0001, 0.0, 0.9921874, 0.9921876, 1.0]).reshape(1, 1, 1, -1)
    assert to_uint8(values).flatten().tolist() == [0, 127, 128, 254, 255, 255]


def test_every_level_survives_the_way_there_and_back():
    floats = from_uint8(LEVELS)
    assert floats.dtype == torch.float32
    assert torch.equal(to_uint8(floats), LEVELS)
    # The middle of the level: the same margin on both sides.
    assert torch.equal(to_uint8(floats + 0.99 / 256), LEVELS)
    assert torch.equal(to_uint8(floats - 0.99 / 256), LEVELS)
    assert floats.mean() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_counted_in_full_precision(dtype):
    values = from_uint8(LEVELS).to(dtype)
    assert torch.equal(to_uint8(values), to_uint8(values.float()))


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
    with pytest.raises(ValueError, match="expected uint8 images"):
        to_pil(images)


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


@pytest.mark.parametrize(("mode", "white"), [("L", 255), ("RGBA", (255, 255, 255, 255))])
def test_the_grid_is_white_in_every_mode(mode, white):
    grid = make_grid([Image.new(mode, (2, 2))] * 3, columns=2)
    assert grid.mode == mode
    assert grid.getpixel((2, 0)) == white
    assert grid.getpixel((4, 4)) == white
    assert grid.getpixel((0, 4)) != white


def test_a_grid_of_nothing_or_of_unlike_pictures_is_refused():
    small, large = Image.new("L", (2, 2)), Image.new("L", (3, 3))
    for images, columns, pad in [([], 1, 1), ([small], 0, 1), ([small], 1, -1)]:
        with pytest.raises(ValueError, match="at least one image"):
            make_grid(images, columns, pad)
    for other in [large, small.convert("RGB")]:
        with pytest.raises(ValueError, match="one size and one mode"):
            make_grid([small, other], 2)


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        dataclasses.replace(RECIPE, class_index=None, class_name=None, truncation=None),
        dataclasses.replace(RECIPE, truncation=1.0),
    ],
)
def test_a_recipe_survives_json(recipe):
    text = recipe.to_json()
    assert text.isascii()
    assert "\n" not in text
    assert provenance_from_json(text) == recipe


@pytest.mark.parametrize("recipe", [RECIPE, GRID, MORPH])
def test_every_kind_of_recipe_survives_a_png(tmp_path, recipe):
    text = recipe.to_json()
    assert text.isascii()
    assert "\n" not in text
    assert provenance_from_json(text) == recipe
    save_png(Image.new("L", (2, 2)), tmp_path / "image.png", recipe)
    assert read_provenance(tmp_path / "image.png") == recipe


def test_a_large_grid_carries_all_its_recipes(tmp_path):
    grid = GridProvenance(100, (RECIPE,) * 10_000)  # megabytes, which a reader of PNGs may refuse
    save_png(Image.new("L", (2, 2)), tmp_path / "grid.png", grid)
    assert read_provenance(tmp_path / "grid.png") == grid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": 0}, "'columns' cannot be 0"),
        ({"columns": True}, "'columns' cannot be True"),
        ({"rows": 1}, "unknown 'rows'"),
        ({"pictures": []}, "'pictures' must be a list"),
        ({"pictures": {}}, "'pictures' must be a list"),
        ({"pictures": [3]}, "a picture cannot be 3"),
        ({"pictures": [{}]}, "missing 'class_index'"),
    ],
)
def test_a_grids_recipe_is_read_strictly(changes, message):
    with pytest.raises(InputError, match=message):
        provenance_from_json(json.dumps(json.loads(GRID.to_json()) | changes))


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        (RECIPE, {"index": -1}),
        (RECIPE, {"index": 10**6}),
        (RECIPE, {"index": 2**31}),
        (RECIPE, {"seed": -1}),
        (RECIPE, {"seed": 2**32}),
        (RECIPE, {"class_index": -1}),
        (RECIPE, {"class_index": 2**31}),
        (RECIPE, {"class_index": 10**4000}),
        (MORPH, {"class_b": 2**31}),
        (MORPH, {"num": -1}),
        (MORPH, {"num": 10**9}),
        (MORPH, {"steps": 1}),
        (MORPH, {"steps": 10**9}),
        (MORPH, {"path": "x" * 10**6, "steps": 0}),
        (MORPH, {"x" * 10**6: 1}),
        (MORPH, {"seed_b": "x" * 10**6}),
    ],
)
def test_numbers_out_of_range_are_refused_in_one_short_line(recipe, changes):
    with pytest.raises(InputError) as caught:
        provenance_from_json(json.dumps(json.loads(recipe.to_json()) | changes))
    message = str(caught.value)
    assert next(reversed(changes))[:40] in message
    assert len(message) < 250
    assert "\n" not in message


def test_a_grid_of_more_pictures_than_can_be_made_is_refused():
    picture = json.loads(RECIPE.to_json())
    for columns, num, message in (
        (10**6, 1, "'columns' cannot be 1000000: it has 1 pictures"),
        (5, 200_001, "'pictures' must be a list of 1 to 100000"),
    ):
        with pytest.raises(InputError, match=message):
            provenance_from_json(json.dumps({"columns": columns, "pictures": [picture] * num}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": "5"}, "'steps' cannot be '5'"),
        ({"path": None}, "'path' cannot be None"),
        ({"class": 3}, "unknown 'class'"),
    ],
)
def test_a_paths_recipe_is_read_strictly(changes, message):
    with pytest.raises(InputError, match=message):
        provenance_from_json(json.dumps(json.loads(MORPH.to_json()) | changes))


def test_a_whole_number_is_a_truncation():
    text = RECIPE.to_json().replace("0.4", "1")
    assert repr(provenance_from_json(text).truncation) == "1.0"


def change(**changes):
    values = json.loads(RECIPE.to_json()) | changes
    return json.dumps({key: value for key, value in values.items() if value != "absent"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        (change(extra=1), "unknown 'extra'"),
        (change(seed="absent", index="absent"), "missing 'index', missing 'seed'"),
        (change(seed="0"), "'seed' cannot be '0'"),
        (change(seed=None), "'seed' cannot be None"),
        (change(seed=True), "'seed' cannot be True"),
        (change(truncation=True), "'truncation' cannot be True"),
        (change(class_index=1.5), "'class_index' cannot be 1.5"),
    ],
)
def test_a_recipe_is_read_strictly(text, message):
    with pytest.raises(InputError, match=message) as caught:
        provenance_from_json(text)
    assert "\n" not in str(caught.value)


def test_a_png_carries_its_recipe_and_the_same_pixels(tmp_path):
    image = to_pil(torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8))[0]
    path = tmp_path / "image.png"
    save_png(image, path, RECIPE)
    assert read_provenance(path) == RECIPE
    with Image.open(path) as again:
        np.testing.assert_array_equal(np.asarray(again), np.asarray(image))
        assert json.loads(again.info["biggan"])["class_index"] == 207


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "image.png"
    save_png(Image.new("L", (2, 2)), path, RECIPE)
    with pytest.raises(OSError, match="cannot write mode"):
        save_png(Image.new("HSV", (2, 2)), path)
    assert list(tmp_path.iterdir()) == [path]
    assert read_provenance(path) == RECIPE


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write .*folder"):
        save_png(Image.new("L", (2, 2)), tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_saving_replaces(tmp_path):
    path = tmp_path / "image.png"
    for size in (2, 3):
        save_png(Image.new("L", (size, size)), path)
    with Image.open(path) as image:
        assert image.size == (3, 3)
    assert list(tmp_path.iterdir()) == [path]


def unreadable_files(folder):
    path = folder / "whole.png"
    save_png(Image.effect_noise((64, 64), 50), path, RECIPE)
    (folder / "cut.png").write_bytes(path.read_bytes()[:-2000])
    (folder / "text.png").write_text("no picture")
    Image.new("L", (2, 2)).save(folder / "photo.jpg")


def test_a_file_without_a_recipe_is_refused_in_one_line(tmp_path):
    unreadable_files(tmp_path)
    save_png(Image.new("L", (2, 2)), tmp_path / "bare.png")
    expected = {
        "cut.png": "cannot be read as a PNG",
        "text.png": "cannot be read as a PNG",
        "photo.jpg": "cannot be read as a PNG",
        "absent.png": "no such file: ",
        ".": "cannot be read as a PNG",
        "bare.png": "holds no provenance",
    }
    for name, message in expected.items():
        with pytest.raises(InputError, match=message) as caught:
            read_provenance(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_damaged_recipe_names_the_file(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_text("biggan", "{}")
    Image.new("L", (2, 2)).save(tmp_path / "image.png", pnginfo=chunks)
    with pytest.raises(InputError, match=r"image\.png: .* missing 'class_index'"):
        read_provenance(tmp_path / "image.png")
