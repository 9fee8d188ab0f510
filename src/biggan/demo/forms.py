"""The forms of the demo: their controls, what their settings mean, and settings of old pictures.

The page, its address, both of its APIs and the notebook are built from `FORMS`, with the ranges and
defaults of DeepMind's notebook. A new control or tab is an entry here; what it changes in an image
is part of the image's provenance.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import numpy as np
import torch

from biggan.classes import class_choices, is_imagenet, resolve_class
from biggan.directions import bundled_directions, default_directions, plan_moved
from biggan.errors import InputError, printable, quoted
from biggan.gan import Gan
from biggan.interpolation import frames_of_seconds
from biggan.provenance import (
    AnyProvenance,
    GridProvenance,
    LatentGridProvenance,
    LatentProvenance,
    MorphProvenance,
    Provenance,
    VideoProvenance,
    as_grid,
)

SheetProvenance = GridProvenance | LatentGridProvenance | MorphProvenance
"""The provenance of a picture that the demo shows: always of a grid, be it one by one."""

SWEPT: dict[str, tuple[float, ...]] = {
    "paper": (2.0, 1.5, 1.0, 0.5, 0.04),  # Figure 2, the largest first
    "hub": (1.0, 0.8, 0.6, 0.4, 0.2, 0.02),
}
"""The truncations of a sweep, for each meaning of truncation."""

MOVES = tuple(f"direction_{number}" for number in range(6))
"""The keys of the controls of directions."""

FPS = 20
"""Of videos: the default of `biggan interpolate --fps`."""

# Of ImageNet's classes, for the gallery: animals, things, food and landscapes.
_WELL_KNOWN = (
    *(1, 8, 22, 88, 130, 145, 207, 250, 281, 291, 292, 296, 323, 340, 388, 417, 555, 817, 829),
    *(928, 933, 949, 963, 970, 973, 978, 980, 985),
)
_MOST_SHOWN = 40  # classes in the gallery

_COLUMNS = 5  # of the grid of samples, at most: as `biggan sample --grid`
_MAX_SEED = 2**32 - 1
# What `plan_moved` names.
_MOVE = r"-(\d)([+-]\d+(?:\.\d+)?(?:e-\d+)?)"
_MOVED = re.compile(rf"-seed(\d{{1,10}})-0000((?:{_MOVE})*)\Z")
_CLOSE = 1e-4  # noise and class vectors that differ by rounding
_MAX_NAME = 1000  # characters of a category; ImageNet's longest has 121


@dataclass(frozen=True)
class Number:
    """A control for a number; for whole numbers only if `step` is an int."""

    key: str  # its name in the APIs and in addresses, as of every control
    label: str
    low: float
    high: float  # where its slider ends
    step: float
    default: float
    info: str = ""
    most: float = -math.inf  # the largest that may be typed, if that is more

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers make sense."""
        return isinstance(self.step, int)

    @property
    def largest(self) -> float:
        """The largest value."""
        return max(self.high, self.most)

    def nearest(self, value: Any) -> Any:
        """The nearest number in the range to one that is half typed."""
        if value is not None and not isinstance(value, int | float):
            return value
        near = min(max(value or 0, self.low), self.largest)
        return round(near) if self.is_whole and near == near else near

    def check(self, value: Any) -> float:
        """The value, or the number that a text is; InputError if it is not in the range."""
        name = f"{self.label[0].lower()}{self.label[1:]}"
        try:
            number = float(str(value))  # also refuses True and False
        except ValueError:
            raise InputError(f"{name} must be a number, not {quoted(value)}") from None
        if self.is_whole and not number.is_integer():
            raise InputError(f"{name} must be a whole number, not {quoted(value)}")
        if not self.low <= number <= self.largest:
            raise InputError(
                f"{name} must be between {self.low:g} and {self.largest:.15g}, not {number:.15g}"
            )
        return int(number) if self.is_whole else number


@dataclass(frozen=True)
class Category:
    """A control for one of the model's classes."""

    key: str
    label: str
    wanted: str  # the notebook's class
    fallback: int  # the index of the class to begin with where the model has no such class
    info: str = "A name or an index."

    def check(self, value: Any) -> str | int | None:
        """A name or an index, of a class that the model may lack; InputError if it is neither."""
        if isinstance(value, str) and len(value) > _MAX_NAME:
            raise InputError(f"no category has a name of {len(value)} characters")
        if isinstance(value, bool) or not isinstance(value, str | int | None):
            raise InputError(f"a category must be a name or an index, not {quoted(value)}")
        return value


