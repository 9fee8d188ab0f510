"""Runs that are killed at one file operation after another, resumed, and compared with a whole one.

Usage: python kill_everywhere.py FOLDER KILLS

A kill is os._exit before an operation on a file of the run, so that no clean-up follows. KILLS of
the operations are tried, spread evenly over the run.
"""

import os
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))

import biggan.evaluation
import biggan.evaluation.features
from biggan.data import ImageDataset
from biggan.supervision import log as run_log
from biggan.training import TrainConfig, export, train
from simple_features import SimpleFeatures
from tiny import ONE_STAGE

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate"}
KILLED = 9
RECIPE = {
    "total_steps": 4,
    "batch_size": 8,
    "d_steps": 1,
    "checkpoint_every": 1,
    "log_every": 1,
    "statistics_images": 8,
    "ema": {"start": 1},
    "watch": {"every": 1},
    "evaluation": {"every": 2, "num": 10, "metrics": "fid", "extractor": "simple"},
    **ONE_STAGE,
}


def run(folder, kill_at):
    """In a process of its own; returns how many operations it made, or KILLED instead."""
    operations = 0

    def count(event, arguments):
        nonlocal operations
        if event in OPERATIONS and str(folder) in str(arguments[0]):
            operations += 1
            if operations == kill_at:
                os._exit(KILLED)

    sys.addaudithook(count)
    os.environ["BIGGAN_CACHE"] = str(folder / "cache")
    biggan.evaluation.features.open_extractor = lambda *_, **__: SimpleFeatures()
    export.HUB_GRID = export.COARSE_GRID
    run_log._tensorboard_writer = lambda *_: None
    images = torch.arange(32 * 3 * 8 * 8).view(32, 3, 8, 8) % 251
    dataset = ImageDataset(images.to(torch.uint8), torch.arange(32) % 2, ("blue", "red"), "noise")
    config = TrainConfig.from_dict(RECIPE).fitted(2)
    train(config, dataset, folder / "run", device=torch.device("cpu"), progress=False)
    (folder / "operations").write_text(str(operations))


def in_child(folder, kill_at=None):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(folder, kill_at)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder):
    """Every byte of a run but for what tells of time."""
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    timed = ("metrics.jsonl", ".json")
    return {name: None if name.endswith(timed) else p.read_bytes() for name, p in files.items()}


def main(root, kills):
    assert in_child(root / "whole") == 0
    whole, total = contents(root / "whole" / "run"), int((root / "whole/operations").read_text())
    assert {"generator.safetensors", "best.safetensors", "signals.jsonl"} <= whole.keys()
    for i in range(min(kills, total)):
        at = 1 + i * total // min(kills, total)
        folder = root / str(at)
        assert in_child(folder, at) == KILLED
        assert in_child(folder) == 0
        found = contents(folder / "run")
        assert found.keys() == whole.keys(), (at, found.keys() ^ whole.keys())
        changed = [name for name in whole if found[name] != whole[name]]
        assert not changed, (at, changed)
    print(f"{min(kills, total)} of {total} operations")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
