"""Runs of one and of two processes that are killed: what they say, and that they resume."""

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

PROGRAM = Path(__file__).with_name("run_here.py")
STEPS = 9
KILLS = int(os.environ.get("BIGGAN_TEST_KILLS", "1"))  # for each number of processes


def start(processes, folder, run_dir, steps=STEPS):
    """The processes as torchrun starts them, but with no program above them."""
    port = random.randint(20000, 30000)
    started = []
    for rank in range(processes):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(
            subprocess.Popen(
                [sys.executable, PROGRAM, folder, run_dir, str(steps)],
                env=os.environ | {key: str(value) for key, value in environment.items()},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def finish(started):
    """What they said, process by process."""
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return said


def checkpoints(run_dir):
    return set(run_dir.glob("checkpoints/*.safetensors"))


def wait_for_checkpoint(started, run_dir):
    known, deadline = checkpoints(run_dir), time.monotonic() + 120
    while all(process.poll() is None for process in started) and checkpoints(run_dir) <= known:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def final_tensors(run_dir):
    return load_file(run_dir / f"checkpoints/step-{STEPS:08d}.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_kills_change_no_bit(folder, tmp_path, processes):
    finish(start(processes, folder, tmp_path / "whole"))
    moment = random.Random(processes)
    for _ in range(KILLS):
        started = start(processes, folder, tmp_path / "killed")
        wait_for_checkpoint(started, tmp_path / "killed")
        time.sleep(moment.uniform(0, 1))
        for process in started:
            process.kill()
            process.communicate()
    finish(start(processes, folder, tmp_path / "killed"))
    found, expected = final_tensors(tmp_path / "killed"), final_tensors(tmp_path / "whole")
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert not list((tmp_path / "killed").rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threads", "kills", "collapse"),
    [(1, 1, ()), (2, 1, ()), (1, 4, ("signals",)), (1, 4, ("scores",))],
)
def test_a_kill_at_a_file_operation_changes_no_byte(tmp_path, threads, kills, collapse):
    program = PROGRAM.with_name("kill_everywhere.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path, str(kills * KILLS), *collapse],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert " operations" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_stops_all_with_one_message(folder, tmp_path, victim):
    started = start(2, folder, tmp_path / "run", steps=10000)
    wait_for_checkpoint(started, tmp_path / "run")
    started[victim].kill()
    survivor = started[1 - victim]
    said = survivor.communicate(timeout=60)[1]
    started[victim].communicate()
    assert survivor.returncode == 2
    assert "Traceback" not in said
    assert len(re.findall("error: another process of this run failed", said)) == 1
    newest = max(checkpoints(tmp_path / "run")).stem
    finish(start(2, folder, tmp_path / "run", steps=int(newest.removeprefix("step-")) + 1))


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_at_a_checkpoint(folder, tmp_path):
    started = start(2, folder, tmp_path / "run", steps=10000)
    wait_for_checkpoint(started, tmp_path / "run")
    started[1].send_signal(signal.SIGTERM)
    said = finish(started)
    assert "checkpoint and preview" in said[0]
    assert said[1] == ""