@dataclass(frozen=True)
class Choice:
    """A control for one of a few words, each with its explanation."""

    key: str
    label: str
    choices: tuple[tuple[str, str], ...]
    default: str
    info: str = ""

    def check(self, value: Any) -> str:
        """One of the words; InputError if it is another."""
        words = [word for word, _ in self.choices]
        if value not in words:
            raise InputError(f"{self.key} must be {' or '.join(words)} here, not {quoted(value)}")
        return str(value)


Control = Number | Category | Choice


def default_value(control: Control, class_names: Sequence[str]) -> Any:
    """The value that a control begins with; None for the category of an unconditional model."""
    if not isinstance(control, Category):
        return control.default
    if not class_names:
        return None
    try:
        index = resolve_class(control.wanted, class_names)
    except InputError:
        index = control.fallback
    return class_choices(class_names)[index]


def label_of(control: Control, gan: Gan) -> str:
    """What a control is called: a direction by its name, if the model comes with one."""
    found = bundled_directions(gan) if control.key in MOVES else None
    for key, name in zip(MOVES, found.names if found else (), strict=False):
        if key == control.key and name:
            return f"{MOVES.index(key)}: {name}"
    return control.label


@dataclass(frozen=True)
class Form:
    """One tab of the page, and one endpoint of each API."""

    name: str  # in addresses
    title: str  # of the tab
    endpoint: str  # in the APIs
    summary: str  # of the endpoint
    controls: tuple[Control, ...]  # in the order of the endpoint's parameters
    make: Callable[..., Any]  # from a model and a checked value of each control to a provenance
    provenance: type  # of what `make` makes
    label: str = ""  # of the picture
    video: Form | None = None  # which belongs to the tab, and may add controls to it

    @property
    def all_controls(self) -> tuple[Control, ...]:
        """Those of the tab, which may have a video."""
        return tuple(dict.fromkeys(self.controls + (self.video.controls if self.video else ())))

    def complete(self, gan: Gan, values: Mapping[str, Any]) -> dict[str, Any]:
        """A checked value of every control, or its default where it is missing."""
        return {
            c.key: c.check(values[c.key]) if c.key in values else default_value(c, gan.class_names)
            for c in self.controls
        }

    def plan(self, gan: Gan, **values: Any) -> Any:
        """The provenance of the picture or video of some settings, by the controls' keys.

        Raises:
            InputError: A value out of range or of another kind, or the model lacks a category.
        """
        return self.make(gan, **self.complete(gan, values))


def _samples(gan: Gan, category: Any, num: int, **settings: Any) -> GridProvenance:
    pictures = gan.plan([category], num, **settings)
    return GridProvenance(min(num, _COLUMNS), tuple(pictures))


def _paths(gan: Gan, category_a: Any, category_b: Any, **settings: Any) -> MorphProvenance:
    return gan.plan_morph(category_a, category_b, **settings)


def _video(gan: Gan, num: int, seconds: int, truncation: float, **ends: Any) -> VideoProvenance:
    keyframes = [(ends[f"category_{end}"], ends[f"seed_{end}"]) for end in "ab"]
    frames = frames_of_seconds(seconds, FPS, "there-and-back")
    return gan.plan_video(keyframes, frames, FPS, num, truncation)


def _sweep(gan: Gan, category: Any, num: int, seed: int, noise: Any) -> GridProvenance:
    columns = [gan.plan([category], num, t, seed, noise=noise) for t in SWEPT[noise]]
    rows = zip(*columns, strict=True)
    return GridProvenance(len(columns), tuple(picture for row in rows for picture in row))


def _directions(
    gan: Gan, category: Any, truncation: float, seed: int, **amounts: float
) -> LatentGridProvenance:
    pictures = gan.plan([category], 1, truncation, seed)
    moved: dict[int | str, float] = {MOVES.index(key): a for key, a in amounts.items() if a}
    before = plan_moved(gan, pictures, [])
    after = plan_moved(gan, pictures, [(default_directions(gan), moved)])
    return LatentGridProvenance(2, (*before, *after))


_TRUNCATION = Number(
    *("truncation", "Truncation", 0.02, 1, 0.02, 0.4),
    "Low: typical, clean pictures. High: more variety, more failures.",
)
_SEED = Number(
    *("seed", "Noise seed", 0, 100, 1, 0),
    "The same seed gives the same pictures. Any whole number may be typed.",
    most=_MAX_SEED,
)
_CHEESEBURGER = Category("category", "Category", "cheeseburger", 0)
_PATHS = Number("num", "Number of samples", 1, 5, 1, 2, "Paths, one a row.")
_ENDS: tuple[Control, ...] = (
    replace(_TRUNCATION, default=0.2),
    replace(_SEED, key="seed_a", label="Noise seed A", info="Seed of the noise at the start."),
    replace(_SEED, key="seed_b", label="Noise seed B", info="Seed of the noise at the end."),
    Category("category_a", "Category A", "golden retriever", 0),
    Category("category_b", "Category B", "hen", -1),
)

