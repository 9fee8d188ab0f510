"""`biggan train`: a model from a recipe; the same command again resumes."""

from __future__ import annotations

import json
import logging
import re
import signal
import time
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from biggan.cli import options
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.data import TrainingData
    from biggan.data.dataset import DatasetOutline
    from biggan.training import TrainConfig
    from biggan.training.batches import UncountedStream
    from biggan.training.checkpoint import Checkpoint

_LOG = logging.getLogger("biggan.training")


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A time such as 50m, 1h30m or 90s, in seconds."""

    name = "time"

    _FORM = re.compile(
        r"(?:(\d{1,4}(?:\.\d+)?)h)?(?:(\d{1,6}(?:\.\d+)?)m)?(?:(\d{1,8}(?:\.\d+)?)s)?"
    )

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Read the option's text."""
        if value is None or isinstance(value, float):
            return value
        match = self._FORM.fullmatch(str(value).strip().lower().replace(" ", ""))
        hours, minutes, seconds = (
            (float(part or 0) for part in match.groups()) if match else (0,) * 3
        )
        total = 3600 * hours + 60 * minutes + seconds
        if total <= 0:
            self.fail(f"{str(value)[:100]!r} is not a time; write 50m, 1h30m or 90s", param, ctx)
        return total


@click.command
@click.argument("recipe", metavar="RECIPE", type=options.SOURCE)
@click.option(
    "--data",
    metavar="PATH",
    help="A packed dataset, `digits`, or what `biggan data pack` packs; with --set stream=true "
    "also addresses of shards.  [default: the recipe's data]",
)
@options.label_column
@options.resize
@click.option(
    "--out", "run_dir", type=options.FOLDER, help="The run folder; optional with --dry-run."
)
@click.option(
    "--set",
    "changes",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a value of the recipe, such as batch_size=64 or optimizer.g_lr=1e-4; repeatable.",
)
@click.option("--strict", is_flag=True, help="Fail at a corrupt image instead of skipping it.")
@click.option(
    "--stop-after",
    type=DurationType(),
    help="Stop with a checkpoint after this time since the start of the command, such as 50m, "
    "1h30m or 90s; the same command resumes.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print how long the run takes on this machine, from a few measured updates, and what it "
    "needs. Writes nothing.",
)
@click.option(
    "--verbose",
    is_flag=True,
    help="With --dry-run: also print the resolved recipe and all figures.",
)
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print JSON.")
@options.device
def command(
    recipe: str,
    data: str | None,
    label_column: str | None,
    resize: str,
    run_dir: Path | None,
    changes: tuple[str, ...],
    strict: bool,
    stop_after: float | None,
    dry_run: bool,
    verbose: bool,
    as_json: bool,
    device: str | None,
) -> None:
    """Train a model from RECIPE: a TOML file, or the name of a shipped recipe.

    \b
    Examples:
      biggan train digits --out runs/digits
      biggan train fruits --data fruits-train.zip --out runs/fruits --stop-after 50m
      biggan sample --model runs/digits --class seven
      biggan train fruits --data fruits.tgz::train --resize pad --out runs/padded
      biggan train biggan.toml --data imagenet --dry-run
      biggan train biggan.toml --data "big/{0000..0999}.tar" --set stream=true --out runs/big

    To resume, run the same command again. After Ctrl-C, a crash or a power cut the result is the
    same as that of an uninterrupted run.

    Signals of both networks are recorded in signals.jsonl, and a collapse in events.jsonl. With
    --set collapse.action=stop a collapse stops the run; with collapse.action=rollback the run
    continues from a checkpoint before it.
    """
    stop = StopRequest(stop_after)
    if as_json and not dry_run:
        raise InputError("--json applies to --dry-run only")
    if run_dir is not None:
        options.check_writable(run_dir)

    from biggan.devices import find_device
    from biggan.training.config import load_recipe

    if label_column is not None:
        changes = (*changes, f"label_column={json.dumps(label_column)}")
    if options.given_option(["resize"]):
        changes = (*changes, f"resize={resize}")
    device = str(find_device(device))
    recipe = _suited(recipe, device, run_dir)
    config = load_recipe(recipe, changes, data)
    if run_dir is None and not dry_run:
        raise InputError(f"give a folder for the run, such as --out runs/{config.name}")
    _check_apart(config, run_dir)
    if dry_run:
        from biggan.cli.dry_run import print_plan

        print_plan(
            _fit_to_source(config, run_dir),
            run_dir,
            device,
            partial(load_recipe, recipe, data=data),
            list(changes),
            strict=strict,
            as_json=as_json,
            verbose=verbose,
        )
        return
    if not config.data:
        raise InputError(f"the recipe {recipe} has no data: give --data FOLDER, ZIP or digits")
    assert run_dir is not None
    _train(config, run_dir, device, stop, strict=strict)


