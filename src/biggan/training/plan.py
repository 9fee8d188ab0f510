"""A plan of a run: what it takes, before anything is allocated or written.

The very functions that train are run once on tensors that have shapes but no memory, and every
operation is noted: so the plan counts the fused arithmetic that really runs, and memory as it comes
and goes. What it cannot see is what the kernels take for themselves while they work, and what the
allocator keeps; docs/training.md says how far off it was where it was measured.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from biggan.errors import InputError
from biggan.models import GeneratorConfig, make_discriminator, make_generator
from biggan.training.augmentation import build_augmentation, draw_augmentation
from biggan.training.config import TrainConfig
from biggan.training.fine_tuning import require_gradients
from biggan.training.lecam import LeCam
from biggan.training.orthogonal_regularization import (
    add_orthogonal_gradient,
    regularized_weights,
)
from biggan.training.standing_statistics import HUB_GRID
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step
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
    """Discriminator updates per step."""
    total_steps: int
    """Steps of the run: generator updates."""
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
    """Real images of an update as the discriminator takes them, with noise and labels."""
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
    checkpoint_bytes: int
    """One checkpoint."""
    run_bytes: int
    """The run's folder when it is largest: three checkpoints, both exported networks, and previews
    that PNG cannot compress. Without the curves."""

    @property
    def step_flops(self) -> int:
        """Floating-point operations of a step: all discriminator updates and the generator's."""
        return self.d_steps * self.d_update_flops + self.g_update_flops

    @property
    def process_bytes(self) -> int:
        """The machine's memory that a process takes on a CPU, with its data set."""
        peak = max(self.d_peak_bytes, self.g_peak_bytes)
        return _PROGRAM_BYTES + round(_OVERHEAD * peak) + (self.data_bytes or 0)

    @property
    def images_per_step(self) -> int:
        """Real images that the discriminator is shown in a step."""
        return self.d_steps * self.batch_size

    @property
    def images_seen(self) -> int:
        """Real images that the discriminator is shown in the run."""
        return self.total_steps * self.images_per_step

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
        derived = ("step_flops", "process_bytes", "images_seen", "steps_per_epoch", "epochs")
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
                f"run ({self.total_steps:,} steps)": _operations(
                    self.total_steps * self.step_flops
                ),
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
                "data set, besides": unknown if self.data_bytes is None else _size(self.data_bytes),
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