EXPLORE = Form(
    "explore",
    "Explore a category",
    "sample",
    "Samples of one category, at most five a row.",
    (Number("num", "Number of samples", 1, 20, 1, 10), _TRUNCATION, _SEED, _CHEESEBURGER),
    _samples,
    GridProvenance,
    label="Samples",
)

VIDEO = Form(
    "interpolate",
    "Video",
    "video",
    "The paths of /interpolate as a looping video, there and back: a WebP and an MP4. The second "
    "is null where the server cannot write MP4.",
    (
        _PATHS,
        Number("seconds", "Seconds", 1, 10, 1, 4, "Length of the video, from A to B and back."),
        *_ENDS,
    ),
    _video,
    VideoProvenance,
)

INTERPOLATE = Form(
    "interpolate",
    "Interpolate",
    "interpolate",
    "Paths from category A to category B, one a row.",
    (_PATHS, Number("steps", "Number of steps", 2, 10, 1, 5, "Pictures on each path."), *_ENDS),
    _paths,
    MorphProvenance,
    label="Interpolations",
    video=VIDEO,
)

SWEEP = Form(
    "sweep",
    "Truncation sweep",
    "sweep",
    "The same samples over truncations, the largest first: the paper's Figure 2.",
    (
        Number("num", "Number of samples", 1, 5, 1, 2, "One a row."),
        _SEED,
        Choice(
            "noise",
            "What truncation means",
            (
                ("paper", "Paper: noise beyond it is drawn again"),
                ("hub", "TF Hub: noise is cut at 2, then scaled by it"),
            ),
            "paper",
        ),
        _CHEESEBURGER,
    ),
    _sweep,
    GridProvenance,
    label="Sweep",
)

DIRECTIONS = Form(
    "directions",
    "Directions",
    "directions",
    "A sample before and after its noise is moved along the model's strongest directions.",
    (
        replace(_TRUNCATION, default=0.5),
        _SEED,
        _CHEESEBURGER,
        *(Number(key, f"Direction {k}", -4, 4, 0.1, 0) for k, key in enumerate(MOVES)),
    ),
    _directions,
    LatentGridProvenance,
    label="Before and after",
)

FORMS = (EXPLORE, INTERPOLATE, SWEEP, DIRECTIONS)


# Addresses: /?form=explore&model=digits&num=10&truncation=0.4&seed=0&category=3%29+three


def to_query(model: str, form: Form, values: Mapping[str, Any]) -> str:
    """The part of an address after its question mark."""
    given = {c.key: values[c.key] for c in form.controls if values.get(c.key) is not None}
    return urlencode({"form": form.name, "model": model, **given})


def from_query(query: Mapping[str, str], gan: Gan) -> tuple[Form, dict[str, Any], list[InputError]]:
    """The form and the settings of an address, without what is wrong in it, which comes third.

    Nothing is needed, and other names are ignored.
    """
    known, name = {form.name: form for form in FORMS}, query.get("form", EXPLORE.name)
    settings: dict[str, Any] = {}
    faults = []
    if name not in known:
        faults.append(InputError(f"no form is called {quoted(name)}; there are {', '.join(known)}"))
    form = known.get(name, EXPLORE)
    for control in form.controls:
        if control.key in query:
            try:
                value: Any = control.check(query[control.key])
                if isinstance(control, Category):
                    gan.class_index(value)
                settings[control.key] = value
            except InputError as error:
                faults.append(error)
    return form, settings, faults


def draw_lots(form: Form, class_names: Sequence[str]) -> dict[str, Any]:
    """A category and a seed at random for each control that takes one."""
    chosen: dict[str, Any] = {}
    for control in form.controls:
        if isinstance(control, Category) and class_names:
            chosen[control.key] = random.choice(class_choices(class_names))  # noqa: S311
        elif isinstance(control, Number) and control.most == _MAX_SEED:
            chosen[control.key] = random.randint(int(control.low), int(control.high))  # noqa: S311
    return chosen


def plan_gallery(gan: Gan) -> list[Provenance]:
    """A picture of each of some classes, all of them if there are few; none without classes."""
    num = len(gan.class_names)
    some = range(0, num, max(1, math.ceil(num / _MOST_SHOWN)))
    indices = _WELL_KNOWN if is_imagenet(gan.class_names) else some
    return gan.plan(indices, 1, truncation=0.4, seed=0)


