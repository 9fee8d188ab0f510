"""The report: its sections in the order in which they are read, as a page and as figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from biggan.atomic_write import make_folder, write_atomically
from biggan.reporting.charts import Chart, as_png
from biggan.reporting.history import bursts_of, history_section, marks_of, short, verdict
from biggan.reporting.page import Folded, Section, Table, render
from biggan.reporting.run import NETWORKS, SCORES, Run
from biggan.reporting.sections import (
    comparison_section,
    evaluations_section,
    losses_section,
    networks_section,
    other_section,
    real_section,
    sheets_section,
    spectra_section,
    truncation_section,
)
from biggan.reporting.truncation import Sweep


def write_report(
    run: Run, out: Path, others: Sequence[Run] = (), sweeps: Sequence[Sweep | None] = ()
) -> None:
    """Write the page of a run, compared with others.

    `sweeps` is `measure_truncation` of each run, this one first.
    """
    level, sentences = verdict(run)
    sections = _sections(run, others, sweeps)
    page = render(sections, run=run, level=level, verdict=sentences, facts=_facts(run))
    write_atomically(out, page.encode(errors="replace"))


def write_figures(
    run: Run, folder: Path, others: Sequence[Run] = (), sweeps: Sequence[Sweep | None] = ()
) -> list[Path]:
    """Write the page's figures as PNG files; returns their paths. See `write_report`."""
    make_folder(folder)
    written = []
    sections = _sections(run, others, sweeps)
    charts = [part for section in sections for part in section.parts if isinstance(part, Chart)]
    for chart in tqdm(charts, "drawing", unit="figure", leave=False, delay=2, disable=None):
        written.append(folder / f"{chart.name}.png")
        write_atomically(written[-1], as_png(chart))
    return written


def _sections(run: Run, others: Sequence[Run], sweeps: Sequence[Sweep | None]) -> list[Section]:
    marks = marks_of(run)
    runs = named([run, *others])
    measured = {name: sweep for name, sweep in zip(runs, sweeps, strict=False) if sweep}
    rows = [[key, short(value)] for key, value in run.recipe.items()]
    recipe = Folded("All keys of the recipe", Table(["key", "value"], rows))
    return [
        history_section(run),
        real_section(run),
        sheets_section(run),
        evaluations_section(run, marks),
        losses_section(run, marks),
        spectra_section(run, marks),
        networks_section(run, marks),
        truncation_section(measured),
        comparison_section(runs),
        other_section(run, marks),
        Section("recipe", "Recipe", [recipe] if rows else []),
    ]


def named(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their names, with a number behind those that are not unique."""
    names = [run.name for run in runs]
    return {
        run.name if names.count(run.name) == 1 else f"{run.name} ({i})": run
        for i, run in enumerate(runs, start=1)
    }


def _facts(run: Run) -> dict[str, str]:
    """The most important values, by what they are."""
    recipe, step, total = run.recipe, run.last_step, run.total_steps
    changed = any("_lr" in key for event in run.events for key in event.changes)
    rates = [
        f"{short(recipe[key])} ({network})"
        for key, network in (("optimizer.g_lr", "G"), ("optimizer.d_lr", "D"))
        if key in recipe
    ]
    facts: dict[str, Any] = {
        "step": "" if step is None else f"{step} of {total}" if total else step,
        "data": Path(short(recipe.get("data", ""))).name,
        "resolution": recipe.get("generator.resolution", ""),
        "classes": recipe.get("generator.num_classes", ""),
        "batch size": recipe.get("batch_size", ""),
        "initial learning rates" if changed else "learning rates": " and ".join(rates),
    }
    for name in ("fid", "frechet_distance"):
        if curve := run.score_curve(name):
            best, step = min((value, step) for step, value in curve.points)
            facts[f"best {SCORES[name]}"] = f"{best:.4g} at step {step}"
    if run.signals.curves:
        bursts = [f"{len(bursts_of(run, name))} ({NETWORKS[name]})" for name in NETWORKS]
        facts["spikes of σ0"] = " and ".join(bursts)
    for key, at in run.metrics.not_finite.items():
        facts[f"{'/'.join(key)} not finite"] = f"first at step {at[0]}"
    return {name: short(value) for name, value in facts.items() if value != ""}
