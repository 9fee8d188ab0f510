"""What happens on the page when something is touched.

Pictures depend on nothing but the settings, so every move of a control asks for the picture of the
settings as they then are, and what was asked for before ends with the picture at hand. Gradio could
cancel it, too, but in the browser, where a cancellation and the next request may cross each other
and neither be drawn. So the browser counts what it asks for, holds back all but the newest while
one is drawn, and tells the server the count; what finds that it is not the newest any more stops.

All of this waits in the request queue (`line`), together with the requests of programs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from biggan.demo.address import Settings, to_query
from biggan.demo.captions import caption, in_words
from biggan.demo.drawing import SheetRecipe, draw_png, unfinished, video_recipe
from biggan.demo.endpoints import publish
from biggan.demo.forms import EXPLORE, INTERPOLATE, VIDEO, Control, Number
from biggan.demo.line import Line
from biggan.demo.restoring import chosen, from_address, from_file
from biggan.demo.shelf import ModelShelf
from biggan.demo.style import ASK, CLAMP, KEEP, RECALL, SHOW_ADDRESS
from biggan.demo.views import (
    PICTURES,
    VIDEOS,
    Video,
    View,
    filmed,
    heading,
    offered,
    picture_style,
    places,
    progress_of,
    reused,
    saved,
    settings_of,
    told,
    video_inputs,
)
from biggan.provenance import file_stem

_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def connect(
    page: Any,
    shelf: ModelShelf,
    line: Line,
    model: Any,
    card: Any,
    tabs: Any,
    views: list[View],
    video: Video,
    *,
    show_paths: bool,
) -> None:
    """Set up all events of the page; to be called inside of it.

    Args:
        page: The `gradio.Blocks`.
        shelf: The models that it offers.
        line: Where requests wait.
        model: The menu of models.
        card: What shows the model's card.
        tabs: The forms' tabs.
        views: The forms, in the order of the tabs.
        video: The video's widgets.
        show_paths: See `build_page`.
    """
    dropped = _drop_zone()
    place = gr.Textbox(EXPLORE.name, visible="hidden")  # the form that is seen
    address = gr.Textbox(visible="hidden")
    asked = gr.Number(0, visible="hidden")  # how often a picture was asked for
    newest = gr.State(Newest())
    kept = gr.Textbox(visible="hidden")  # settings, by the browser's history
    controls = [control for view in views for control in view.controls]
    everything = [tabs, place, model, card, *controls, video.seconds]

    def note(newest: Newest, asked: float) -> None:
        newest.number = max(newest.number, int(asked))

    for view in views:
        script = f"() => '{view.form.name}'"
        view.tab.select(None, None, place, js=script, show_progress="hidden")
    moved = [control.change for control in [place, *controls]]
    gr.on(moved, None, asked, asked, js=ASK, show_progress="hidden")
    settings = [*controls, video.seconds]
    gr.on([c.change for c in settings], None, settings, None, js=KEEP, show_progress="hidden")
    for event in (
        page.load(from_address(shelf, views), kept, everything, js=RECALL, **_QUIET),
        model.input(chosen(shelf, views), model, [card, *controls], **_QUIET),
        dropped.upload(from_file(shelf, views), [dropped, model], [*everything, dropped], **_QUIET),
    ):
        event.then(None, asked, asked, js=ASK, show_progress="hidden")
    asked.change(note, [newest, asked], None, queue=False, trigger_mode="multiple", **_QUIET)
    draw = _drawing(shelf, line, views, video, show_paths=show_paths)
    _draw_when_asked(draw, model, place, address, (newest, asked), views, video)
    _film_on_click(shelf, line, model, (newest, asked), views, video)
    publish(shelf, line, model, views, video)


@dataclass
class Newest:
    """The newest request of one visitor."""

    number: int = 0

    def is_after(self, number: float) -> bool:
        """Whether there is a newer one than this."""
        return self.number > number


def _drop_zone() -> Any:
    return gr.File(
        label="Settings from a picture or video made here",
        height=110,
        elem_classes="drop",
        elem_id="drop",
    )


# What is drawn when a control moves.


def _drawing(
    shelf: ModelShelf, line: Line, views: list[View], video: Video, *, show_paths: bool
) -> Callable[..., Iterator[list[Any]]]:
    def draw(
        place: str, newest: Newest, asked: float, model: str, *values: Any
    ) -> Iterator[list[Any]]:
        """The picture of the form that is seen, coarse at first.

        Yields:
            The address, then heading, picture and caption of each form, then the video; what stays
            as it is is skipped.
        """
        view = next((view for view in views if view.form.name == place), views[0])
        first = sum(len(other.controls) for other in views[: views.index(view)])
        settings = settings_of(view.form, values[first : first + len(view.controls)])
        recipe, looks, below = planned(settings, model)
        shown = 0
        with line.join((model, recipe), partial(draw_png, shelf, model, recipe)) as job:
            for done in progress_of(job):
                if newest.is_after(asked):
                    return
                if len(done) > shown:
                    shown = len(done)
                    coarse = gr.update(value=unfinished(done, recipe), **looks)
                    yield [gr.skip(), *changed(view, gr.skip(), coarse, gr.skip())]
            png = job.future.result()
        final = gr.update(value=saved(view.picture, png, recipe), **looks)
        yield [to_query(model, settings), *changed(view, heading(recipe), final, below)]

    def planned(settings: Settings, model: str) -> tuple[SheetRecipe, dict[str, Any], str]:
        """A picture's recipe, how it is shown, and its caption."""
        gan = offered(shelf, model)  # not kept while the picture waits
        recipe = settings.recipe(gan)
        looks = {
            "elem_classes": picture_style(settings.form, gan),
            "alt_text": in_words(recipe),
        }
        in_shell = shelf.in_shell(model, with_paths=show_paths)
        return recipe, looks, caption(gan, recipe, f"{file_stem(recipe)}.png", in_shell)

    def changed(view: View, *widgets: Any) -> list[Any]:
        """Updates of all forms' widgets and of the video, which is of other settings now."""
        updates = [w for v in views for w in (widgets if v is view else [gr.skip()] * 3)]
        for _ in video.outputs:  # not one object for all: Gradio takes the value out of it
            clear = view.form is INTERPOLATE
            updates.append(gr.update(value=None, visible=False) if clear else gr.skip())
        return updates

    return draw


