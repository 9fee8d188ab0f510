"""A run on one page: what it is, its curves, its evaluations, and its samples over time.

The page is one HTML file that needs nothing else. It is made of what the run's folder holds, at any
time, also while the run goes on or after it was killed: what is missing is left out and said so.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from biggan.atomic_write import write_atomically
from biggan.errors import InputError

_SHEETS = 6  # of samples, from the first to the newest
_SHEET_WIDTH = 480  # pixels at most

# Curves that are read together share a chart: title, what the numbers mean, names in the log.
_CHARTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Losses", "hinge losses of discriminator and generator", ("d_loss", "g_loss")),
    (
        "Discriminator",
        "mean output for real and generated images; above 0 means &ldquo;real&rdquo;",
        ("d_real", "d_fake"),
    ),
    (
        "Orthogonal regularization",
        "how far the generator's weights are from orthogonal, as it is penalized",
        ("orthogonal",),
    ),
    ("Speed", "generator updates a second", ("steps_per_second",)),
)
_SCORES = {
    "fid": "FID",
    "is": "Inception Score",
    "frechet_distance": "Frechet distance",
    "classifier_score": "classifier score",
}


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder tells.

    Attributes:
        name: The folder's name.
        recipe: The resolved recipe, flat: "table.key".
        curves: For each metric the steps and values that are finite.
        not_finite: Steps at which a metric was not finite.
        evaluations: The figures of each evaluated step, in order.
        sheets: Sample sheets, in order of their steps.
        missing: What could not be read, in words.
    """

    name: str
    recipe: dict[str, Any]
    curves: dict[str, tuple[list[int], list[float]]]
    not_finite: dict[str, list[int]]
    evaluations: list[dict[str, Any]]
    sheets: list[tuple[int, Path]]
    missing: list[str] = field(default_factory=list)