def find_settings(gan: Gan, made: AnyProvenance) -> tuple[Form, dict[str, Any]]:
    """The form, which may be `VIDEO`, and the settings that make a picture or a video.

    Raises:
        InputError: It is of another model than `gan`, or one that no form makes.
    """
    sheet = as_grid(1, [made]) if isinstance(made, Provenance | LatentProvenance) else made
    maker = sheet.pictures[0] if isinstance(sheet, GridProvenance) else sheet
    if maker.sha256 != gan.sha256:
        raise InputError(
            f"the picture was made by {printable(maker.model[:100])} "
            f"(sha256 {printable(maker.sha256[:12])}...), not by "
            f"{gan.name} ({gan.sha256[:12]}...); open the page with that model"
        )
    kind = "video" if isinstance(sheet, VideoProvenance) else "picture"
    verb = "sample" if isinstance(sheet, GridProvenance | LatentGridProvenance) else "interpolate"
    reason = ""
    for form in (SWEEP, EXPLORE, INTERPOLATE, VIDEO, DIRECTIONS):
        if not isinstance(sheet, form.provenance):
            continue
        try:
            values = form.complete(gan, settings_of(gan, sheet))
            again = form.make(gan, **values)
        except InputError as error:
            reason = f"the page cannot show this {kind}: {error}"
            continue
        # A single picture is the last of those that will be shown.
        if isinstance(made, Provenance):
            again = GridProvenance(1, again.pictures[-1:])
        if isinstance(made, LatentProvenance):
            again = LatentGridProvenance(1, again.latents[-1:])
        (settings, numbers), (settings_again, numbers_again) = (
            _what_decides_pixels(sheet),
            _what_decides_pixels(again),
        )
        if settings == settings_again and np.allclose(numbers, numbers_again, atol=_CLOSE):
            return form, values
        reason = f"no tab of the page shows this {kind}; use biggan {verb} --like FILE"
    raise InputError(reason)


def settings_of(gan: Gan, sheet: SheetProvenance | VideoProvenance) -> dict[str, Any]:
    """What a provenance says of the controls of any form, by their keys.

    Raises:
        InputError: The model lacks its class, or it is of latents that no form makes.
    """

    def entry(index: int | None) -> str | None:
        if index is not None and not 0 <= index < len(gan.class_names):
            raise InputError(f"the picture's class {index} is not a class of {gan.name}")
        return None if index is None else class_choices(gan.class_names)[index]

    if isinstance(sheet, GridProvenance):
        first, last = sheet.pictures[0], sheet.pictures[-1]
        return {**vars(first), "num": last.index + 1, "category": entry(first.class_index)}
    if isinstance(sheet, LatentGridProvenance):
        latents = sheet.latents[-1]
        named, width, index = _MOVED.search(latents.name), gan.config.embedding_dim, None
        if not named or len(latents.class_vector) != width:
            raise InputError("it is made from latents; use biggan sample --like FILE")
        if gan.class_names:  # the nearest
            known = gan.embed(torch.arange(len(gan.class_names)))
            distances = (known - torch.tensor(latents.class_vector)).norm(dim=1)
            index = int(distances.argmin())
        moves = re.findall(_MOVE, named[2])
        moved = {f"direction_{number}": float(amount) for number, amount in moves}
        about = {"truncation": latents.truncation, "seed": int(named[1])}
        return {**about, **moved, "category": entry(index)}
    if isinstance(sheet, MorphProvenance):
        found, (class_a, class_b) = {}, (sheet.class_a, sheet.class_b)
    else:
        a, b = sheet.keyframes[0], sheet.keyframes[-1]
        found = {"seconds": sheet.frames / sheet.fps, "seed_a": a.seed, "seed_b": b.seed}
        class_a, class_b = a.class_index, b.class_index
    return {**vars(sheet), **found, "category_a": entry(class_a), "category_b": entry(class_b)}


def _what_decides_pixels(made: SheetProvenance | VideoProvenance) -> tuple[Any, list[float]]:
    """What must be equal for equal pixels, and numbers that may differ by rounding."""
    if isinstance(made, LatentGridProvenance):
        shapes = [(p.truncation, len(p.z), len(p.class_vector)) for p in made.latents]
        return (made.columns, shapes), [n for p in made.latents for n in p.z + p.class_vector]
    if isinstance(made, GridProvenance):
        return (made.columns, [replace(p, model="", version="") for p in made.pictures]), []
    return replace(made, model="", version=""), []
