"""The page as Gradio will serve it, and the functions behind its events."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from biggan import Gan
from biggan.classes import class_choices

pytest.importorskip("gradio")

import gradio

from biggan.demo.drawing import caption, column_heads, draw_grid
from biggan.demo.events import Newest
from biggan.demo.forms import EXPLORE, FORMS, INTERPOLATE, SWEEP, Form
from biggan.demo.model_cache import ModelCache
from biggan.demo.page import Page
from biggan.demo.request_queue import RequestQueue
from biggan.images import save_png
from biggan.provenance import GridProvenance, read_provenance
from demo_app import make_gan

if TYPE_CHECKING:
    from demo_app import GatedGan

EXPLORED = (7, 0.42, 3, "3) three")
PATHS = (1, 3, 0.2, 4, 5, "0) zero", "9) nine")
SWEPT = (1, 6, "paper", "6) six")
SECONDS = (4,)
SETTINGS = (*EXPLORED, *PATHS, *SECONDS, *SWEPT)
UNCHANGED = [gradio.skip()] * 20


def build_page(gans: dict[str, Gan], queue: RequestQueue | None = None) -> Any:
    """The page, built inside an event loop: outside one Gradio makes a loop and leaks it."""

    async def build() -> Any:
        models = ModelCache(list(gans), lambda name: gans[str(name)])
        return Page(models, queue or RequestQueue(100), show_paths=True).blocks

    return asyncio.run(build())


def plan(gan: Gan, form: Form, values: tuple[Any, ...]) -> Any:
    return form.plan(gan, **dict(zip((c.key for c in form.controls), values, strict=True)))


@pytest.fixture(scope="module")
def blocks(gan: Gan) -> Any:
    return build_page({"tiny": gan})


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The toasts that are shown."""
    shown: list[str] = []
    monkeypatch.setattr(gradio, "Warning", shown.append)
    return shown


def function(blocks: Any, name: str) -> Any:
    """What stands behind the event of that name."""
    found = [f.fn for f in blocks.fns.values() if f.api_name == name and f.fn]
    assert len(found) == 1
    return found[0]


def controls(blocks: Any, kind: str) -> dict[str, Any]:
    """The page's visible controls of a kind, in order, by their labels (the forms share some)."""
    found = [b for b in blocks.blocks.values() if b.get_block_name() == kind and b.visible is True]
    return {f"{index} {block.label}": block for index, block in enumerate(found)}


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


def test_a_request_that_is_not_the_newest_any_more_stops(gated: GatedGan) -> None:
    queue, newest = RequestQueue(100), Newest()
    blocks = build_page({"tiny": gated}, queue)
    drawing = function(blocks, "draw")("explore", newest, 5, "tiny", *SETTINGS)
    for _ in range(2):
        gated.let_through(1)
        assert next(drawing)[2]["value"].mode == "RGBA"
        function(blocks, "note")(newest, 5)
    assert queue.length == 1
    function(blocks, "note")(newest, 6)
    assert list(drawing) == []
    assert queue.length == 0
    function(blocks, "note")(newest, 4)  # which came late
    assert newest.number == 6


@pytest.mark.parametrize(
    ("form", "values", "query"),
    [
        (EXPLORE, EXPLORED, "num=7&truncation=0.42&seed=3&category=3%29+three"),
        (
            INTERPOLATE,
            PATHS,
            "num=1&steps=3&truncation=0.2&seed_a=4&seed_b=5&category_a=0%29+zero"
            "&category_b=9%29+nine",
        ),
        (SWEEP, SWEPT, "num=1&seed=6&noise=paper&category=6%29+six"),
    ],
)
def test_the_form_that_is_seen_is_drawn(
    blocks: Any, gan: Gan, form: Form, values: tuple[Any, ...], query: str
) -> None:
    draw = function(blocks, "draw")
    address, *widgets = list(draw(form.name, Newest(), 1, "tiny", *SETTINGS))[-1]
    assert address == f"form={form.name}&model=tiny&{query}"
    first = 3 * FORMS.index(form)
    heading, picture, below = widgets[first : first + 3]
    sheet, file = plan(gan, form, values), picture["value"]
    assert read_provenance(file) == sheet
    with Image.open(file) as shown:
        assert shown.tobytes() == draw_grid(gan, sheet).tobytes()
    assert "small" in picture["elem_classes"]
    assert below == caption(gan, sheet, file.name, str(Path("tiny").absolute()))
    heads = column_heads(sheet)
    visible = gradio.update(value=heads, visible=True)
    assert heading == (visible if heads else gradio.update(visible=False))
    assert [*widgets[:first], *widgets[first + 3 : 9]] == [gradio.skip()] * 6
    hidden = gradio.update(value=None, visible=False)  # a video would be of other settings
    assert widgets[9:] == [hidden if form is INTERPOLATE else gradio.skip()] * 3


