"""scripts/study_stability.py: rows become runs, runs become a table, and nothing is done twice."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import study_stability
from study_stability import CHANGES, ROWS, Result, Row, make_table, train_command

from biggan.training import load_recipe

RESULT = Result(
    row="baseline",
    pressed=False,
    seed=0,
    collapsed=None,
    rule="",
    best=5.0,
    last=6.0,
    recall=0.5,
    diversity=0.4,
    growth=1.5,
    grew="linear",
    conditioning=1.2,
    memorized=0.1,
    saturated=0.01,
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.folder)
def test_every_row_is_a_recipe(row):
    command = train_command(row, 3, Path("run"), Path("classifier.safetensors"), 50)
    changes = [word.removeprefix("--set=") for word in command if word.startswith("--set=")]
    config = load_recipe("digits", changes)
    assert (config.seed, config.total_steps) == (3, 50)
    rates = config.optimizer.g_lr / study_stability.G_LR, config.optimizer.d_lr
    scale = study_stability.PRESSURE if row.pressed else 1
    assert rates == (pytest.approx(scale), pytest.approx(scale * study_stability.D_LR))


def test_rows_differ_from_the_baseline_and_from_each_other():
    assert len({json.dumps(changes) for changes in CHANGES.values()}) == len(CHANGES)
    assert len({row.folder for row in ROWS}) == len(ROWS)


def test_the_table_has_a_median_and_what_lies_around_it():
    runs = [
        dataclasses.replace(RESULT, seed=seed, best=best, collapsed=step, rule="blind" * bool(step))
        for seed, (best, step) in enumerate([(4.0, None), (9.0, 60), (math.nan, 40)])
    ]
    pressed = dataclasses.replace(RESULT, pressed=True, row="R1 1")
    calm, hurried = make_table([*runs, pressed]).split("\n\nLearning rates: ")
    assert "| baseline | 2 of 3 (60 blind, 40 blind) | 6.5 (4.0 to 9.0) |" in calm
    assert "R1 1" not in calm
    assert "| R1 1 | 0 of 1 | 5.0 |" in hurried


@pytest.mark.parametrize("status", [0, 137])
def test_a_run_that_was_interrupted_is_no_result(tmp_path, monkeypatch, status):
    run = tmp_path / "baseline" / "seed-0"

    def interrupted(command, **settings):
        (run / "metrics.jsonl").write_text('{"step": 2}\n')
        (run / "events.jsonl").write_text('{"step": 1, "event": "collapse", "attempt": 0}\n')
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(SystemExit, match="failed" if status else "the same command goes on"):
        study_stability.run_once(ROWS[0], 0, tmp_path, Path("classifier.safetensors"), steps=4)
    assert not (run / "result.json").exists()


@pytest.mark.slow
def test_a_study_is_run_once(tmp_path, monkeypatch, capsys):
    small = {"evaluation.every": 0, "checkpoint_every": 4, "statistics_images": 4, "watch.every": 2}
    monkeypatch.setattr(
        study_stability,
        "BASE",
        {**study_stability.BASE, **small, "batch_size": 4, "log_every": 2},
    )
    monkeypatch.setattr(study_stability, "ROWS", [Row("R1 1", {"r1.gamma": 1})])
    (tmp_path / "classifier.safetensors").touch()  # nothing is evaluated
    arguments = ["--out", str(tmp_path), "--seeds", "1", "--steps", "4"]
    study_stability.main(arguments)
    table = capsys.readouterr().out
    assert "R1 1, seed 0: no collapse" in table
    assert (tmp_path / "table.md").read_text() == table[table.index("Learning rates") :]
    results = json.loads((tmp_path / "results.json").read_text())
    assert [result["row"] for result in results] == ["R1 1"]
    assert results[0]["growth"] > 0
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 500

    def refuse(*arguments, **settings):
        raise AssertionError("it is all there")

    monkeypatch.setattr(subprocess, "run", refuse)
    study_stability.main(arguments)
    assert json.loads((tmp_path / "results.json").read_text()) == results