def make_plan(config: TrainConfig, dataset_size: int | None, processes: int = 1) -> Plan:
    """Work out what a run takes, in a few seconds and without its memory.

    Args:
        config: The recipe, fitted to the data (`TrainConfig.fitted`).
        dataset_size: Images in the data set; None if it is not known.
        processes: Processes that share the batch.

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
    update = _simulate(
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
    previews = -(-config.total_steps // config.checkpoint_every)
    return Plan(
        processes=processes,
        batch_size=config.batch_size,
        micro_batch=micro_batch,
        accumulation=config.accumulation,
        d_steps=config.d_steps,
        total_steps=config.total_steps,
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
        checkpoint_bytes=update.checkpoint_bytes,
        run_bytes=_CHECKPOINTS * update.checkpoint_bytes
        + _exported_bytes(config.generator)
        + update.discriminator_bytes
        + previews * _PREVIEW_IMAGES * image_bytes,
    )


@dataclass(frozen=True)
class _Update:
    """One update of each network by one process, as it was simulated."""

    generator_parameters: int
    discriminator_parameters: int
    d_flops: int
    g_flops: int
    regularization_flops: int
    weights_bytes: int
    gradients_bytes: int
    moments_bytes: int
    batch_bytes: int
    d_activations_bytes: int
    g_activations_bytes: int
    d_peak_bytes: int
    g_peak_bytes: int
    checkpoint_bytes: int
    discriminator_bytes: int


def _simulate(config: TrainConfig) -> _Update:
    """Run one update of each network without memory, as they are in the middle of a run."""
    meter = _Meter()
    with FakeTensorMode(), meter:
        state = _state(config)
        weights_bytes = meter.live
        # Every update but the first finds moments, and the other network's gradients.
        for optimizer in (state.d_optimizer, state.g_optimizer):
            _fill_gradients(optimizer)
        gradients_bytes = meter.live - weights_bytes
        for optimizer in (state.d_optimizer, state.g_optimizer):
            optimizer.step()
        moments_bytes = meter.live - weights_bytes - gradients_bytes
        before = meter.live
        latents = _latents(config)
        real = _real(config)
        numbers = draw_augmentation(state.augmentation, config)
        batch_bytes = meter.live - before

        state.d_optimizer.zero_grad()
        meter.begin()
        discriminator_step(state, real, latents, config, (numbers, numbers))
        d_flops, d_kept, d_peak = meter.flops, meter.kept, meter.peak

        state.g_optimizer.zero_grad()
        meter.begin()
        generator_step(state, latents, config, numbers)
        g_flops, g_kept, g_peak = meter.flops, meter.kept, meter.peak

        meter.begin()
        if config.orthogonal > 0:
            add_orthogonal_gradient(regularized_weights(state.generator), config.orthogonal)
        return _Update(
            generator_parameters=_count(state.generator.parameters()),
            discriminator_parameters=_count(state.discriminator.parameters()),
            d_flops=d_flops,
            g_flops=g_flops,
            regularization_flops=meter.flops,
            weights_bytes=weights_bytes,
            gradients_bytes=gradients_bytes,
            moments_bytes=moments_bytes,
            batch_bytes=batch_bytes,
            d_activations_bytes=d_kept,
            g_activations_bytes=g_kept,
            d_peak_bytes=d_peak,
            g_peak_bytes=g_peak,
            checkpoint_bytes=_bytes(state.tensors()),
            discriminator_bytes=_bytes(state.discriminator.state_dict()),
        )


class _Meter(TorchDispatchMode):
    """Notes every operation: how much it computes, and what memory its results take.

    Memory is counted by storage, from the operation that makes one until its last tensor is gone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.begin()
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._modules = ModuleTracker()

    def begin(self) -> None:
        """Start counting anew."""
        self.flops = 0
        self.start = self.peak = self.live
        self.kept = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, and note it."""
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # autograd asks all the time: half of all operations
        if not self.kept and self._modules.is_bw:
            self.kept = self.live - self.start
        result = func(*args, **(kwargs or {}))
        count = _FLOPS.get(func.overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        for value in (result,) if isinstance(result, Tensor) else tree_leaves(result):
            if isinstance(value, Tensor):
                self._note(value.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._storages:
            return

        def forget(_: weakref.ref[torch.UntypedStorage]) -> None:
            del self._storages[key]
            self.live -= size

        self._storages[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def _matrix_vector_flops(matrix: Tensor, vector: Tensor, *, out_val: Tensor) -> int:  # noqa: ARG001
    return 2 * matrix.numel()


# torch's own counts, and what they leave out: power iteration, and attention on a CPU.
_ATEN = torch.ops.aten
_FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _ATEN.mv: _matrix_vector_flops,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _ATEN._scaled_dot_product_flash_attention
    ],
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _ATEN._scaled_dot_product_flash_attention_backward
    ],
}


def _state(config: TrainConfig) -> TrainState:
    """The state of a run, its weights never set."""
    generator = make_generator(config.generator)
    discriminator = make_discriminator(config.discriminator)
    average = make_generator(config.generator).eval().requires_grad_(False)
    require_gradients(generator, config.fine_tuning.freeze_generator)
    require_gradients(discriminator, config.fine_tuning.freeze_discriminator)
    generator.recompute = discriminator.recompute = config.checkpoint_activations
    return TrainState(
        generator=generator,
        discriminator=discriminator,
        ema=average,
        g_optimizer=torch.optim.Adam(generator.parameters(), fused=True),
        d_optimizer=torch.optim.Adam(discriminator.parameters(), fused=True),
        step=config.lecam.start,  # from there on a step does all that it ever does
        augmentation=build_augmentation(config),
        lecam=LeCam(config.lecam),
    )


def _fill_gradients(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)


def _latents(config: TrainConfig) -> tuple[Tensor, Tensor]:
    noise = torch.empty(config.batch_size, config.generator.z_dim)
    return noise, torch.empty(config.batch_size, dtype=torch.int64)


def _real(config: TrainConfig) -> tuple[Tensor, Tensor]:
    shape = config.discriminator
    images = torch.empty(
        config.batch_size, shape.image_channels, shape.resolution, shape.resolution
    )
    return images, torch.empty(config.batch_size, dtype=torch.int64)


def _exported_bytes(config: GeneratorConfig) -> int:
    """A generator with its statistics for every truncation, as a finished run writes it."""
    with torch.device("meta"):
        generator = make_generator(config)
        set_statistics_grid(generator, list(HUB_GRID))
    return _bytes(generator.state_dict())


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


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
