"""The page as Gradio will serve it, and the functions behind its events."""

from __future__ import annotations

import asyncio
import html
import inspect
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import biggan
from biggan import Gan
from biggan.classes import class_choices
from biggan.cli import interpolate, sample

pytest.importorskip("gradio")

import gradio

from biggan.demo import page
from biggan.demo.captions import caption, in_words
from biggan.demo.drawing import (
    draw_grid,
    interpolation_recipe,
    sample_recipe,
    sweep_recipe,
)
from biggan.demo.events import Newest
from biggan.demo.line import Line
from biggan.demo.shelf import ModelShelf
from biggan.demo.views import heading
from biggan.images import save_png
from biggan.provenance import GridProvenance, read_provenance
from biggan.weights.files import save_generator

if TYPE_CHECKING:
    from collections.abc import Callable

EXPLORE = (7, 0.42, 3, "3) three")
INTERPOLATE = (1, 3, 0.2, 4, 5, "0) zero", "9) nine")
SWEEP = (1, 6, "paper", "6) six")


def build_page(gans: dict[str, Gan], line: Line | None = None) -> Any:
    """The page, built inside an event loop: outside one Gradio makes a loop and leaks it."""

    async def build() -> Any:
        shelf = ModelShelf(list(gans), lambda name: gans[str(name)])
        return page.build_page(shelf, line or Line(100), show_paths=True)

    return asyncio.run(build())


@pytest.fixture(scope="module")
def gan(make_gan: Callable[..., Gan]) -> Gan:
    return make_gan()


@pytest.fixture(scope="module")
def blocks(gan: Gan) -> Any:
    return build_page({"tiny": gan})


def function(blocks: Any, name: str) -> Any:
    """What stands behind the event of that name."""
    found = [f.fn for f in blocks.fns.values() if f.api_name == name and f.fn]
    assert len(found) == 1
    return found[0]


def controls(blocks: Any, kind: str) -> dict[str, Any]:
    """The page's visible controls of a kind, in order, by their labels (the forms share some)."""
    found = [b for b in blocks.blocks.values() if b.get_block_name() == kind and b.visible is True]
    return {f"{index} {block.label}": block for index, block in enumerate(found)}


def drawn(blocks: Any, form: str, model: str = "tiny") -> list[list[Any]]:
    """All that the page's draw yields for these settings."""
    draw = function(blocks, "draw")
    return list(draw(form, Newest(), 1, model, *EXPLORE, *INTERPOLATE, *SWEEP))


def test_the_sliders_are_the_notebooks(blocks: Any) -> None:
    sliders = controls(blocks, "slider")

    assert {label: (s.minimum, s.maximum, s.step, s.value) for label, s in sliders.items()} == {
        "0 Number of samples": (1, 20, 1, 10),
        "1 Truncation": (0.02, 1, 0.02, 0.4),
        "2 Noise seed": (0, 100, 1, 0),
        "3 Number of samples": (1, 5, 1, 2),
        "4 Number of steps": (2, 10, 1, 5),
        "5 Truncation": (0.02, 1, 0.02, 0.2),
        "6 Noise seed A": (0, 100, 1, 0),
        "7 Noise seed B": (0, 100, 1, 0),
        "8 Seconds": (1, 10, 1, 4),
        "9 Number of samples": (1, 5, 1, 2),
        "10 Noise seed": (0, 100, 1, 0),
    }


def test_menus_of_other_models_start_with_the_first_and_the_last_class(
    blocks: Any, gan: Gan
) -> None:
    menus = list(controls(blocks, "dropdown").values())

    assert [menu.label for menu in menus] == ["Category", "Category A", "Category B", "Category"]
    assert [menu.value for menu in menus] == ["0) zero", "0) zero", "9) nine", "0) zero"]
    assert [choice for choice, _ in menus[0].choices] == class_choices(gan.class_names)


def test_the_endpoints_are_named_and_described(blocks: Any) -> None:
    named = blocks.get_api_info()["named_endpoints"]

    assert set(named) == {"/sample", "/interpolate", "/sweep", "/video"}
    for endpoint in named.values():
        assert endpoint["description"]
    names = {e: [p["parameter_name"] for p in named[e]["parameters"]] for e in named}
    assert names["/sample"] == ["num", "truncation", "seed", "category", "model"]
    ends = ["truncation", "seed_a", "seed_b", "category_a", "category_b", "model"]
    assert names["/interpolate"] == ["num", "steps", *ends]
    assert names["/video"] == ["num", "seconds", *ends]
    assert names["/sweep"] == ["num", "seed", "noise", "category", "model"]
    assert all(p["parameter_has_default"] for e in named.values() for p in e["parameters"])


