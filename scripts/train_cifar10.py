"""Train the CIFAR-10 model in segments of limited time, and carry each segment's results along.

    python scripts/train_cifar10.py --data cifar10-train.zip --out results

One call trains for at most --seconds (540), writes a checkpoint, and puts what must be kept into
--out. The same call again goes on: from the run's folder (--run) if it is still there, else from
what is in --out (or --from, another folder). When --budget seconds of training (1,500) are used up
over all calls, or the recipe's steps are done, the call that finds it so finishes the model (a full
table of statistics) and adds the pictures and facts of its card; calls after that make these again.

A call that is killed is charged as well, to within ten seconds, and leaves in --out what its newest
checkpoint but one was, or a newer one: the next call goes on from there.

In --out:

    run-HASH.tar.00, .01, ...    the run's folder in one archive, in parts of at most 15 MiB; by
                                 hand: cat run-*.tar.?? | tar -x. While training the checkpoint
                                 comes first (60 MiB: --at-most 62 leaves the rest out), at the end
                                 the networks
    run.json                     which archive it is, its digest, and how far the run is
    real-and-generated.png, curves.png, facts.json     at the end (scripts/model_card.py)

It runs from a clone with torch and the package's other requirements, also without installing. On a
GPU it compiles the networks where a compiler works.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import shutil
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a clone will do

import numpy as np
import torch
from model_card import make_card

import biggan
from biggan.atomic_write import write_atomically
from biggan.data import ImageDataset, load_dataset
from biggan.training import TrainConfig, load_recipe, train
from biggan.training.checkpoint import CheckpointDirectory, CheckpointHeader
from biggan.weights.files import (
    RUN_DISCRIMINATOR,
    RUN_GENERATOR,
    load_tensors,
    save_tensors,
)

PART = 15 << 20  # bytes
SEGMENTS = "segments.jsonl"  # in the run's folder and in --out: a line for each call that trained
NOTE_EVERY = 10  # seconds from one version of a call's line to the next

_ALWAYS = ("config.toml", "metrics.jsonl")
_NETWORKS = (RUN_GENERATOR, RUN_DISCRIMINATOR)
_SQUEEZED = ".squeezed"


clock = time.monotonic


def run_segment(
    config: TrainConfig,
    dataset: ImageDataset,
    run_dir: Path,
    device: torch.device,
    out: Path,
    keep: Callable[[], object],
    *,
    until: float,
    budget: float,
) -> bool:
    """Train until the clock or the budget says so, or the recipe's steps are done.

    Args:
        config: The recipe, fitted to the data.
        dataset: The real images.
        run_dir: The run's folder.
        device: Where to train.
        out: Where the list of segments is kept as well.
        keep: Keeps the run's folder; called at the start and whenever there is a new checkpoint,
            so that a kill loses no more than what came after.
        until: What `clock` shows when this call must stop training.
        budget: Seconds of training, of all calls together.

    Returns:
        Whether the run is at its end.

    Raises:
        InputError: The budget is used up, and nothing was trained.
    """
    segments = read_segments(run_dir)
    left = budget - sum(segment["seconds"] for segment in segments)
    first = newest_step(run_dir)
    if first >= config.total_steps or left <= 0:
        if first == 0:
            raise biggan.InputError(
                f"the budget of {budget:g} s is used up, and no call came to a checkpoint: raise "
                "--budget"
            )
        return True
    segment: dict[str, Any] = {
        "from_step": first,
        "to_step": first,
        "seconds": 0.0,
        "completed": False,  # until it is: what is left of a call that was killed says so
        "device": _device_name(device),
        "torch": torch.__version__,
        "compile": config.compile,
        "peak_gpu_bytes": None,
    }

    def note(now: float) -> None:
        segment["seconds"] = now - start
        if device.type == "cuda":
            segment["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
        write_segments([*segments, segment], run_dir, out)

    start = noted = clock()
    deadline = min(until, start + left)
    note(start)
    kept = _newest_checkpoint(run_dir)
    if kept is not None:
        keep()

    def should_stop() -> bool:
        nonlocal noted, kept
        segment["to_step"] += 1
        now = clock()
        if now - noted >= NOTE_EVERY:
            note(now)
            noted = now
            if kept != (kept := _newest_checkpoint(run_dir)):
                keep()
        return now >= deadline

    state = train(config, dataset, run_dir, device=device, should_stop=should_stop)
    segment |= {"to_step": state.step, "completed": True}
    note(clock())
    return state.step >= config.total_steps or left <= segment["seconds"]


def finish(
    config: TrainConfig, dataset: ImageDataset, run_dir: Path, device: torch.device, out: Path
) -> None:
    """Make the run's newest weights a finished model, and its card."""
    segments = read_segments(run_dir)
    # A run whose last step is done is exported with the whole table of statistics.
    finished = dataclasses.replace(config, total_steps=newest_step(run_dir))
    train(finished, dataset, run_dir, device=device)
    facts = {
        "seconds_of_training": round(sum(segment["seconds"] for segment in segments), 1),
        "segments": segments,
    }
    make_card(run_dir, dataset, out, facts)