def test_a_mistake_reaches_the_page_as_one_line(blocks: Any) -> None:
    wrong = (10, 1.5, 0, "0) zero")
    draw = function(blocks, "draw")
    for call in (
        lambda: list(draw("explore", Newest(), 1, "tiny", *wrong, *SETTINGS[4:])),
        lambda: function(blocks, "sample")(*wrong, "tiny"),
    ):
        with pytest.raises(gradio.Error) as caught:
            call()
        assert caught.value.message == "truncation must be between 0.02 and 1, not 1.5"
        assert caught.value.print_exception is False  # a visitor's mistake is not logged


@pytest.mark.parametrize(
    ("form", "values"), [(EXPLORE, EXPLORED), (INTERPOLATE, PATHS), (SWEEP, SWEPT)]
)
def test_the_endpoints_give_the_pages_pictures(
    blocks: Any, gan: Gan, form: Form, values: tuple[Any, ...]
) -> None:
    path = function(blocks, form.endpoint)(*values, "tiny")
    sheet = plan(gan, form, values)
    assert read_provenance(path) == sheet
    with Image.open(path) as shown:
        assert shown.tobytes() == draw_grid(gan, sheet).tobytes()


@pytest.mark.parametrize("model", ["other", "/etc/passwd", None, ["tiny"]])
def test_only_models_on_offer_are_drawn_with(blocks: Any, model: Any) -> None:
    with pytest.raises(gradio.Error, match="tiny"):
        function(blocks, "sample")(*EXPLORED, model)


def test_a_program_may_leave_out_the_last_parameters(blocks: Any) -> None:
    sample = next(f for f in blocks.fns.values() if f.api_name == "sample")
    given: list[Any] = [3, 0.5]
    blocks.validate_inputs(sample, given)
    assert given == [3, 0.5, 0, "0) zero", "tiny"]


def test_the_page_films(blocks: Any) -> None:
    film = function(blocks, "film")
    shown = list(film(Newest(), 1, "tiny", *PATHS, 1))
    assert shown[0][0] == gradio.update(value=None, visible=True)
    assert [update["visible"] for update in shown[-1]][:2] == [True, True]
    assert shown[-1][0]["value"].suffix == ".webp"


def test_a_model_is_chosen_with_its_card_and_its_categories() -> None:
    two = build_page({"first": make_gan(), "flat": make_gan(class_names=())})
    menu = controls(two, "dropdown")["0 Model"]
    assert [name for name, _ in menu.choices] == ["first", "flat"]
    card, *updates = function(two, "choose")("flat")
    assert "unconditional" in card
    hidden = [u for u in updates if u != gradio.skip()]
    assert hidden == [gradio.update(choices=[], value=None, visible=False)] * 4
    empty = [None if isinstance(value, str) and ")" in value else value for value in SETTINGS]
    for form in ("explore", "interpolate", "sweep"):
        *_, (query, *_) = function(two, "draw")(form, Newest(), 1, "flat", *empty)
        assert query.startswith(f"form={form}&model=flat")
        assert "category" not in query


def test_one_model_cannot_be_chosen(blocks: Any) -> None:
    assert "0 Model" not in controls(blocks, "dropdown")


def _restored(updates: list[Any]) -> dict[str, Any]:
    """The values that updates of tab, form, model, card and all controls bring."""
    keys = [f"{form.name}-{c.key}" for form in FORMS for c in form.all_controls]
    return dict(zip(["tabs", "form", "model", "card", *keys], updates, strict=True))


class _Request:
    def __init__(self, **query: str) -> None:
        self.query_params = query


