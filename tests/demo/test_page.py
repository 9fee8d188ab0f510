"""The page as Gradio will serve it, and the functions behind its events."""

import asyncio
import json
import re
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from biggan import Gan, load

pytest.importorskip("gradio")

import gradio

from biggan.demo.drawing import draw_grid
from biggan.demo.forms import (
    DIRECTIONS,
    EXPLORE,
    FORMS,
    INTERPOLATE,
    MOVES,
    SWEEP,
    Form,
    Number,
    to_query,
)
from biggan.demo.models import ModelCache
from biggan.demo.page import Newest, Page
from biggan.demo.renderer import Renderer
from biggan.demo.tab import setting
from biggan.demo.words import caption, column_heads, download_links
from biggan.images import save_png
from biggan.provenance import GridProvenance
from biggan.provenance_files import read_provenance
from biggan.weights import published
from demo_app import GatedGan, make_gan, until
from file_server import FileServer

VALUES: dict[str, tuple[Any, ...]] = {
    "explore": (7, 0.42, 3, "3) three"),
    "interpolate": (1, 3, 0.2, 4, 5, "0) zero", "9) nine", 4),
    "sweep": (1, 6, "paper", "6) six"),
    "directions": (0.6, 6, "2) two", 1.5, -2, 0, 0, 0, 0),
}
SETTINGS = [value for values in VALUES.values() for value in values]
HIDDEN = gradio.update(value=None, visible=False)


def build_page(gans: dict[str, Gan], folder: Path) -> Page:
    """The page, built inside an event loop: outside one Gradio makes a loop and leaks it."""

    async def build() -> Page:
        models = ModelCache(list(gans), lambda name: gans[str(name)])
        return Page(Renderer(models, folder), show_paths=True)

    return asyncio.run(build())


