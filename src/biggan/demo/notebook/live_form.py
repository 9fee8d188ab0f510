"""A form in a notebook: its controls, and a picture that follows them."""

from __future__ import annotations

import base64
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets
from PIL import Image

from biggan.demo.address import Settings
from biggan.demo.captions import in_words
from biggan.demo.drawing import SheetRecipe, draw_pictures, draw_progressively
from biggan.demo.forms import Form
from biggan.demo.notebook.background import NewestWork
from biggan.demo.notebook.figures import alert, figure, grid_width, note, shown_width
from biggan.demo.notebook.widgets import build_field
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.images import save_png, to_png
from biggan.provenance import file_stem


class LiveForm:
    """A form and its picture, which follows the controls.

    Where widgets cannot be shown, as in a notebook on a web site, the picture is.

    Args:
        gan: What makes the pictures.
        form: Which.

    Attributes:
        controls: Widgets by the keys of the API: to assign `controls["seed"].value` is what moving
            the slider does. There are none for categories if the model is unconditional.
    """

    def __init__(self, gan: Gan, form: Form) -> None:
        self.controls: dict[str, Any] = {}
        self._gan = gan
        self._form = form
        self._work = NewestWork(self._failed)
        self._made: tuple[SheetRecipe, Image.Image] | Exception | None = None
        self._message = ipywidgets.HTML()
        self._figure = ipywidgets.HTML()
        self._fields: list[Any] = []
        for control in form.controls:
            field = build_field(control, gan)
            if field is not None:
                self.controls[control.key] = field.setting
                self._fields.append(field.shown)
                field.setting.observe(self._moved, "value")
        self._moved()

    @property
    def picture(self) -> Image.Image:
        """The picture of the settings as they are; waits until it is made.

        Raises:
            InputError: A control says what the form does not take.
        """
        return self._finished()[1]

    @property
    def recipe(self) -> SheetRecipe:
        """What makes `picture`.

        Raises:
            InputError: As `picture`.
        """
        return self._finished()[0]

    def save(self, path: str | Path) -> Path:
        """Write the picture as a PNG with its recipe inside.

        Args:
            path: The file; its folder must exist. An older file is replaced.

        Returns:
            The same path.

        Raises:
            InputError: As `picture`, or the file cannot be written.
        """
        recipe, picture = self._finished()
        save_png(picture, Path(path), recipe)
        return Path(path)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What Jupyter shows: the widgets, or the picture alone where there are none."""
        data = self._layout()._repr_mimebundle_()
        try:
            recipe, picture = self._finished()
        except InputError as error:
            return {**data, "text/plain": str(error)}, {}
        data["image/png"] = base64.b64encode(to_png(picture, recipe)).decode()
        data["text/plain"] = in_words(recipe)
        return data, {"image/png": {"width": shown_width(self._gan, picture)}}

    def _layout(self) -> Any:
        save = ipywidgets.Button(description="Save PNG", icon="download")
        save.on_click(self._save_clicked)
        controls = ipywidgets.VBox([*self._fields, save], layout={"max_width": "100%"})
        # Beside the controls if a row of five pictures has room there, else below them.
        room = {"flex": f"1 1 {grid_width(self._gan)}px", "min_width": "0", "max_width": "100%"}
        shown = ipywidgets.VBox([self._message, *self._outputs()], layout=room)
        return ipywidgets.HBox([controls, shown], layout={"flex_flow": "row wrap"})

    def _outputs(self) -> list[Any]:
        return [self._figure]

    def _moved(self, _: Any = None) -> None:
        settings = Settings(self._form, self._values(self._form))
        self._work.start(partial(self._draw, settings))

    def _values(self, form: Form) -> dict[str, Any]:
        keys = [control.key for control in form.controls]
        return {key: self.controls[key].value for key in keys if key in self.controls}

    def _draw(self, settings: Settings) -> Generator[None, None, None]:
        self._made = None
        recipe = settings.recipe(self._gan)
        for picture, _ in draw_progressively(recipe, draw_pictures(self._gan, recipe)):
            yield
            self._figure.value = figure(self._gan, recipe, picture)
        self._made = recipe, picture
        self._message.value = ""

    def _failed(self, error: Exception) -> None:
        if self._made is None:
            self._made = error
        is_mistake = isinstance(error, InputError)
        self._message.value = alert(str(error) if is_mistake else f"failed: {error!r}")

    def _finished(self) -> tuple[SheetRecipe, Image.Image]:
        self._work.wait()
        if isinstance(self._made, Exception):
            raise self._made
        assert self._made is not None, "what was asked for last is never called off"
        return self._made

    def _save_clicked(self, _: Any) -> None:
        try:
            recipe, _picture = self._finished()
            path = self.save(f"{file_stem(recipe)}.png")
        except InputError as error:
            self._message.value = alert(str(error))
        else:
            self._message.value = note(f"Saved as {path}")
