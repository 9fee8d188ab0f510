"""`biggan train`: a model from a recipe; the same command again resumes."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from types import FrameType

import click

from biggan.cli.options import check_writable, choose_device, device_option
from biggan.errors import InputError

_LOG = logging.getLogger("biggan.training")


@click.command
@click.argument("recipe", metavar="RECIPE")
@click.option(
    "--data",
    metavar="PATH",
    help="A folder of class folders, a zip of one, or `digits`; the recipe's data if left out.",
)
@click.option(
    "--out",
    "run_dir",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The run's folder.",
)
@click.option(
    "--set",
    "changes",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a value of the recipe, such as batch_size=64 or optimizer.g_lr=1e-4.",
)
@click.option("--strict", is_flag=True, help="Stop at a corrupt image instead of skipping it.")
@device_option
def command(
    recipe: str,
    data: str | None,
    run_dir: Path,
    changes: tuple[str, ...],
    strict: bool,
    device: str | None,
) -> None:
    """Train a model from RECIPE: a TOML file, or the name of a shipped recipe.

    \b
    Examples:
      biggan train digits --out runs/digits
      biggan train cifar10 --data cifar10-train.zip --out runs/cifar10 --set batch_size=128
      biggan sample --model runs/digits --class seven

    To resume, run the same command again: after Ctrl-C, a crash or a power cut the result is the
    same as without.
    """
    import torch

    from biggan.data import load_dataset
    from biggan.training import load_recipe, train

    check_writable(run_dir)
    config = load_recipe(recipe, changes, data)
    if not config.data:
        raise InputError(f"the recipe {recipe} names no data: give --data FOLDER, ZIP or digits")
    chosen = torch.device(choose_device(device))
    dataset = load_dataset(
        config.data,
        config.generator.resolution,
        config.generator.image_channels,
        strict=strict,
        unconditional=config.unconditional,
    )
    config = config.fitted(dataset.num_classes)
    classes = f"{dataset.num_classes} classes" if dataset.class_names else "no classes"
    _LOG.info("%d images of %s, %s; training on %s", len(dataset), dataset.source, classes, chosen)
    with_stop = _StopOnSignal()
    state = train(config, dataset, run_dir, device=chosen, should_stop=with_stop)
    if state.step < config.total_steps:
        _LOG.info("stopped at step %d; the same command resumes", state.step)
        raise SystemExit(130)
    click.echo(run_dir / "generator.safetensors")


class _StopOnSignal:
    """Ends the run after the step that Ctrl-C or SIGTERM interrupts; a second one is final."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def __call__(self) -> bool:
        return self._asked

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        _LOG.info("stopping after this step, with a checkpoint; again to stop at once")
