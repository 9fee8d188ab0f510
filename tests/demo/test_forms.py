"""What forms take and make, settings in addresses, and settings of old pictures. No Gradio here."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest
import torch

from biggan import Gan, InputError, load
from biggan.demo.forms import (
    DIRECTIONS,
    EXPLORE,
    FORMS,
    INTERPOLATE,
    MOVES,
    SWEEP,
    SWEPT,
    VIDEO,
    Form,
    Number,
    default_value,
    find_settings,
    from_query,
    label_of,
    to_query,
)
from biggan.provenance import GridProvenance, MorphProvenance
from biggan.sampling import plan_latents
from demo_app import SETTINGS, make_gan

MOVED: dict[str, Any] = SETTINGS[3][1] | dict.fromkeys(MOVES, 0)
VIDEO_SETTINGS: dict[str, Any] = {"num": 1, "seconds": 2, "truncation": 0.6}
VIDEO_SETTINGS |= {"seed_a": 8, "seed_b": 4000, "category_a": "6) six", "category_b": "4) four"}


@pytest.mark.parametrize(
    ("form", "values"),
    [
        *SETTINGS,
        (DIRECTIONS, {**MOVED, "direction_1": 1e-05, "seed": 2**32 - 1}),
        (DIRECTIONS, MOVED),
    ],
)
def test_an_address_and_a_picture_bring_the_settings_back(
    form: Form, values: dict[str, Any], gan: Gan
) -> None:
    query = dict(parse_qsl(to_query("a model & more", form, values), strict_parsing=True))
    assert query["model"] == "a model & more"
    assert from_query(query, gan) == (form, values, [])
    made = form.plan(gan, **values)
    assert find_settings(gan, made) == (form, values)
    if isinstance(made, MorphProvenance):  # the model's name and the version do not matter
        assert find_settings(gan, replace(made, model="moved", version="0")) == (form, values)


def test_a_video_brings_the_settings_back(gan: Gan) -> None:
    video = VIDEO.plan(gan, **VIDEO_SETTINGS)
    assert find_settings(gan, video) == (VIDEO, VIDEO_SETTINGS)
    assert (video.frames / video.fps, video.loop, video.num) == (2, "there-and-back", 1)
    assert [(k.class_index, k.seed) for k in video.keyframes] == [(6, 8), (4, 4000)]


def test_directions_are_called_by_the_names_of_the_bundled_file(gan: Gan) -> None:
    fruits = load("fruits")
    moves = [control for control in DIRECTIONS.controls if control.key in MOVES]
    named = ["0: upright", "1: turn", "2: lean", *(f"Direction {k}" for k in (3, 4, 5))]
    assert [label_of(control, fruits) for control in moves] == named
    assert [label_of(control, gan) for control in moves] == [c.label for c in moves]
    assert label_of(DIRECTIONS.controls[0], fruits) == "Truncation"


def test_one_picture_is_found_as_the_last_of_its_grid(gan: Gan) -> None:
    found = {"num": 3, "truncation": 0.4, "seed": 8, "category": "6) six"}
    assert find_settings(gan, gan.plan(["six"], 4, 0.4, 8)[2]) == (EXPLORE, found)


def test_one_moved_picture_is_found_up_to_rounding(gan: Gan) -> None:
    values = {**MOVED, "direction_0": 2.5, "direction_1": -0.1}
    moved = DIRECTIONS.plan(gan, **values).latents[1]
    elsewhere = replace(moved, z=tuple(z + 1e-6 for z in moved.z), model="moved", version="0")
    assert find_settings(gan, elsewhere) == (DIRECTIONS, values)
    for change in (
        {"z": tuple(z + 1e-2 for z in moved.z)},  # other directions, from a file
        {"z": moved.z[:6]},
        {"name": moved.name.replace("-0+2.5", "-7+2.5")},
    ):
        with pytest.raises(InputError, match="no tab of the page .* use biggan sample --like"):
            find_settings(gan, replace(moved, **change))
    for change in ({"name": "apple"}, {"class_vector": (0.0,)}):
        with pytest.raises(InputError, match="from latents; use biggan sample --like FILE"):
            find_settings(gan, replace(moved, **change))


def _grid(gan: Gan, *classes: str, truncation: float | None = 0.4, **changes: Any) -> Any:
    return GridProvenance(2, tuple(gan.plan(list(classes), 2, truncation, 0, **changes)))


def _video(gan: Gan, **changes: Any) -> Any:
    return replace(VIDEO.plan(gan, **VIDEO_SETTINGS), **changes)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            lambda g: _grid(g, "one", "six"),
            "no tab of the page shows this picture; use biggan sample",
        ),
        (lambda g: _grid(g, "one", noise="scale"), "no tab of the page shows"),
        (
            lambda g: plan_latents(g, torch.zeros(1, g.config.z_dim), g.embed(1), 0.5, ["a"])[0],
            "the page cannot show this picture: it is made from latents; use biggan sample --like",
        ),
        (lambda g: _grid(g, "one", truncation=0.01), ".*truncation must be between 0.02"),
        (lambda g: _grid(g, "one", truncation=None), ".*truncation must be a number"),
        (lambda g: g.plan(["six"], 30, 0.4, 8)[29], ".*samples must be between 1 and 20"),
        (lambda g: replace(EXPLORE.plan(g, num=7), columns=3), "no tab of the page"),
        (
            lambda g: g.plan_morph(1, 6, 5, 2, 0.2, 0, 0, path="slerp"),
            "no tab of the page shows this picture; use biggan interpolate --like FILE",
        ),
        (
            lambda g: g.plan_morph(1, 6, 11, 2, 0.2, 0, 0),
            "the page cannot show this picture: number of steps must be between 2 and 10, not 11",
        ),
        (lambda g: replace(g.plan(["six"], 1, 0.4, 8)[0], class_index=10), ".*class 10"),
        (
            lambda g: replace(g.plan(["six"], 1, 0.4, 8)[0], sha256="1" * 64),
            r"the picture was made by tiny \(sha256 111111111111...\), not by tiny",
        ),
        (
            lambda g: replace(SWEEP.plan(g, noise="hub"), columns=12),
            "the page cannot show this picture|no tab of the page",
        ),
        (
            lambda g: _video(g, fps=30.0),
            "the page cannot show this video: seconds must be a whole number",
        ),
        (
            lambda g: _video(g, frames=400),
            "the page cannot show this video: seconds must be between 1 and 10",
        ),
        (
            lambda g: _video(g, loop="around"),
            "no tab of the page shows this video; use biggan interpolate --like",
        ),
        (lambda g: _video(g, sha256="1" * 64), "the picture was made by tiny"),
    ],
)
def test_a_picture_that_no_form_makes_is_refused(
    gan: Gan, plan: Callable[[Gan], Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^({message})"):
        find_settings(gan, plan(gan))


def test_an_address_may_leave_out_everything_and_what_is_wrong_in_it_is_left_out(gan: Gan) -> None:
    assert from_query({}, gan) == (EXPLORE, {}, [])
    assert from_query({"form": "sweep", "view": "api"}, gan) == (SWEEP, {}, [])
    query = {"form": "draw", "num": "99", "seed": "7", "category": "ten"}
    form, settings, faults = from_query(query, gan)
    assert (form, settings) == (EXPLORE, {"seed": 7})
    form_fault, *others = map(str, faults)
    assert form_fault.startswith("no form is called 'draw'; there are explore, ")
    starts = ("number of samples must be between 1 and ", "no class is named 'ten'")
    assert all(map(str.startswith, others, starts))
    assert len(others) == 2


WRONG: list[tuple[Form, dict[str, Any], str]] = [
    (EXPLORE, {"num": 0}, "number of samples must be between 1 and 20, not 0"),
    (EXPLORE, {"num": "21"}, "number of samples must be between 1 and 20, not 21"),
    (EXPLORE, {"num": "ten"}, "number of samples must be a number, not 'ten'"),
    (EXPLORE, {"num": 2.5}, "number of samples must be a whole number, not 2.5"),
    (EXPLORE, {"num": [10]}, r"number of samples must be a number, not \[10\]"),
    (EXPLORE, {"num": "x" * 10**7}, "number of samples must be a number, not 'xxx"),
    (EXPLORE, {"num": 10**400}, "number of samples must be a whole number, not 1"),
    (EXPLORE, {"num": 10**5000}, "number of samples must be a number, not"),
    (EXPLORE, {"truncation": 1.5}, "truncation must be between 0.02 and 1, not 1.5"),
    (EXPLORE, {"truncation": "0.01"}, "truncation must be between 0.02 and 1, not 0.01"),
    (EXPLORE, {"truncation": None}, "truncation must be a number, not None"),
    (EXPLORE, {"truncation": float("nan")}, "truncation must be between 0.02 and 1, not nan"),
    (EXPLORE, {"seed": 0.5}, "noise seed must be a whole number, not 0.5"),
    (EXPLORE, {"seed": True}, "noise seed must be a number, not True"),
    (EXPLORE, {"seed": -1}, "noise seed must be between 0 and 4294967295, not -1"),
    (EXPLORE, {"seed": 2**32}, "noise seed must be between 0 and 4294967295, not 4294967296"),
    (EXPLORE, {"seed": "1e99"}, "noise seed must be between 0 and 4294967295"),
    (EXPLORE, {"category": "ten"}, "no class is named 'ten'"),
    (EXPLORE, {"category": ["zero"]}, r"a category must be a name or an index, not \['zero'\]"),
    (EXPLORE, {"category": True}, "a category must be a name or an index, not True"),
    (EXPLORE, {"category": 10**30}, "class 10{30} is out of range"),
    (EXPLORE, {"category": "x" * 10**7}, "no category has a name of 10000000 characters"),
    (INTERPOLATE, {"num": 6}, "number of samples must be between 1 and 5"),
    (INTERPOLATE, {"steps": 1}, "number of steps must be between 2 and 10"),
    (VIDEO, {"seconds": 11}, "seconds must be between 1 and 10"),
    (VIDEO, {"seconds": 1.5}, "seconds must be a whole number"),
    (SWEEP, {"num": 6}, "number of samples must be between 1 and 5"),
    (SWEEP, {"noise": "scale"}, "noise must be paper or hub here, not 'scale'"),
    (SWEEP, {"noise": None}, "noise must be paper or hub here, not None"),
    (DIRECTIONS, {"direction_0": 5}, "direction 0 must be between -4 and 4, not 5"),
    (DIRECTIONS, {"direction_2": 1}, "there is no direction 2; there are 0 to 1"),
]


@pytest.mark.parametrize(("form", "values", "message"), WRONG)
def test_a_wrong_setting_is_named(
    gan: Gan, form: Form, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        form.plan(gan, **values)
    assert len(str(caught.value)) < 300


def test_an_unconditional_model_needs_no_category() -> None:
    flat = make_gan(class_names=())
    assert EXPLORE.plan(flat, num=3).pictures[2].class_index is None
    assert INTERPOLATE.plan(flat).class_a is None
    assert len(SWEEP.plan(flat).pictures) == 10
    moved = DIRECTIONS.plan(flat, direction_0=1)
    assert moved.latents[1].class_vector == ()
    assert find_settings(flat, moved)[1]["category"] is None
    with pytest.raises(InputError, match="unconditional"):
        EXPLORE.plan(flat, category="zero")


def test_no_category_is_all_of_them_in_turn(gan: Gan) -> None:
    planned = EXPLORE.plan(gan, num=3, category=None)
    assert [picture.class_index for picture in planned.pictures] == [0, 1, 2]


def test_menus_start_with_the_notebooks_classes() -> None:
    known = {8: "hen", 207: "golden retriever", 933: "cheeseburger", 992: "hen-of-the-woods, x"}
    imagenet = tuple(known.get(index, f"class number {index}") for index in range(1000))
    starts = [default_value(c, imagenet) for form in FORMS[:2] for c in form.controls[-2:]]
    assert starts[1:] == ["933) cheeseburger", "207) golden retriever", "8) hen"]


def test_the_ranges_and_defaults_are_the_notebooks() -> None:
    numbers = {
        (form.name, control.key): (control.low, control.high, control.step, control.default)
        for form in FORMS
        for control in form.all_controls
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
        ("interpolate", "seconds"): (1, 10, 1, 4),
        ("sweep", "num"): (1, 5, 1, 2),
        ("sweep", "seed"): (0, 100, 1, 0),
        ("directions", "truncation"): (0.02, 1, 0.02, 0.5),
        ("directions", "seed"): (0, 100, 1, 0),
        **{("directions", f"direction_{k}"): (-4, 4, 0.1, 0) for k in range(6)},
    }
    assert SWEPT["paper"] == (2, 1.5, 1, 0.5, 0.04)
    assert (SWEPT["hub"][0], SWEPT["hub"][-1]) == (1, 0.02)
