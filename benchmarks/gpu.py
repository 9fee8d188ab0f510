"""All that needs a GPU, in one run that ends in time: tests, sampling, training steps, CIFAR-10.

Each part is a process with its own time limit, so a part that fails or hangs loses nothing else.
The results, gpu.json and gpu.md, are written again after every part. The same command continues:
what was done is not done again, what failed or was cut off is, and CIFAR-10, trained in the time
that is left, goes on from its checkpoint.

    python benchmarks/gpu.py --data cifar10-train.zip [--minutes 9.5] [--out OUT] [--peers FOLDER]
    python benchmarks/gpu.py --dry-run   # every part on the CPU, tiny networks, nothing compiled

FOLDER holds the peers' code: the package pytorch_pretrained_biggan with what it needs, and
BigGAN-PyTorch, ajbrock's repository. What is not there is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biggan.atomic_write import write_atomically

HERE = Path(__file__).parent
ROOT = HERE.parent
DONE = "done"
LOG = 4000  # characters of a part's output in the results, its last
LEAST = 5.0  # seconds, for which no part is started
TO_STOP = 30.0  # seconds in which training writes its checkpoint and its generator
COLUMNS = {
    "form": "form",
    "batch": "batch",
    "rate": "images or steps per second",
    "speed": "relative to the first",
    "gib": "GiB",
    "difference": "largest difference",
}
MACHINE = """
import json, platform, torch
name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
print(json.dumps({"form": f"{name}, torch {torch.__version__}"}))
"""
Record = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One process. Lines of its output that are JSON objects are its results."""

    name: str
    command: Callable[[float], Sequence[object]]
    """What to run, given the seconds that it has."""
    limit: float
    """Seconds."""
    continues: bool = False
    """Whether it goes on where it stopped, so that it is run as often as there is time."""


def parts(arguments: argparse.Namespace) -> list[Part]:
    """All parts, in order."""
    device = "cpu" if arguments.dry_run else "cuda"
    python, work = sys.executable, arguments.work
    options = ["--device", device]
    if arguments.dry_run:
        options.append("--quick")
    training = [python, "-m", "biggan", "train", "cifar10", "--out", work / "cifar10"]
    training += ["--data", arguments.data, "--device", device, "--set"]
    if arguments.dry_run:
        tiny = ("precision=float32", "batch_size=4", "generator.channels=8", "d_steps=1")
        for change in (*tiny, "discriminator.channels=8", "statistics_images=16"):
            training += [change, "--set"]
        training.append("total_steps=10000")
    else:
        training.append("compile=true")

    def fixed(*command: object) -> Callable[[float], Sequence[object]]:
        return lambda _: command

    found = [
        Part("machine", fixed(python, "-c", MACHINE), 60),
        Part("tests", fixed(python, "-m", "pytest", "-q", "-m", "gpu", "tests/test_gpu.py"), 120),
    ]
    for resolution, limit in ((128, 140), (256, 60), (512, 60)):
        script = HERE / "sampling_gpu.py"
        command = fixed(python, script, resolution, *options)
        found.append(Part(f"deep-{resolution}", command, limit))
    if arguments.peers:
        options += ["--peers", arguments.peers]
    for recipe in ("cifar10", "biggan-128"):
        script = HERE / "training_gpu.py"
        found.append(Part(f"step-{recipe}", fixed(python, script, recipe, *options), 110))
    if arguments.data:
        found.append(
            Part(
                "train-cifar10",
                lambda seconds: [*training, "--stop-after", f"{max(1, seconds - TO_STOP):.0f}s"],
                TO_STOP + 10 if arguments.dry_run else 86400,
                continues=True,
            )
        )
    return found


def run_parts(
    chosen: Sequence[Part],
    work: Path,
    seconds: float,
    report: Callable[[Mapping[str, Record]], None],
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Record]:
    """Run what is not done, within the seconds; `report` is called with all records after each."""
    end = time.monotonic() + seconds
    records = {part.name: read_record(work, part) for part in chosen}
    for part in chosen:
        if records[part.name].get("status") == DONE and not part.continues:
            continue
        left = min(part.limit, end - time.monotonic())
        if left < min(LEAST, part.limit):
            records[part.name] = records[part.name] or {"status": "not run: no time was left"}
            continue
        print(f"{part.name}: at most {left:.0f} s", flush=True)
        records[part.name] = run(part, work, left, environment)
        text = json.dumps(records[part.name])
        write_atomically(work / f"{part.name}.json", text.encode())
        print(f"  {records[part.name]['status']}", flush=True)
        report(records)
    report(records)
    return records


