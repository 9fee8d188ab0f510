"""A plan of a run: what it takes, before anything is allocated or written, and how long.

One update of each network is simulated: the functions that train run on fake tensors, which have
shapes but no memory, and every operation is noted. Not seen is what the kernels take for themselves
while they work, and what the allocator keeps. docs/training.md has measurements of both.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from biggan.errors import InputError
from biggan.models import make_discriminator, make_generator, set_statistics_grid
from biggan.nn.winograd import forget_transforms
from biggan.training.checkpoint import rollback_reach
from biggan.training.config import TrainConfig
from biggan.training.export import HUB_GRID
from biggan.training.randomness import Purpose
from biggan.training.regularization import R1Config, add_orthogonal_gradient, regularized_weights
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, draw_latents, generator_step

# Measured on CPUs: Python, torch and what it loads to compute; and how much more than is alive the
# kernels and the C library take.
_PROGRAM_BYTES = 340 * 2**20
_OVERHEAD = 1.25
_CHECKPOINTS = 3  # two are kept, and the third is whole before the oldest goes
_PREVIEW_IMAGES = 100  # in one grid, at most

NIGHT = 8 * 3600  # seconds
FIRST_PREVIEW = 120  # seconds, of proposed settings
_USEFUL = 10_000  # steps, the fewest of proposed settings
_IMAGES = 8  # of a measured batch
_PATIENCE = 15.0  # seconds

# From the least change to the largest.
_SMALLER = (
    (),
    ("batch_size=32", "generator.channels=16", "discriminator.channels=16"),
    ("preset=biggan-32", "batch_size=32", "generator.channels=16", "discriminator.channels=16"),
)

Plan = dict[str, Any]
"""What a run takes, by name. Bytes are those of one process, operations (FLOP, two for a
multiply-add) those of all together."""


def make_plan(
    config: TrainConfig,
    images: int | None,
    processes: int = 1,
    *,
    data_bytes: int | None = None,
    mapped: bool = False,
) -> Plan:
    """Work out what a run takes, in a few seconds and without its memory.

    Args:
        config: The recipe, fitted to the data (`TrainConfig.fitted`).
        images: Images in the data set; None if that is not known.
        processes: Processes that share the batch.
        data_bytes: Memory of the images, where not all of them are in memory.
        mapped: Whether the data set is mapped from the disk and not loaded.

    Raises:
        InputError: The batch does not split into so many processes and micro-batches.
    """
    parts = processes * config.accumulation
    if config.batch_size % parts:
        raise InputError(
            f"batch_size {config.batch_size} is not divisible over {processes} processes and "
            f"{config.accumulation} micro-batches: make it a multiple of {parts}"
        )
    micro_batch = config.batch_size // parts
    image_bytes = config.generator.image_channels * config.generator.resolution**2
    if images is not None and data_bytes is None:
        data_bytes = images * (image_bytes + 8)
    regimes = config.steps_by_regime(config.total_steps)
    real_batches = config.real_batches_before(config.total_steps)
    seen = real_batches * config.batch_size
    d_updates = sum(steps * regime.d_steps for regime, steps in regimes if regime.updates_d)
    g_updates = sum(steps for regime, steps in regimes if regime.updates_g)
    update, (generator_bytes, discriminator_bytes) = _update(config, micro_batch, processes)
    d_flops, g_flops = update["d_update_flops"], update["g_update_flops"]
    peak = max(update["d_peak_bytes"], update["g_peak_bytes"])
    previews = -(-config.total_steps // config.checkpoint_every)
    generators = 1 + config.total_steps // config.kept_interval
    if config.evaluation.every:
        generators += 1 + config.evaluation.keep_best
    checkpoints = _CHECKPOINTS + _older_checkpoints(config)
    return {
        **update,
        "processes": processes,
        "batch_size": config.batch_size,
        "micro_batch": micro_batch,  # images per forward pass of one process
        "accumulation": config.accumulation,
        "d_steps": config.d_steps,  # before any intervention, as for steps and epochs
        "total_steps": config.total_steps,
        "d_updates": d_updates,
        "g_updates": g_updates,
        "real_batches": real_batches,
        "images": images,
        "data_bytes": data_bytes,  # decoded
        "data_mapped": mapped,
        # The folder when it is largest, without logs and what a collapse leaves.
        "run_bytes": checkpoints * update["checkpoint_bytes"]
        + generators * generator_bytes
        + discriminator_bytes
        + previews * _PREVIEW_IMAGES * image_bytes,
        "step_flops": config.d_steps * d_flops + g_flops,
        "run_flops": d_updates * d_flops + g_updates * g_flops,
        "process_bytes": _PROGRAM_BYTES
        + round(_OVERHEAD * peak)
        + (0 if mapped else data_bytes or 0),
        "images_seen": seen,
        "steps_per_epoch": images and images / (config.d_steps * config.batch_size),
        "epochs": images and seen / images,
    }


def plan_table(plan: Plan) -> str:
    """All values for people, aligned, a line each."""

    def shown(name: str) -> str:
        value = plan[name]
        if value is None:
            return "unknown without data"
        if name.endswith("_bytes"):
            return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
        if name.endswith("_flops"):
            units = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP")
            return _scaled(value, 1000, units)
        return f"{value:,.{isinstance(value, float):d}f}"

    data_set = shown("data_bytes")
    if plan["data_mapped"] and plan["data_bytes"] is not None:
        data_set = f"none; its {data_set} are mapped from the disk"
    sections: dict[str, dict[str, str]] = {
        "Networks": {
            name: f"{plan[f'{name}_parameters']:,} parameters"
            for name in ("generator", "discriminator")
        },
        "Arithmetic of all processes (a multiply-add is 2 operations)": {
            "discriminator update": shown("d_update_flops"),
            "generator update": shown("g_update_flops"),
            f"step ({plan['d_steps']} + 1 updates)": shown("step_flops"),
            f"run ({plan['total_steps']:,} steps)": shown("run_flops"),
        },
        "Memory of each process, about": {
            "weights (G, D, average of G)": shown("weights_bytes"),
            "gradients": shown("gradients_bytes"),
            "Adam's moments": shown("moments_bytes"),
            "batch": shown("batch_bytes"),
            "activations, discriminator update": shown("d_activations_bytes"),
            "activations, generator update": shown("g_activations_bytes"),
            "peak, discriminator update": shown("d_peak_bytes"),
            "peak, generator update": shown("g_peak_bytes"),
            "dataset": data_set,
            "whole process on a CPU": shown("process_bytes"),
        },
        "Course": {
            "processes": f"{plan['processes']}",
            "batch": "{batch_size} = {processes} processes x {accumulation} micro-batches x "
            "{micro_batch} images".format(**plan),
            "images in the dataset": shown("images"),
            "steps per epoch": shown("steps_per_epoch"),
            "epochs": shown("epochs"),
            "real images seen": shown("images_seen"),
        },
        "Disk": {
            "one checkpoint": shown("checkpoint_bytes"),
            "run folder, at most": shown("run_bytes"),
        },
    }
    width = max(len(name) for rows in sections.values() for name in rows)
    return "\n\n".join(
        "\n".join([title, *(f"  {name:{width}}  {value}" for name, value in rows.items())])
        for title, rows in sections.items()
    )


def measure_rate(config: TrainConfig, device: torch.device) -> float:
    """Operations a second of training on a device, from some updates of a small batch."""
    size = min(config.batch_size, _IMAGES)
    small = replace(
        config, batch_size=size, accumulation=1, compile=False, label_sampling="uniform"
    )
    plan = make_plan(replace(small, total_steps=1, d_steps=1), None)
    state = TrainState.create(small, device)
    shape = config.discriminator
    images = torch.rand(size, shape.image_channels, shape.resolution, shape.resolution) * 2 - 1
    labels = torch.arange(size) % max(shape.num_classes, 1)
    real = images.to(device), labels.to(device)
    begun, fastest = time.monotonic(), float("inf")
    for _ in range(4):  # the first one also prepares much
        start = time.monotonic()
        metrics = discriminator_step(state, real, small) | generator_step(state, small)
        for value in metrics.values():
            float(value)  # waits for the device
        fastest = min(fastest, time.monotonic() - start)
        if time.monotonic() - begun > _PATIENCE:
            break
    return float(plan["d_update_flops"] + plan["g_update_flops"]) / fastest


def propose(
    load: Callable[[list[str]], TrainConfig], changes: list[str], rate: float
) -> list[str] | None:
    """Changes of a recipe with which it ends within a night; None if there are none.

    `load` makes a recipe, fitted to the data, of changes such as "batch_size=32"; `changes` are
    those that were asked for, and `rate` is in operations a second.
    """
    for smaller in _SMALLER:
        config = load([*changes, *smaller])
        step = make_plan(config, None)["step_flops"] / rate
        steps = int(NIGHT / step) // 1000 * 1000
        if steps >= min(_USEFUL, config.total_steps):
            every = max(10, min(config.checkpoint_every, round(FIRST_PREVIEW / step / 10) * 10))
            steps = min(steps, config.total_steps)
            return [*smaller, f"total_steps={steps}", f"checkpoint_every={every}"]
    return None


def differences(config: TrainConfig, smaller: TrainConfig) -> str:
    """What proposed settings change about the pictures and networks, in words."""
    old, new = config.generator, smaller.generator
    words = []
    if new.resolution != old.resolution:
        words.append(f"at {new.resolution} px instead of {old.resolution}")
    if new.channels < old.channels:
        words.append(f"with {new.channels} channels instead of {old.channels}")
    if smaller.batch_size < config.batch_size:
        words.append(f"in batches of {smaller.batch_size} instead of {config.batch_size}")
    return "".join(f", {each}" for each in words)


def answer(plan: Plan, config: TrainConfig, rate: float, device: torch.device) -> str:
    """What one asks first: hours, the first preview, memory and disk, in two lines."""
    step = plan["step_flops"] / rate
    memory = (
        plan["process_bytes"]
        if device.type == "cpu"
        else max(plan["d_peak_bytes"], plan["g_peak_bytes"])
    )
    first = min(config.checkpoint_every, config.total_steps)
    return (
        f"About {duration(plan['run_flops'] / rate)} on this machine ({device}): "
        f"{config.total_steps:,} steps of {duration(step)}.\n"
        f"First preview after {duration(first * step)}, at step {first:,}. "
        f"Memory about {memory / 2**30:.1f} GiB, disk at most {plan['run_bytes'] / 2**30:.1f} GiB."
    )


def duration(seconds: float) -> str:
    """A time in words, to two digits."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            count = seconds / size
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.2g} seconds"


