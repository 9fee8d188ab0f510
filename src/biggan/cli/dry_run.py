"""`biggan train --dry-run`: what a run would take and need, and where it would begin."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import torch

from biggan.cli import options
from biggan.cli.train import newest_checkpoint, summary
from biggan.data import ShardStream
from biggan.data.dataset import DatasetOutline
from biggan.devices import has_bfloat16
from biggan.distributed import asked_processes
from biggan.toml import to_toml
from biggan.training.batches import UncountedStream, look_at_data
from biggan.training.config import TrainConfig, differing_keys
from biggan.training.plan import (
    NIGHT,
    Plan,
    answer,
    differences,
    duration,
    make_plan,
    measure_rate,
    plan_table,
    propose,
)
from biggan.training.run import other_data, other_recipe, position


def print_plan(
    config: TrainConfig,
    run_dir: Path | None,
    device: str,
    load: Callable[[list[str]], TrainConfig],
    changes: list[str],
    *,
    strict: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Say what would be done. Under torchrun one process speaks for all."""
    data = look_at_data(config, run_dir, strict=strict) if config.data else None
    if data is not None and data.num_classes is not None:
        config = config.fitted(data.num_classes)
    dataset = None if isinstance(data, UncountedStream) else data
    plan = make_plan(
        config,
        None if dataset is None else len(dataset),
        asked_processes(),
        # Of a stream only the images in waiting are in memory.
        data_bytes=dataset.window_bytes if isinstance(dataset, ShardStream) else None,
        mapped=isinstance(dataset, DatasetOutline) and dataset.is_mapped,
    )
    if os.environ.get("RANK", "0") != "0":
        return
    about, begins = summary(data), _beginning(config, dataset, run_dir)
    if as_json:
        values = {"recipe": config.to_dict(), "plan": plan, "data": about, "start": begins}
        click.echo(json.dumps(values, indent=2))
        return
    _print_time(config, plan, torch.device(device), load, changes)
    click.echo(f"\nData\n  {about}\n\nStart\n  {begins}\n")
    if verbose:
        click.echo(f"{to_toml(config.to_dict())}\n{plan_table(plan)}\n")
    hint = "" if verbose else "; --verbose prints the resolved recipe and all figures"
    out = "" if run_dir else ", with --out FOLDER"
    click.echo(f"To train: the same command without --dry-run{out}{hint}")


def _print_time(
    config: TrainConfig,
    plan: Plan,
    device: torch.device,
    load: Callable[[list[str]], TrainConfig],
    changes: list[str],
) -> None:
    """How long the run takes here; for a CPU also what would make it shorter."""
    options.report("measuring a few updates")
    rate = measure_rate(config, device) * plan["processes"]
    click.echo(answer(plan, config, rate, device))
    if device.type != "cpu":
        return
    faster: list[str] = []
    if config.precision == "float32" and has_bfloat16():
        low = measure_rate(replace(config, precision="bfloat16"), device) * plan["processes"]
        if low > 1.2 * rate:
            rate, faster = low, ["precision=bfloat16"]
            click.echo(
                f"In bfloat16, which this CPU has, about {duration(plan['run_flops'] / rate)}: "
                "--set precision=bfloat16"
            )
    if plan["run_flops"] / rate <= 1.5 * NIGHT:
        return
    classes = config.generator.num_classes
    proposed = propose(lambda more: load(more).fitted(classes), [*changes, *faster], rate)
    if proposed is None:
        click.echo("That is too much for this CPU: use a GPU, or smaller images.")
        return
    sets = " ".join(f"--set {change}" for change in [*faster, *proposed])
    smaller = differences(config, load([*changes, *proposed]))
    click.echo(f"On this CPU these settings end within {NIGHT // 3600} hours{smaller}: {sets}")


def _beginning(
    config: TrainConfig, dataset: DatasetOutline | ShardStream | None, run_dir: Path | None
) -> str:
    """Where the run would begin, in words."""
    if run_dir is None:
        return "at step 0; without --out no earlier run is looked for"
    saved = newest_checkpoint(run_dir)
    if saved is None:
        return f"at step 0; there is no checkpoint in {run_dir}"
    if differing := differing_keys(saved.config, config, saved.step):
        return f"refused: {other_recipe(run_dir, config.data, differing)}"
    fingerprint = None if dataset is None else dataset.fingerprint
    if dataset is not None and fingerprint not in (None, saved.data_fingerprint):
        return f"refused: {other_data(run_dir, dataset)}"
    if saved.step >= config.total_steps:
        return f"nothing to do: {run_dir} is at {position(saved.step, config.total_steps)}"
    # Whether images are the same ones only decoding them all would tell.
    unknown = "" if dataset is None or fingerprint else ", if its images are still the same"
    return f"resumes {run_dir} at step {saved.step:,} of {config.total_steps:,}{unknown}"