def _draw_when_asked(
    draw: Callable[..., Iterator[list[Any]]],
    model: Any,
    place: Any,
    address: Any,
    count: tuple[Any, Any],
    views: list[View],
    video: Video,
) -> None:
    pictures = [w for view in views for w in (view.heading, view.picture, view.caption)]
    event = count[1].change(
        told(draw),
        [place, *count, model, *(control for view in views for control in view.controls)],
        [address, *pictures, *video.outputs],
        js=CLAMP % _bounds([None] * 4 + [*(c for view in views for c in view.form.controls)]),
        preprocess=False,  # the checks of `forms` name the setting; Gradio's do not
        trigger_mode="always_last",
        show_progress="minimal",
        show_progress_on=[view.picture for view in views],
        api_visibility="private",
        **PICTURES,
    )
    event.success(None, address, None, js=SHOW_ADDRESS, show_progress="hidden")


def _film_on_click(
    shelf: ModelShelf,
    line: Line,
    model: Any,
    count: tuple[Any, Any],
    views: list[View],
    video: Video,
) -> None:
    def film(
        newest: Newest,
        asked: float,
        model: str,
        *values: Any,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # that is how Gradio knows
    ) -> Iterator[list[Any]]:
        """A video, once it is made; until then an empty frame, in which Gradio shows how far."""
        recipe = video_recipe(offered(shelf, model), *values)
        files = places(video, recipe)
        yield [gr.update(value=None, visible=True), gr.skip(), gr.skip()]
        if not reused(*files):
            make = partial(filmed, shelf, model, recipe, files)
            with line.join((model, recipe), make, is_video=True) as job:
                for done in progress_of(job):
                    if newest.is_after(asked):
                        return
                    progress((max(done, default=0), recipe.frames), unit="frames")
                job.future.result()
        shown = [gr.update(value=file, visible=True) for file in (files[0], *files)]
        yield [*shown, gr.skip()][:3]

    video.button.click(
        told(film),
        [*count, model, *video_inputs(views, video)],
        video.outputs,
        js=CLAMP % _bounds([None] * 3 + [*VIDEO.controls]),
        preprocess=False,
        show_progress_on=video.preview,
        api_visibility="private",
        **VIDEOS,
    )


def _bounds(controls: Sequence[Control | None]) -> str:
    """For `CLAMP`: the least and the largest value of every number, and whether it is whole."""
    bounds = [
        [control.low, control.largest, control.is_whole] if isinstance(control, Number) else None
        for control in controls
    ]
    return json.dumps(bounds)