@pytest.fixture(scope="module")
def page(gan: Gan, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return build_page({"tiny": gan}, tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The toasts that are shown."""
    shown: list[str] = []
    monkeypatch.setattr(gradio, "Warning", shown.append)
    return shown


def endpoint(page: Page, name: str) -> Any:
    """The function behind an endpoint of Gradio's API."""
    (found,) = (f for f in page.blocks.fns.values() if f.api_name == name and f.fn)
    return found.fn


def test_sliders_follow_the_model_in_their_names() -> None:
    direction = DIRECTIONS.controls[-6]
    fruits, digits = load("fruits"), load("digits")
    assert setting(direction, None, fruits, is_new=True) == {"label": "0: upright"}
    assert setting(direction, 1, digits, is_new=True)["label"] == "Direction 0"
    assert "label" not in setting(direction, 1, fruits)


def test_the_controls_are_those_of_the_forms(page: Page) -> None:
    for tab in page.tabs:
        for control, widget in zip(tab.form.all_controls, tab.widgets.values(), strict=True):
            assert widget.label == control.label
            if isinstance(control, Number):
                shown = (widget.minimum, widget.maximum, widget.step, widget.value)
                assert shown == (control.low, control.high, control.step, control.default)
    menus = [w for tab in page.tabs for w in tab.widgets.values() if isinstance(w, gradio.HTML)]
    assert [menu.value for menu in menus] == ["0) zero", "0) zero", "9) nine", "0) zero", "0) zero"]


def test_the_endpoints_are_named_and_described(page: Page) -> None:
    named = page.blocks.get_api_info()["named_endpoints"]
    assert set(named) == {"/sample", "/interpolate", "/sweep", "/directions", "/video"}
    names = {e: [p["parameter_name"] for p in named[e]["parameters"]] for e in named}
    assert names["/sample"] == ["num", "truncation", "seed", "category", "model"]
    ends = ["truncation", "seed_a", "seed_b", "category_a", "category_b", "model"]
    assert names["/interpolate"] == ["num", "steps", *ends]
    assert names["/video"] == ["num", "seconds", *ends]
    assert names["/sweep"] == ["num", "seed", "noise", "category", "model"]
    assert names["/directions"] == ["truncation", "seed", "category", *MOVES, "model"]
    for described in named.values():
        assert described["description"]
        assert all(p["parameter_has_default"] for p in described["parameters"])


def test_every_control_asks_for_a_picture_and_one_is_drawn_at_a_time(page: Page) -> None:
    events = page.blocks.config["dependencies"]
    drawn = {tab.widgets[c.key]._id for tab in page.tabs for c in tab.form.controls}
    asking = [e for e in events if {b for b, name in e["targets"] if name == "change"} >= drawn]
    # One asks for a picture, the other keeps the settings with the browser's history.
    assert [(len(e["outputs"]), e["backend_fn"]) for e in asking] == [(1, False), (0, False)]
    draw = next(e for e in events if e["api_name"] == "draw")
    assert draw["targets"] == [(asking[0]["outputs"][0], "change")]
    assert draw["trigger_mode"] == "always_last"


def test_a_request_that_is_not_the_newest_any_more_stops(gated: GatedGan, tmp_path: Path) -> None:
    page, newest = build_page({"tiny": gated}, tmp_path), Newest()
    drawing = page.draw("explore", newest, 5, "tiny", *SETTINGS)
    for _ in range(2):
        gated.let_through(1)
        assert next(drawing)[page.tabs[0].picture]["value"].mode == "RGBA"
        newest.note(5)
    assert page.renderer.length == 1
    newest.note(6)
    unchanged = [{page.address: gradio.skip()}]
    assert list(drawing) == unchanged
    assert page.renderer.length == 0
    # A value must come even before the first picture: without one Gradio would empty the page.
    assert list(page.draw("explore", newest, 5, "tiny", *SETTINGS)) == unchanged
    assert page.renderer.length == 0
    newest.note(4)  # which came late
    newest.note("x")
    assert newest.number == 6


@pytest.mark.parametrize("form", FORMS)
def test_the_form_that_is_seen_is_drawn_and_a_program_gets_the_same_file(
    page: Page, gan: Gan, form: Form
) -> None:
    tab = page.tabs[FORMS.index(form)]
    keys = (control.key for control in form.controls)
    settings = dict(zip(keys, VALUES[form.name], strict=False))
    sheet = form.plan(gan, **settings)
    address = to_query("tiny", form, settings)
    query = address.partition("&")[2]
    shown = list(page.draw(form.name, Newest(), 1, "tiny", *SETTINGS))[-1]
    file = shown[tab.picture]["value"]
    assert read_provenance(file) == sheet
    with Image.open(file) as picture:
        assert picture.tobytes() == draw_grid(gan, sheet).tobytes()
    assert "small" in shown[tab.picture]["elem_classes"]
    heads = column_heads(sheet)
    assert shown == {
        page.address: address,
        page.drawn: "tiny",
        tab.heading: gradio.update(value=heads, visible=bool(heads)),
        tab.picture: shown[tab.picture],
        tab.caption: caption(gan, sheet, str(Path("tiny").absolute()))
        + download_links(form.endpoint, query, 16),
        # A video would be of other settings.
        **dict.fromkeys(tab.video[1:], HIDDEN),
        **dict.fromkeys(tab.video[:1], gradio.update(value=None, visible="hidden")),
    }
    assert endpoint(page, form.endpoint)(*settings.values(), "tiny") == file


def test_a_half_typed_number_is_brought_into_its_range(page: Page, gan: Gan) -> None:
    for typed, meant in ((None, 0.02), (0, 0.02), (7, 1)):
        values = [3, typed, 0, "0) zero", *SETTINGS[4:]]
        shown = list(page.draw("explore", Newest(), 1, "tiny", *values))[-1]
        made = read_provenance(shown[page.tabs[0].picture]["value"])
        assert made == EXPLORE.plan(gan, num=3, truncation=meant)


def test_a_mistake_reaches_the_page_as_one_line(page: Page) -> None:
    sample = endpoint(page, "sample")
    for call, text in (
        (lambda: sample(10, 1.5, 0, "0) zero", "tiny"), "truncation must be between 0.02 and 1"),
        (lambda: list(page.draw("explore", Newest(), 1, "tiny", 3, 0.4, [0])), "noise seed must"),
        (lambda: page.restore({"path": "/etc/passwd"}, "tiny"), "what is dropped must be a file"),
        *((lambda m=m: sample(1, 0.4, 0, "one", m), "no model is") for m in ("x", None, ["tiny"])),
    ):
        with pytest.raises(gradio.Error) as caught:
            call()
        assert caught.value.message.startswith(text)
        assert caught.value.print_exception is False  # a visitor's mistake is not logged


def test_the_page_films(page: Page) -> None:
    settings = [*SETTINGS[:11], 1, *SETTINGS[12:]]
    *begun, shown = page.film(Newest(), "tiny", *settings)
    preview, webp, mp4, player = page.tabs[1].video
    assert begun[:1] in ([], [{preview: gradio.update(value=None, visible=True)}])
    (again,) = page.film(Newest(), "tiny", *settings)  # no frame, which might stay
    assert again == shown
    assert all(update["visible"] for update in shown.values())
    assert shown[webp]["value"].suffix == ".webp"
    if find_spec("av"):  # a player, which can be stopped; else a picture that moves
        assert shown.pop(preview) == gradio.update(visible="hidden")
        assert set(shown) == {webp, mp4, player}
        assert shown[player]["value"] == shown[mp4]["value"]
    else:
        assert shown[preview]["value"] == shown[webp]["value"]


def test_a_video_goes_on_until_its_own_settings_change(
    gan: Gan, gated: GatedGan, tmp_path: Path
) -> None:
    page, newest = build_page({"tiny": gan, "gated": gated}, tmp_path), Newest()
    settings = [*SETTINGS[:11], 1, *SETTINGS[12:]]
    others = [*SETTINGS[:8], 6, *SETTINGS[9:]]
    preview, *shown = page.tabs[1].video
    for is_changed in (False, True):
        gated.reset()
        film = page.film(newest, "gated", *settings)
        assert next(film) == {preview: gradio.update(value=None, visible=True)}
        (*_, update) = page.draw("sweep", newest, 2, "tiny", *others)
        assert not {preview, *shown} & update.keys()
        assert next(film) == {preview: gradio.skip()}
        if is_changed:
            (*_, update) = page.draw("interpolate", newest, 3, "tiny", *others)
            assert [update[widget] for widget in shown] == [HIDDEN] * 3
        gated.let_through(1000)
        (*_, update) = film
        assert (update == {preview: gradio.skip()}) == is_changed
        (*_, update) = page.draw("interpolate", newest, 4, "gated", *settings)
        assert ({preview, *shown} <= update.keys()) == is_changed


def test_a_model_is_chosen_with_its_card_and_its_categories(page: Page, tmp_path: Path) -> None:
    two = build_page({"first": make_gan(), "flat": make_gan(class_names=())}, tmp_path)
    assert (two.model.visible, page.model.visible) == (True, False)
    assert two.model.choices == [("first (16 px, 10 classes)", "first"), ("flat", "flat")]
    (update,) = two.choose("flat", "first")
    assert "unconditional" in update.pop(two.card)
    assert update.pop(two.model)["value"] == "flat"
    assert update.pop(two.notice) == gradio.update(visible=False)
    assert update.pop(two.current) == "flat"
    assert update.pop(two.drawn) == ""  # there is no picture of it yet
    moves = [update.pop(two.tabs[FORMS.index(DIRECTIONS)].widgets[key]) for key in MOVES]
    assert moves == [gradio.update(label=f"Direction {k}") for k in range(6)]
    assert list(update.values()) == [gradio.update(value=None, visible=False)] * 5
    empty = [None if isinstance(value, str) and ")" in value else value for value in SETTINGS]
    for form in FORMS:
        shown = list(two.draw(form.name, Newest(), 1, "flat", *empty))[-1]
        assert shown[two.address].startswith(f"form={form.name}&model=flat")
        assert "category" not in shown[two.address]


def test_a_surprise_is_another_category_and_seed_of_the_tab_that_is_shown(page: Page) -> None:
    for form in FORMS:
        found = [values_of(page, page.surprise(form.name, "tiny"), form) for _ in range(8)]
        random = {c.key for c in form.controls if c.key.startswith(("seed", "category"))}
        assert {key for values in found for key in values} == random
        assert len({tuple(values.values()) for values in found}) > 1
        for values in found:
            form.plan(make_gan(), **values)


def test_the_page_of_a_bundled_model_opens_with_pictures_of_its_classes(tmp_path: Path) -> None:
    page = build_page({"digits": make_gan()}, tmp_path)
    assert page.tabs[0].gallery.value.count("<img src=") == 10
    assert page.drawn.value == "digits"  # so they are not drawn again
    other = build_page({"other": make_gan(), "flat": make_gan(())}, tmp_path)
    assert (other.tabs[0].gallery.value, other.drawn.value) == ("", "")
    shown = list(other.show_classes("other"))
    assert [html.count("<img src=") for html in shown] == list(range(11))
    assert all('data-entry="9) nine" title="nine"' in html for html in shown[1:])
    assert list(other.show_classes("flat")) == [""]
    assert list(other.show_classes("")) == [""]  # no classes of a model that was left


PUBLISHED = "biggan-deep-128"


@pytest.fixture
def downloading(host: FileServer, tmp_path: Path) -> Page:
    """The page with bundled digits, and published models to download."""

    async def build() -> Page:
        models = ModelCache(["digits"], downloads=True)
        return Page(Renderer(models, tmp_path))

    return asyncio.run(build())


def test_a_download_is_cancelled_and_the_page_stays_with_its_model(
    downloading: Page, host: FileServer
) -> None:
    served = host.files["/weights"]
    served.cuts, served.pause = [len(served.body) - 1], threading.Event()
    choosing = downloading.choose(PUBLISHED, "digits")
    until(lambda: " MB</p>" in next(choosing)[downloading.notice]["value"])
    downloading.cancel(PUBLISHED)
    served.pause.set()
    *_, last = choosing
    assert last[downloading.model]["value"] == "digits"
    assert downloading.current not in last
    assert "was cancelled. Choose the model again" in last[downloading.notice]["value"]
    *_, hidden, last = downloading.choose(PUBLISHED, "digits")  # goes on where it was
    assert hidden == {downloading.cancel_button: gradio.update(visible=False)}
    assert last[downloading.model]["value"] == PUBLISHED
    assert last[downloading.notice] == gradio.update(visible=False)
    category = downloading.tabs[1].widgets["category_a"]
    assert last[category]["value"] == "207) golden retriever"
    assert int(host.asked[-1].headers["Range"][6:-1]) > 0


@pytest.mark.parametrize("fault", ["gone", "digest"])
def test_a_model_that_cannot_be_downloaded_is_described_for_fetching_by_hand(
    downloading: Page, host: FileServer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = published.PUBLISHED[PUBLISHED].places
    if fault == "gone":
        host.files.clear()
    else:
        place = (replace(place[0], sha256="0" * 64),)
        model = replace(published.PUBLISHED[PUBLISHED], places=(place,))
        monkeypatch.setitem(published.PUBLISHED, PUBLISHED, model)
    *_, last = downloading.choose(PUBLISHED, "digits")
    notice = last[downloading.notice]["value"]
    assert {"gone": "HTTP 404", "digest": "its sha256 is"}[fault] in notice
    assert f'href="{host.url("/weights")}"' in notice
    folder = published.downloads_folder(published.PUBLISHED[PUBLISHED], place)
    assert f"as <code>weights.safetensors</code> in <code>{folder}</code>" in notice
    assert last[downloading.model]["value"] == "digits"


def values_of(page: Page, update: dict[Any, Any], form: Form) -> dict[str, Any]:
    """What an update brings to the controls of a form."""
    widgets = page.tabs[FORMS.index(form)].widgets
    return {key: update[w]["value"] for key, w in widgets.items() if w in update}


class _Request:
    def __init__(self, **query: str) -> None:
        self.query_params = query


def test_the_address_and_the_history_set_the_controls(page: Page) -> None:
    update = page.follow("", _Request(num="3", seed="12345", category="six"))
    assert update[page.shown] == "explore"
    assert update[page.tab_bar].selected == "explore"
    explored = {"num": 3, "truncation": 0.4, "seed": 12345, "category": "6) six"}
    assert values_of(page, update, EXPLORE) == explored  # not in the address: the default
    assert update[page.tabs[0].widgets["seed"]]["maximum"] == 12345
    assert values_of(page, update, SWEEP) == {}
    unchanged = {page.shown: gradio.skip()}
    assert page.follow("", _Request(view="api")) == unchanged

    wrong = [1, -6, "paper", "6) six"]  # of the sweep
    kept = [*SETTINGS[:12], *wrong, *VALUES["directions"]]
    query = {"form": "explore", "num": "3"}
    update = page.follow(str(kept).replace("'", '"'), _Request(**query))
    assert list(values_of(page, update, EXPLORE).values()) == list(VALUES["explore"])
    assert list(values_of(page, update, INTERPOLATE).values()) == list(VALUES["interpolate"])
    assert values_of(page, update, SWEEP) == {}
    assert list(values_of(page, update, DIRECTIONS).values()) == list(VALUES["directions"])
    update = page.follow(str(kept).replace("'", '"'), _Request(form="sweep", seed="5"))
    assert values_of(page, update, SWEEP)["seed"] == 5
    for garbage in ("[", "5", "{}", '{"a": 1}', "[1]", "[[]]", "[" * 5000, None, 5, [1]):
        assert page.follow(garbage, _Request()) == unchanged
    with_one_more = json.dumps([*kept, 1])  # of a version with another control
    assert page.follow(with_one_more, _Request()) == unchanged


@pytest.mark.parametrize(
    "wrong", [{"num": "99"}, {"category": "ten"}, {"model": "other"}, {"form": "none"}]
)
def test_what_cannot_be_followed_in_an_address_is_named_and_the_rest_is_followed(
    page: Page, wrong: dict[str, str], warnings: list[str]
) -> None:
    update = page.follow("", _Request(seed="7", **wrong))
    defaults = {"num": 10, "truncation": 0.4, "category": "0) zero"}
    assert values_of(page, update, EXPLORE) == {**defaults, "seed": 7}
    assert len(warnings) == 1
    assert warnings[0].startswith("Not all of the address can be followed: ")


@pytest.fixture
def drop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that uploads are in."""
    monkeypatch.setattr("biggan.demo.page.get_upload_folder", lambda: str(tmp_path))
    return tmp_path


def test_a_picture_sets_the_controls_and_finds_its_model(drop: Path) -> None:
    second = make_gan(resolution=8)
    two = build_page({"first": make_gan(), "tiny": second}, drop)
    sheet = SWEEP.plan(second, num=3, seed=500, noise="hub", category="six")
    save_png(draw_grid(second, sheet), drop / "sweep.png", sheet)
    update = two.restore({"path": str(drop / "sweep.png")}, "first")
    assert (update[two.shown], update[two.model]) == ("sweep", "tiny")
    assert "8 &times; 8 pixels" in update[two.card]
    assert list(values_of(two, update, SWEEP).values()) == [3, 500, "hub", "6) six"]
    assert values_of(two, update, EXPLORE) == {}


def test_a_file_without_provenance_or_of_another_model_changes_nothing(
    page: Page, gan: Gan, drop: Path, warnings: list[str]
) -> None:
    (drop / "notes.txt").write_text("no picture")
    for name in ("plain.png", "photo.jpg"):
        Image.new("L", (8, 8)).save(drop / name)
    (picture,) = EXPLORE.plan(gan, num=1, category="six").pictures
    foreign = replace(picture, sha256="1" * 64)
    save_png(Image.new("L", (8, 8)), drop / "foreign.png", foreign)
    Image.new("1", (8192, 8193)).save(drop / "large.png")
    save_png(Image.new("L", (8, 8)), drop / "long.png", GridProvenance(1, (picture,) * 5000))
    for name, text in (
        ("notes.txt", "notes.txt cannot be read as a PNG"),
        ("plain.png", "plain.png contains no provenance"),
        ("photo.jpg", "photo.jpg contains no provenance"),
        ("foreign.png", r"the picture was made by tiny \(sha256 111111111111...\), not by tiny"),
        ("large.png", "large.png is too large: 8192 x 8193 pixels"),
        ("long.png", r"long.png contains provenance that is too long: [\d,]+ characters"),
    ):
        assert page.restore({"path": str(drop / name)}, "tiny") == {page.shown: gradio.skip()}
        assert re.match(text, warnings[-1]), warnings[-1]


def test_the_text_of_a_stranger_is_shown_as_text(
    page: Page, gan: Gan, drop: Path, warnings: list[str]
) -> None:
    tag = "<a href='//x.example'>\ud800&amp;"
    (first,) = EXPLORE.plan(gan, num=1).pictures
    for model in (tag, "x" * 100_000):
        foreign = replace(first, model=model, sha256="1" * 64)
        save_png(Image.new("L", (8, 8)), drop / "foreign.png", foreign)
        page.restore({"path": str(drop / "foreign.png")}, "tiny")
    page.follow("", _Request(category=tag))
    assert "made by &lt;a href='//x.example'&gt;\\ud800&amp;amp; (sha256" in warnings[0]
    assert warnings[1].startswith(f"the picture was made by {'x' * 100} (sha256 1")
    start = 'Not all of the address can be followed: no class is named "&lt;a href='
    assert warnings[2].startswith(start)
    with pytest.raises(gradio.Error, match="&lt;a"):
        list(page.choose(tag, "tiny"))
    with pytest.raises(gradio.Error, match="<a"):  # programs do not read HTML
        endpoint(page, "sample")(1, 0.4, 0, tag, "tiny")