def _update(config: TrainConfig, micro_batch: int, processes: int) -> tuple[Plan, tuple[int, int]]:
    """One update of each network, and the bytes of both as a finished run exports them."""
    # The third micro-batch and those after it repeat the second.
    simulated = min(config.accumulation, 2)
    smaller = replace(
        config,
        batch_size=micro_batch * simulated,
        accumulation=simulated,
        compile=False,
        label_sampling="uniform",
    )
    update, once_flops, exported_bytes = _simulate(smaller)
    if config.r1.gamma > 0:
        # The penalty has forward and backward passes of its own, and they come first: what the
        # adversarial loss keeps is seen without them.
        plain, *_ = _simulate(replace(smaller, r1=R1Config()))
        name = "d_activations_bytes"
        update[name] = max(update[name], plain[name])
    repeated = config.accumulation / simulated
    later_bytes = round(update["batch_bytes"] * repeated) - update["batch_bytes"]
    for name in ("batch_bytes", "d_peak_bytes", "g_peak_bytes"):
        update[name] += later_bytes
    g_flops = round((update["g_update_flops"] - once_flops) * repeated) + once_flops
    update["d_update_flops"] = round(update["d_update_flops"] * repeated) * processes
    update["g_update_flops"] = g_flops * processes
    return update, exported_bytes


