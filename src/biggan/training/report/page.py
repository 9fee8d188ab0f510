"""The report as one HTML file that needs nothing else: sections, tables, figures, a style."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from biggan.training.report.charts import Chart
from biggan.training.report.drawing import as_svg
from biggan.training.report.palette import ALL


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: Its address within the page.
        title: Its heading.
        lead: What it is about, HTML.
        parts: Charts, which stand beside each other where there is room, and HTML between them.
    """

    anchor: str
    title: str
    lead: str = ""
    parts: Sequence[Chart | str] = field(default_factory=tuple)


def render(title: str, opening: str, sections: Sequence[Section]) -> str:
    """The whole page.

    Args:
        title: Of the page, plain text.
        opening: HTML under the title, before the table of contents.
        sections: In order; those without parts and lead are left out.
    """
    shown = [section for section in sections if section.parts or section.lead]
    contents = "".join(f"<li><a href='#{s.anchor}'>{html.escape(s.title)}</a></li>" for s in shown)
    charts = [part for section in shown for part in section.parts if isinstance(part, Chart)]
    bar = tqdm(charts, "drawing", unit="figure", leave=False, delay=2, disable=None)
    figures = iter([_figure(chart, number) for number, chart in enumerate(bar, start=1)])
    body = []
    for section in shown:
        body.append(f"<section id='{section.anchor}'><h2>{html.escape(section.title)}</h2>")
        body.append(f"<div class='lead'>{section.lead}</div>" if section.lead else "")
        open_grid = False
        for part in section.parts:
            if isinstance(part, Chart) != open_grid:
                body.append("</div>" if open_grid else "<div class='charts'>")
                open_grid = not open_grid
            if isinstance(part, Chart):
                body.append(next(figures))
            else:
                body.append(part)
        body.append("</div></section>" if open_grid else "</section>")
    return _PAGE.format(
        title=html.escape(title),
        light=_colors(0),
        dark=_colors(1),
        opening=opening,
        contents=f"<nav aria-label='Contents'><ul>{contents}</ul></nav>",
        body="\n".join(filter(None, body)),
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text; columns of numbers are better short, it scrolls where it is wide."""

    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    top = line(head, "th") if any(head) else ""
    body = "".join(line(row, "td") for row in rows)
    return f"<div class='wide'><table>{top}{body}</table></div>"


def details(summary: str, contents: str) -> str:
    """HTML that is folded away behind a line of plain text."""
    return f"<details><summary>{html.escape(summary)}</summary>{contents}</details>"


def paragraph(text: str) -> str:
    """Plain text as a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def picture(png: bytes, alt: str, caption: str, style: str = "") -> str:
    """A PNG within the page, with what it shows under it, both plain text."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return (
        f"<figure class='{style}'><img src='{source}' alt='{html.escape(alt)}'>"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _figure(chart: Chart, number: int) -> str:
    return (
        f"<figure><h3>{html.escape(chart.title)}</h3>{as_svg(chart, number)}"
        f"<figcaption>{html.escape(chart.caption)}</figcaption></figure>"
    )


def _colors(form: int) -> str:
    return " ".join(f"--{color.name}: {color[1 + form]};" for color in dict.fromkeys(ALL))


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} | biggan report</title>
<style>
:root {{ {light} --paper: #fff; --quiet: #57606a; --soft: #f4f6f8; --alarm: #fdecee; }}
@media (prefers-color-scheme: dark) {{
:root {{ {dark} --paper: #14181d; --quiet: #a3adb8; --soft: #1e242b; --alarm: #3b1a20; }} }}
* {{ box-sizing: border-box; }}
body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 66rem; margin: 0 auto;
  padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper); }}
h1 {{ margin: 0 0 0.6rem; line-height: 1.2; overflow-wrap: anywhere; }}
h2 {{ margin: 3rem 0 0.4rem; padding-top: 0.6rem; border-top: 1px solid var(--grid); }}
h3 {{ margin: 0 0 0.2rem; font-size: 1rem; }}
p {{ margin: 0.4rem 0; max-width: 46rem; }}
a {{ color: var(--real); }}
.lead, figcaption, .facts dt {{ color: var(--quiet); }}
figcaption {{ font-size: 0.875rem; line-height: 1.4; }}
.verdict {{ background: var(--soft); border-left: 4px solid var(--held-out); padding: 0.7rem 1rem;
  border-radius: 4px; }}
.verdict.alarm {{ background: var(--alarm); border-color: var(--collapse); }}
.verdict.warning {{ border-color: var(--intervention); }}
.verdict p {{ margin: 0.15rem 0; }}
.lost {{ color: var(--fake); }}
.facts {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr));
  gap: 0.8rem 1.2rem; margin: 1.2rem 0; }}
.facts dt {{ font-size: 0.8rem; }}
.facts dd {{ margin: 0; font-size: 1.05rem; font-weight: 600; overflow-wrap: anywhere; }}
nav ul {{ display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; list-style: none; padding: 0;
  margin: 1rem 0 0; }}
nav a {{ display: inline-block; padding: 0.2rem 0; }}
.charts {{ display: grid; gap: 1.8rem 2rem; margin: 1.2rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }}
.charts > * {{ min-width: 0; }}
svg {{ width: 100%; height: auto; display: block; overflow: visible; }}
svg * {{ stroke-linejoin: round; stroke-linecap: butt; }}
svg text {{ font-family: system-ui, sans-serif !important; }}
svg g:hover > path {{ stroke-width: 3 !important; }}
.ramp {{ height: 0.6rem; border-radius: 3px; max-width: 22rem; margin-top: 0.8rem; }}
.ends {{ display: flex; justify-content: space-between; max-width: 22rem; font-size: 0.8rem; }}
.wide {{ overflow-x: auto; margin: 0.8rem 0; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }}
td, th {{ padding: 0.25rem 1.2rem 0.25rem 0; text-align: left; vertical-align: top; }}
th {{ color: var(--quiet); font-weight: 600; white-space: nowrap; }}
tr {{ border-bottom: 1px solid var(--grid); }}
td:last-child {{ min-width: 8rem; }}
summary {{ cursor: pointer; padding: 0.4rem 0; color: var(--real); }}
.sheets {{ display: grid; gap: 1rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }}
figure {{ margin: 0; }}
img {{ width: 100%; display: block; image-rendering: pixelated; }}
.strips {{ max-width: 34rem; display: grid; gap: 0.5rem; margin: 1rem 0; }}
</style>
<header><h1>{title}</h1>
{opening}
{contents}</header>
<main>
{body}
</main>
</html>
"""
