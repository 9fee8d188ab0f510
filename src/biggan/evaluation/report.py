"""An evaluation for people: a table, a spreadsheet and a plot."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.evaluation.result import Evaluation

_HEADINGS = {
    "fid": "FID",
    "is": "IS",
    "kid": "KID",
    "cas": "CAS",
    "intra_fid": "intra-class FID",
    "frechet_distance": "Frechet distance",
    "classifier_score": "classifier score",
    "kernel_distance": "kernel distance",
    "intra_class_frechet_distance": "intra-class Frechet distance",
}


def as_table(evaluation: Evaluation) -> str:
    """The figures in columns, under a line that says what they are of."""
    rows = [_cells(row) for row in evaluation.rows]
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    reference, extractor = evaluation.reference, evaluation.extractor
    num = evaluation.protocol.get("num", evaluation.subject.get("num"))
    lines = [
        f"{num} images of {evaluation.subject.get('model') or evaluation.subject['name']} against "
        f"{_in_words(reference)}" + (f", seen by {extractor['name']}" if extractor else ""),
        "  ".join(name.rjust(widths[name]) for name in names),
    ]
    lines += ["  ".join(row[name].rjust(widths[name]) for name in names) for row in rows]
    for name, row in evaluation.points.items():
        lines.append(f"{_heading(name)}: at truncation {_truncation(row['truncation'])}")
    return "\n".join(lines)


def as_csv(evaluation: Evaluation) -> str:
    """A line per truncation, a column per figure."""
    text = io.StringIO()
    names = list(evaluation.rows[0]["scores"])
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truncation", *names])
    for row in evaluation.rows:
        writer.writerow([_truncation(row["truncation"]), *(row["scores"][name] for name in names)])
    return text.getvalue()


def plot_tradeoff(evaluation: Evaluation, path: Path) -> None:
    """Draw the curves of a sweep as PNG: distance against score, precision against recall.

    Raises:
        InputError: Matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("the plot needs Matplotlib: pip install 'biggan[evaluate]'") from None
    scores = evaluation.rows[0]["scores"]
    pairs = (("fid", "is"), ("frechet_distance", "classifier_score"), ("recall", "precision"))
    curves = [(x, y) for x, y in pairs if x in scores and y in scores]
    if not curves:
        raise InputError("a plot needs the metrics fid and is, or pr")
    figure = Figure(figsize=(5.5 * len(curves), 4.6), layout="constrained")
    for axes, (x, y) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        rows = sorted(evaluation.rows, key=_by_truncation)
        xs = [row["scores"][x] for row in rows]
        ys = [row["scores"][y] for row in rows]
        axes.plot(xs, ys, "-o", markersize=4)
        for row, at in zip(rows, zip(xs, ys, strict=True), strict=True):
            axes.annotate(
                _truncation(row["truncation"]),
                at,
                textcoords="offset points",
                xytext=(5, 4),
                fontsize=7,
            )
        axes.set_xlabel(_heading(x))
        axes.set_ylabel(_heading(y))
        axes.margins(0.08)  # room for the words beside the points
        axes.grid(alpha=0.3)
    subject = evaluation.subject.get("model") or evaluation.subject["name"]
    figure.suptitle(
        f"{subject}, points by truncation; features of {evaluation.extractor['name']}", fontsize=9
    )
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomically(path, image.getvalue())


def _in_words(reference: dict[str, Any]) -> str:
    """What was compared with; statistics may not say how many images there were, nor how large."""
    num, resolution = reference["num"], reference["resolution"]
    return f"{num or 'the statistics'} of {reference['name']}" + (
        f" at {resolution} px" if resolution else ""
    )


def _cells(row: dict[str, Any]) -> dict[str, str]:
    cells = {"truncation": _truncation(row["truncation"])}
    scores = row["scores"]
    for name, value in scores.items():
        if not name.endswith("_std"):
            spread = scores.get(f"{name}_std")
            text = f"{value:.4g}"
            cells[_heading(name)] = text if spread is None else f"{text} ± {spread:.2g}"
    return cells


def _heading(name: str) -> str:
    for short, long in _HEADINGS.items():
        if name in (short, f"best {short}", f"{short} of the data"):
            return name.replace(short, long)
    return name


def _truncation(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _by_truncation(row: dict[str, Any]) -> float:
    value = row["truncation"]
    return float("inf") if value is None else value
