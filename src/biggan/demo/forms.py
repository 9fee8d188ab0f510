"""The demo's forms: what each lets one set, with the ranges and defaults of DeepMind's notebook.

The page, its address, its API and the notebook are all built from these tables, so that they use
the same words and accept the same values. Each control's `key` is its name in the API, and its
explanation is the one of the option in `biggan sample --help` and `biggan interpolate --help`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from biggan.classes import class_choices, resolve_class
from biggan.errors import InputError
from biggan.latents import check_seed, check_truncation

FormName = Literal["explore", "interpolate", "sweep"]

MOST_SEED = 2**32 - 1
FPS = 20
"""Pictures a second of a video: the default of `biggan interpolate --fps`."""

_SHOWN = 60  # characters of a wrong value that a message repeats
_LONGEST_TEXT = 1000  # characters of a category; ImageNet's longest has 121


@dataclass(frozen=True)
class Number:
    """A control for a number.

    Attributes:
        key: Its name in the API and in addresses.
        label: What it is called on the page.
        low: The least value.
        high: The largest of the slider.
        step: Between two of the slider's values; whole numbers only if it is whole.
        default: The notebook's value.
        info: One sentence for the user.
        most: The largest that may be typed on the page, if that is more than `high`.
        rule: Refuses what the library refuses, if programs may give more than the page.
    """

    key: str
    label: str
    low: float
    high: float
    step: float
    default: float
    info: str = ""
    most: float | None = None
    rule: Callable[[Any], None] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers make sense."""
        return isinstance(self.step, int)

    @property
    def largest(self) -> float:
        """The largest value on the page."""
        return self.high if self.most is None else self.most

    def check(self, value: Any) -> float:
        """A value of the right kind, in the range.

        Raises:
            InputError: It is another.
        """
        number = _number(self._name, value)
        if self.is_whole and not number.is_integer():
            raise InputError(f"{self._name} must be a whole number, not {shown(value)}")
        if self.rule is None:
            self._check_range(number)
        else:
            self.rule(int(number) if self.is_whole else number)
        return int(number) if self.is_whole else number

    def check_on_page(self, value: Any) -> float:
        """A value that the page's control can show.

        Raises:
            InputError: It is another.
        """
        number = self.check(value)
        self._check_range(number)
        return number

    def parse(self, text: str) -> float | str:
        """The value in an address, or the text where that is no number."""
        try:
            return float(text) if len(text) <= _LONGEST_TEXT else text
        except ValueError:
            return text

    @property
    def _name(self) -> str:
        return f"{self.label[0].lower()}{self.label[1:]}"

    def _check_range(self, number: float) -> None:
        if not self.low <= number <= self.largest:
            raise InputError(
                f"{self._name} must be between {self.low:g} and {_plain(self.largest)}, "
                f"not {_plain(number)}"
            )


@dataclass(frozen=True)
class Category:
    """A control for one of the model's classes.

    Attributes:
        key: Its name in the API and in addresses.
        label: What it is called on the page.
        wanted: The notebook's class.
        fallback: The index of the class to begin with where the model has no such class.
    """

    key: str
    label: str
    wanted: str
    fallback: int

    def check(self, value: Any) -> str | None:
        """A class by name or index, as `biggan.classes.resolve_class` takes it; None for none.

        Raises:
            InputError: It is no text, or too long for a name.
        """
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"a category must be a name or an index, not {shown(value)}")
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise InputError(f"no category has a name of {len(value)} characters")
        return shown(value) if isinstance(value, int) else value

    def check_on_page(self, value: Any) -> str | None:
        """See `check`; whether the model has the class is for the model to say."""
        return self.check(value)

    def parse(self, text: str) -> str:
        """The value in an address."""
        return text


@dataclass(frozen=True)
class Choice:
    """A control for one of a few words.

    Attributes:
        key: Its name in the API and in addresses.
        label: What it is called on the page.
        choices: Each word with its explanation.
        default: The word to begin with.
        info: One sentence for the user.
    """

    key: str
    label: str
    choices: tuple[tuple[str, str], ...]
    default: str
    info: str = ""

    def check(self, value: Any) -> str:
        """One of the words.

        Raises:
            InputError: It is another.
        """
        words = [word for word, _ in self.choices]
        if value not in words:
            raise InputError(f"{self.key} must be {' or '.join(words)} here, not {shown(value)}")
        return str(value)

    def check_on_page(self, value: Any) -> str:
        """See `check`."""
        return self.check(value)

    def parse(self, text: str) -> str:
        """The value in an address."""
        return text


