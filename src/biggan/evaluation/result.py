"""The result of an evaluation: figures with their provenance, as JSON, table, CSV and plot."""

from __future__ import annotations

import csv
import io
import json
import logging
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from biggan._version import __version__
from biggan.atomic_write import make_folder, write_atomically
from biggan.errors import InputError

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


@dataclass(frozen=True)
class Evaluation:
    """Figures, and everything that decided them.

    Attributes:
        subject: The model or the images that were evaluated.
        reference: The data that they were compared with.
        extractor: The network whose features were compared; empty if none were.
        protocol: How many images were made, and how; the settings of each metric.
        rows: For each truncation {"truncation": t, "scores": {...}, "seconds": s}; and "per_class",
            a list of {"class": k, "name": ..., ...}, for metrics of single classes.
        points: The rows of the paper's Table 2, by name; empty for a single truncation.
        versions: Of the software.
        date: UTC, ISO 8601.
    """

    subject: dict[str, Any]
    reference: dict[str, Any]
    extractor: dict[str, Any]
    protocol: dict[str, Any]
    rows: list[dict[str, Any]]
    points: dict[str, Any]
    versions: dict[str, str]
    date: str

    def to_json(self) -> str:
        """All of it, indented."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def versions() -> dict[str, str]:
    """Of the software."""
    return {
        "biggan": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def is_of_same(evaluation: Evaluation, file: Path) -> bool:
    """Whether a file holds the figures of an evaluation of the same, maybe by other software."""
    try:
        found = json.loads(file.read_bytes())
        return _decided_by(found) == _decided_by(json.loads(evaluation.to_json()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _decided_by(values: dict[str, Any]) -> list[Any]:
    rows = [(row["truncation"], sorted(row["scores"])) for row in values["rows"]]
    return [values[key] for key in ("subject", "reference", "extractor", "protocol")] + rows


def write_evaluation(evaluation: Evaluation, path: Path) -> list[Path]:
    """Write the JSON file, and a sweep's CSV and plot beside it.

    Returns:
        The files; without the plot if Matplotlib or the metrics for it are missing.
    """
    make_folder(path.parent)
    write_atomically(path, evaluation.to_json().encode())
    if len(evaluation.rows) == 1:
        return [path]
    table, plot = path.with_suffix(".csv"), path.with_suffix(".png")
    write_atomically(table, as_csv(evaluation).encode())
    try:
        plot_tradeoff(evaluation, plot)
    except InputError as error:
        logging.getLogger("biggan.evaluation").warning("no plot: %s", error)
        return [path, table]
    return [path, table, plot]


def as_table(evaluation: Evaluation) -> str:
    """The figures in columns, below a line that names model, data and extractor."""
    rows = [_cells(row) for row in evaluation.rows]
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    reference, extractor = evaluation.reference, evaluation.extractor
    num = evaluation.protocol.get("num", evaluation.subject.get("num"))
    data = f"{reference['num'] or 'the statistics'} of {reference['name']}"
    if reference["resolution"]:
        data += f" at {reference['resolution']} px"
    lines = [
        f"{num} images of {_subject(evaluation)} against {data}"
        + (f", seen by {extractor['name']}" if extractor else ""),
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
        InputError: Matplotlib is not installed, or the metrics or the file cannot be had.
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
    untruncated = float("inf")
    rows = sorted(evaluation.rows, key=lambda row: row["truncation"] or untruncated)
    figure = Figure(figsize=(5.5 * len(curves), 4.6), layout="constrained")
    for axes, (x, y) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        points = [(row["scores"][x], row["scores"][y]) for row in rows]
        axes.plot(*zip(*points, strict=True), "-o", markersize=4)
        for row, at in zip(rows, points, strict=True):
            text = _truncation(row["truncation"])
            axes.annotate(text, at, textcoords="offset points", xytext=(5, 4), fontsize=7)
        axes.set_xlabel(_heading(x))
        axes.set_ylabel(_heading(y))
        axes.margins(0.08)  # room for the text beside the points
        axes.grid(alpha=0.3)
    title = f"{_subject(evaluation)}, points by truncation; features of "
    figure.suptitle(title + evaluation.extractor["name"], fontsize=9)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomically(path, image.getvalue())


def _subject(evaluation: Evaluation) -> str:
    return str(evaluation.subject.get("model") or evaluation.subject["name"])


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