def test_every_control_asks_for_a_picture_and_one_is_drawn_at_a_time(blocks: Any) -> None:
    dependencies = blocks.config["dependencies"]
    forms = {b._id for b in controls(blocks, "slider").values() if b.label != "Seconds"}
    forms |= {b._id for kind in ("dropdown", "radio") for b in controls(blocks, kind).values()}
    asking = [
        e for e in dependencies if {b for b, name in e["targets"] if name == "change"} >= forms
    ]

    # One asks for a picture, the other keeps the settings with the browser's history.
    assert [(len(e["outputs"]), e["backend_fn"]) for e in asking] == [(1, False), (0, False)]
    draw = next(e for e in dependencies if e["api_name"] == "draw")
    assert draw["targets"] == [(asking[0]["outputs"][0], "change")]
    assert draw["trigger_mode"] == "always_last"
    limits = {f.concurrency_id: f.concurrency_limit for f in blocks.fns.values() if f.fn}
    assert limits["model"] == 4


def test_what_is_not_the_newest_any_more_stops(gated: Any) -> None:
    line, newest = Line(100), Newest()
    blocks = build_page({"tiny": gated}, line)
    draw = function(blocks, "draw")
    drawing = draw("explore", newest, 5, "tiny", *EXPLORE, *INTERPOLATE, *SWEEP)

    for _ in range(2):
        gated.let_through(1)
        assert next(drawing)[2]["value"].mode == "RGBA"
        function(blocks, "note")(newest, 5)
    assert line.length == 1
    function(blocks, "note")(newest, 6)
    assert list(drawing) == []
    assert line.length == 0
    function(blocks, "note")(newest, 4)  # which came late
    assert newest.is_after(5)