Control = Number | Category | Choice


@dataclass(frozen=True)
class Form:
    """One tab of the page.

    Attributes:
        name: In addresses.
        title: Of the tab.
        controls: In the order of the API's parameters.
    """

    name: FormName
    title: str
    controls: tuple[Control, ...]

    def __getitem__(self, key: str) -> Control:
        """The control of this key."""
        return next(control for control in self.controls if control.key == key)


SWEPT: dict[str, tuple[float, ...]] = {
    "paper": (2.0, 1.5, 1.0, 0.5, 0.04),  # Figure 2, the largest first
    "hub": (1.0, 0.8, 0.6, 0.4, 0.2, 0.02),
}
"""The truncations of a sweep, for each meaning of truncation."""

_TRUNCATION_INFO = "Small for typical pictures, 1 for varied ones."
_SEED_INFO = "The same seed, the same pictures. Any whole number may be typed."


def _seed(key: str, label: str, info: str) -> Number:
    return Number(key, label, 0, 100, 1, 0, info, most=MOST_SEED, rule=check_seed)


def _truncation(default: float) -> Number:
    return Number(
        "truncation", "Truncation", 0.02, 1, 0.02, default, _TRUNCATION_INFO, rule=check_truncation
    )


EXPLORE = Form(
    "explore",
    "Explore a category",
    (
        Number("num", "Number of samples", 1, 20, 1, 10),
        _truncation(0.4),
        _seed("seed", "Noise seed", _SEED_INFO),
        Category("category", "Category", "cheeseburger", 0),
    ),
)

_PATHS = Number("num", "Number of samples", 1, 5, 1, 2, "Paths, one a row.")
_ENDS: tuple[Control, ...] = (
    _truncation(0.2),
    _seed("seed_a", "Noise seed A", "Seed of the noise at the start."),
    _seed("seed_b", "Noise seed B", "Seed of the noise at the end."),
    Category("category_a", "Category A", "golden retriever", 0),
    Category("category_b", "Category B", "hen", -1),
)

INTERPOLATE = Form(
    "interpolate",
    "Interpolate",
    (_PATHS, Number("steps", "Number of steps", 2, 10, 1, 5, "Pictures on each path."), *_ENDS),
)

SECONDS = Number("seconds", "Seconds", 1, 10, 1, 4, "Length of the video, from A to B and back.")

VIDEO = Form("interpolate", "Video", (_PATHS, SECONDS, *_ENDS))
"""What `/video` takes. On the page it is a part of the tab "Interpolate"."""

MAKE_VIDEO = "Make the video"
"""What the button below that form says."""

SWEEP = Form(
    "sweep",
    "Truncation sweep",
    (
        Number("num", "Number of samples", 1, 5, 1, 2, "One a row."),
        _seed("seed", "Noise seed", _SEED_INFO),
        Choice(
            "noise",
            "What truncation means",
            (
                ("paper", "Paper: noise beyond it is drawn again"),
                ("hub", "TF Hub: noise is cut at 2, then scaled by it"),
            ),
            "paper",
        ),
        Category("category", "Category", "cheeseburger", 0),
    ),
)

FORMS = (EXPLORE, INTERPOLATE, SWEEP)


def default_class(class_names: Sequence[str], wanted: str, fallback: int) -> str:
    """The entry with which a category menu starts.

    Args:
        class_names: The model's classes, at least one.
        wanted: The notebook's choice.
        fallback: Index of the class to take where the model has no such class.
    """
    try:
        index = resolve_class(wanted, class_names)
    except InputError:
        index = fallback
    return class_choices(class_names)[index]


def shown(value: Any) -> str:
    """A wrong value as a message repeats it."""
    text = repr(value[:_SHOWN] if isinstance(value, str | list) else value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}..."


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name} must be a number, not {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise InputError(f"{name} is too large") from None
    if not math.isfinite(number):
        raise InputError(f"{name} must be a number, not {shown(value)}")
    return number


def _plain(number: float) -> str:
    return f"{number:.15g}"