def newest_step(run_dir: Path) -> int:
    """The step of the checkpoint that training goes on from; 0 where there is none."""
    newest = CheckpointDirectory(run_dir / "checkpoints").read_newest()
    return 0 if newest is None else newest.step


def read_segments(folder: Path) -> list[dict[str, Any]]:
    """The calls that trained, in their order, as a run's folder or --out lists them."""
    path = folder / SEGMENTS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_segments(segments: Sequence[dict[str, Any]], *folders: Path) -> None:
    """Write the list of the calls that trained into folders, created if needed."""
    lines = [json.dumps(segment) + "\n" for segment in segments]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / SEGMENTS, "".join(lines).encode())


def pack(
    run_dir: Path, out: Path, at_most: int | None, *, finished: bool = False, part: int = PART
) -> bool:
    """Write a run's folder into parts, in place of those that are there.

    A kill at any moment leaves the parts from before, or these.

    Args:
        run_dir: The run's folder.
        out: Where the parts go; created if needed.
        at_most: Bytes of all parts together; None for no limit. What does not fit is left out: of a
            run under way all but the checkpoint first, of a finished one the checkpoint.
        finished: Whether the run is at its end.
        part: Bytes of one part.

    Returns:
        Whether the checkpoint is among them, so that the run can go on from the parts.

    Raises:
        InputError: Neither the checkpoint nor the generator fits.
    """
    small = [run_dir / name for name in _ALWAYS if (run_dir / name).is_file()]
    small += sorted((run_dir / "previews").glob("*.png"))[-1:]
    members = {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in small}
    networks = {
        name: (run_dir / name).read_bytes() for name in _NETWORKS if (run_dir / name).is_file()
    }
    checkpoint = _newest_checkpoint(run_dir)
    state = {} if checkpoint is None else {_squeezed_name(checkpoint): squeeze(checkpoint)}
    for name, data in (networks | state if finished else state | networks).items():
        if at_most is None or _archive_size([*members.values(), data]) <= at_most:
            members[name] = data
    if (networks or state) and not members.keys() & {RUN_GENERATOR, *state}:
        raise biggan.InputError(
            f"neither the checkpoint nor the generator fits into {at_most} bytes: raise --at-most"
        )
    archive = _archived(members)
    sha256 = hashlib.sha256(archive).hexdigest()
    # A name of its own: the parts from before are good until run.json names these.
    name = f"run-{sha256[:8]}"
    pieces = [archive[start : start + part] for start in range(0, len(archive), part)]
    paths = _part_paths(out, name, len(pieces))
    out.mkdir(parents=True, exist_ok=True)
    for unfinished in out.glob(".*.tmp"):  # of a call that was killed
        unfinished.unlink()
    for path, piece in zip(paths, pieces, strict=True):
        write_atomically(path, piece)
    resumable = bool(members.keys() & state)
    index = {
        "archive": name,
        "sha256": sha256,
        "parts": len(pieces),
        "step": int(checkpoint.stem.partition("-")[2]) if checkpoint else 0,
        "resumable": resumable,
    }
    write_atomically(out / "run.json", (json.dumps(index, indent=2) + "\n").encode())
    for stale in set(out.glob("run-*.tar.??")).difference(paths):
        stale.unlink()
    return resumable


