"""The colours of the report's figures, each in a form for light and one for dark pages.

Figures are drawn with the light form. In the page, every such colour is replaced by the name of a
CSS variable, so that one drawing serves both.
"""

from __future__ import annotations

from typing import NamedTuple


class Color(NamedTuple):
    """A colour of the figures: its CSS variable and both forms, as #rrggbb."""

    name: str
    light: str
    dark: str


INK = Color("ink", "#1b1f24", "#e6e9ed")
GRID = Color("grid", "#d0d6dc", "#3a424b")
REAL = Color("real", "#0a66c2", "#6cb6ff")
FAKE = Color("fake", "#c4501b", "#ff9e64")
TRAINED = Color("trained", "#46698f", "#a3bdd6")
HELD_OUT = Color("held-out", "#1c7d3c", "#6bd08a")
OTHER = Color("other", "#7a3fb8", "#c7a0ff")
COLLAPSE = Color("collapse", "#c8102e", "#ff6b78")
ROLLBACK = Color("rollback", "#0b5563", "#56c8d8")
INTERVENTION = Color("intervention", "#8a6100", "#e5b94a")

SERIES = (REAL, FAKE, HELD_OUT, OTHER, ROLLBACK, INTERVENTION)
"""For curves that have no meaning of their own, in turn."""

_SHADES = 24
_LIGHT = ("#a80f2e", "#d9661a", "#a38a00", "#3d8f3a", "#14888f", "#2a62d4", "#6a2ab0")  # first ...
_DARK = ("#ff5c77", "#ff9d52", "#e3cc3b", "#7ad671", "#4fd0d6", "#7fa9ff", "#c48cff")  # ... last


def _between(anchors: tuple[str, ...], position: float) -> str:
    """The colour at a position in [0, 1] along some colours."""
    place = position * (len(anchors) - 1)
    i = min(int(place), len(anchors) - 2)
    ends = [[int(anchors[i + k][j : j + 2], 16) for j in (1, 3, 5)] for k in (0, 1)]
    parts = (round(a + (b - a) * (place - i)) for a, b in zip(*ends, strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


LAYERS = tuple(
    Color(f"layer-{i}", _between(_LIGHT, i / (_SHADES - 1)), _between(_DARK, i / (_SHADES - 1)))
    for i in range(_SHADES)
)
"""From a network's first layer to its last, red to violet as in the paper's Figures 3 and 4."""

ALL = (INK, GRID, *SERIES, COLLAPSE, *LAYERS)


def layer_color(index: int, layers: int) -> Color:
    """The colour of a layer, by its place among all."""
    return LAYERS[round(index * (_SHADES - 1) / max(1, layers - 1))]
