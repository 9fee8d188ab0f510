"""Runs that are killed at one file operation after another, resumed, and compared with a whole one.

Usage: python kill_everywhere.py FOLDER KILLS

A kill is os._exit before an operation on a file of the run, so that no clean-up follows. It comes
at some operations of a run of two threads; and in runs of one thread, whose signals or whose
evaluation's scores tell of a collapse at step 6, at some operations of the rollback.
"""

import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import torch
import torch._dynamo  # optimizers import it: once, and not in every child

import biggan.evaluation
import biggan.evaluation.features
import runs
from biggan.supervision import log as run_log
from biggan.supervision.collapse import Collapse, Rules
from biggan.training import TrainConfig
from simple_features import SimpleFeatures

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate"}
KILLED = 9
RECIPE = {
    **runs.SMALL,
    "total_steps": 4,
    "checkpoint_every": 1,
    "ema": {"start": 1},
    "evaluation": {"every": 2, "num": 10, "metrics": "fid", "extractor": "simple"},
}

CALM = Rules(signals=(), scores=lambda _: None)
ROLLBACK = {
    "total_steps": 8,
    "ema": {"start": 1, "decay": 0.5},  # another attempt has other scores
    "collapse": {"action": "rollback", "g_lr": 0.5},
}


def collapse_at_6(told_by, calm):
    """Rules that hold at step 6 of a run, and not at that of its second attempt: pure functions."""
    collapse = Collapse("test", "It was told to.", onset=4)
    if told_by == "signals":
        lines = map(json.loads, (calm / "signals.jsonl").read_text().splitlines())
        sixth = next(line for line in lines if line["step"] == 6)
        rule = lambda lines: collapse if lines[-1] == sixth else None  # noqa: E731
        return Rules(signals=(rule,), scores=CALM.scores)
    scores = json.loads((calm / "evaluations/step-00000006.json").read_text())["rows"][0]["scores"]
    worst = (6, scores["frechet_distance"])
    return Rules(signals=(), scores=lambda scores: collapse if scores[-1] == worst else None)


def run(folder, threads, rules, changes, kill_at):
    """In a process of its own; its file operations are written down if it is not killed."""
    torch.set_num_threads(threads)
    operations = []

    def note(event, arguments):
        if event in OPERATIONS and str(folder) in str(arguments[0]):
            operations.append(" ".join(map(str, (event, *arguments[:2]))).replace("\n", " "))
            if len(operations) == kill_at:
                os._exit(KILLED)

    sys.addaudithook(note)
    os.environ["BIGGAN_CACHE"] = str(folder / "cache")
    biggan.evaluation.features.open_extractor = lambda *_, **__: SimpleFeatures()
    run_log._tensorboard_writer = lambda *_: None
    config = TrainConfig.from_dict({**RECIPE, **changes}).fitted(2)
    with runs.short_exports():
        runs.run(config, folder / "run", rules=rules)
    (folder / "operations").write_text("\n".join(operations))


def in_child(folder, *settings, kill_at=None):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(folder, *settings, kill_at)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder):
    """Every byte of a run but for what tells of time: None instead."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        str(name): None
        if name.suffix == ".json" or name.name.startswith("metrics.")
        else path.read_bytes()
        for name, path in files.items()
    }


def kill(root, kills, threads, rules, changes):
    """Some kills of a run, or of its rollback where it has changes."""
    settings = threads, rules, changes
    assert in_child(root / "whole", *settings) == 0
    whole = contents(root / "whole" / "run")
    operations = (root / "whole/operations").read_text().splitlines()
    assert {"generator.safetensors", "best.safetensors", "signals.jsonl"} <= whole.keys()
    first, last = 1, len(operations)
    if changes:  # from the checkpoint that is kept to the first save of the second attempt
        kept = [i for i, name in enumerate(operations, 1) if "pre-collapse" in name]
        fifth = "run/checkpoints/step-00000005.safetensors"
        saved = [
            i
            for i, name in enumerate(operations, 1)
            if name.startswith("os.rename") and name.endswith(fifth)
        ]
        first, last = kept[0] - 10, saved[-1] + 5
    moments = range(first, last + 1)
    kills = min(kills, len(moments))
    for at in (moments[(2 * i + 1) * len(moments) // (2 * kills)] for i in range(kills)):
        folder = root / str(at)
        assert in_child(folder, *settings, kill_at=at) == KILLED
        assert in_child(folder, *settings) == 0
        found = contents(folder / "run")
        assert found.keys() == whole.keys(), (at, found.keys() ^ whole.keys())
        changed = [name for name in whole if found[name] != whole[name]]
        assert not changed, (at, operations[at - 1], changed)
    print(f"{kills} of {len(moments)} operations")


def main(root, kills):
    kill(root / "plain", kills, 2, None, {})
    assert in_child(root / "calm", 1, CALM, ROLLBACK) == 0
    for told_by in ("signals", "scores"):
        rules = collapse_at_6(told_by, root / "calm/run")
        kill(root / told_by, kills, 1, rules, ROLLBACK)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
