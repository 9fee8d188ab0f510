"""What happens on the page when something is touched.

Pictures depend on nothing but the settings, so every move of a control asks for the picture of the
settings as they then are, and what was asked for before ends with the picture at hand. Gradio could
cancel it, too, but in the browser, where a cancellation and the next request may cross each other
and neither be drawn. So the browser counts what it asks for, holds back all but the newest while
one is drawn, and tells the server the count; what finds that it is not the newest any more stops.

A few requests are drawn at once and take turns at the engine, a picture at a time: their visitors
see the first pictures of each soon, instead of all of one after all of another.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from biggan.demo.address import to_query
from biggan.demo.captions import caption, in_words
from biggan.demo.drawing import draw_pictures, draw_progressively, video_recipe
from biggan.demo.endpoints import publish
from biggan.demo.filming import write_video
from biggan.demo.forms import EXPLORE, INTERPOLATE, VIDEO, Control, Number
from biggan.demo.restoring import chosen, from_address, from_file
from biggan.demo.shelf import ModelShelf
from biggan.demo.style import ASK, CLAMP, SHOW_ADDRESS
from biggan.demo.views import (
    TURNS,
    Video,
    View,
    heading,
    offered,
    picture_style,
    places,
    saved,
    settings_of,
    told,
    video_inputs,
)

_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def connect(
    page: Any, shelf: ModelShelf, model: Any, card: Any, tabs: Any, views: list[View], video: Video
) -> None:
    """Set up all events of the page; to be called inside of it.

    Args:
        page: The `gradio.Blocks`.
        shelf: The models that it offers.
        model: The menu of models.
        card: What shows the model's card.
        tabs: The forms' tabs.
        views: The forms, in the order of the tabs.
        video: The video's widgets.
    """
    dropped = _drop_zone()
    place = gr.Textbox(EXPLORE.name, visible="hidden")  # the form that is seen
    address = gr.Textbox(visible="hidden")
    asked = gr.Number(0, visible="hidden")  # how often a picture was asked for
    newest = gr.State(Newest())
    controls = [control for view in views for control in view.controls]
    everything = [tabs, place, model, card, *controls]

    def note(newest: Newest, asked: float) -> None:
        newest.number = max(newest.number, int(asked))

    for view in views:
        script = f"() => '{view.form.name}'"
        view.tab.select(None, None, place, js=script, show_progress="hidden")
    moved = [control.change for control in [place, *controls]]
    gr.on(moved, None, asked, asked, js=ASK, show_progress="hidden")
    for event in (
        page.load(from_address(shelf, views), None, everything, **_QUIET),
        model.input(chosen(shelf, views), model, [card, *controls], **_QUIET),
        dropped.upload(from_file(shelf, views), [dropped, model], [*everything, dropped], **_QUIET),
    ):
        event.then(None, asked, asked, js=ASK, show_progress="hidden")
    asked.change(note, [newest, asked], None, queue=False, trigger_mode="multiple", **_QUIET)
    _draw_when_asked(shelf, model, place, address, (newest, asked), views, video)
    _film_on_click(shelf, model, (newest, asked), views, video)
    publish(shelf, model, views, video)


@dataclass
class Newest:
    """The newest request of one visitor."""

    number: int = 0

    def is_after(self, number: float) -> bool:
        """Whether there is a newer one than this."""
        return self.number > number


def _drop_zone() -> Any:
    return gr.File(
        label="Settings from a picture made here",
        height=110,
        elem_classes="drop",
        elem_id="drop",
    )


# What is drawn when a control moves.


def _draw_when_asked(
    shelf: ModelShelf,
    model: Any,
    place: Any,
    address: Any,
    count: tuple[Any, Any],
    views: list[View],
    video: Video,
) -> None:
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
        gan = offered(shelf, model)
        recipe = settings.recipe(gan)
        style = picture_style(view.form, gan)
        for picture, is_complete in draw_progressively(recipe, draw_pictures(gan, recipe)):
            if newest.is_after(asked):
                return
            if not is_complete:
                coarse = gr.update(value=picture, elem_classes=style, alt_text=in_words(recipe))
                yield [gr.skip(), *changed(view, gr.skip(), coarse, gr.skip())]
                continue
            file = saved(view.picture, picture, recipe)
            final = gr.update(value=file, elem_classes=style, alt_text=in_words(recipe))
            beside = heading(recipe), final, caption(gan, recipe, file.name, model)
            yield [to_query(model, settings), *changed(view, *beside)]

    def changed(view: View, *widgets: Any) -> list[Any]:
        """Updates of all forms' widgets and of the video, which is of other settings now."""
        updates = [w for v in views for w in (widgets if v is view else [gr.skip()] * 3)]
        for _ in video.outputs:  # not one object for all: Gradio takes the value out of it
            clear = view.form is INTERPOLATE
            updates.append(gr.update(value=None, visible=False) if clear else gr.skip())
        return updates

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
        **TURNS,
    )
    event.success(None, address, None, js=SHOW_ADDRESS, show_progress="hidden")


def _film_on_click(
    shelf: ModelShelf, model: Any, count: tuple[Any, Any], views: list[View], video: Video
) -> None:
    def film(
        newest: Newest,
        asked: float,
        model: str,
        *values: Any,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # that is how Gradio knows
    ) -> Iterator[list[Any]]:
        """A video, once it is made; until then an empty frame, in which Gradio shows how far."""
        gan = offered(shelf, model)
        recipe = video_recipe(gan, *values)
        files = places(video, recipe)
        yield [gr.update(value=None, visible=True), gr.skip(), gr.skip()]
        with contextlib.closing(write_video(gan, recipe, files)) as making:
            for done in making:
                if newest.is_after(asked):
                    return
                progress((done, recipe.frames), unit="frames")
                yield [gr.skip()] * 3  # where Gradio ends it for a visitor who has gone
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
        **TURNS,
    )


def _bounds(controls: Sequence[Control | None]) -> str:
    """For `CLAMP`: the least and the largest value of every number, and whether it is whole."""
    bounds = [
        [control.low, control.largest, control.is_whole] if isinstance(control, Number) else None
        for control in controls
    ]
    return json.dumps(bounds)
