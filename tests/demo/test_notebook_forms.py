"""The forms in Jupyter, driven without a browser: to assign a widget's value is a user's move."""

import base64
import importlib
import io
import sys
import threading
from concurrent.futures import wait
from typing import Any

import pytest
from PIL import Image

import biggan
from biggan import Gan, InputError

pytest.importorskip("ipywidgets")

from collections.abc import Iterator
from pathlib import Path

import ipywidgets

from biggan.classes import class_choices, imagenet_classes
from biggan.demo import notebook
from biggan.demo.drawing import columns, draw_grid, draw_sheet
from biggan.demo.forms import (
    DIRECTIONS,
    EXPLORE,
    FORMS,
    INTERPOLATE,
    Choice,
    Form,
    Number,
)
from biggan.demo.notebook import (
    NotebookForm,
    build_field,
    directions,
    explore,
    interpolate,
    python_call,
    sweep,
)
from biggan.images import make_grid, to_pil, to_uint8
from biggan.provenance_files import read_provenance
from demo_app import SETTINGS, make_gan


def widgets_of(form: NotebookForm) -> list[Any]:
    """All widgets that a form shows."""
    bundle, _ = form._repr_mimebundle_()
    view = bundle["application/vnd.jupyter.widget-view+json"]
    found, waiting = [], [ipywidgets.widgets.widget._instances[view["model_id"]]]
    while waiting:
        found.append(waiting.pop())
        waiting += getattr(found[-1], "children", ())
    return found


def click(form: NotebookForm, name: str) -> None:
    buttons = [w for w in widgets_of(form) if isinstance(w, ipywidgets.Button)]
    next(button for button in buttons if button.description == name).click()


def text_of(form: NotebookForm) -> str:
    """All HTML that a form shows, after what it is at is done."""
    wait([form._job.future])
    return "".join(w.value for w in widgets_of(form) if isinstance(w, ipywidgets.HTML))


# The same words, ranges and defaults as the page.


@pytest.mark.parametrize("control", [c for form in FORMS for c in form.all_controls])
def test_controls_have_the_words_ranges_and_defaults_of_the_page(gan: Gan, control: Any) -> None:
    field = build_field(control, gan)
    assert field is not None
    setting, widget = field
    if isinstance(control, Number):
        slider = widget if widget is setting else widget.children[0]
        assert (slider.description, slider.value) == (control.label, control.default)
        assert (slider.min, slider.max, slider.step) == (control.low, control.high, control.step)
        assert control.info in slider.tooltip
        assert setting.value == control.default
        assert slider.continuous_update is False
    elif isinstance(control, Choice):
        assert widget.children[0].value == control.label
        assert setting.options == tuple((text, word) for word, text in control.choices)
        assert setting.value == control.default
    else:
        assert widget.description == control.label
        assert widget.options == tuple(class_choices(gan.class_names))
        assert widget.value == class_choices(gan.class_names)[control.fallback]


def test_an_unconditional_model_has_no_categories() -> None:
    gan = make_gan(class_names=())
    assert "category" not in explore(gan).controls
    assert not {"category_a", "category_b"} & set(interpolate(gan).controls)
    assert explore(gan).provenance == EXPLORE.plan(gan)
    assert "gan.sample(None, num=10" in text_of(explore(gan))


# The picture follows.


@pytest.mark.parametrize(
    ("make", "settings"), [*zip((explore, interpolate, sweep), SETTINGS, strict=False)]
)
def test_the_picture_follows_the_controls_and_the_call_below_makes_it_again(
    gan: Gan, make: Any, settings: tuple[Form, dict[str, Any]]
) -> None:
    shown, (form, values) = make(gan), settings
    assert shown.provenance == form.plan(gan)
    for key, value in values.items():
        before = shown.picture.tobytes()
        shown.controls[key].value = value
        assert shown.picture.tobytes() != before, key
    assert shown.provenance == form.plan(gan, **values)
    assert shown.picture.tobytes() == draw_grid(gan, shown.provenance).tobytes()
    made = eval(python_call(gan, shown.provenance), {"gan": gan})
    rows = {
        explore: lambda: [made],
        interpolate: lambda: made,
        sweep: lambda: zip(*made, strict=True),
    }[make]()
    pictures = [picture for row in rows for picture in row]
    assert make_grid(pictures, columns(shown.provenance)).tobytes() == shown.picture.tobytes()


