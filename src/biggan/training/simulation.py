"""One update of each network without its memory or its time: what a step takes.

The very functions that train are run on tensors that have shapes but no memory, and every operation
is noted: so the fused arithmetic is counted that really runs, and memory as it comes and goes. Not
seen is what the kernels take for themselves while they work, and what the allocator keeps.
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

from biggan.fine_tuning import require_gradients
from biggan.models import make_discriminator, make_generator
from biggan.stability.settings import R1Config
from biggan.training.augmentation import build_augmentation, draw_augmentation
from biggan.training.config import TrainConfig
from biggan.training.lecam import LeCam
from biggan.training.orthogonal_regularization import (
    add_orthogonal_gradient,
    regularized_weights,
)
from biggan.training.perturbation import draw_perturbation
from biggan.training.state import TrainState, build_spectrum_bound
from biggan.training.step import discriminator_step, generator_step

_REAL, _GENERATED = 0, 1  # whose perturbation


@dataclass(frozen=True)
class SimulatedUpdate:
    """One update of each network by one process, as it was simulated.

    What is called as in `plan.Plan` means the same, for one process and the batch as simulated.
    """

    generator_parameters: int
    discriminator_parameters: int
    d_flops: int
    """Floating-point operations of the discriminator's update."""
    g_flops: int
    """Floating-point operations of the generator's update."""
    regularization_flops: int
    """How many of those do not depend on the batch."""
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
    """The discriminator as it is exported."""


def simulate_update(config: TrainConfig) -> SimulatedUpdate:
    """Run one update of each network without memory, as they are in the middle of a run.

    Args:
        config: The recipe, its batch that of one process.
    """
    if config.r1.gamma > 0:
        # The penalty has forward and backward passes of its own, and they come first: what the
        # adversarial loss keeps is seen without them.
        penalized = _simulate_update(config)
        plain = _simulate_update(dataclasses.replace(config, r1=R1Config()))
        kept = max(penalized.d_activations_bytes, plain.d_activations_bytes)
        return dataclasses.replace(penalized, d_activations_bytes=kept)
    return _simulate_update(config)


def _simulate_update(config: TrainConfig) -> SimulatedUpdate:
    meter = Meter()
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
        perturbation = draw_perturbation(config, 0, _REAL), draw_perturbation(config, 0, _GENERATED)
        batch_bytes = meter.live - before

        state.d_optimizer.zero_grad()
        meter.begin()
        discriminator_step(state, real, latents, config, (numbers, numbers), perturbation)
        d_flops, d_kept, d_peak = meter.flops, meter.kept, meter.peak

        state.g_optimizer.zero_grad()
        meter.begin()
        generator_step(state, latents, config, numbers, perturbation[_GENERATED])
        g_flops, g_kept, g_peak = meter.flops, meter.kept, meter.peak

        meter.begin()
        if config.orthogonal > 0:
            add_orthogonal_gradient(regularized_weights(state.generator), config.orthogonal)
        if state.g_spectrum is not None:
            state.g_spectrum.before_update()
            state.g_spectrum.after_update()
        return SimulatedUpdate(
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
            checkpoint_bytes=total_bytes(state.tensors()),
            discriminator_bytes=total_bytes(state.discriminator.state_dict()),
        )


class Meter(TorchDispatchMode):
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
        g_spectrum=build_spectrum_bound(generator, config.spectrum.generator, config),
        d_spectrum=build_spectrum_bound(discriminator, config.spectrum.discriminator, config),
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


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def total_bytes(tensors: Mapping[str, Tensor]) -> int:
    """What named tensors take, on whatever device."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
