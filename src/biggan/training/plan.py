"""A plan of a run: what it takes, before anything is allocated or written.

A step is simulated (`simulation`), and from it follow the whole run's arithmetic, memory and disk.
docs/training.md says how far off that was where it was measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from biggan.errors import InputError
from biggan.models import GeneratorConfig, make_generator
from biggan.training.checkpoint import rollback_reach
from biggan.training.config import TrainConfig
from biggan.training.interventions import real_batches_before, steps_by_regime
from biggan.training.simulation import simulate_update, total_bytes
from biggan.training.standing_statistics import HUB_GRID
from biggan.weights.files import set_statistics_grid

# Measured on CPUs: Python, torch and what it loads to compute; and how much more than is alive the
# kernels and the C library take.
_PROGRAM_BYTES = 340 * 2**20
_OVERHEAD = 1.25
_CHECKPOINTS = 3  # two are kept, and the third is whole before the oldest goes
_PREVIEW_IMAGES = 100  # in one grid, at most


@dataclass(frozen=True)
class Plan:
    """What a run takes. Bytes are those of one process, operations those of all together."""

    processes: int
    """Processes that share the batch."""
    batch_size: int
    """Images per update of a network."""
    micro_batch: int
    """Images per forward pass of one process."""
    accumulation: int
    """Micro-batches per update."""
    d_steps: int
    """Discriminator updates per step, before any intervention."""
    total_steps: int
    """Steps of the run."""
    d_updates: int
    """Discriminator updates of the run."""
    g_updates: int
    """Generator updates of the run: as many as steps, but for interventions that freeze it."""
    real_batches: int
    """Batches of real images that the run takes."""
    images: int | None
    """Images in the data set; None where the data are not known."""
    generator_parameters: int
    """Learned values of the generator."""
    discriminator_parameters: int
    """Learned values of the discriminator."""
    d_update_flops: int
    """Floating-point operations of a discriminator update, a multiplication and an addition being
    two."""
    g_update_flops: int
    """Floating-point operations of a generator update."""
    weights_bytes: int
    """Generator, discriminator, and the moving average of the generator."""
    gradients_bytes: int
    """Gradients of all that is trained in both networks."""
    moments_bytes: int
    """Adam's two moments of every value that is trained."""
    batch_bytes: int
    """Real images of an update as the discriminator takes them, with noise and labels, and with
    what disturbs them and the generated ones (`perturbation`)."""
    d_activations_bytes: int
    """What a discriminator update's forward passes keep for the backward pass."""
    g_activations_bytes: int
    """What a generator update's forward passes keep for the backward pass."""
    d_peak_bytes: int
    """The most that is alive at once in a discriminator update, all of the above included."""
    g_peak_bytes: int
    """The most that is alive at once in a generator update, all of the above included."""
    data_bytes: int | None
    """The data set, decoded; None where the data are not known."""
    data_mapped: bool
    """Whether it is packed, and so mapped from the disk: then the system reads what is needed, and
    keeps it as long as nobody else needs the memory."""
    checkpoint_bytes: int
    """One checkpoint."""
    run_bytes: int
    """The run's folder when it is largest: three to six checkpoints, both exported networks, and
    previews that PNG cannot compress. Without the curves, and without what a collapse leaves."""

    @property
    def step_flops(self) -> int:
        """Floating-point operations of a step: all discriminator updates and the generator's."""
        return self.d_steps * self.d_update_flops + self.g_update_flops

    @property
    def run_flops(self) -> int:
        """Floating-point operations of all updates of the run."""
        return self.d_updates * self.d_update_flops + self.g_updates * self.g_update_flops

    @property
    def process_bytes(self) -> int:
        """The machine's memory that a process takes on a CPU, with a data set that is loaded."""
        peak = max(self.d_peak_bytes, self.g_peak_bytes)
        data = 0 if self.data_mapped else self.data_bytes or 0
        return _PROGRAM_BYTES + round(_OVERHEAD * peak) + data

    @property
    def images_per_step(self) -> int:
        """Real images that the discriminator is shown in a step."""
        return self.d_steps * self.batch_size

    @property
    def images_seen(self) -> int:
        """Real images that the discriminator is shown in the run."""
        return self.real_batches * self.batch_size

    @property
    def steps_per_epoch(self) -> float | None:
        """Steps in which the discriminator is shown every real image once."""
        return None if self.images is None else self.images / self.images_per_step

    @property
    def epochs(self) -> float | None:
        """How often the run shows every real image."""
        return None if self.images is None else self.images_seen / self.images

    def to_dict(self) -> dict[str, Any]:
        """All values by name, for programs."""
        derived = (
            "step_flops",
            "run_flops",
            "process_bytes",
            "images_seen",
            "steps_per_epoch",
            "epochs",
        )
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in derived}

    def table(self) -> str:
        """All values for people, aligned, a line each."""
        unknown = "unknown without data"
        sections = {
            "Networks": {
                "generator": f"{self.generator_parameters:,} parameters",
                "discriminator": f"{self.discriminator_parameters:,} parameters",
            },
            "Arithmetic of all processes (a multiply-add is 2 operations)": {
                "discriminator update": _operations(self.d_update_flops),
                "generator update": _operations(self.g_update_flops),
                f"step ({self.d_steps} + 1 updates)": _operations(self.step_flops),
                f"run ({self.total_steps:,} steps)": _operations(self.run_flops),
            },
            "Memory of each process, about": {
                "weights (G, D, average of G)": _size(self.weights_bytes),
                "gradients": _size(self.gradients_bytes),
                "Adam's moments": _size(self.moments_bytes),
                "batch": _size(self.batch_bytes),
                "activations, discriminator update": _size(self.d_activations_bytes),
                "activations, generator update": _size(self.g_activations_bytes),
                "peak, discriminator update": _size(self.d_peak_bytes),
                "peak, generator update": _size(self.g_peak_bytes),
                "data set, besides": self._data_set(unknown),
                "whole process on a CPU": _size(self.process_bytes),
            },
            "Course": {
                "processes": f"{self.processes}",
                "batch": f"{self.batch_size} = {self.processes} processes x {self.accumulation} "
                f"micro-batches x {self.micro_batch} images",
                "images in the data set": unknown if self.images is None else f"{self.images:,}",
                "steps per epoch": _number(self.steps_per_epoch, unknown),
                "epochs": _number(self.epochs, unknown),
                "real images seen": f"{self.images_seen:,}",
            },
            "Disk": {
                "one checkpoint": _size(self.checkpoint_bytes),
                "the run's folder, at most": _size(self.run_bytes),
            },
        }
        return _aligned(sections)

    def _data_set(self, unknown: str) -> str:
        if self.data_bytes is None:
            return unknown
        if self.data_mapped:
            return f"none; its {_size(self.data_bytes)} are mapped from the disk"
        return _size(self.data_bytes)