def read_record(work: Path, part: Part) -> Record:
    """What an earlier call recorded of a part; nothing where there was none."""
    try:
        record: Record = json.loads((work / f"{part.name}.json").read_text())
    except FileNotFoundError:
        return {}
    return record


def run(part: Part, work: Path, seconds: float, environment: Mapping[str, str]) -> Record:
    """Run a part to its end or for so many seconds; then end all processes that it started."""
    start, path = time.monotonic(), work / f"{part.name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            list(map(str, part.command(seconds))),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        try:
            code = process.wait(seconds)
            status = DONE if code == 0 else f"failed with exit status {code}"
        except subprocess.TimeoutExpired:
            status = f"stopped after {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    output = path.read_text(errors="replace")
    return {
        "status": status,
        "seconds": round(time.monotonic() - start, 1),
        "rows": [row for line in output.splitlines() if (row := as_row(line)) is not None],
        "log": output[-LOG:],
    }


def end_with_parent() -> None:
    """Have Linux end this process if its parent is killed, so that no part runs on alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def as_row(line: str) -> Record | None:
    """A line of output as a result; None for any other, and for one that a kill cut short."""
    if not line.startswith("{"):
        return None
    try:
        row: Record = json.loads(line)
    except ValueError:
        return None
    return row


def table(records: Mapping[str, Record]) -> str:
    """All results as one Markdown table."""
    lines = [
        f"| part | {' | '.join(COLUMNS.values())} | remark |",
        f"| --- |{' --- |' * len(COLUMNS)} --- |",
    ]
    for name, record in records.items():
        rows = [dict(row) for row in record.get("rows", [])] or [{}]
        last = record.get("log", "").strip().rpartition("\n")[2]
        if record["status"] != DONE:
            rows[-1].setdefault("error", f"{record['status']}: {last}")
        elif rows == [{}]:
            rows[0]["error"] = last
        for row in rows:
            cells = [cell(row.get(column)) for column in (*COLUMNS, "error")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else " ".join(str(value).replace("|", "/").split())[:200]


def write_results(records: Mapping[str, Record], work: Path, out: Path) -> None:
    """Write the JSON and the table; and of CIFAR-10 the newest figures and pictures."""
    finished = {name: record for name, record in records.items() if record}
    metrics = work / "cifar10" / "metrics.jsonl"
    if finished.get("train-cifar10") and metrics.exists():
        newest = json.loads(metrics.read_text().strip().rpartition("\n")[2])
        row = {**newest, "form": f"step {newest['step']}", "rate": newest["steps_per_second"]}
        finished["train-cifar10"] = {**finished["train-cifar10"], "rows": [row]}
        for preview in sorted((work / "cifar10" / "previews").glob("step-*.png"))[-1:]:
            shutil.copy(preview, out / "cifar10.png")
    write_atomically(out / "gpu.json", json.dumps(finished, indent=1).encode())
    write_atomically(out / "gpu.md", table(finished).encode())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="CIFAR-10's training images; without it none are trained on")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu/results"))
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="what it goes on from")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with tiny networks")
    arguments = parser.parse_args()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if arguments.dry_run:
        arguments.data = arguments.data or "digits"
        environment["TORCH_COMPILE_DISABLE"] = "1"
    else:
        import torch

        if not torch.cuda.is_available():
            print("gpu: there is no CUDA device here, nothing measured")
            return
    paths = [str(ROOT / "src")]
    if arguments.peers:
        arguments.peers = arguments.peers.absolute()
        paths.append(str(arguments.peers))
    if "PYTHONPATH" in os.environ:
        paths.append(os.environ["PYTHONPATH"])
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    # The parts run in the repository's root.
    arguments.work, arguments.out = arguments.work.absolute(), arguments.out.absolute()
    if arguments.data and Path(arguments.data).exists():
        arguments.data = Path(arguments.data).absolute()
    for folder in (arguments.work, arguments.out):
        folder.mkdir(parents=True, exist_ok=True)
    run_parts(
        parts(arguments),
        arguments.work,
        60 * arguments.minutes,
        lambda records: write_results(records, arguments.work, arguments.out),
        environment,
    )
    print((arguments.out / "gpu.md").read_text())


if __name__ == "__main__":
    main()