def squeeze(checkpoint: Path) -> bytes:
    """A checkpoint in three fifths of its bytes, from which a run goes on to the same bits.

    Two things help. With beta1 = 0 the first of Adam's moments is the last gradient, and the next
    update replaces it unread: zeros will do. And the bytes with sign and exponent of all floats
    compress where they stand side by side.
    """
    metadata, tensors, _ = load_tensors(checkpoint)
    if CheckpointHeader.parse(checkpoint, metadata).config.optimizer.beta1 == 0:
        for name, tensor in tensors.items():
            if name.endswith(".exp_avg"):
                tensor.zero_()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / checkpoint.name
        save_tensors(path, metadata, tensors)
        data = np.fromfile(path, np.uint8)
    planes = data[: len(data) // 4 * 4].reshape(-1, 4).T
    return zlib.compress(planes.tobytes() + data[planes.size :].tobytes(), level=1)


def unsqueeze(squeezed: bytes) -> bytes:
    """A checkpoint's file from what `squeeze` made of it."""
    data = np.frombuffer(zlib.decompress(squeezed), np.uint8)
    whole = len(data) // 4 * 4
    return data[:whole].reshape(4, -1).T.tobytes() + data[whole:].tobytes()


def unpack(packed: Path, run_dir: Path) -> None:
    """Bring back what `pack` wrote, and the list of segments beside it, whole or not at all.

    Raises:
        InputError: Parts are missing or damaged, or there was no room for the checkpoint.
    """
    index = json.loads((packed / "run.json").read_text(encoding="utf-8"))
    if not index["resumable"]:
        raise biggan.InputError(
            f"{packed} has no checkpoint (it was over --at-most): go on with --run where the run "
            "is, or begin anew with another --out"
        )
    paths = _part_paths(packed, index["archive"], index["parts"])
    if missing := [path.name for path in paths if not path.is_file()]:
        raise biggan.InputError(f"{packed} lacks {missing[0]}")
    data = b"".join(path.read_bytes() for path in paths)
    if hashlib.sha256(data).hexdigest() != index["sha256"]:
        raise biggan.InputError(f"the parts in {packed} are damaged, or of different calls")
    unfinished = run_dir.with_name(f".{run_dir.name}.unpacking")
    if unfinished.exists():  # of a call that was killed
        shutil.rmtree(unfinished)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(unfinished, filter="data")
    for squeezed in (unfinished / "checkpoints").glob(f"*{_SQUEEZED}"):
        squeezed.with_suffix("").write_bytes(unsqueeze(squeezed.read_bytes()))
        squeezed.unlink()
    write_segments(read_segments(packed), unfinished)
    unfinished.rename(run_dir)


def _part_paths(folder: Path, name: str, parts: int) -> list[Path]:
    return [folder / f"{name}.tar.{i:02}" for i in range(parts)]


def _newest_checkpoint(run_dir: Path) -> Path | None:
    return max((run_dir / "checkpoints").glob("step-*.safetensors"), default=None)


def _squeezed_name(checkpoint: Path) -> str:
    return f"checkpoints/{checkpoint.name}{_SQUEEZED}"


def _archived(members: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive.getvalue()


def _archive_size(members: Sequence[bytes]) -> int:
    # tar adds a block a file, and rounds up to blocks and to a record.
    return sum(len(data) + 1024 for data in members) + tarfile.RECORDSIZE


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _compiles(device: torch.device) -> bool:
    """Whether torch.compile works here: it needs a C compiler, which not every machine has."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # whatever it is, training without is better than none
        print(f"not compiling: {type(error).__name__}", file=sys.stderr)
        return False
    return True


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the CIFAR-10 model in segments.")
    parser.add_argument("--data", required=True, help="the images: a zip or a folder")
    parser.add_argument("--out", type=Path, required=True, help="where the results go")
    parser.add_argument("--from", type=Path, dest="packed", help="go on from here; default: --out")
    parser.add_argument("--run", type=Path, default=Path("runs/cifar10"), help="the run's folder")
    parser.add_argument("--recipe", default="cifar10")
    parser.add_argument("--seconds", type=float, default=540, help="time for this call")
    parser.add_argument("--reserve", type=float, default=60, help="of which not for training")
    parser.add_argument("--budget", type=float, default=1500, help="training time of all calls")
    parser.add_argument("--at-most", type=float, metavar="MIB", help="size of all parts together")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(argv)
    if arguments.budget <= 0:
        parser.error("--budget must be above 0")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, train a segment, and keep its results."""
    arguments = _arguments(argv)
    until = clock() + arguments.seconds - arguments.reserve
    device = torch.device(arguments.device)
    run_dir: Path = arguments.run
    packed: Path = arguments.packed or arguments.out
    if not run_dir.exists() and (packed / "run.json").is_file():
        unpack(packed, run_dir)
        print(f"{run_dir} restored from {packed}", file=sys.stderr)
    # By the clock, not by the steps; --set total_steps=N ends it earlier.
    changes = ["total_steps=10_000_000"]
    if device.type == "cuda" and _compiles(device):
        changes.append("compile=true")
    config = load_recipe(arguments.recipe, [*changes, *arguments.changes], arguments.data)
    dataset = load_dataset(
        config.data,
        config.generator.resolution,
        config.generator.image_channels,
        unconditional=config.unconditional,
    )
    config = config.fitted(dataset.num_classes)
    out: Path = arguments.out
    at_most = None if arguments.at_most is None else int(arguments.at_most * (1 << 20))

    def keep(finished: bool = False) -> bool:
        return pack(run_dir, out, at_most, finished=finished)

    ended = run_segment(
        config, dataset, run_dir, device, out, keep, until=until, budget=arguments.budget
    )
    if ended:
        finish(config, dataset, run_dir, device, out)
    if not keep(ended):
        print(f"the checkpoint is too large to keep: it is in {run_dir} only", file=sys.stderr)
    print(f"step {newest_step(run_dir)}: {'finished' if ended else 'the same call goes on'}")


if __name__ == "__main__":
    try:
        main()
    except biggan.InputError as error:
        sys.exit(f"error: {error}")
