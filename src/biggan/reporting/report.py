"""The report of a run: what is computed of it, put into the template; its figures as files."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from tqdm import tqdm

from biggan.atomic_write import make_folder, write_atomically
from biggan.errors import InputError, printable
from biggan.reporting import spikes
from biggan.reporting.charts import LAYERS, Chart, as_png, as_svg
from biggan.reporting.figures import MARKED, UNKNOWN_CHARTS, all_figures, layer_columns
from biggan.reporting.run import NETWORKS, SCORES, Run
from biggan.reporting.spikes import bursts_of
from biggan.reporting.truncation import AMENABLE
from biggan.weights.files import RUN_REAL_PREVIEW
from biggan.weights.load import load_class_names

_SHEETS = 6  # of samples, from the first to the newest
_SHEET_ROWS = 10  # classes on a sheet
_SHEET_WIDTH = 480  # pixels at most


def write_report(run: Run, out: Path, others: Sequence[Run] = ()) -> None:
    """Write the page of a run, compared with others."""
    loader, strict = PackageLoader("biggan", "reporting"), StrictUndefined
    trimmed: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=loader, autoescape=True, undefined=strict, **trimmed)
    environment.filters["short"] = short
    runs = named([run, *others])
    figures = all_figures(run, runs)
    svgs = {chart.name: as_svg(chart, number) for number, chart in enumerate(_bar(figures), 1)}
    bursts = [(burst, letter) for n, letter in NETWORKS.items() for burst in bursts_of(run, n)]
    page = environment.get_template("page.html").render(
        run=run,
        data=Path(short(run.recipe.get("data", ""))).name,
        marked=MARKED,
        bursts=sorted(bursts, key=lambda pair: pair[0].last),
        spikes=spikes,
        first_classes=_first_classes(run),
        beside=_beside(run),
        sheets=_sheets(run),
        scores={name: SCORES.get(name, name) for e in run.evaluations for name in e.scores},
        layers_of={network: layer_columns(run, network) for network in NETWORKS},
        spikes_of={network: spikes.spikes_of(run, network)[0] for network in NETWORKS},
        sweeps={name: run.sweep for name, run in runs.items() if run.sweep},
        amenable=AMENABLE,
        runs=runs,
        differences=_differences(runs),
        unknown_charts=UNKNOWN_CHARTS,
        figures=figures,
        svgs=svgs,
        layers=LAYERS,
    )
    write_atomically(out, page.encode(errors="replace"))


def write_figures(run: Run, folder: Path, others: Sequence[Run] = ()) -> list[Path]:
    """Write the page's figures as PNG files; returns their paths."""
    make_folder(folder)
    written = []
    for chart in _bar(all_figures(run, named([run, *others]))):
        written.append(folder / f"{chart.name}.png")
        write_atomically(written[-1], as_png(chart))
    return written


def _bar(figures: Mapping[str, Sequence[Chart]]) -> Iterable[Chart]:
    """All charts, with a progress bar."""
    charts = [chart for section in figures.values() for chart in section]
    return tqdm(charts, "drawing", unit="figure", leave=False, delay=2, disable=None)


def named(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their names, with a number behind those that are not unique."""
    names = [run.name for run in runs]
    return {
        run.name if names.count(run.name) == 1 else f"{run.name} ({i})": run
        for i, run in enumerate(runs, start=1)
    }


def _beside(run: Run) -> list[tuple[str, str]]:
    """Training images and the newest generated ones, with captions."""
    if not run.sheets or not (real := _picture(run.folder / RUN_REAL_PREVIEW)):
        return []
    step, newest = run.sheets[-1]
    return [(real, "training images"), (_picture(newest), f"generated at step {step}")]


def _sheets(run: Run) -> list[tuple[str, str]]:
    """Sample sheets from the first to the newest, with captions."""
    chosen = np.linspace(0, len(run.sheets) - 1, min(_SHEETS, len(run.sheets))).round()
    sheets = [run.sheets[int(i)] for i in chosen]
    return [(png, f"step {step}") for step, path in sheets if (png := _picture(path))]


def _first_classes(run: Run) -> list[str]:
    """The names of the classes on a sheet; none without a generator."""
    with contextlib.suppress(InputError):
        return [printable(n.split(",")[0]) for n in load_class_names(run.folder)[1][:_SHEET_ROWS]]
    return []


def _differences(runs: Mapping[str, Run]) -> list[list[str]]:
    """The keys in which recipes differ, with their values."""
    recipes = [run.recipe for run in runs.values()]
    names = dict.fromkeys(name for recipe in recipes for name in recipe)
    rows = [[n, *(short(r[n]) if n in r else "not there" for r in recipes)] for n in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _picture(path: Path) -> str:
    """A picture as PNG in base64, at most as wide as it is shown; empty if it cannot be read."""
    try:
        with Image.open(path) as image:
            image.thumbnail((_SHEET_WIDTH, 4 * _SHEET_WIDTH))
            contents = io.BytesIO()
            image.convert("RGB").save(contents, format="PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    return base64.b64encode(contents.getvalue()).decode()


def short(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    try:
        return str(value)
    except (ValueError, RecursionError):  # thousands of digits, or of levels
        return "..."