def test_a_moved_picture_follows_and_the_call_below_makes_it_again(gan: Gan) -> None:
    shown = directions(gan)
    settings = {"seed": 3, "category": "2) two", "direction_0": 2.0, "direction_1": -1.5}
    for key, value in settings.items():
        before = shown.picture.tobytes()
        shown.controls[key].value = value
        assert shown.picture.tobytes() != before, key
    assert shown.provenance == DIRECTIONS.plan(gan, **settings)
    images = eval(python_call(gan, shown.provenance), {"gan": gan, "biggan": biggan})
    after = shown.picture.crop((17, 0, 33, 16))
    assert to_pil(to_uint8(images))[0].tobytes() == after.tobytes()
    assert "<span>After</span>" in text_of(shown)


def test_a_seed_beyond_the_slider_may_be_typed(gan: Gan) -> None:
    field = build_field(next(c for c in FORMS[0].controls if c.key == "seed"), gan)
    assert field is not None
    setting, shown = field
    slider = shown.children[0]
    setting.value = 4_000_000_000
    assert slider.value == slider.max == 4_000_000_000
    slider.value = 5
    assert setting.value == 5
    setting.value = 2**32
    assert (slider.value, slider.max) == (5, 4_000_000_000)


def test_what_is_shown_is_the_picture_with_its_recipe(gan: Gan, tmp_path: Path) -> None:
    form = explore(gan)
    form.controls["seed"].value = 3
    form.controls["num"].value = 2
    in_widget = text_of(form).split('src="data:image/png;base64,')[1].split('"')[0]
    bundle, metadata = form._repr_mimebundle_()
    for encoded in (in_widget, bundle["image/png"]):
        (tmp_path / "shown.png").write_bytes(base64.b64decode(encoded))
        assert read_provenance(tmp_path / "shown.png") == form.provenance
        shown = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert shown.tobytes() == form.picture.tobytes()
    assert bundle["text/plain"] == "2 pictures of zero, 2 a row, by tiny"
    assert 'alt="2 pictures of zero, 2 a row, by tiny"' in text_of(form)
    assert metadata["image/png"]["width"] == form.picture.width * 128 // 16


def test_columns_are_headed(gan: Gan) -> None:
    assert "<span>zero</span>" in text_of(interpolate(gan))
    assert "<span>0.04</span>" in text_of(sweep(gan))


def test_names_of_classes_are_no_html() -> None:
    form = interpolate(make_gan(class_names=("<b>x</b>", '"><i>')))
    assert not {"<b>", "<i>"} & set(text_of(form).replace(">", ">\n").split("\n"))
    assert "<b>" not in text_of(form)
    assert '"><i>' not in text_of(form)


# Mistakes.


def test_a_wrong_seed_is_told_in_one_line_and_forgotten_when_mended(gan: Gan) -> None:
    form = explore(gan)
    form.controls["seed"].value = -5
    told = "noise seed must be between 0 and 4294967295, not -5"
    with pytest.raises(InputError, match=told):
        _ = form.picture
    with pytest.raises(InputError, match=told):
        form.save("never.png")
    assert f">{told}</p>" in text_of(form)
    bundle, _ = form._repr_mimebundle_()  # shown again, it is no traceback
    assert (bundle["text/plain"], "image/png" in bundle) == (told, False)
    form.controls["seed"].value = 5
    assert form.provenance == EXPLORE.plan(gan, seed=5)
    assert form._message.value == ""


def test_a_misspelt_category_is_told_with_the_nearest() -> None:
    form = explore(make_gan(class_names=imagenet_classes()))
    form.controls["num"].value = 1
    form.controls["category"].value = "golden retreiver"
    with pytest.raises(InputError, match="golden retriever"):
        _ = form.picture
    assert "no class is named &#x27;golden retreiver&#x27;" in form._message.value
    form.controls["category"].value = "golden retriever"
    assert form.provenance.pictures[0].class_index == 207


