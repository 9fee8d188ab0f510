"""The page's settings from elsewhere: its address, a picture, another model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from biggan.demo.address import Settings, from_query, from_recipe
from biggan.demo.card import model_card
from biggan.demo.forms import Category, Number
from biggan.demo.shelf import ModelShelf
from biggan.demo.views import View, menu, message_on_page, offered, told
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.images import GridRecipe, read_recipe

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

    def follow(request: gr.Request) -> list[Any]:
        """What the page's address says; nothing new where it says nothing, or what cannot be."""
        query = dict(request.query_params)
        if not query.keys() & {"form", "model", *(c.key for v in views for c in v.form.controls)}:
            return _unchanged(views)
        try:
            model = query.get("model", shelf.names[0])
            gan = offered(shelf, model)
            settings = _with_defaults(from_query(query), gan)
            settings.recipe(gan)  # refuses a category that the model has not
        except InputError as error:
            gr.Warning(f"The address cannot be followed: {message_on_page(error)}")
            return _unchanged(views)
        return _restored(model, gan, settings, views)

    return follow


def from_file(shelf: ModelShelf, views: list[View]) -> Callable[..., Any]:
    """What handles a file that is dropped; for what `_restored` restores, and the file, cleared."""

    def restore(dropped: str, model: str) -> list[Any]:
        """What the recipe in a picture says; nothing new where it has none, or another model's."""
        path = Path(dropped)
        try:
            recipe = read_recipe(path, _MOST_PIXELS, _LONGEST_RECIPE)
            made_by = recipe.pictures[0] if isinstance(recipe, GridRecipe) else recipe
            named = [n for n in shelf.names if made_by.model in (n, Path(n).stem)]
            for name in (model, *named):  # and no others: to look into a model is to load it
                if offered(shelf, name).sha256 == made_by.sha256:
                    model = name
            gan = offered(shelf, model)
            return [*_restored(model, gan, from_recipe(gan, recipe), views), None]
        except InputError as error:
            text = str(error).replace(str(path), path.name)  # not where the server has it
            gr.Warning(message_on_page(InputError(text)))
            return [*_unchanged(views), None]

    return restore


def _unchanged(views: list[View]) -> list[Any]:
    return [gr.skip()] * (4 + sum(len(view.controls) for view in views))


def _with_defaults(settings: Settings, gan: Gan) -> Settings:
    defaults = {
        control.key: menu(control, gan)["value"]
        if isinstance(control, Category)
        else control.default
        for control in settings.form.controls
    }
    return Settings(settings.form, {**defaults, **settings.values})


def _restored(model: str, gan: Gan, settings: Settings, views: list[View]) -> list[Any]:
    """Updates of the tabs, the form's name, the model, its card, and all controls."""
    updates = []
    for view in views:
        for control in view.form.controls:
            update = menu(control, gan) if isinstance(control, Category) else {}
            if view.form is settings.form:
                value = settings.values[control.key]
                if isinstance(control, Number):
                    update["maximum"] = max(control.high, value)
                if isinstance(control, Category) and value is not None:
                    value = update["choices"][gan.class_index(value)]
                update["value"] = value
            updates.append(gr.update(**update))
    name = settings.form.name
    return [gr.Tabs(selected=name), name, model, model_card(gan), *updates]
