"""From the settings of a form to its picture: pure functions, shared by page, API and notebook.

Settings become a recipe, a recipe becomes pictures, and those a grid. What is written to a file is
the grid that `biggan sample --grid` and `biggan interpolate` write, to the bit and with the same
recipe in it: enlarging small pictures for the screen is left to whatever shows them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from PIL import Image

from biggan.demo.forms import EXPLORE, FPS, INTERPOLATE, SWEEP, SWEPT, VIDEO, Form
from biggan.demo.line import Job
from biggan.demo.shelf import ModelShelf
from biggan.gan import Gan
from biggan.images import make_grid, to_png
from biggan.interpolation import frames_of_seconds
from biggan.provenance import GridProvenance, MorphProvenance, VideoProvenance

SheetRecipe = GridProvenance | MorphProvenance
"""The recipe of a picture that the demo shows: always of a grid, be it one by one."""

_COLUMNS = 5  # of the grid of samples, at most: as `biggan sample --grid`


def sample_recipe(gan: Gan, num: Any, truncation: Any, seed: Any, category: Any) -> GridProvenance:
    """Plan the picture of the form "Explore a category".

    Args:
        gan: What is to make it.
        num: Number of samples, 1 to 20.
        truncation: 0.02 to 1.
        seed: Of the noise, 0 to 2**32 - 1.
        category: A class by name or index; None for an unconditional model, and of others for
            their classes in turn.

    Returns:
        A grid of at most five columns.

    Raises:
        InputError: A value out of range or of another kind.
    """
    num, truncation, seed, category = _checked(EXPLORE, num, truncation, seed, category)
    return GridProvenance(min(num, _COLUMNS), tuple(gan.plan([category], num, truncation, seed)))


def interpolation_recipe(
    gan: Gan,
    num: Any,
    steps: Any,
    truncation: Any,
    seed_a: Any,
    seed_b: Any,
    category_a: Any,
    category_b: Any,
) -> MorphProvenance:
    """Plan the picture of the form "Interpolate".

    Args:
        gan: What is to make it.
        num: Number of paths, one a row, 1 to 5.
        steps: Pictures on each, 2 to 10.
        truncation: 0.02 to 1.
        seed_a: Of the noise at the start.
        seed_b: Of the noise at the end.
        category_a: The class at the start; None for an unconditional model.
        category_b: The class at the end.

    Raises:
        InputError: A value out of range or of another kind.
    """
    settings = (num, steps, truncation, seed_a, seed_b, category_a, category_b)
    num, steps, truncation, seed_a, seed_b, a, b = _checked(INTERPOLATE, *settings)
    return gan.plan_morph(a, b, steps, num, truncation, seed_a, seed_b)


def video_recipe(
    gan: Gan,
    num: Any,
    seconds: Any,
    truncation: Any,
    seed_a: Any,
    seed_b: Any,
    category_a: Any,
    category_b: Any,
) -> VideoProvenance:
    """Plan a video along the paths of `interpolation_recipe`, there and back.

    Args:
        gan: What is to make it.
        num: Number of paths, side by side, 1 to 5.
        seconds: Length, 1 to 10, at 20 frames a second.
        truncation: As `interpolation_recipe`, and so are all others.
        seed_a: Likewise.
        seed_b: Likewise.
        category_a: Likewise.
        category_b: Likewise.

    Raises:
        InputError: A value out of range or of another kind.
    """
    settings = (num, seconds, truncation, seed_a, seed_b, category_a, category_b)
    num, seconds, truncation, seed_a, seed_b, a, b = _checked(VIDEO, *settings)
    frames = frames_of_seconds(seconds, FPS, "there-and-back")
    return gan.plan_video([(a, seed_a), (b, seed_b)], frames, FPS, num, truncation)


def sweep_recipe(gan: Gan, num: Any, seed: Any, noise: Any, category: Any) -> GridProvenance:
    """Plan the picture of the form "Truncation sweep", which is the paper's Figure 2.

    Args:
        gan: What is to make it.
        num: Number of samples, one a row, 1 to 5.
        seed: Of the noise, the same in all columns.
        noise: What truncation means, "paper" or "hub": the columns are `SWEPT[noise]`.
        category: A class by name or index; None for an unconditional model.

    Raises:
        InputError: A value out of range or of another kind.
    """
    num, seed, noise, category = _checked(SWEEP, num, seed, noise, category)
    columns = [gan.plan([category], num, t, seed, noise=noise) for t in SWEPT[noise]]
    rows = zip(*columns, strict=True)
    return GridProvenance(len(columns), tuple(recipe for row in rows for recipe in row))


def draw_pictures(gan: Gan, recipe: SheetRecipe) -> Iterator[Image.Image]:
    """Make the pictures of a recipe one after the other, row by row.

    Raises:
        InputError: The recipe is another model's, or one that this model cannot follow.
    """
    if isinstance(recipe, GridProvenance):
        return gan.draw(recipe.pictures)
    return gan.draw_morph(recipe)


def draw_grid(gan: Gan, recipe: SheetRecipe) -> Image.Image:
    """Make the picture of a recipe; `biggan.images.save_png` writes it with the recipe inside.

    Raises:
        InputError: As `draw_pictures`.
    """
    return make_grid(list(draw_pictures(gan, recipe)), columns(recipe))


def draw_png(shelf: ModelShelf, model: str, recipe: SheetRecipe, job: Job) -> bytes:
    """The file of a recipe's picture, made as a job of the request queue.

    Raises:
        AbandonedError: No client waits for it any more.
        InputError: As `draw_pictures`.
    """
    for picture in draw_pictures(shelf.get(model), recipe):
        job.add(picture)
    return to_png(make_grid(job.parts, columns(recipe)), recipe)


def draw_progressively(
    recipe: SheetRecipe, pictures: Iterable[Image.Image], every: float = 0.5
) -> Iterator[tuple[Image.Image, bool]]:
    """Lay out the picture of a recipe while it is made.

    Args:
        recipe: Of what.
        pictures: What `draw_pictures` makes of it.
        every: Seconds between two results. The first comes with the first picture if the others
            will take longer than that; if not, the whole comes alone.

    Yields:
        RGBA grids of the final size whose missing pictures are transparent, with False; in the end
        the grid of `draw_grid`, with True.
    """
    total = count(recipe)
    done: list[Image.Image] = []
    last_shown = time.monotonic()
    for picture in pictures:
        done.append(picture)
        passed = time.monotonic() - last_shown
        is_long = len(done) == 1 and passed * (total - 1) >= every
        if len(done) < total and (is_long or passed >= every):
            yield unfinished(done, recipe), False
            last_shown = time.monotonic()
    yield make_grid(done, columns(recipe)), True


def unfinished(done: Sequence[Image.Image], recipe: SheetRecipe) -> Image.Image:
    """The RGBA grid of a recipe, transparent where its pictures are missing; one must be there."""
    missing = Image.new("RGBA", done[0].size)
    shown = [picture.convert("RGBA") for picture in done]
    return make_grid([*shown, *[missing] * (count(recipe) - len(done))], columns(recipe))


def count(recipe: SheetRecipe) -> int:
    """Pictures in the grid."""
    if isinstance(recipe, GridProvenance):
        return len(recipe.pictures)
    return recipe.num * recipe.steps


def columns(recipe: SheetRecipe) -> int:
    """Pictures in a row."""
    return recipe.columns if isinstance(recipe, GridProvenance) else recipe.steps


def _checked(form: Form, *settings: Any) -> tuple[Any, ...]:
    pairs = zip(form.controls, settings, strict=True)
    return tuple(control.check(value) for control, value in pairs)
