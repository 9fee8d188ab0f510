"""The page's settings from elsewhere: its address, a picture, another model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from biggan.classes import class_choices
from biggan.demo.address import from_query, from_recipe
from biggan.demo.card import model_card
from biggan.demo.forms import FORMS, INTERPOLATE, SECONDS, Category, Form, FormName, Number
from biggan.demo.shelf import ModelShelf
from biggan.demo.views import View, menu, message_on_page, offered, told
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.provenance import GridProvenance, read_provenance

# Of a dropped file: 50 pictures of 1024 pixels a side, the most that a form makes, and what their
# recipes take many times over. A file of a few KiB can say that it has a thousand times as much.
_MOST_PIXELS = 2**26
_LONGEST_RECIPE = 2**20


def chosen(shelf: ModelShelf, views: list[View]) -> Callable[..., Any]:
    """What handles the choice of a model; for its card and all controls."""

    def choose(model: str) -> list[Any]:
        """Another model: its card, and menus of its categories."""
        gan = offered(shelf, model)
        updates = [
            gr.update(**menu(control, gan)) if isinstance(control, Category) else gr.skip()
            for view in views
            for control in view.form.controls
        ]
        return [model_card(gan), *updates]

    return told(choose)


def from_address(shelf: ModelShelf, views: list[View]) -> Callable[..., Any]:
    """What handles the opening of the page; for what `_restored` restores."""

    def follow(kept: str, request: gr.Request) -> list[Any]:
        """What the address says of one form, and what the browser kept of the others.

        Nothing new where they say nothing, or what cannot be.
        """
        query = dict(request.query_params)
        known = {"form", "model", *(c.key for v in views for c in v.form.controls)}
        try:
            model = query.get("model", shelf.names[0])
            gan = offered(shelf, model)
            values = _kept_values(kept, gan)
            settings = from_query(query)
            if query.keys() & known:
                settings = settings.with_defaults(gan)
                settings.recipe(gan)  # refuses a category that the model has not
            elif not values:
                return _unchanged(views)
            form = settings.form
            values[form.name] = {**values.get(form.name, {}), **settings.values}
        except InputError as error:
            gr.Warning(f"The address cannot be followed: {message_on_page(error)}")
            return _unchanged(views)
        return _restored(model, gan, form, values, views, menus=model != shelf.names[0])

    return follow


def from_file(shelf: ModelShelf, views: list[View]) -> Callable[..., Any]:
    """What handles a file that is dropped; for what `_restored` restores, and the file, cleared."""

    def restore(dropped: str, model: str) -> list[Any]:
        """What the recipe in a file says; nothing new where it has none, or another model's."""
        path = Path(dropped)
        try:
            recipe = read_provenance(path, _MOST_PIXELS, _LONGEST_RECIPE)
            made_by = recipe.pictures[0] if isinstance(recipe, GridProvenance) else recipe
            named = [n for n in shelf.names if made_by.model in (n, Path(n).stem)]
            shown = offered(shelf, model).class_names
            for name in (model, *named):  # and no others: to look into a model is to load it
                if offered(shelf, name).sha256 == made_by.sha256:
                    model = name
            gan = offered(shelf, model)
            settings = from_recipe(gan, recipe)
            values = {settings.form.name: settings.values}
            menus = gan.class_names != shown
            return [*_restored(model, gan, settings.form, values, views, menus=menus), None]
        except InputError as error:
            text = str(error).replace(str(path), path.name)  # not where the server has it
            gr.Warning(message_on_page(InputError(text)))
            return [*_unchanged(views), None]

    return restore


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _unchanged(views: list[View]) -> list[Any]:
    return [gr.skip()] * (5 + sum(len(view.controls) for view in views))


def _kept_values(text: str, gan: Gan) -> dict[FormName, Mapping[str, Any]]:
    """What `KEEP` kept of all forms, without what this model's page cannot show."""
    try:
        given = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    controls = [(form, control) for form in FORMS for control in form.controls]
    controls.append((INTERPOLATE, SECONDS))
    if not isinstance(given, list) or len(given) != len(controls):
        return {}
    values: dict[FormName, dict[str, Any]] = {form.name: {} for form in FORMS}
    for (form, control), value in zip(controls, given, strict=True):
        with contextlib.suppress(InputError):
            checked = control.check_on_page(value)
            if isinstance(checked, str) and isinstance(control, Category):
                gan.class_index(checked)
            values[form.name][control.key] = checked
    return dict(values)


def _restored(
    model: str,
    gan: Gan,
    form: Form,
    values: Mapping[FormName, Mapping[str, Any]],
    views: list[View],
    *,
    menus: bool,
) -> list[Any]:
    """Updates of the tabs, the form's name, the model, its card, all controls, and the seconds.

    Args:
        model: As the server calls it.
        gan: The model.
        form: The form to be seen.
        values: Of the controls of some forms; those that are not here stay as they are.
        views: The forms' widgets.
        menus: Whether the page shows the categories of a model with others.
    """
    controls = [(view.form, control) for view in views for control in view.form.controls]
    updates = []
    for of, control in [*controls, (INTERPOLATE, SECONDS)]:
        update = menu(control, gan) if menus and isinstance(control, Category) else {}
        value = values.get(of.name, {}).get(control.key)
        if value is not None:
            if isinstance(control, Number):
                update["maximum"] = max(control.high, value)
            if isinstance(control, Category):
                value = class_choices(gan.class_names)[gan.class_index(value)]
            update["value"] = value
        updates.append(gr.update(**update) if update else gr.skip())
    return [gr.Tabs(selected=form.name), form.name, model, model_card(gan), *updates]
