"""A small study of stability: which of the paper's observations reappear on the digits?

    python scripts/study_stability.py --out runs/study [--seeds 3] [--jobs 2] [--rows WORD ...]

Every row of the study is a change of one recipe, the digits at half their width, half their batch
and twice their learning rates, trained once for each seed by `biggan train`, on one thread. It is
watched, a tenth of the images is held out, and evaluated by a classifier's features. Some rows come
twice: also with rates so many times larger that the recipe collapses.

The same command goes on where it was stopped, and writes what there is so far into --out, of other
calls for other rows and seeds too:

    results.json    figures of every run
    table.md        a line a row: medians over seeds, with the smallest and the largest
    curves.png      sigma0 of the generator, D's outputs and distances, of all runs of some rows

Each run lies in a folder of its own, for `biggan report`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a clone will do

from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.reporting import measure_truncation

STEPS, SEEDS, JOBS = 300, 3, 2
PRESSURE = 5.0  # times the learning rates, in the second half of the study
G_LR, D_LR, BATCH, CHANNELS = 6e-4, 1.2e-3, 32, 8
EVERY = 150  # steps from one evaluation and checkpoint to the next

BASE = {
    "generator.channels": CHANNELS,
    "discriminator.channels": CHANNELS,
    "batch_size": BATCH,
    "optimizer.g_lr": G_LR,
    "optimizer.d_lr": D_LR,
    "checkpoint_every": EVERY,
    "statistics_images": 32,
    "watch.every": 20,
    "watch.held_out": 0.1,
    "evaluation.every": EVERY,
    "evaluation.num": 2048,
    "evaluation.metrics": "fid,pr",
}


@dataclass(frozen=True)
class Row:
    """One line of the study: a name, and what it changes of the recipe."""

    name: str
    changes: Mapping[str, Any]
    pressed: bool = False
    """Whether with the larger learning rates."""

    @property
    def folder(self) -> str:
        """Where its runs lie."""
        return self.name.replace(" ", "-") + ("-pressed" if self.pressed else "")


CHANGES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "batch x4": {"batch_size": 4 * BATCH},
    "width x2": {"generator.channels": 2 * CHANNELS, "discriminator.channels": 2 * CHANNELS},
    "no shared embedding": {"generator.shared_embedding": False},
    "no skip-z": {"generator.skip_z": False},
    "no orthogonal": {"orthogonal": 0.0},
    "orthogonal x100": {"orthogonal": 1e-2},
    "R1 1": {"r1.gamma": 1.0},
    "R1 10": {"r1.gamma": 10.0},
    "dropout 0.8": {"dropout.keep": 0.8},
    "clamp G": {"spectrum.generator": "clamp", "spectrum.bound": 1.2},
    "regularize G": {"spectrum.generator": "regularize", "spectrum.bound": 1.2},
    "clamp D": {"spectrum.discriminator": "clamp", "spectrum.bound": 1.1},
    "instance noise 0.1": {"instance_noise.std": 0.1},
    "margin 3": {"loss.margin": 3.0},
}
UNDER_PRESSURE = (
    "baseline",
    "batch x4",
    "R1 1",
    "R1 10",
    "dropout 0.8",
)
ROWS = [
    *(Row(name, changes) for name, changes in CHANGES.items()),
    *(Row(name, CHANGES[name], pressed=True) for name in UNDER_PRESSURE),
]


@dataclass(frozen=True)
class Result:
    """What came of one run."""

    row: str
    pressed: bool
    seed: int
    collapsed: int | None
    """The step at which collapse was called first; None if it was not."""
    rule: str
    """Which rule called it."""
    best: float
    """Smallest Frechet distance of the averaged generator, in the classifier's features."""
    last: float
    """The distance at the end."""
    recall: float
    """Recall at the end."""
    diversity: float
    """Of a fixed sample within classes, at the end."""
    growth: float
    """By how much sigma0 grew, of the generator's weight that grew most."""
    grew: str
    """Which one."""
    conditioning: float
    """sigma0 / sigma1 at the end, of D's weight where it is largest."""
    memorized: float
    """D's accuracy on images that it was trained on, less that on held-out ones; last 5 looks."""
    saturated: float
    """What the worst truncation adds to the saturated part of the pixels."""