def make_plan(
    config: TrainConfig, dataset_size: int | None, processes: int = 1, mapped: bool = False
) -> Plan:
    """Work out what a run takes, in a few seconds and without its memory.

    Args:
        config: The recipe, fitted to the data (`TrainConfig.fitted`).
        dataset_size: Images in the data set; None if it is not known.
        processes: Processes that share the batch.
        mapped: Whether the data set is packed, and so mapped and not loaded.

    Returns:
        The plan.

    Raises:
        InputError: The batch does not split into so many processes and micro-batches.
    """
    parts = processes * config.accumulation
    if config.batch_size % parts:
        raise InputError(
            f"batch_size {config.batch_size} does not divide over {processes} processes and "
            f"{config.accumulation} micro-batches: make it a multiple of {parts}"
        )
    micro_batch = config.batch_size // parts
    # The third micro-batch and those after it repeat the second.
    simulated = min(config.accumulation, 2)
    update = simulate_update(
        dataclasses.replace(
            config,
            batch_size=micro_batch * simulated,
            accumulation=simulated,
        )
    )
    repeated = config.accumulation / simulated
    batch_bytes = round(update.batch_bytes * repeated)
    later_bytes = batch_bytes - update.batch_bytes
    image_bytes = config.generator.image_channels * config.generator.resolution**2
    course = steps_by_regime(config, config.total_steps)
    previews = -(-config.total_steps // config.checkpoint_every)
    return Plan(
        processes=processes,
        batch_size=config.batch_size,
        micro_batch=micro_batch,
        accumulation=config.accumulation,
        d_steps=config.d_steps,
        total_steps=config.total_steps,
        d_updates=sum(steps * regime.d_steps for regime, steps in course if regime.updates_d),
        g_updates=sum(steps for regime, steps in course if regime.updates_g),
        real_batches=real_batches_before(config, config.total_steps),
        images=dataset_size,
        generator_parameters=update.generator_parameters,
        discriminator_parameters=update.discriminator_parameters,
        d_update_flops=round(update.d_flops * repeated) * processes,
        g_update_flops=(
            round((update.g_flops - update.regularization_flops) * repeated)
            + update.regularization_flops
        )
        * processes,
        weights_bytes=update.weights_bytes,
        gradients_bytes=update.gradients_bytes,
        moments_bytes=update.moments_bytes,
        batch_bytes=batch_bytes,
        d_activations_bytes=update.d_activations_bytes,
        g_activations_bytes=update.g_activations_bytes,
        d_peak_bytes=update.d_peak_bytes + later_bytes,
        g_peak_bytes=update.g_peak_bytes + later_bytes,
        data_bytes=None if dataset_size is None else dataset_size * (image_bytes + 8),
        data_mapped=mapped,
        checkpoint_bytes=update.checkpoint_bytes,
        run_bytes=(_CHECKPOINTS + _older_checkpoints(config)) * update.checkpoint_bytes
        + _exported_bytes(config.generator)
        + update.discriminator_bytes
        + previews * _PREVIEW_IMAGES * image_bytes,
    )


def _older_checkpoints(config: TrainConfig) -> int:
    """Those to roll back to, where the two newest do not reach far enough back."""
    reach = rollback_reach(config)
    if reach <= config.checkpoint_every:
        return 0
    return 2 if reach % config.checkpoint_every == 0 else 3


def _exported_bytes(config: GeneratorConfig) -> int:
    """A generator with its statistics for every truncation, as a finished run writes it."""
    with torch.device("meta"):
        generator = make_generator(config)
        set_statistics_grid(generator, list(HUB_GRID))
    return total_bytes(generator.state_dict())


def _operations(flops: int) -> str:
    return _scaled(flops, 1000, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"))


def _size(size: int) -> str:
    return _scaled(size, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    """Three digits or more and the unit that suits them."""
    power = 0
    while value >= base and power < len(units) - 1:
        value /= base
        power += 1
    return (
        f"{value:.{0 if power == 0 or value >= 100 else 1 if value >= 10 else 2}f} {units[power]}"
    )


def _number(value: float | None, unknown: str) -> str:
    return unknown if value is None else f"{value:,.1f}"


def _aligned(sections: Mapping[str, Mapping[str, str]]) -> str:
    width = max(len(name) for rows in sections.values() for name in rows)
    parts = [
        "\n".join([title, *(f"  {name:{width}}  {value}" for name, value in rows.items())])
        for title, rows in sections.items()
    ]
    return "\n\n".join(parts)
