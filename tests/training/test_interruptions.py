"""Runs that are killed, of one and of two processes: what they say, and that they resume."""

import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from biggan.data import load_dataset
from biggan.distributed import process_group
from biggan.errors import InputError
from biggan.training import TrainConfig, train
from runs import short_exports
from several_processes import start
from tiny import TINY_RECIPE

STEPS = 9
KILLS = int(os.environ.get("BIGGAN_TEST_KILLS", "1"))


def program(rank, folder, run_dir, steps):
    """Train in this process, whose stderr is a file."""
    os.dup2(os.open(said_by(rank, run_dir), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    logging.basicConfig(format="%(message)s", level=logging.INFO, force=True)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    values = {**TINY_RECIPE, "total_steps": steps, "checkpoint_every": 2}
    config = TrainConfig.from_dict(values).fitted(2)
    try:
        with short_exports(), process_group(torch.device("cpu")) as device:
            dataset = load_dataset(folder, 32, 3, workers=1)
            train(config, dataset, run_dir, device=device, should_stop=lambda: bool(asked))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def said_by(rank, run_dir):
    return run_dir.with_name(f"{run_dir.name}-{rank}.txt")


def begin(folder, run_dir, steps=STEPS):
    """Two processes as torchrun starts them, but with no program above them."""
    return start(program, 2, folder, run_dir, steps)


def finish(started, run_dir):
    """What they said, process by process."""
    for process in started:
        process.join(120)
    said = [said_by(rank, run_dir).read_text() for rank in range(2)]
    assert [process.exitcode for process in started] == [0, 0], said
    return said


def checkpoints(run_dir):
    return set(run_dir.glob("checkpoints/*.safetensors"))


def wait_for_checkpoint(started, run_dir):
    known, deadline = checkpoints(run_dir), time.monotonic() + 120
    while all(process.is_alive() for process in started) and checkpoints(run_dir) <= known:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def final_tensors(run_dir):
    return load_file(run_dir / f"checkpoints/step-{STEPS:08d}.safetensors")


@pytest.mark.slow
def test_kills_change_no_bit(folder, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(begin(folder, whole), whole)
    moment = random.Random(0)
    for _ in range(KILLS):
        started = begin(folder, killed)
        wait_for_checkpoint(started, killed)
        time.sleep(moment.uniform(0, 1))
        for process in started:
            process.kill()
            process.join()
    finish(begin(folder, killed), killed)
    found, expected = final_tensors(killed), final_tensors(whole)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert not list(killed.rglob("*.tmp"))


@pytest.mark.slow
def test_a_kill_at_a_file_operation_changes_no_byte(tmp_path):
    program = Path(__file__).with_name("kill_everywhere.py")
    command = [sys.executable, program, tmp_path, str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" operations") == 3


@pytest.mark.slow
def test_of_two_processes_none_goes_on_alone(folder, tmp_path):
    """Where one dies both stop, with one message; a signal to one ends both at a checkpoint."""
    run_dir = tmp_path / "run"
    for victim in (0, 1):
        started = begin(folder, run_dir, steps=10000)
        wait_for_checkpoint(started, run_dir)
        started[victim].kill()
        for process in started:
            process.join(60)
        assert started[1 - victim].exitcode == 2
        said = said_by(1 - victim, run_dir).read_text()
        assert "Traceback" not in said
        assert len(re.findall("error: another process of this run failed", said)) == 1
    started = begin(folder, run_dir, steps=10000)
    wait_for_checkpoint(started, run_dir)
    os.kill(started[1].pid, signal.SIGTERM)
    said = finish(started, run_dir)
    assert "checkpoint and preview" in said[0]
    assert said[1] == ""
