"""Settings in addresses and out of pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

from biggan import Gan, InputError
from biggan.demo.address import Settings, from_query, from_recipe, to_query
from biggan.demo.drawing import interpolation_recipe, sample_recipe, sweep_recipe, video_recipe
from biggan.demo.forms import EXPLORE, INTERPOLATE, SWEEP, VIDEO
from biggan.provenance import GridProvenance

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = [
    Settings(EXPLORE, {"num": 7, "truncation": 0.42, "seed": 12345, "category": "3) three"}),
    Settings(
        INTERPOLATE,
        {
            "num": 1,
            "steps": 4,
            "truncation": 0.2,
            "seed_a": 1,
            "seed_b": 2,
            "category_a": "0) zero",
            "category_b": "9) nine",
        },
    ),
    Settings(SWEEP, {"num": 3, "seed": 5, "noise": "hub", "category": "2) two"}),
    Settings(SWEEP, {"num": 1, "seed": 5, "noise": "paper", "category": "2) two"}),
]


@pytest.fixture(scope="module")
def gan(make_gan: Callable[..., Gan]) -> Gan:
    return make_gan()


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_address_brings_the_settings_back(settings: Settings) -> None:
    query = dict(parse_qsl(to_query("a model & more", settings), strict_parsing=True))

    assert query["model"] == "a model & more"
    assert from_query(query) == settings


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_picture_brings_the_settings_back(settings: Settings, gan: Gan) -> None:
    assert from_recipe(gan, settings.recipe(gan)) == settings


VIDEO_SETTINGS = (1, 2, 0.6, 8, 4000, "6) six", "4) four")


def test_a_video_brings_the_settings_back(gan: Gan) -> None:
    settings = from_recipe(gan, video_recipe(gan, *VIDEO_SETTINGS))

    assert settings.form is VIDEO
    assert tuple(settings.values.values()) == VIDEO_SETTINGS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 30.0}, "the page cannot show this video: seconds must be a whole number"),
        ({"frames": 400}, "the page cannot show this video: seconds must be between 1 and 10"),
        ({"loop": "around"}, "no form of the page makes this video; biggan interpolate --like"),
        ({"sha256": "1" * 64}, "the picture was made by tiny"),
    ],
)
def test_a_video_that_no_form_makes_is_refused(
    gan: Gan, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        from_recipe(gan, replace(video_recipe(gan, *VIDEO_SETTINGS), **changes))


def test_an_address_may_leave_out_everything() -> None:
    assert from_query({}) == Settings(EXPLORE, {})
    assert from_query({"form": "sweep", "view": "api"}) == Settings(SWEEP, {})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"form": "draw"}, "the address names the form 'draw'; there are explore, interpolate"),
        ({"num": "21"}, "number of samples must be between 1 and 20, not 21"),
        ({"num": "ten"}, "number of samples must be a number, not 'ten'"),
        ({"truncation": "nan"}, "truncation must be a number, not nan"),
        ({"truncation": "0.01"}, "truncation must be between 0.02 and 1, not 0.01"),
        ({"seed": "1e99"}, "the seed must be between 0 and 4294967295"),
        ({"category": "x" * 5000}, "no category has a name of 5000 characters"),
        ({"form": "sweep", "noise": "scale"}, "noise must be paper or hub here, not 'scale'"),
    ],
)
def test_an_address_that_no_control_can_show_is_refused(
    query: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        from_query(query)


def test_one_picture_is_found_as_the_last_of_its_grid(gan: Gan) -> None:
    recipe = gan.plan(["six"], 4, 0.4, 8)[2]

    assert from_recipe(gan, recipe) == Settings(
        EXPLORE, {"num": 3, "truncation": 0.4, "seed": 8, "category": "6) six"}
    )


def test_the_models_name_and_the_version_do_not_matter(gan: Gan) -> None:
    recipe = interpolation_recipe(gan, 1, 2, 0.2, 0, 1, "one", "six")

    assert from_recipe(gan, replace(recipe, model="moved", version="0")).form is INTERPOLATE


def _pictures(gan: Gan, *classes: str, **changes: Any) -> GridProvenance:
    recipes = gan.plan(list(classes), 2, changes.pop("truncation", 0.4), 0, **changes)
    return GridProvenance(2, tuple(recipes))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (lambda gan: _pictures(gan, "one", "six"), "no form of the page makes this picture"),
        (lambda gan: _pictures(gan, "one", noise="scale"), "no form of the page makes"),
        (lambda gan: _pictures(gan, "one", truncation=0.01), ".*truncation must be between 0.02"),
        (lambda gan: _pictures(gan, "one", truncation=None), ".*truncation must be a number"),
        (lambda gan: gan.plan(["six"], 30, 0.4, 8)[29], ".*samples must be between 1 and 20"),
        (lambda gan: replace(sample_recipe(gan, 7, 0.4, 0, 1), columns=3), "no form of the page"),
        (
            lambda gan: gan.plan_morph(1, 6, 5, 2, 0.2, 0, 0, path="slerp"),
            "no form of the page makes this picture; biggan interpolate --like FILE",
        ),
        (
            lambda gan: gan.plan_morph(1, 6, 11, 2, 0.2, 0, 0),
            "the page cannot show this picture: number of steps must be between 2 and 10, not 11",
        ),
        (lambda gan: replace(gan.plan(["six"], 1, 0.4, 8)[0], class_index=10), ".*class 10"),
        (
            lambda gan: replace(gan.plan(["six"], 1, 0.4, 8)[0], sha256="1" * 64),
            r"the picture was made by tiny \(sha256 111111111111...\), not by tiny",
        ),
        (
            lambda gan: replace(sweep_recipe(gan, 2, 0, "hub", 1), columns=12),
            "the page cannot show this picture|no form of the page",
        ),
    ],
)
def test_a_picture_that_no_form_makes_is_refused(gan: Gan, recipe: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^({message})"):
        from_recipe(gan, recipe(gan))
