"""What the page's controls say, as a part of its address and out of a picture.

    /?form=explore&model=digits&num=10&truncation=0.4&seed=0&category=3%29+three

An address names one form, the model, and the form's settings by the names of the API, so that a
link shows the picture that its sender saw. The recipe in a PNG says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from biggan.classes import class_choices
from biggan.demo.drawing import (
    SheetRecipe,
    interpolation_recipe,
    sample_recipe,
    sweep_recipe,
    video_recipe,
)
from biggan.demo.forms import (
    EXPLORE,
    FORMS,
    INTERPOLATE,
    SWEEP,
    SWEPT,
    VIDEO,
    Category,
    Control,
    Form,
    default_class,
    shown,
)
from biggan.errors import InputError, printable
from biggan.gan import Gan
from biggan.provenance import (
    GridProvenance,
    MorphProvenance,
    PngProvenance,
    Provenance,
    VideoProvenance,
)


@dataclass(frozen=True)
class Settings:
    """What the controls of one form say.

    Attributes:
        form: Which.
        values: By the controls' keys; those that are missing keep their defaults.
    """

    form: Form
    values: Mapping[str, Any]

    def recipe(self, gan: Gan) -> SheetRecipe:
        """The recipe of their picture.

        Raises:
            InputError: A value out of range or of another kind.
        """
        values = [self.values.get(control.key) for control in self.form.controls]
        if self.form is INTERPOLATE:
            return interpolation_recipe(gan, *values)
        return sweep_recipe(gan, *values) if self.form is SWEEP else sample_recipe(gan, *values)

    def with_defaults(self, gan: Gan) -> Settings:
        """The same, with the page's defaults for the controls that are missing."""
        defaults = {control.key: default_value(control, gan) for control in self.form.controls}
        return Settings(self.form, {**defaults, **self.values})


def default_value(control: Control, gan: Gan) -> Any:
    """The page's default of a control; None for the category of an unconditional model."""
    if not isinstance(control, Category):
        return control.default
    names = gan.class_names
    return default_class(names, control.wanted, control.fallback) if names else None


def to_query(model: str, settings: Settings) -> str:
    """The address's part after the question mark.

    Args:
        model: As the server calls it.
        settings: Of the form that is seen.
    """
    given = {key: value for key, value in settings.values.items() if value is not None}
    return urlencode({"form": settings.form.name, "model": model, **given})


def from_query(query: Mapping[str, str]) -> Settings:
    """Read an address. Names that it does not know are let pass: others may add their own.

    Args:
        query: Its names and values, unquoted; none of them is needed.

    Raises:
        InputError: No such form, or a value that its control cannot show.
    """
    name = query.get("form", EXPLORE.name)
    form = next((form for form in FORMS if form.name == name), None)
    if form is None:
        raise InputError(
            f"the address names the form {shown(name)}; there are "
            f"{', '.join(form.name for form in FORMS)}"
        )
    given = [control for control in form.controls if control.key in query]
    values = {c.key: c.check_on_page(c.parse(query[c.key])) for c in given}
    return Settings(form, values)


def from_recipe(gan: Gan, recipe: PngProvenance | VideoProvenance) -> Settings:
    """Find the settings that make a picture or a video.

    Args:
        gan: The model of which it should be.
        recipe: Of a picture, a grid, a grid of paths, or a video, made here or by the shell
            commands.

    Returns:
        Settings of one of `FORMS`; of a video those of the form `VIDEO`.

    Raises:
        InputError: It is of another model, or one that no form makes.
    """
    sheet = GridProvenance(1, (recipe,)) if isinstance(recipe, Provenance) else recipe
    _check_model(gan, sheet)
    kind = "video" if isinstance(sheet, VideoProvenance) else "picture"
    try:
        settings = _settings_of(gan, sheet)
        values = [c.check_on_page(settings.values[c.key]) for c in settings.form.controls]
        made = video_recipe(gan, *values) if kind == "video" else settings.recipe(gan)
    except InputError as error:
        raise InputError(f"the page cannot show this {kind}: {error}") from None
    if isinstance(recipe, Provenance) and isinstance(made, GridProvenance):
        made = GridProvenance(1, made.pictures[-1:])  # the last of those that the page will show
    if _essence(made) != _essence(sheet):
        verb = "sample" if isinstance(sheet, GridProvenance) else "interpolate"
        raise InputError(
            f"no form of the page makes this {kind}; biggan {verb} --like FILE makes it again"
        )
    return settings


def _check_model(gan: Gan, recipe: SheetRecipe | VideoProvenance) -> None:
    """Make sure that a recipe is of this model, to the last bit of its weights.

    Raises:
        InputError: It is another's.
    """
    made_by = recipe.pictures[0] if isinstance(recipe, GridProvenance) else recipe
    if made_by.sha256 != gan.sha256:
        raise InputError(
            f"the picture was made by {printable(made_by.model[:100])} "
            f"(sha256 {printable(made_by.sha256[:12])}...), not by "
            f"{gan.name} ({gan.sha256[:12]}...); open the page with that model"
        )


def _settings_of(gan: Gan, recipe: SheetRecipe | VideoProvenance) -> Settings:
    if isinstance(recipe, VideoProvenance):
        return _of_video(gan, recipe)
    return _of_morph(gan, recipe) if isinstance(recipe, MorphProvenance) else _of_grid(gan, recipe)


def _of_video(gan: Gan, recipe: VideoProvenance) -> Settings:
    a, b = recipe.keyframes[0], recipe.keyframes[-1]
    return Settings(
        VIDEO,
        {
            "num": recipe.num,
            "seconds": recipe.frames / recipe.fps,
            "truncation": recipe.truncation,
            "seed_a": a.seed,
            "seed_b": b.seed,
            "category_a": _entry(gan, a.class_index),
            "category_b": _entry(gan, b.class_index),
        },
    )


def _of_morph(gan: Gan, recipe: MorphProvenance) -> Settings:
    return Settings(
        INTERPOLATE,
        {
            "num": recipe.num,
            "steps": recipe.steps,
            "truncation": recipe.truncation,
            "seed_a": recipe.seed_a,
            "seed_b": recipe.seed_b,
            "category_a": _entry(gan, recipe.class_a),
            "category_b": _entry(gan, recipe.class_b),
        },
    )


def _of_grid(gan: Gan, recipe: GridProvenance) -> Settings:
    first, last = recipe.pictures[0], recipe.pictures[-1]
    common = {"seed": first.seed, "category": _entry(gan, first.class_index)}
    row = tuple(picture.truncation for picture in recipe.pictures[: recipe.columns])
    if row == SWEPT.get(first.noise):
        rows = len(recipe.pictures) // recipe.columns
        return Settings(SWEEP, {"num": rows, "noise": first.noise, **common})
    values = {"num": last.index + 1, "truncation": first.truncation, **common}
    return Settings(EXPLORE, values)


def _entry(gan: Gan, index: int | None) -> str | None:
    """The menu's entry of a class."""
    if index is None:
        return None
    choices = class_choices(gan.class_names)
    if not 0 <= index < len(choices):
        raise InputError(f"the picture's class {index} is none of {gan.name}")
    return choices[index]


def _essence(recipe: SheetRecipe | VideoProvenance) -> Any:
    """All of a recipe that its pixels depend on: not what the model and the version are called."""
    if isinstance(recipe, GridProvenance):
        return recipe.columns, [replace(p, model="", version="") for p in recipe.pictures]
    return replace(recipe, model="", version="")