def train_command(row: Row, seed: int, run: Path, classifier: Path, steps: int) -> list[str]:
    """What makes a run, as a user would type it."""
    settings = {**BASE, "evaluation.extractor": classifier, "total_steps": steps, "seed": seed}
    if row.pressed:
        settings |= {"optimizer.g_lr": PRESSURE * G_LR, "optimizer.d_lr": PRESSURE * D_LR}
    changes = [f"--set={key}={_toml(value)}" for key, value in {**settings, **row.changes}.items()]
    return [sys.executable, "-m", "biggan", "train", "digits", f"--out={run}", *changes]


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def run_once(row: Row, seed: int, out: Path, classifier: Path, steps: int) -> Result:
    """Train, or go on, or read what came of it before.

    Raises:
        SystemExit: The run failed for another reason than collapse, or was interrupted.
    """
    run = out / row.folder / f"seed-{seed}"
    done = run / "result.json"
    if done.exists():
        return Result(**json.loads(done.read_text("utf-8")))
    run.mkdir(parents=True, exist_ok=True)
    command = train_command(row, seed, run, classifier, steps)
    with (run / "log.txt").open("a", encoding="utf-8") as log:
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    stopped = any(event["event"] == "stop" for event in _lines(run / "events.jsonl"))
    if status and not stopped:
        raise SystemExit(f"{row.name}, seed {seed}: failed, see {run / 'log.txt'}")
    if not stopped and _lines(run / "metrics.jsonl")[-1]["step"] < steps:  # a signal ended it
        raise SystemExit(f"{row.name}, seed {seed}: interrupted; the same command goes on with it")
    result = read_result(row, seed, run)
    write_atomically(done, json.dumps(asdict(result)).encode())
    return result


def all_results(out: Path) -> list[Result]:
    """What came of all runs so far, of this call and of others, seed by seed."""
    files = sorted(out.glob("*/seed-*/result.json"), key=lambda file: file.parent.name)
    results = [Result(**json.loads(file.read_text("utf-8"))) for file in files]
    order = [(row.name, row.pressed) for row in ROWS]
    known = [result for result in results if (result.row, result.pressed) in order]
    return sorted(known, key=lambda r: (r.seed, order.index((r.row, r.pressed))))


