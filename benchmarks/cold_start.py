"""From the shell to a result: `biggan --help`, `biggan classes`, `biggan sample` of one image.

The first two import no torch: their peer is the bare interpreter. For the image a biggan-deep-128
with random weights lies in a file, as a published one lies in the cache. Its comparison is the
least that PyTorch allows: a process that only imports torch, plus one image of the plain network
once all is loaded and warm. All take turns; the figures are medians of wall and processor time.
With --where, what `biggan sample` spends its time on instead.

    python benchmarks/cold_start.py [--rounds 7] [--where]
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ["GOMP_SPINCOUNT"] = "10000"  # as the command has it; before torch is imported

import torch
from sampling import LABEL, TRUNCATION, build_ours, noise

from biggan.models import Generator, set_statistics_grid
from biggan.weights.files import Description, save_network

ROUNDS = 7
SHOWN = 15  # imports and functions
BARE, TORCH, IMAGE = "python -c pass", "import torch", "one image, plain network"
Times = tuple[float, float]
"""Seconds by the clock, and of the processor."""
PARTS = """
import time; start = time.perf_counter()
def lap(name):
    global start
    now = time.perf_counter(); print(f"  {now - start:6.3f} s  {name}"); start = now
import torch; lap("import torch")
from biggan.gan import load; lap("import of biggan")
gan = load(MODEL); lap("reading the file, its digest checked")
gan.engine; lap(f"building the engine, {gan.engine.name}")
picture = gan.sample(LABEL)[0]; lap("the image, the first")
gan.sample(LABEL); lap("  the second")
"""


def random_weights(path: Path) -> Generator:
    """Write a biggan-deep-128 with statistics for 50 truncations; returns it."""
    generator = build_ours("biggan-deep-128")
    set_statistics_grid(generator, [round(0.02 * i, 2) for i in range(1, 51)])
    save_network(path, generator, Description(name="random"))
    return generator


def command(model: Path, out: Path) -> list[str]:
    options = ["--model", str(model), "--class", str(LABEL), "--device", "cpu", "--out", str(out)]
    return [sys.executable, "-m", "biggan", "sample", *options]


def environment(folder: Path) -> dict[str, str]:
    """That of a machine on which the command has run before: its bytecode is kept."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def seconds(command: Sequence[str], folder: Path) -> Times:
    start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment(folder))
    ended, now = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended - start, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


@torch.inference_mode()
def seconds_of_image(generator: Generator) -> Times:
    z, labels = noise(), torch.tensor([LABEL])
    start, used = time.perf_counter(), time.process_time()
    generator(z, labels, TRUNCATION)
    return time.perf_counter() - start, time.process_time() - used


def compare(folder: Path, rounds: int) -> None:
    model = folder / "random.safetensors"
    generator = random_weights(model)
    commands = {
        BARE: [sys.executable, "-c", "pass"],
        "biggan --help": [sys.executable, "-m", "biggan", "--help"],
        "biggan classes": [sys.executable, "-m", "biggan", "classes"],
        TORCH: [sys.executable, "-c", TORCH],
        "biggan sample": command(model, folder),
    }
    times: dict[str, list[Times]] = {name: [] for name in (*commands, IMAGE)}
    for _ in range(1 + rounds):  # the first round fills the caches
        for name, words in commands.items():
            times[name].append(seconds(words, folder))
        times[IMAGE].append(seconds_of_image(generator))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, medians of {rounds}")
    print(f"  {'':26} {'wall':>7} {'processor':>9}  seconds")
    for name, taken in times.items():
        wall, processor = (statistics.median(column) for column in zip(*taken[1:], strict=True))
        print(f"  {name:26} {wall:7.3f} {processor:9.3f}")
    rows = zip(*(times[name][1:] for name in ("biggan sample", TORCH, IMAGE)), strict=True)
    ratio = statistics.median(whole[0] / (least[0] + image[0]) for whole, least, image in rows)
    print(f"  biggan sample takes {ratio:.2f} times as long as import torch and one image together")


def explain(folder: Path) -> None:
    """Print what takes the time: parts of the work, and the slowest imports."""
    model = folder / "random.safetensors"
    random_weights(model)
    script = PARTS.replace("MODEL", repr(str(model))).replace("LABEL", str(LABEL))
    executable, *rest = command(model, folder)
    seconds([executable, *rest], folder)  # fills the caches
    subprocess.run([executable, "-c", script], check=True, env=environment(folder))
    result = subprocess.run(
        [executable, "-X", "importtime", *rest],
        check=True,
        capture_output=True,
        text=True,
        env=environment(folder),
    )
    print("imports, in seconds, those within them included:")
    for taken, name in slowest_imports(result.stderr)[:SHOWN]:
        print(f"  {taken:6.3f}  {name}")


def slowest_imports(report: str) -> list[tuple[float, str]]:
    """The cumulative seconds and names in the output of `python -X importtime`, longest first."""
    rows = re.findall(r"^import time: +\d+ \| +(\d+) \| +(\S+)", report, re.MULTILINE)
    return sorted(((int(taken) / 1e6, name) for taken, name in rows), reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--where", action="store_true", help="what takes the time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.where:
            explain(Path(folder))
        else:
            compare(Path(folder), arguments.rounds)


if __name__ == "__main__":
    main()