def test_the_address_sets_the_controls(blocks: Any) -> None:
    follow = function(blocks, "follow")
    updates = _restored(follow("", _Request(num="3", seed="12345", category="six")))
    assert updates["form"] == "explore"
    assert updates["tabs"].selected == "explore"
    assert updates["explore-num"]["value"] == 3
    seed = updates["explore-seed"]
    assert (seed["value"], seed["maximum"]) == (12345, 12345)
    assert updates["explore-truncation"]["value"] == 0.4  # not in the address: the default
    assert updates["explore-category"]["value"] == "6) six"
    assert follow("", _Request(view="api")) == UNCHANGED


@pytest.mark.parametrize(
    "query", [{"num": "99"}, {"category": "ten"}, {"model": "other"}, {"form": "none"}]
)
def test_an_address_that_cannot_be_followed_changes_nothing(
    blocks: Any, query: dict[str, str], warnings: list[str]
) -> None:
    assert function(blocks, "follow")("", _Request(**query)) == UNCHANGED
    assert len(warnings) == 1
    assert warnings[0].startswith("The address cannot be followed: ")


def test_a_picture_sets_the_controls_and_finds_its_model(tmp_path: Path) -> None:
    second = make_gan(resolution=8)
    second.sha256 = "2" * 64
    two = build_page({"first": make_gan(), "tiny": second})
    sheet = SWEEP.plan(second, num=3, seed=500, noise="hub", category="six")
    save_png(draw_grid(second, sheet), tmp_path / "sweep.png", sheet)
    *updates, dropped = function(two, "restore")(str(tmp_path / "sweep.png"), "first")
    assert dropped is None
    values = _restored(updates)
    assert (values["form"], values["model"]) == ("sweep", "tiny")
    assert "8 &times; 8 pixels" in values["card"]
    shown = [values[f"sweep-{c.key}"]["value"] for c in SWEEP.controls]
    assert shown == [3, 500, "hub", "6) six"]


def test_a_file_without_provenance_or_of_another_model_changes_nothing(
    blocks: Any, gan: Gan, tmp_path: Path, warnings: list[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    for name in ("plain.png", "photo.jpg"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    (picture,) = EXPLORE.plan(gan, num=1, category="six").pictures
    foreign = replace(picture, sha256="1" * 64)
    save_png(Image.new("L", (8, 8)), tmp_path / "foreign.png", foreign)
    Image.new("1", (8192, 8193)).save(tmp_path / "large.png")
    long = GridProvenance(1, (picture,) * 5000)
    save_png(Image.new("L", (8, 8)), tmp_path / "long.png", long)
    for name, text in (
        ("notes.txt", "notes.txt cannot be read as a PNG"),
        ("plain.png", "plain.png holds no provenance"),
        ("photo.jpg", "photo.jpg cannot be read as a PNG"),
        ("foreign.png", r"the picture was made by tiny \(sha256 111111111111...\), not by tiny"),
        ("large.png", "large.png is too large: 8192 x 8193 pixels"),
        ("long.png", r"long.png holds provenance that is too long: [\d,]+ characters"),
    ):
        assert function(blocks, "restore")(str(tmp_path / name), "tiny") == [*UNCHANGED, None]
        assert re.match(text, warnings[-1]), warnings[-1]


def test_the_text_of_a_stranger_is_shown_as_text(
    blocks: Any, gan: Gan, tmp_path: Path, warnings: list[str]
) -> None:
    tag = "<a href='//x.example'>\ud800&amp;"
    (first,) = EXPLORE.plan(gan, num=1).pictures
    for model in (tag, "x" * 100_000):
        foreign = replace(first, model=model, sha256="1" * 64)
        save_png(Image.new("L", (8, 8)), tmp_path / "foreign.png", foreign)
        function(blocks, "restore")(str(tmp_path / "foreign.png"), "tiny")
    function(blocks, "follow")("", _Request(category=tag))
    assert "made by &lt;a href='//x.example'&gt;\\ud800&amp;amp; (sha256" in warnings[0]
    assert warnings[1].startswith(f"the picture was made by {'x' * 100} (sha256 1")
    start = 'The address cannot be followed: no class is called "&lt;a href='
    assert warnings[2].startswith(start)
    with pytest.raises(gradio.Error, match="&lt;a"):
        function(blocks, "choose")(tag)
    with pytest.raises(gradio.Error, match="<a"):  # programs do not read HTML
        function(blocks, "sample")(1, 0.4, 0, tag, "tiny")
