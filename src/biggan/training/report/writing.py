"""The report put together: its sections in the order in which they are read."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from biggan.atomic_write import make_folder, write_atomically
from biggan.training.report.charts import Chart
from biggan.training.report.comparison import comparison_section, names_of
from biggan.training.report.curves import losses_section, networks_section, other_section
from biggan.training.report.drawing import as_png
from biggan.training.report.history import (
    NETWORKS,
    bursts_of,
    history_section,
    marks_of,
    missing,
    short,
    verdict,
)
from biggan.training.report.page import Section, details, render, table
from biggan.training.report.record import RunRecord
from biggan.training.report.samples import (
    SCORES,
    evaluations_section,
    score_curve,
    sheets_section,
    truncation_section,
)
from biggan.training.report.spectra import spectra_section
from biggan.training.report.truncation import Sweep


def write_report(
    record: RunRecord,
    out: Path,
    others: Sequence[RunRecord] = (),
    sweeps: Sequence[Sweep | None] = (),
) -> None:
    """Write the page.

    Args:
        record: The run.
        out: The file to write.
        others: Runs to compare it with.
        sweeps: How each run, this one first, takes truncation (`measure_truncation`); None for a
            run without a generator.

    Raises:
        InputError: Matplotlib is not installed, or the file cannot be written.
    """
    opening = missing(record) + verdict(record) + _facts(record)
    page = render(record.name, opening, _sections(record, others, sweeps))
    write_atomically(out, page.encode(errors="replace"))


def write_figures(
    record: RunRecord,
    folder: Path,
    others: Sequence[RunRecord] = (),
    sweeps: Sequence[Sweep | None] = (),
) -> list[Path]:
    """Write the page's figures as PNG files, 880 pixels wide.

    Args:
        record: See `write_report`.
        folder: Where to write them; created if needed.
        others: See `write_report`.
        sweeps: See `write_report`.

    Returns:
        The files, in the order of the page.

    Raises:
        InputError: Matplotlib is not installed, or a file cannot be written.
    """
    make_folder(folder)
    written = []
    sections = _sections(record, others, sweeps)
    charts = [part for section in sections for part in section.parts if isinstance(part, Chart)]
    for chart in tqdm(charts, "drawing", unit="figure", leave=False, delay=2, disable=None):
        path = folder / f"{chart.name}.png"
        write_atomically(path, as_png(chart))
        written.append(path)
    return written


def _sections(
    record: RunRecord, others: Sequence[RunRecord], sweeps: Sequence[Sweep | None]
) -> list[Section]:
    marks = marks_of(record)
    records = [record, *others]
    measured = {
        name: sweep for name, sweep in zip(names_of(records), sweeps, strict=False) if sweep
    }
    return [
        history_section(record),
        sheets_section(record),
        evaluations_section(record, marks),
        losses_section(record, marks),
        spectra_section(record, marks),
        networks_section(record, marks),
        truncation_section(measured),
        comparison_section(records),
        other_section(record, marks),
        _recipe(record),
    ]


def _facts(record: RunRecord) -> str:
    """What one asks for first."""
    recipe = record.recipe
    step, total = record.last_step, record.total_steps
    changed = any("_lr" in key for event in record.events for key in event.changes)
    facts: dict[str, Any] = {
        "step": "" if step is None else f"{step} of {total}" if total else step,
        "data": Path(short(recipe.get("data", ""))).name,
        "resolution": recipe.get("generator.resolution", ""),
        "classes": recipe.get("generator.num_classes", ""),
        "batch size": recipe.get("batch_size", ""),
        "learning rates at first" if changed else "learning rates": " and ".join(
            f"{short(recipe[key])} ({network})"
            for key, network in (("optimizer.g_lr", "G"), ("optimizer.d_lr", "D"))
            if key in recipe
        ),
    }
    for name in ("fid", "frechet_distance"):
        if curve := score_curve(record, name):
            best, step = min(zip(curve.values, curve.steps, strict=True))
            facts[f"best {SCORES[name]}"] = f"{best:.4g} at step {step}"
    if record.signals.curves:
        bursts = [f"{len(bursts_of(record, name))} ({NETWORKS[name]})" for name in NETWORKS]
        facts["spikes of σ0"] = " and ".join(bursts)
    for name, at in record.not_finite.items():
        facts[f"{name} not finite"] = f"first at step {at[0]}"
    shown = [(name, short(value)) for name, value in facts.items() if value != ""]
    cells = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in shown
    )
    return f"<dl class='facts'>{cells}</dl>" if shown else ""


def _recipe(record: RunRecord) -> Section:
    if not record.recipe:
        return Section("recipe", "Recipe")
    rows = [[key, short(value)] for key, value in record.recipe.items()]
    whole = details("All keys of the recipe", table(["key", "value"], rows))
    return Section("recipe", "Recipe", "", [whole])
