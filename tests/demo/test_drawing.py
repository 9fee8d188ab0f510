"""From settings to pictures: what the page, the API and the notebook share. No Gradio here."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from biggan import Gan, InputError
from biggan.demo import drawing
from biggan.demo.drawing import (
    columns,
    count,
    draw_grid,
    draw_pictures,
    draw_progressively,
    interpolation_recipe,
    sample_recipe,
    sweep_recipe,
    video_recipe,
)
from biggan.demo.forms import EXPLORE, FORMS, SWEPT, Number, default_class
from biggan.images import make_grid, save_png
from biggan.provenance import file_stem, read_provenance

if TYPE_CHECKING:
    from pathlib import Path

IMAGENET = tuple(
    {
        8: "hen",
        207: "golden retriever",
        933: "cheeseburger",
        992: "hen-of-the-woods, hen of the woods",
    }.get(index, f"class number {index}")
    for index in range(1000)
)


@pytest.fixture(scope="module")
def gan(make_gan: Any) -> Gan:
    return make_gan()


@pytest.mark.parametrize(("num", "wide"), [(1, 1), (3, 3), (5, 5), (7, 5), (20, 5)])
def test_samples_are_those_of_the_shell_in_at_most_five_columns(
    gan: Gan, num: int, wide: int
) -> None:
    grid = draw_grid(gan, sample_recipe(gan, num, 0.4, 7, "3) three"))

    samples = gan.sample("three", num=num, truncation=0.4, seed=7)
    assert grid.tobytes() == make_grid(samples, wide).tobytes()
    assert grid.size == make_grid(samples, wide).size


def test_interpolations_are_those_of_the_shell(gan: Gan) -> None:
    grid = draw_grid(gan, interpolation_recipe(gan, 2, 3, 0.2, 4, 5, "one", "6) six"))

    rows = gan.interpolate("one", "six", 3, 2, 0.2, 4, 5)
    assert grid.tobytes() == make_grid([p for row in rows for p in row], 3).tobytes()


@pytest.mark.parametrize("noise", ["paper", "hub"])
def test_a_sweep_has_a_column_for_each_truncation_and_a_row_for_each_sample(
    gan: Gan, noise: Any
) -> None:
    recipe = sweep_recipe(gan, 2, 9, noise, "two")
    pictures = list(draw_pictures(gan, recipe))

    assert columns(recipe) == len(SWEPT[noise])
    for column, truncation in enumerate(SWEPT[noise]):
        samples = gan.sample("two", num=2, truncation=truncation, seed=9, noise=noise)
        for row, sample in enumerate(samples):
            shown = np.asarray(pictures[row * len(SWEPT[noise]) + column], int)
            assert np.abs(shown - np.asarray(sample, int)).max() <= 1


def test_the_papers_thresholds_and_the_hubs_range_are_swept() -> None:
    assert SWEPT["paper"] == (2, 1.5, 1, 0.5, 0.04)
    assert (SWEPT["hub"][0], SWEPT["hub"][-1]) == (1, 0.02)


@pytest.mark.parametrize(
    "plan",
    [
        lambda gan: sample_recipe(gan, 7, 0.4, 7, "three"),
        lambda gan: interpolation_recipe(gan, 2, 3, 0.2, 4, 5, "one", "six"),
        lambda gan: sweep_recipe(gan, 2, 9, "paper", "two"),
    ],
)
def test_a_file_says_enough_to_make_its_picture_again(gan: Gan, plan: Any, tmp_path: Path) -> None:
    grid = draw_grid(gan, plan(gan))
    save_png(grid, tmp_path / "grid.png", plan(gan))

    again: Any = read_provenance(tmp_path / "grid.png")
    assert again == plan(gan)
    assert draw_grid(gan, again).tobytes() == grid.tobytes()


@pytest.mark.parametrize(
    "plan",
    [
        lambda gan: sample_recipe(gan, 7, 0.4, 7, "three"),
        lambda gan: interpolation_recipe(gan, 2, 3, 0.2, 4, 5, "one", "six"),
    ],
)
def test_a_picture_grows_to_the_whole(gan: Gan, plan: Any) -> None:
    recipe = plan(gan)
    shown = list(draw_progressively(recipe, draw_pictures(gan, recipe), every=0))

    assert [is_complete for _, is_complete in shown] == [False] * (count(recipe) - 1) + [True]
    whole = draw_grid(gan, recipe)
    assert shown[-1][0].tobytes() == whole.tobytes()
    for number, (picture, _) in enumerate(shown[:-1]):
        assert picture.size == whole.size
        done = np.asarray(picture)
        for cell in range(count(recipe)):
            row, column = divmod(cell, columns(recipe))
            part = done[17 * row : 17 * row + 16, 17 * column : 17 * column + 16]
            assert (part[..., 3] == (255 if cell <= number else 0)).all()
    first = np.asarray(shown[0][0].convert("RGB"))[:16, :16]
    np.testing.assert_array_equal(first, np.asarray(whole.convert("RGB"))[:16, :16])


def test_the_first_picture_comes_at_once_where_the_rest_takes_long(
    gan: Gan, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = sample_recipe(gan, 7, 0.4, 7, "three")
    for seconds, shown in (
        (0.05, [7]),
        (0.1, [1, 7]),
        (0.2, [1, 4, 7]),
        (1, [1, 2, 3, 4, 5, 6, 7]),
    ):
        now, made = [0.0], [0]
        clock = SimpleNamespace(monotonic=lambda now=now: now[0])
        monkeypatch.setattr(drawing, "time", clock)

        def pictures(seconds: float = seconds, now: Any = now, made: Any = made) -> Any:
            for picture in draw_pictures(gan, recipe):
                now[0] += seconds
                made[0] += 1
                yield picture

        results = draw_progressively(recipe, pictures(), every=0.55)
        assert [made[0] for _ in results] == shown


def test_what_is_quick_is_shown_at_once(gan: Gan) -> None:
    recipe = sample_recipe(gan, 7, 0.4, 7, "three")

    assert len(list(draw_progressively(recipe, draw_pictures(gan, recipe), every=60))) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 0.4, 0, "0) zero"), "number of samples must be between 1 and 20, not 0"),
        ((21, 0.4, 0, "0) zero"), "number of samples must be between 1 and 20, not 21"),
        ((2.5, 0.4, 0, "0) zero"), "number of samples must be a whole number, not 2.5"),
        (([10], 0.4, 0, "0) zero"), r"number of samples must be a number, not \[10\]"),
        (("x" * 10**7, 0.4, 0, "zero"), f"number of samples must be a number, not '{'x' * 60}'$"),
        ((10**400, 0.4, 0, "0) zero"), "number of samples is too large"),
        ((1, 1.5, 0, "0) zero"), "truncation must be above 0 and at most 1, not 1.5"),
        ((1, None, 0, "0) zero"), "truncation must be a number, not None"),
        ((1, "0.4", 0, "0) zero"), "truncation must be a number, not '0.4'"),
        ((1, float("nan"), 0, "0) zero"), "truncation must be a number, not nan"),
        ((1, 0.4, 0.5, "0) zero"), "noise seed must be a whole number, not 0.5"),
        ((1, 0.4, True, "0) zero"), "noise seed must be a number, not True"),
        ((1, 0.4, -1, "0) zero"), "the seed must be between 0 and 4294967295, not -1"),
        ((1, 0.4, 2**32, "0) zero"), "the seed must be between 0 and 4294967295"),
        ((1, 0.4, 0, "ten"), "no class is called 'ten'"),
        ((1, 0.4, 0, ["zero"]), r"a category must be a name or an index, not \['zero'\]"),
        ((1, 0.4, 0, "x" * 10**7), "no category has a name of 10000000 characters"),
    ],
)
def test_a_wrong_setting_is_named(gan: Gan, settings: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        sample_recipe(gan, *settings)


@pytest.mark.parametrize(("num", "steps"), [(6, 5), (0, 5), (2, 1), (2, 11)])
def test_interpolations_have_limits(gan: Gan, num: int, steps: int) -> None:
    with pytest.raises(InputError, match="must be between"):
        interpolation_recipe(gan, num, steps, 0.2, 0, 0, "zero", "nine")


@pytest.mark.parametrize("seconds", [0, 11, 1.5])
def test_videos_have_limits(gan: Gan, seconds: float) -> None:
    with pytest.raises(InputError, match="^seconds must be"):
        video_recipe(gan, 1, seconds, 0.2, 0, 0, "zero", "nine")


@pytest.mark.parametrize(("num", "noise"), [(6, "paper"), (0, "paper"), (1, "scale"), (1, None)])
def test_sweeps_have_limits(gan: Gan, num: int, noise: Any) -> None:
    with pytest.raises(InputError, match="must be"):
        sweep_recipe(gan, num, 0, noise, "zero")


def test_a_video_goes_there_and_back_in_the_seconds_given(gan: Gan) -> None:
    recipe = video_recipe(gan, 2, 3, 0.2, 4, 5, "one", "six")

    assert (recipe.frames / recipe.fps, recipe.loop, recipe.num) == (3, "there-and-back", 2)
    assert [(k.class_index, k.seed) for k in recipe.keyframes] == [(1, 4), (6, 5)]


def test_an_unconditional_model_needs_no_category(make_gan: Any) -> None:
    gan = make_gan(class_names=())

    assert count(sample_recipe(gan, 3, 0.4, 0, None)) == 3
    assert count(interpolation_recipe(gan, 1, 3, 0.2, 0, 1, None, None)) == 3
    assert count(sweep_recipe(gan, 1, 0, "paper", None)) == 5
    with pytest.raises(InputError, match="unconditional"):
        sample_recipe(gan, 3, 0.4, 0, "zero")


def test_another_models_recipe_is_refused(gan: Gan) -> None:
    recipe = interpolation_recipe(gan, 1, 2, 0.2, 0, 1, "one", "six")

    with pytest.raises(InputError, match="was made by tiny"):
        draw_grid(gan, replace(recipe, sha256="1" * 64))


def test_files_are_named_for_what_they_show(gan: Gan) -> None:
    assert file_stem(sample_recipe(gan, 7, 0.4, 3, 3)) == "tiny-three-hub0.4-seed3-7"
    assert file_stem(sweep_recipe(gan, 2, 3, "paper", 3)) == "tiny-three-paper-sweep-seed3-2"
    morph = interpolation_recipe(gan, 2, 5, 0.2, 0, 1, 0, 9)
    assert file_stem(morph) == "tiny-zero-to-nine-hub0.2-seeds0-1-2x5"
    video = video_recipe(gan, 2, 4, 0.2, 0, 1, 0, 9)
    assert file_stem(video) == "tiny-zero-to-nine-hub0.2-seeds0-1-2x80"
    hostile = replace(morph, model="../../etc/passwd", class_a_name="a/b\\c\0é, d")
    assert file_stem(hostile) == "etc-passwd-a-b-c-to-nine-hub0.2-seeds0-1-2x5"


def test_menus_start_with_the_notebooks_classes() -> None:
    assert default_class(IMAGENET, "cheeseburger", 0) == "933) cheeseburger"
    assert default_class(IMAGENET, "golden retriever", 0) == "207) golden retriever"
    assert default_class(IMAGENET, "hen", -1) == "8) hen"


def test_the_ranges_and_defaults_are_the_notebooks() -> None:
    numbers = {
        (form.name, control.key): (control.low, control.high, control.step, control.default)
        for form in FORMS
        for control in form.controls
        if isinstance(control, Number)
    }

    assert numbers == {
        ("explore", "num"): (1, 20, 1, 10),
        ("explore", "truncation"): (0.02, 1, 0.02, 0.4),
        ("explore", "seed"): (0, 100, 1, 0),
        ("interpolate", "num"): (1, 5, 1, 2),
        ("interpolate", "steps"): (2, 10, 1, 5),
        ("interpolate", "truncation"): (0.02, 1, 0.02, 0.2),
        ("interpolate", "seed_a"): (0, 100, 1, 0),
        ("interpolate", "seed_b"): (0, 100, 1, 0),
        ("sweep", "num"): (1, 5, 1, 2),
        ("sweep", "seed"): (0, 100, 1, 0),
    }
    seed: Any = EXPLORE["seed"]
    assert seed.check(12345) == 12345  # any that is typed