def _check_apart(config: TrainConfig, run_dir: Path | None) -> None:
    """Refuse a run folder inside a folder of images: its previews would be a class of the data."""
    from biggan.data.dataset import DIGITS

    data = Path(config.data).resolve()
    if run_dir is None or config.stream or config.data in ("", DIGITS) or not data.is_dir():
        return
    if run_dir.resolve().is_relative_to(data):
        remedy = f"choose another --out, such as {data}-run"
        if run_dir.resolve() != data and (run_dir / "checkpoints").is_dir():
            remedy = f"move it to {data}-run and continue it there, with --out {data}-run"
        raise InputError(
            f"{run_dir} is inside the data, where its previews would become training images: "
            f"{remedy}"
        )


def _suited(recipe: str, device: str, run_dir: Path | None) -> str:
    """The recipe, or its form for CPUs; a run goes on with the recipe that it has."""
    from biggan.training.config import load_recipe, shipped_recipes

    if device != "cpu" or f"{recipe}-cpu" not in shipped_recipes():
        return recipe
    saved = newest_checkpoint(run_dir)
    if saved and saved.config.generator.channels == load_recipe(recipe).generator.channels:
        return recipe
    _LOG.info(
        "no accelerator here: training with the recipe %s-cpu, whose networks are narrower", recipe
    )
    return f"{recipe}-cpu"


def newest_checkpoint(run_dir: Path | None) -> Checkpoint | None:
    """What the newest checkpoint of a run says of itself."""
    from biggan.training.checkpoint import CheckpointDirectory

    if run_dir is None:
        return None
    return CheckpointDirectory(run_dir / "checkpoints").read_newest(header_only=True)


def _fit_to_source(config: TrainConfig, run_dir: Path | None) -> TrainConfig:
    """The recipe with the shapes of the networks that it starts from, if it names any.

    A run that is resumed has them in its checkpoint: its sources may be gone.
    """
    if not (config.fine_tuning.generator or config.fine_tuning.discriminator):
        return config
    from biggan.fine_tuning import fitted_to_source

    saved = newest_checkpoint(run_dir)
    return fitted_to_source(config, saved.config if saved else None)


def _train(
    config: TrainConfig, run_dir: Path, device: str, stop: StopRequest, *, strict: bool
) -> None:
    import torch

    from biggan.devices import keep_freed_memory
    from biggan.distributed import check_shares, is_first, process_group, raising_together
    from biggan.training.batches import open_data
    from biggan.training.export import RunInterruptedError
    from biggan.training.loop import train

    keep_freed_memory()
    with process_group(torch.device(device)) as own_device:
        check_shares(config.batch_size, config.accumulation)
        with raising_together():
            config = _fit_to_source(config, run_dir)
        dataset = open_data(config, run_dir, own_device, strict=strict)
        config = config.fitted(dataset.num_classes)
        if is_first():
            _LOG.info("%s; training on %s", summary(dataset), own_device)
        stop.watch_signals()
        try:
            step = train(
                config,
                dataset,
                run_dir,
                device=own_device,
                should_stop=stop,
                interrupted=stop.is_due,
            ).step
        except RunInterruptedError:
            if is_first():
                stop.finish("after a checkpoint; the same command exports and evaluates it")
            return
        if not is_first():
            return
        if step < config.total_steps:
            stop.finish(f"at step {step} of {config.total_steps}; the same command resumes")
        elif config.track:
            _track_report(config, run_dir)
        click.echo(run_dir / "generator.safetensors")
        options.name_next("biggan", "demo", model=run_dir)


