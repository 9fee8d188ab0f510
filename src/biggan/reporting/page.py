"""The parts of the page, and its template."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from tqdm import tqdm

from biggan.reporting.charts import LAYERS, Chart, as_svg


class Table(NamedTuple):
    """A table of plain text; the template folds away all but the first rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Folded(NamedTuple):
    """A part that is folded away behind a line of text."""

    summary: str
    part: Table | str


class Pictures(NamedTuple):
    """PNG files with captions: strips of one model under its name, or sample sheets without."""

    title: str
    items: Sequence[tuple[bytes, str]]


Part = Chart | Table | Folded | Pictures | str
"""A string is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A part of the page with an address of its own; without parts it is left out."""

    anchor: str
    title: str
    parts: list[Part] = field(default_factory=list)

    @property
    def groups(self) -> list[tuple[bool, list[Part]]]:
        """The parts, those together that stand beside each other."""
        runs = groupby(self.parts, lambda p: isinstance(p, Chart | Pictures) and p.title != "")
        return [(beside, list(parts)) for beside, parts in runs]


def render(sections: Sequence[Section], **values: object) -> str:
    """The page as HTML; the other values are what the template shows above the sections."""
    environment = Environment(
        loader=PackageLoader("biggan", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    shown = [section for section in sections if section.parts]
    charts = [part for section in shown for part in section.parts if isinstance(part, Chart)]
    bar = tqdm(charts, "drawing", unit="figure", leave=False, delay=2, disable=None)
    svgs = {chart.name: as_svg(chart, number) for number, chart in enumerate(bar, start=1)}
    return environment.get_template("page.html").render(
        sections=shown,
        kind=lambda part: type(part).__name__,
        svgs=svgs,
        base64=lambda png: base64.b64encode(png).decode(),
        layers=LAYERS,
        **values,
    )