@pytest.mark.parametrize(
    ("form", "number", "plan", "query"),
    [
        (
            "explore",
            0,
            lambda gan: sample_recipe(gan, *EXPLORE),
            "form=explore&model=tiny&num=7&truncation=0.42&seed=3&category=3%29+three",
        ),
        (
            "interpolate",
            1,
            lambda gan: interpolation_recipe(gan, *INTERPOLATE),
            "form=interpolate&model=tiny&num=1&steps=3&truncation=0.2&seed_a=4&seed_b=5"
            "&category_a=0%29+zero&category_b=9%29+nine",
        ),
        (
            "sweep",
            2,
            lambda gan: sweep_recipe(gan, *SWEEP),
            "form=sweep&model=tiny&num=1&seed=6&noise=paper&category=6%29+six",
        ),
    ],
)
def test_the_form_that_is_seen_is_drawn(
    blocks: Any, gan: Gan, form: str, number: int, plan: Any, query: str
) -> None:
    address, *widgets = drawn(blocks, form)[-1]

    assert address == query
    pictures, video = widgets[:9], widgets[9:]
    heading_, picture, caption_ = pictures[3 * number : 3 * number + 3]
    file = picture["value"]
    assert read_provenance(file) == plan(gan)
    with Image.open(file) as shown:
        assert shown.tobytes() == draw_grid(gan, plan(gan)).tobytes()
    assert "small" in picture["elem_classes"]
    assert caption_ == caption(gan, plan(gan), file.name, str(Path("tiny").absolute()))
    assert heading_ == heading(plan(gan))
    others = [w for i, w in enumerate(pictures) if i // 3 != number]
    assert others == [gradio.skip()] * 6
    hidden = gradio.update(value=None, visible=False)  # a video would be of other settings
    assert video == [hidden if form == "interpolate" else gradio.skip()] * 3


def test_a_mistake_reaches_the_page_as_one_line(blocks: Any) -> None:
    draw = function(blocks, "draw")
    for call in (
        lambda: list(
            draw("explore", Newest(), 1, "tiny", 10, 1.5, 0, "0) zero", *INTERPOLATE, *SWEEP)
        ),
        lambda: function(blocks, "sample")(10, 1.5, 0, "0) zero", "tiny"),
    ):
        with pytest.raises(gradio.Error) as caught:
            call()
        assert caught.value.message == "truncation must be above 0 and at most 1, not 1.5"
        assert caught.value.print_exception is False  # a visitor's mistake is no news


@pytest.mark.parametrize(
    ("endpoint", "values", "plan"),
    [
        ("sample", EXPLORE, sample_recipe),
        ("interpolate", INTERPOLATE, interpolation_recipe),
        ("sweep", SWEEP, sweep_recipe),
    ],
)
def test_the_endpoints_give_the_pages_pictures(
    blocks: Any, gan: Gan, endpoint: str, values: tuple[Any, ...], plan: Any
) -> None:
    path = function(blocks, endpoint)(*values, "tiny")

    assert read_provenance(path) == plan(gan, *values)
    with Image.open(path) as shown:
        assert shown.tobytes() == draw_grid(gan, plan(gan, *values)).tobytes()


@pytest.mark.parametrize("model", ["other", "/etc/passwd", None, ["tiny"]])
def test_only_models_on_offer_are_drawn_with(blocks: Any, model: Any) -> None:
    with pytest.raises(gradio.Error, match="tiny"):
        function(blocks, "sample")(*EXPLORE, model)


def test_what_a_program_leaves_out_is_what_the_page_begins_with(blocks: Any) -> None:
    sample = next(f for f in blocks.fns.values() if f.api_name == "sample")
    given: list[Any] = [3, 0.5]
    blocks.validate_inputs(sample, given)

    assert given == [3, 0.5, 0, "0) zero", "tiny"]


def test_the_video_endpoint_gives_files_to_play(blocks: Any) -> None:
    webp, _ = function(blocks, "video")(1, 1, 0.2, 0, 1, "0) zero", "9) nine", "tiny")

    with Image.open(webp) as video:
        assert (video.n_frames, video.size) == (20, (256, 256))


def test_the_page_films_and_can_be_interrupted(blocks: Any) -> None:
    film = function(blocks, "film")
    shown = list(film(Newest(), 1, "tiny", 1, 1, 0.2, 0, 1, "0) zero", "9) nine"))

    assert shown[0][0] == gradio.update(value=None, visible=True)
    assert all(update == [gradio.skip()] * 3 for update in shown[1:-1])
    assert [update["visible"] for update in shown[-1]][:2] == [True, True]
    assert shown[-1][0]["value"].suffix == ".webp"
    assert inspect.isgeneratorfunction(film)


def test_a_model_is_chosen_with_its_card_and_its_categories(make_gan: Any) -> None:
    flat = make_gan(class_names=())
    two = build_page({"first": make_gan(), "flat": flat})

    menu = controls(two, "dropdown")["0 Model"]
    assert [name for name, _ in menu.choices] == ["first", "flat"]
    card, *updates = function(two, "choose")("flat")
    assert "unconditional" in card
    hidden = [u for u in updates if u != gradio.skip()]
    assert hidden == [gradio.update(choices=[], value=None, visible=False)] * 4
    empty = (7, 0.42, 3, None, 1, 3, 0.2, 4, 5, None, None, 1, 6, "paper", None)
    for form in ("explore", "interpolate", "sweep"):
        *_, (query, *_) = function(two, "draw")(form, Newest(), 1, "flat", *empty)
        assert query.startswith(f"form={form}&model=flat")
        assert "category" not in query


def test_one_model_is_not_to_be_chosen(blocks: Any) -> None:
    assert "0 Model" not in controls(blocks, "dropdown")


def _restored(blocks: Any, updates: list[Any]) -> dict[str, Any]:
    """The values that updates of tab, form, model, card and all controls bring."""
    keys = ["tabs", "form", "model", "card"]
    keys += ["num", "truncation", "seed", "category"]
    keys += ["i-num", "steps", "i-truncation", "seed_a", "seed_b", "category_a", "category_b"]
    keys += ["s-num", "s-seed", "noise", "s-category", "seconds"]
    return dict(zip(keys, updates, strict=True))


class _Request:
    def __init__(self, **query: str) -> None:
        self.query_params = query


def test_the_address_sets_the_controls(blocks: Any) -> None:
    follow = function(blocks, "follow")
    updates = _restored(blocks, follow("", _Request(num="3", seed="12345", category="six")))

    assert updates["form"] == "explore"
    assert updates["tabs"].selected == "explore"
    assert updates["num"]["value"] == 3
    assert (updates["seed"]["value"], updates["seed"]["maximum"]) == (12345, 12345)
    assert updates["truncation"]["value"] == 0.4  # not in the address: the page's own
    assert updates["category"]["value"] == "6) six"


@pytest.mark.parametrize(
    "query", [{"num": "99"}, {"category": "ten"}, {"model": "other"}, {"form": "none"}]
)
def test_an_address_that_cannot_be_followed_changes_nothing(
    blocks: Any, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gradio, "Warning", told.append)
    updates = function(blocks, "follow")("", _Request(**query))

    assert updates == [gradio.skip()] * 20
    assert len(told) == 1
    assert told[0].startswith("The address cannot be followed: ")


def test_an_address_of_others_is_none_of_ours(blocks: Any) -> None:
    assert function(blocks, "follow")("", _Request(view="api")) == [gradio.skip()] * 20


def test_a_picture_sets_the_controls_and_finds_its_model(make_gan: Any, tmp_path: Path) -> None:
    first, second = make_gan(), make_gan(resolution=8)
    second.sha256 = "2" * 64
    two = build_page({"first": first, "tiny": second})
    recipe = sweep_recipe(second, 3, 500, "hub", "six")
    save_png(draw_grid(second, recipe), tmp_path / "sweep.png", recipe)

    *updates, dropped = function(two, "restore")(str(tmp_path / "sweep.png"), "first")

    assert dropped is None
    values = _restored(two, updates)
    assert (values["form"], values["model"]) == ("sweep", "tiny")
    assert "8 &times; 8 pixels" in values["card"]
    assert values["s-num"]["value"] == 3
    assert (values["s-seed"]["value"], values["noise"]["value"]) == (500, "hub")
    assert values["s-category"]["value"] == "6) six"


def test_a_file_that_says_nothing_changes_nothing(
    blocks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gradio, "Warning", told.append)
    (tmp_path / "notes.txt").write_text("no picture")
    Image.new("L", (8, 8)).save(tmp_path / "plain.png")
    Image.new("L", (8, 8)).save(tmp_path / "photo.jpg")
    for name in ("notes.txt", "plain.png", "photo.jpg"):
        updates = function(blocks, "restore")(str(tmp_path / name), "tiny")
        assert updates == [*[gradio.skip()] * 20, None]

    assert told[0] == "notes.txt cannot be read as a PNG, GIF, WebP or MP4"
    assert told[1].startswith("plain.png holds no provenance")
    assert told[2] == "photo.jpg cannot be read as a PNG, GIF, WebP or MP4"


def test_a_picture_of_another_model_is_told_apart(
    blocks: Any, gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gradio, "Warning", told.append)
    recipe = sample_recipe(gan, 2, 0.4, 0, "six")
    foreign = [r.__class__(**{**vars(r), "sha256": "1" * 64}) for r in recipe.pictures]
    changed = recipe.__class__(2, tuple(foreign))
    save_png(draw_grid(gan, recipe), tmp_path / "foreign.png", changed)

    assert function(blocks, "restore")(str(tmp_path / "foreign.png"), "tiny")[-1] is None
    assert told[0].startswith("the picture was made by tiny (sha256 111111111111...), not by tiny")


def test_what_a_stranger_wrote_is_shown_as_text(
    blocks: Any, gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gradio, "Warning", told.append)
    recipe, tag = sample_recipe(gan, 1, 0.4, 0, "six"), "<a href='//x.example'>\ud800&amp;"
    (first,) = recipe.pictures
    for model in (tag, "x" * 100_000):
        foreign = first.__class__(**{**vars(first), "model": model, "sha256": "1" * 64})
        save_png(Image.new("L", (8, 8)), tmp_path / "foreign.png", foreign)
        function(blocks, "restore")(str(tmp_path / "foreign.png"), "tiny")
    function(blocks, "follow")("", _Request(category=tag))

    assert "made by &lt;a href='//x.example'&gt;\\ud800&amp;amp; (sha256" in told[0]
    assert told[1].startswith(f"the picture was made by {'x' * 100} (sha256 1")
    assert told[2].startswith('The address cannot be followed: no class is called "&lt;a href=')
    with pytest.raises(gradio.Error, match="&lt;a"):
        function(blocks, "choose")(tag)
    with pytest.raises(gradio.Error, match="<a"):  # programs do not read HTML
        function(blocks, "sample")(1, 0.4, 0, tag, "tiny")


def test_a_file_that_would_take_much_is_not_looked_into(
    blocks: Any, gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(gradio, "Warning", told.append)
    Image.new("1", (8192, 8193)).save(tmp_path / "large.png")
    (picture,) = sample_recipe(gan, 1, 0.4, 0, "six").pictures
    long = GridProvenance(1, (picture,) * 5000)
    save_png(Image.new("L", (8, 8)), tmp_path / "long.png", long)
    for name in ("large.png", "long.png"):
        updates = function(blocks, "restore")(str(tmp_path / name), "tiny")
        assert updates == [*[gradio.skip()] * 20, None]

    assert told[0] == "large.png is too large: 8192 x 8193 pixels"
    assert re.fullmatch(r"long.png holds provenance that is too long: [\d,]+ characters", told[1])


def test_a_caption_is_a_command_that_makes_the_same_file(
    gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_generator(tmp_path / "m", gan.generator, gan.description)
    loaded = biggan.load(tmp_path / "m")
    recipes = (
        (sample_recipe(loaded, *EXPLORE), "samples/grid.png"),
        (interpolation_recipe(loaded, *INTERPOLATE), "interpolation.png"),
        (sweep_recipe(loaded, *SWEEP), "samples/grid-2.png"),
    )
    for recipe, made in recipes:
        save_png(draw_grid(loaded, recipe), tmp_path / "page.png", recipe)
        text = caption(loaded, recipe, "page.png", "m")
        found = re.search("<code>(.*)</code>", text)
        assert found is not None
        program, verb, *words = shlex.split(html.unescape(found[1]))
        assert program == "biggan"
        command = {"sample": sample.command, "interpolate": interpolate.command}[verb]
        result = CliRunner().invoke(command, words)
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / "page.png") as a, Image.open(tmp_path / made) as b:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_model_that_visitors_may_not_see_has_no_command(gan: Gan) -> None:
    assert caption(gan, sample_recipe(gan, 1, 0.4, 0, "six"), "a.png", None) == ""


def test_the_classes_in_turn_are_named_by_no_class(gan: Gan) -> None:
    assert "--class" not in caption(gan, sample_recipe(gan, 3, 0.4, 0, None), "a.png", "m")


def test_captions_trust_no_text_of_a_file(make_gan: Any) -> None:
    gan = make_gan(class_names=("<b>x</b>", "'; rm -rf /"))
    recipe = interpolation_recipe(gan, 1, 2, 0.2, 0, 0, 0, 1)

    assert "<b>" not in caption(gan, recipe, "<b>.png", "<b>")
    assert "<b>" not in heading(recipe)["value"]


def test_the_bundled_model_needs_no_name_in_a_shell() -> None:
    gan = biggan.load()

    assert caption(gan, sample_recipe(gan, 10, 0.4, 0, 0), "a.png", "digits") == (
        "In a shell: <code>biggan sample --class &#x27;0) zero&#x27; --num 10 --truncation 0.4 "
        "--seed 0 --grid</code>"
    )


def test_columns_are_labelled(gan: Gan) -> None:
    spans = "<span>2</span><span>1.5</span><span>1</span><span>0.5</span><span>0.04</span>"
    assert heading(sweep_recipe(gan, 2, 0, "paper", 0))["value"] == spans
    morph = interpolation_recipe(gan, 1, 3, 0.2, 0, 0, 0, 9)
    assert heading(morph)["value"] == "<span>zero</span><span></span><span>nine</span>"
    assert heading(sample_recipe(gan, 2, 0.4, 0, 0)) == gradio.update(visible=False)


def test_pictures_are_told_in_words(gan: Gan) -> None:
    samples = in_words(sample_recipe(gan, 7, 0.4, 0, "six"))
    assert samples == "7 pictures of six, 5 a row, by tiny"
    paths = in_words(interpolation_recipe(gan, 2, 5, 0.2, 0, 0, 0, 9))
    assert paths == "2 paths from zero to nine in 5 steps, by tiny"