def _track_report(config: TrainConfig, run_dir: Path) -> None:
    """Give the report of a finished run to its tracker."""
    from biggan.reporting import read_run, write_report
    from biggan.supervision.trackers import open_tracker

    page = run_dir / "report.html"
    write_report(read_run(run_dir), page)
    try:
        tracker = open_tracker(config.to_dict(), run_dir)
    except InputError as error:  # the run itself is complete
        _LOG.warning("the report is not tracked: %s", error)
        return
    tracker.log_file(page)
    tracker.close()


def summary(data: TrainingData | DatasetOutline | UncountedStream | None) -> str:
    """What there is to train on, in words."""
    from biggan.data import ImageDataset
    from biggan.data.dataset import DatasetOutline
    from biggan.training.batches import UncountedStream

    if data is None:
        return "not given"
    if isinstance(data, UncountedStream):
        found = "how many images they hold"
        if data.num_classes is None:
            found += " and of which classes (until then those of the recipe's preset)"
        return f"{data.shards:,} shards to stream; before the first step training counts {found}"
    classes = f"{data.num_classes} classes" if data.class_names else "no classes"
    about = f"{len(data)} images of {data.source}, {classes}"
    if isinstance(data, DatasetOutline):
        return about if data.fingerprint else f"{about} (not decoded yet)"
    if isinstance(data, ImageDataset):
        return about
    return f"{about}, a stream of {len(data.counts):,} shards"


class StopRequest:
    """Ends a run after the current step: at a deadline, or at Ctrl-C, SIGTERM or SIGHUP.

    A second Ctrl-C ends the process at once. A second SIGTERM does not: a launcher and a scheduler
    may each send one to the same process. Nor does a Ctrl-C within a second of the first signal,
    for the same reason.

    Args:
        seconds: Time from now to the deadline; None for no deadline.
    """

    _TOGETHER = 1.0  # seconds

    def __init__(self, seconds: float | None = None) -> None:
        self._started = time.monotonic()
        self._seconds = seconds
        self._steps = 0
        self._asked: float | None = None

    def watch_signals(self) -> None:
        """Handle SIGINT, SIGTERM and SIGHUP from now on; under nohup not the last."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        hangup = getattr(signal, "SIGHUP", None)  # Windows has none
        if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
            signal.signal(hangup, self._on_signal)

    def __call__(self) -> bool:
        """Whether the run shall end. The loop asks once after every step."""
        self._steps += 1
        return self.is_due()

    def is_due(self) -> bool:
        """Whether a signal came, or the deadline."""
        return self._asked is not None or self._is_late()

    def finish(self, where: str) -> None:
        """Say where a run was stopped, and end its command.

        Raises:
            SystemExit: With status 130, unless the deadline has passed.
            InputError: The deadline passed, and no step was made.
        """
        is_late = self._is_late()
        passed = f"after {time.monotonic() - self._started:.1f} s; give more time"
        if is_late and not self._steps:
            raise InputError(f"--stop-after: the time ended before anything was done, {passed}")
        _LOG.info("stopped %s", where)
        if not is_late:
            raise SystemExit(130)
        if self._steps == 1:
            _LOG.warning("--stop-after: the time ended within the first step, %s", passed)

    def _is_late(self) -> bool:
        return self._seconds is not None and time.monotonic() - self._started >= self._seconds

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            _LOG.info(
                "stopping after this step with a checkpoint, the generator and a preview, or "
                "within the last export; press Ctrl-C again to stop at once"
            )
        elif number == signal.SIGINT and now - self._asked > self._TOGETHER:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a third one is not even unwound
            raise KeyboardInterrupt
