"""Commands that are killed while they work: nothing half written, nothing lost, the same results.

Set BIGGAN_TEST_KILLS for more kills of each command.
"""

import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
from importlib.util import find_spec

import pytest
from PIL import Image

from biggan.cli import main
from biggan.weights.files import load_tensors
from command_line import write_images, write_recipe

KILLS = int(os.environ.get("BIGGAN_TEST_KILLS", "1"))  # of each command
TIMEOUT = 300

# What the interpreter reports of changes to files.
EVENTS = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}

VIDEO = "video.mp4" if find_spec("av") else "video.webp"

COMMANDS = {
    "sample": "sample --model {model} -n 4 --out {out}",
    "grid": "sample --model {model} -n 4 --grid --out {out}",
    "video": f"interpolate --model {{model}} --from 0 --to 1 -n 1 --steps 4 --out {{out}}/{VIDEO}",
    "convert": "convert {model} {out}/file.safetensors --force",
    "pack": "data pack {data} {out}/packed --resolution 8",
    "classifier": "classifier {data} --resolution 8 --steps 3 --width 1 --device cpu "
    "--out {out}/file.safetensors",
    "evaluate": "evaluate --images {data} --data {data} --metrics fid --resolution 8 "
    "--extractor {classifier} --out {out}/file.json --device cpu",
    "train": "train {recipe} --data {data} --out {out}/run --device cpu",
    "export": "export {out}/file.onnx --model {model} --force",
}


def run_here(arguments, folder, kill_at, end):
    """Run a command in this process, or some calls beyond the n-th thing that it does in a folder.

    Args:
        arguments: Of the command line.
        folder: Whose files count.
        kill_at: n, and how many calls and returns later; None for the whole command.
        end: A pipe, which gets the exit status and the number of things.
    """
    count, calls = 0, 0

    def on_event(event, values):
        nonlocal count
        if event not in EVENTS or str(folder) not in str(values[0]):
            return
        if event != "open" or values[2] & (os.O_WRONLY | os.O_RDWR):
            count += 1
            if kill_at is not None and count == kill_at[0]:
                sys.setprofile(on_call)

    def on_call(*_):
        nonlocal calls
        calls += 1
        if calls > kill_at[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    os.environ["BIGGAN_CACHE"] = str(folder / "cache")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable()
    sys.argv = ["biggan", *map(str, arguments)]
    sys.addaudithook(on_event)
    try:
        main()
    except SystemExit as exit_:
        end.send((exit_.code or 0, count))


@pytest.fixture(scope="module")
def run():
    # Their common parent imports torch once, and has no threads that a fork would cut off.
    context = multiprocessing.get_context("forkserver")
    preload = ["biggan.training.loop", "biggan.evaluation", "biggan.export", "torch._dynamo"]
    context.set_forkserver_preload(preload)

    def run(arguments, folder, kill_at=None, seconds=None):
        """Start a command; the number of things that it asked for, None if it was killed."""
        end, other_end = context.Pipe(duplex=False)
        process = context.Process(target=run_here, args=(arguments, folder, kill_at, other_end))
        process.start()
        other_end.close()
        if seconds is not None:
            process.join(seconds)
            process.kill()
        process.join(TIMEOUT)
        assert process.exitcode in (0, -signal.SIGKILL), arguments
        try:
            status, count = end.recv()
        except EOFError:
            return None
        assert status == 0, arguments
        return count

    return run


@pytest.fixture(scope="module")
def given(run, tiny_file, tmp_path_factory):
    """What the commands read."""
    folder = tmp_path_factory.mktemp("given")
    for name in ("cat", "dog"):
        write_images(folder / "data" / name, 6)
    (folder / "data" / "dog" / "9.png").write_bytes(b"a corrupt one moves those behind it")
    write_recipe(folder / "recipe.toml", total_steps=3, checkpoint_every=1)
    classifier = folder / "classifier.safetensors"
    arguments = ["classifier", folder / "data", "--out", classifier]
    run([*arguments, "--resolution", 8, "--steps", 1, "--width", 1], folder)
    return {
        "model": tiny_file,
        "data": folder / "data",
        "recipe": folder / "recipe.toml",
        "classifier": classifier,
    }


def contents(file):
    """What a file says, but for times; fails where it is half written."""
    if file.suffix == ".png":
        with Image.open(file) as picture:
            picture.load()
    if file.suffix == ".safetensors":
        load_tensors(file)
    if file.suffix == ".json":
        values = json.loads(file.read_bytes())
        if isinstance(values, dict):
            values.pop("date", None)
            for row in values.get("rows", []):
                row.pop("seconds")
        return values
    return file.read_bytes()


def results(folder):
    """The finished files, by name; neither logs, which tell times, nor what is hidden."""
    out = folder / "out"
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out)
        is_hidden = any(part.startswith(".") for part in name.parts)
        if name.suffix == ".jsonl" or "tensorboard" in name.parts or is_hidden:
            continue
        found[name.as_posix()] = contents(path)
    return found


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("train", "export") else [])
        for name in COMMANDS
    ],
)
def test_kills_leave_nothing_half_written_and_change_no_result(command, run, given, tmp_path):
    def arguments(folder):
        names = given | {"out": folder / "out"}
        return COMMANDS[command].format(**names).split()

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    count = run(arguments(whole), whole)
    duration = time.monotonic() - began
    expected = results(whole)
    old = b"as it was before"
    for name in (VIDEO, "file.onnx"):  # explicit names: the old file or the new one
        if name in expected:
            (killed / "out").mkdir(parents=True)
            (killed / "out" / name).write_bytes(old)
    moments = random.Random(command)
    for number in range(KILLS):
        if number % 3 < 2:
            run(
                arguments(killed),
                killed,
                kill_at=(moments.randint(1, count), int(moments.expovariate(0.7))),
            )
        else:
            run(arguments(killed), killed, seconds=moments.uniform(0, duration))
        for name, found in results(killed).items():
            # A run's files are those of its last step: whole, as `contents` has seen.
            if command != "train" and "checkpoint" not in name:
                assert found in (expected.get(name), old), name
    run(arguments(killed), killed)
    assert results(killed) == expected
    assert not list((killed / "out").rglob(".biggan-*"))
    assert not list((killed / "out").rglob("*.packing"))