def read_run(run_dir: Path) -> RunRecord:
    """Read what a run has written of itself.

    Raises:
        InputError: There is no run here.
    """
    recipe_file, log_file = run_dir / "config.toml", run_dir / "metrics.jsonl"
    if not recipe_file.exists() and not log_file.exists():
        raise InputError(f"{run_dir} holds no run: it has neither config.toml nor metrics.jsonl")
    missing: list[str] = []
    recipe: dict[str, Any] = {}
    try:
        recipe = _flat(tomllib.loads(recipe_file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        missing.append("the recipe (config.toml)")
    curves, not_finite, damaged = _read_log(log_file)
    if not curves:
        missing.append("the curves (metrics.jsonl)")
    if damaged:
        missing.append(f"{damaged} damaged lines of metrics.jsonl")
    sheets = sorted(
        (int(path.stem.removeprefix("step-")), path)
        for path in (run_dir / "previews").glob("step-*.png")
        if path.stem.removeprefix("step-").isdecimal()
    )
    if not sheets:
        missing.append("sample sheets (previews)")
    evaluations = _read_evaluations(run_dir / "evaluations", missing)
    return RunRecord(
        run_dir.resolve().name, recipe, curves, not_finite, evaluations, sheets, missing
    )


def write_report(record: RunRecord, out: Path) -> None:
    """Write the page.

    Raises:
        InputError: Matplotlib is not installed, or the file cannot be written.
    """
    sections = [_header(record), _summary_of(record)]
    for title, meaning, names in _CHARTS:
        sections.append(_chart(record, title, meaning, names))
    charted = {name for _, _, names in _CHARTS for name in names}
    for name in record.curves:
        if name not in charted and not name.startswith("evaluation/"):
            sections.append(_chart(record, html.escape(name), "", (name,)))
    sections += [_evaluations(record), _sheets(record), _recipe(record)]
    page = _PAGE.format(name=html.escape(record.name), body="\n".join(filter(None, sections)))
    write_atomically(out, page.encode())


def _read_log(
    path: Path,
) -> tuple[dict[str, tuple[list[int], list[float]]], dict[str, list[int]], int]:
    """The curves of a log, the steps with values that are none, and how many lines are damaged."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    not_finite: dict[str, list[int]] = {}
    damaged = 0
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}, {}, 0
    for line in lines:
        try:
            values = json.loads(line)
            step = int(values.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):  # a kill cut the line short
            damaged += 1
            continue
        for name, value in values.items():
            if not isinstance(value, int | float):
                continue
            if math.isfinite(value):
                steps, numbers = curves.setdefault(name, ([], []))
                steps.append(step)
                numbers.append(float(value))
            else:
                not_finite.setdefault(name, []).append(step)
    return curves, not_finite, damaged


def _read_evaluations(folder: Path, missing: list[str]) -> list[dict[str, Any]]:
    evaluations = []
    for path in sorted(folder.glob("step-*.json")):
        try:
            evaluation = json.loads(path.read_text(encoding="utf-8"))
            evaluations.append(
                {
                    "step": int(path.stem.removeprefix("step-")),
                    "scores": dict(evaluation["rows"][0]["scores"]),
                    "extractor": str(evaluation["extractor"]["name"]),
                    "num": evaluation["protocol"]["num"],
                    "reference": str(evaluation["reference"]["name"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            missing.append(f"the evaluation {path.name}")
    return evaluations


def _header(record: RunRecord) -> str:
    lost = f"<p class='lost'>Missing: {html.escape('; '.join(record.missing))}.</p>"
    return f"<h1>{html.escape(record.name)}</h1>" + (lost if record.missing else "")


def _summary_of(record: RunRecord) -> str:
    """The facts that one asks for first."""
    steps = [steps[-1] for steps, _ in record.curves.values()]
    total = record.recipe.get("total_steps")
    facts = {
        "step": f"{max(steps)} of {total}" if steps and total else "",
        "data": Path(str(record.recipe.get("data", ""))).name,
        "resolution": record.recipe.get("generator.resolution", ""),
        "classes": record.recipe.get("generator.num_classes", ""),
        "batch size": record.recipe.get("batch_size", ""),
        "learning rates": " and ".join(
            f"{record.recipe[key]:g} ({network})"
            for key, network in (("optimizer.g_lr", "G"), ("optimizer.d_lr", "D"))
            if key in record.recipe
        ),
    }
    for name, at in record.not_finite.items():
        facts[f"{name} not finite"] = f"first at step {at[0]}"
    return _table(["", ""], [[name, str(value)] for name, value in facts.items() if value != ""])


def _chart(record: RunRecord, title: str, meaning: str, names: Sequence[str]) -> str:
    drawn = {name: record.curves[name] for name in names if name in record.curves}
    if not drawn:
        return ""
    marks = sorted({step for name in names for step in record.not_finite.get(name, ())})
    return f"<h2>{title}</h2><p>{meaning}</p>{_svg(drawn, marks)}"


def _svg(curves: Mapping[str, tuple[list[int], list[float]]], marks: Sequence[int] = ()) -> str:
    """A line chart over steps; vertical lines where values were not finite."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("the report needs Matplotlib: pip install 'biggan[evaluate]'") from None
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots()
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, label=name, linewidth=1.2, marker="." if len(steps) < 30 else "")
    for step in marks:
        axes.axvline(step, color="red", linewidth=0.8)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(fontsize=8)
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "biggan"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawing = text.getvalue()
    return drawing[drawing.index("<svg") :]


def _evaluations(record: RunRecord) -> str:
    if not record.evaluations:
        return ""
    first = record.evaluations[0]
    about = f"{first['num']} images against {first['reference']}, seen by {first['extractor']}"
    charts = []
    for name, title in _SCORES.items():
        points = [(e["step"], e["scores"][name]) for e in record.evaluations if name in e["scores"]]
        if points:
            steps, values = zip(*points, strict=True)
            charts.append(f"<h3>{title}</h3>{_svg({title: (list(steps), list(values))})}")
    names = list(first["scores"])
    rows = [
        [str(e["step"]), *(f"{e['scores'].get(name, math.nan):.4g}" for name in names)]
        for e in record.evaluations
    ]
    return (
        f"<h2>Evaluations</h2><p>{html.escape(about)}</p>{''.join(charts)}"
        f"{_table(['step', *(_SCORES.get(name, name) for name in names)], rows)}"
    )


def _sheets(record: RunRecord) -> str:
    if not record.sheets:
        return ""
    last = len(record.sheets) - 1
    count = min(_SHEETS, len(record.sheets))
    chosen = sorted({round(i * last / max(1, count - 1)) for i in range(count)})
    figures = []
    for i in chosen:
        step, path = record.sheets[i]
        source = _embedded(path)
        if source:
            figures.append(
                f"<figure><img src='{source}' alt='samples at step {step}'>"
                f"<figcaption>step {step}</figcaption></figure>"
            )
    return f"<h2>Samples</h2><p>A row per class.</p><div class='sheets'>{''.join(figures)}</div>"


def _embedded(path: Path) -> str:
    """A picture as the address that holds it; nothing where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.thumbnail((_SHEET_WIDTH, 4 * _SHEET_WIDTH))
            contents = io.BytesIO()
            image.convert("RGB").save(contents, format="PNG", optimize=True)
    except OSError:
        return ""
    return f"data:image/png;base64,{base64.b64encode(contents.getvalue()).decode()}"


def _recipe(record: RunRecord) -> str:
    if not record.recipe:
        return ""
    rows = [[key, str(value)] for key, value in record.recipe.items()]
    table = _table(["key", "value"], rows)
    return f"<details><summary>The whole recipe</summary>{table}</details>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    top = line(head, "th") if any(head) else ""
    return f"<table>{top}{''.join(line(row, 'td') for row in rows)}</table>"


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{member}": inner for member, inner in value.items()}
        else:
            flat[key] = value
    return flat


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{name} | biggan report</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f24; background: #fff; }}
h1 {{ margin-bottom: 0.3rem; }} h2 {{ margin-top: 2rem; }} p {{ margin: 0.2rem 0; color: #57606a; }}
svg {{ width: 100%; height: auto; background: #fff; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.6rem 0; }}
td, th {{ padding: 0.15rem 1rem 0.15rem 0; text-align: left; overflow-wrap: anywhere; }}
tr {{ border-bottom: 1px solid #d8dee4; }}
.lost {{ color: #9a3412; }}
.sheets {{ display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }}
figure {{ margin: 0; }} img {{ width: 100%; image-rendering: pixelated; }}
</style>
{body}
</html>
"""