def _simulate(config: TrainConfig) -> tuple[Plan, int, tuple[int, int]]:
    """Simulate one update of each network, as in the middle of a run, with a batch of one process.

    Returns the update; operations of the generator's that do not depend on the batch; and the bytes
    of both networks as a finished run exports them.
    """
    meter = Meter()
    with ExitStack() as opened:
        # Winograd's transforms in this block are those of this block alone.
        forget_transforms()
        opened.callback(forget_transforms)
        opened.enter_context(FakeTensorMode())
        opened.enter_context(meter)
        shape = config.discriminator
        networks = make_generator(config.generator), make_discriminator(shape)
        state = TrainState.of(config, *networks, make_generator(config.generator))
        state.step = config.lecam.start  # from there on a step does all that it ever does
        weights_bytes = meter.live
        # Every update but the first finds moments, and the other network's gradients.
        trained = [p for network in networks for p in network.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        gradients_bytes = meter.live - weights_bytes
        for optimizer in (state.d_optimizer, state.g_optimizer):
            optimizer.step()
        moments_bytes = meter.live - weights_bytes - gradients_bytes
        size = config.batch_size, shape.image_channels, shape.resolution, shape.resolution
        before = meter.live
        real = torch.empty(size), torch.empty(config.batch_size, dtype=torch.int64)
        real_bytes = meter.live - before
        # The steps draw these themselves: they are part of the batch, not of what is kept.
        latents = draw_latents(config, (), Purpose.GENERATOR_STEP)
        latents_bytes = meter.live - before - real_bytes
        draws = state.augmentation.draw(config.batch_size, config.seed, state.step)
        draws_bytes = meter.live - before - real_bytes - latents_bytes
        del latents, draws

        state.d_optimizer.zero_grad()
        meter.begin()
        discriminator_step(state, real, config)
        d_flops, d_kept, d_peak = meter.flops, meter.kept, meter.peak

        state.g_optimizer.zero_grad()
        meter.begin()
        generator_step(state, config)
        g_flops, g_kept, g_peak = meter.flops, meter.kept, meter.peak

        meter.begin()
        if config.orthogonal > 0:
            weights = regularized_weights(state.generator).values()
            add_orthogonal_gradient(weights, config.orthogonal)
        if state.g_spectrum is not None:
            state.g_spectrum.before_update()
            state.g_spectrum.after_update()
        update = {
            "generator_parameters": sum(p.numel() for p in state.generator.parameters()),
            "discriminator_parameters": sum(p.numel() for p in state.discriminator.parameters()),
            "d_update_flops": d_flops,
            "g_update_flops": g_flops,
            "weights_bytes": weights_bytes,  # generator, discriminator, and average of the former
            "gradients_bytes": gradients_bytes,  # of all that is trained
            "moments_bytes": moments_bytes,  # Adam's two, of all that is trained
            # Real images, noise, labels, and the augmentation's random numbers.
            "batch_bytes": real_bytes + latents_bytes + 2 * draws_bytes,
            # What the forward passes keep for the backward pass.
            "d_activations_bytes": d_kept - latents_bytes - 2 * draws_bytes,
            "g_activations_bytes": g_kept - latents_bytes - draws_bytes,
            # The most that is alive at once, all of the above included.
            "d_peak_bytes": d_peak,
            "g_peak_bytes": g_peak,
            "checkpoint_bytes": _total_bytes(state.tensors()),
        }
        set_statistics_grid(state.ema, list(HUB_GRID))
        exported_bytes = (
            _total_bytes(state.ema.state_dict()),
            _total_bytes(state.discriminator.state_dict()),
        )
        return update, meter.flops, exported_bytes


# PyTorch's counts, and what they leave out: power iteration, and attention on a CPU.
_ATEN = torch.ops.aten
_FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _ATEN.mv: lambda matrix, vector, out_val: 2 * matrix.numel(),  # noqa: ARG005
    _ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _ATEN._scaled_dot_product_flash_attention
    ],
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _ATEN._scaled_dot_product_flash_attention_backward
    ],
}


class Meter(TorchDispatchMode):
    """Counts the operations that are run and the memory that is alive.

    Memory is followed by storage, from the operation that makes it to the end of its last tensor.
    (PyTorch's FlopCounterMode has no memory, and cannot follow the gradient of a gradient.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.begin()
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._modules = ModuleTracker()

    def begin(self) -> None:
        """Start anew: operations, the peak, and what is kept until the first backward pass."""
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
        if (count := _FLOPS.get(func.overloadpacket)) is not None:
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


def _older_checkpoints(config: TrainConfig) -> int:
    """Checkpoints to roll back to, where the two newest do not reach far enough back."""
    reach = rollback_reach(config)
    if reach <= config.checkpoint_every:
        return 0
    return 2 if reach % config.checkpoint_every == 0 else 3


def _total_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    """Three digits or more and the unit that suits them."""
    power = 0
    while value >= base and power < len(units) - 1:
        value /= base
        power += 1
    digits = 0 if power == 0 or value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {units[power]}"