def read_result(row: Row, seed: int, run: Path) -> Result:
    """Work out the figures of a run from what it wrote."""
    signals = _lines(run / "signals.jsonl")
    collapses = [event for event in _lines(run / "events.jsonl") if event["event"] == "collapse"]
    scores = [
        json.loads(path.read_text("utf-8"))["rows"][0]["scores"]
        for path in sorted((run / "evaluations").glob("step-*.json"))
    ]
    distances = [score["frechet_distance"] for score in scores] or [math.nan]
    first, last = signals[0]["singular_values"], signals[-1]["singular_values"]
    growth, grew = max(
        (values[0] / first["generator"][layer][0], layer)
        for layer, values in last["generator"].items()
    )
    try:
        sweep = measure_truncation(run, progress=False)
    except InputError:  # it makes no pictures any more
        sweep = None
    return Result(
        row=row.name,
        pressed=row.pressed,
        seed=seed,
        collapsed=collapses[0]["step"] if collapses else None,
        rule=collapses[0].get("rule", "") if collapses else "",
        best=min(distances),
        last=distances[-1],
        recall=scores[-1]["recall"] if scores else math.nan,
        diversity=signals[-1]["diversity"],
        growth=growth,
        grew=grew,
        conditioning=max(v[0] / v[1] for v in last["discriminator"].values() if len(v) > 1),
        memorized=statistics.fmean(
            line["accuracy"]["trained"] - line["accuracy"]["held_out"] for line in signals[-5:]
        ),
        saturated=max(part for _, part in sweep.added()) if sweep else math.nan,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


COLUMNS: tuple[tuple[str, Callable[[Result], float], str], ...] = (
    ("best distance", lambda r: r.best, ".1f"),
    ("distance at the end", lambda r: r.last, ".1f"),
    ("recall", lambda r: r.recall, ".2f"),
    ("diversity", lambda r: r.diversity, ".2f"),
    ("growth of sigma0, G", lambda r: r.growth, ".1f"),
    ("sigma0/sigma1, D", lambda r: r.conditioning, ".1f"),
    ("D: trained on - held out", lambda r: r.memorized, "+.2f"),
    ("saturation added", lambda r: r.saturated, "+.3f"),
)


def make_table(results: Sequence[Result]) -> str:
    """The study as Markdown, a table for each pair of learning rates."""
    parts = []
    for pressed in (False, True):
        scale = PRESSURE if pressed else 1
        rates = f"{scale * G_LR:g} and {scale * D_LR:g}"
        head = ["", "collapsed", *(name for name, _, _ in COLUMNS)]
        lines = [f"Learning rates: {rates}.", "", _line(head), _line(["---"] * len(head))]
        for name in CHANGES:
            runs = [r for r in results if r.row == name and r.pressed == pressed]
            if runs:
                figures = (_spread([get(r) for r in runs], form) for _, get, form in COLUMNS)
                lines.append(_line([name, _collapses(runs), *figures]))
        if len(lines) > 4:
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _collapses(runs: Sequence[Result]) -> str:
    called = [f"{run.collapsed} {run.rule}" for run in runs if run.collapsed is not None]
    return f"{len(called)} of {len(runs)}" + (f" ({', '.join(called)})" if called else "")


def _spread(values: Sequence[float], form: str) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    middle, low, high = statistics.median(known), min(known), max(known)
    spread = f" ({low:{form}} to {high:{form}})" if len(known) > 1 else ""
    return f"{middle:{form}}{spread}"


def draw_curves(results: Sequence[Result], out: Path) -> None:
    """A panel for each row: sigma0 of the generator's weights over the steps, all seeds."""
    from matplotlib.figure import Figure

    rows = [row for row in ROWS if any(_belongs(r, row) for r in results)]
    columns = 5
    figure = Figure(figsize=(3 * columns, 2.2 * math.ceil(len(rows) / columns)), layout="tight")
    panels = figure.subplots(
        math.ceil(len(rows) / columns), columns, squeeze=False, sharex=True, sharey=True
    )
    axes = list(panels.flat)
    for row, panel in zip(rows, axes, strict=False):
        for result in (r for r in results if _belongs(r, row)):
            lines = _lines(out / row.folder / f"seed-{result.seed}" / "signals.jsonl")
            steps = [line["step"] for line in lines]
            for layer in lines[0]["singular_values"]["generator"]:
                values = [line["singular_values"]["generator"][layer][0] for line in lines]
                panel.plot(steps, values, linewidth=0.7, color=f"C{result.seed}")
            if result.collapsed is not None:
                panel.axvline(result.collapsed, color=f"C{result.seed}", linestyle=":")
        panel.set_title(row.name + (", pressed" if row.pressed else ""), fontsize=9)
        panel.tick_params(labelsize=7)
    for panel in axes[len(rows) :]:
        panel.set_axis_off()
    figure.suptitle("sigma0 of every weight of the generator; a colour a seed; dotted: collapse")
    figure.savefig(out / "curves.png", dpi=90)


def _belongs(result: Result, row: Row) -> bool:
    return (result.row, result.pressed) == (row.name, row.pressed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, and write the figures of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--jobs", type=int, default=JOBS, help="runs at a time, a thread each")
    parser.add_argument("--rows", nargs="+", metavar="WORD", help="rows whose folder has it")
    given = parser.parse_args(arguments)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": sys.path[0]}
    classifier = given.out / "classifier.safetensors"
    if not classifier.exists():
        made = [sys.executable, "-m", "biggan", "classifier", "digits", f"--out={classifier}"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    rows = [r for r in ROWS if not given.rows or any(word in r.folder for word in given.rows)]
    # Seed by seed, so that what is there at any time is a study, of fewer seeds.
    todo = [(row, seed) for seed in range(given.seeds) for row in rows]
    with ThreadPoolExecutor(given.jobs) as pool:

        def work(item: tuple[Row, int]) -> Result:
            return run_once(*item, given.out, classifier, given.steps)

        for result in pool.map(work, todo):
            results = all_results(given.out)
            called = f"collapsed at {result.collapsed}" if result.collapsed else "no collapse"
            pressed = ", pressed" if result.pressed else ""
            print(f"{result.row}{pressed}, seed {result.seed}: {called}, best {result.best:.1f}")
            write_atomically(
                given.out / "results.json",
                json.dumps([asdict(r) for r in results], indent=1).encode(),
            )
            write_atomically(given.out / "table.md", make_table(results).encode())
    results = all_results(given.out)
    draw_curves(results, given.out)
    print(make_table(results), end="")


if __name__ == "__main__":
    main()
