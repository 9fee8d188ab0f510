"""Whether collapse is called: how soon in runs that are driven into it, and never in healthy ones.

Runs of the digits recipe at half its width and half its batch, with the recipe's learning rates and
with twenty times those, seed by seed. Prints a line a run and a summary.

    python benchmarks/collapse.py                  # 10 healthy and 10 driven runs of 300 steps
    python benchmarks/collapse.py --only driven --steps 160 --factor 40
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from biggan.data import ImageDataset, load_dataset
from biggan.training import TrainConfig, load_recipe, train

CPU = torch.device("cpu")
NARROW = (
    "generator.channels=8",
    "discriminator.channels=8",
    "batch_size=32",
    "statistics_images=64",
    "log_every=20",
    "watch.every=20",
)


def recipe(seed: int, steps: int, factor: float) -> TrainConfig:
    rates = load_recipe("digits").optimizer
    return load_recipe(
        "digits",
        [
            *NARROW,
            f"seed={seed}",
            f"total_steps={steps}",
            f"checkpoint_every={steps}",
            f"optimizer.g_lr={rates.g_lr * factor!r}",
            f"optimizer.d_lr={rates.d_lr * factor!r}",
        ],
    )


def called(config: TrainConfig, dataset: ImageDataset) -> dict | None:
    """Train, and return the event of the collapse, if one was called."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(config.fitted(dataset.num_classes), dataset, run, device=CPU, progress=False)
        events = run / "events.jsonl"
        lines = events.read_text("utf-8").splitlines() if events.exists() else []
    return next((e for e in map(json.loads, lines) if e["event"] == "collapse"), None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--factor", type=float, default=20.0)
    parser.add_argument("--only", choices=["healthy", "driven"])
    arguments = parser.parse_args()
    factors = {"healthy": 1.0, "driven": arguments.factor}
    torch.set_num_threads(1)
    dataset = load_dataset("digits", 32, 1)
    summary = []
    for kind in [arguments.only] if arguments.only else factors:
        factor = factors[kind]
        found = []
        for seed in range(arguments.seeds):
            event = called(recipe(seed, arguments.steps, factor), dataset)
            found.append(event)
            said = "no alarm" if event is None else f"step {event['step']:4}: {event['reason']}"
            print(f"rates x{factor:<4g} seed {seed}: {said}", flush=True)
        steps = sorted(event["step"] for event in found if event is not None)
        line = f"rates x{factor:g}: {len(steps)} of {len(found)} runs called"
        summary.append(line + (f", after {steps[0]} to {steps[-1]} steps" if steps else ""))
    print("\n".join(summary))


if __name__ == "__main__":
    main()