def test_a_failure_is_not_silent(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    form = explore(gan)

    def fail(*_: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(notebook.drawing, "draw_sheet", fail)
    form.controls["seed"].value = 1
    with pytest.raises(MemoryError, match="no room"):
        _ = form.picture
    assert "failed: MemoryError(&#x27;no room&#x27;)" in form._message.value


# Only the newest request is finished.


def test_a_move_ends_the_drawing_of_older_settings(
    gan: Gan, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = explore(gan)
    form.controls["num"].value = 2
    before = text_of(form)
    started, go_on = threading.Event(), threading.Event()
    drawn: list[int] = []

    def slowly(gan: Gan, recipe: Any) -> Iterator[Any]:
        for picture in draw_sheet(gan, recipe):
            started.set()
            assert go_on.wait(30)
            drawn.append(recipe.pictures[0].seed)
            yield picture

    monkeypatch.setattr(notebook.drawing, "draw_sheet", slowly)
    form.controls["seed"].value = 1
    assert started.wait(30)
    form.controls["seed"].value = 2
    form.controls["seed"].value = 3
    assert form._figure.value in before
    go_on.set()
    assert form.provenance.pictures[0].seed == 3
    assert set(drawn) == {1, 3}


# Files.


def test_the_button_writes_the_picture_with_its_recipe(
    gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    form = explore(gan)
    click(form, "Save PNG")
    (file,) = tmp_path.iterdir()
    assert file.name == "tiny-zero-hub0.4-seed0-10.png"
    assert f"Saved as {file.name}" in text_of(form)
    assert read_provenance(file) == form.provenance
    form.controls["seed"].value = -1
    click(form, "Save PNG")
    assert "noise seed" in text_of(form)
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_told(
    gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = explore(gan)
    with pytest.raises(InputError, match="missing"):
        form.save(tmp_path / "missing" / "a.png")
    (tmp_path / "tiny-zero-hub0.4-seed0-10.png").mkdir()
    monkeypatch.chdir(tmp_path)
    click(form, "Save PNG")
    assert 'role="alert"' in text_of(form)


@pytest.mark.parametrize("with_pyav", [True, False])
def test_the_video_is_shown_until_a_control_moves(
    gan: Gan, with_pyav: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if with_pyav:
        pytest.importorskip("av")
    else:
        monkeypatch.setattr(notebook.drawing, "video_endings", lambda: [".webp"])
    form = interpolate(gan)
    form.controls["seconds"].value = 1
    click(form, "Make the video")
    kind = "video/mp4" if with_pyav else "image/webp"
    assert f"data:{kind};base64," in text_of(form)
    assert form._progress.layout.display == "none"
    form.controls["seconds"].value = 2
    assert f"data:{kind};base64," in text_of(form)
    form.controls["seed_b"].value = 1
    assert kind not in text_of(form)


def test_a_video_too_large_for_a_notebook_is_refused(
    gan: Gan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "_MAX_VIDEO", 1000)
    form = interpolate(gan)
    form.controls["seconds"].value = 1
    click(form, "Make the video")
    assert "the video is too large for a notebook (0 MB): write it" in text_of(form)
    assert form.provenance == INTERPOLATE.plan(gan)


def test_a_video_of_wrong_settings_is_refused(gan: Gan, tmp_path: Path) -> None:
    form = interpolate(gan)
    form.controls["seed_a"].value = -1
    wait([form._job.future])
    form._message.value = ""
    click(form, "Make the video")
    assert "noise seed A must be between" in text_of(form)
    with pytest.raises(InputError, match="noise seed A must be between"):
        form.save_video(tmp_path / "a.gif")


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_save_video_writes_the_loop_with_its_recipe(gan: Gan, tmp_path: Path, ending: str) -> None:
    form = interpolate(gan)
    form.controls["seconds"].value = 1
    form.controls["seed_b"].value = 3
    path = form.save_video(tmp_path / f"paths{ending}")
    recipe = read_provenance(path)
    assert (recipe.frames, recipe.num, recipe.loop) == (20, 2, "there-and-back")
    assert [k.seed for k in recipe.keyframes] == [0, 3]
    with Image.open(path) as video:
        assert video.n_frames == 20
    with pytest.raises(InputError, match="the ending must be"):
        form.save_video(tmp_path / "paths.avi")


def test_without_ipywidgets_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.delitem(sys.modules, "biggan.demo.notebook")
    with pytest.raises(ModuleNotFoundError, match=r"need ipywidgets: pip install 'biggan\[noteb"):
        importlib.import_module("biggan.demo.notebook")
