"""The state of a training run: the one thing that is saved."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from biggan.distributed import averaging_gradients, is_first, synchronize_batch_norm
from biggan.fine_tuning import initialize, require_gradients
from biggan.models import Discriminator, Generator, build_discriminator, build_generator
from biggan.stability.settings import SpectrumAction
from biggan.stability.singular_values import SingularValues
from biggan.stability.spectrum import SpectrumBound
from biggan.training.attempt import Attempt
from biggan.training.augmentation import Augmenter, build_augmentation
from biggan.training.config import TrainConfig
from biggan.training.lecam import LeCam
from biggan.training.randomness import Purpose, derive_seed, random_generator

_LOG = logging.getLogger("biggan.training")
_SPECTRA = "singular_values"


@dataclass
class TrainState:
    """Networks, their moving average, optimizers, and how far the run is."""

    generator: Generator
    discriminator: Discriminator
    ema: Generator
    """The moving average of the generator; its BatchNorm statistics are the generator's own."""
    g_optimizer: torch.optim.Adam
    d_optimizer: torch.optim.Adam
    step: int
    """Generator updates done."""
    augmentation: Augmenter | None
    """What is done to images before the discriminator sees them."""
    lecam: LeCam
    """Moving averages of the discriminator's outputs, for that regularization."""
    g_spectrum: SpectrumBound | None = None
    """Bounds the singular values of the generator's weights."""
    d_spectrum: SpectrumBound | None = None
    """The same for the discriminator."""
    sources: Mapping[str, Any] = field(default_factory=dict)
    """What the networks were fine-tuned from, for the model card; empty for random weights."""
    attempt: Attempt = field(default_factory=Attempt)
    """How often the run was rolled back, and what that changed."""
    singular_values: Mapping[str, SingularValues] = field(
        default_factory=lambda: {"generator": SingularValues(), "discriminator": SingularValues()}
    )
    """What watching keeps from one look to the next; training does not depend on it."""
    parallel_generator: nn.Module = field(init=False, repr=False)
    """What the generator's own update calls: the generator, or with several processes
    DistributedDataParallel around it."""
    parallel_discriminator: nn.Module = field(init=False, repr=False)
    """The same for the discriminator."""

    def __post_init__(self) -> None:
        """Join the other processes' networks. What shall not be trained must be marked by now."""
        synchronize_batch_norm(self.generator)
        self.parallel_generator = averaging_gradients(self.generator)
        self.parallel_discriminator = averaging_gradients(self.discriminator)

    @classmethod
    def create(
        cls,
        config: TrainConfig,
        device: torch.device,
        class_names: Sequence[str] | None = None,
    ) -> Self:
        """The state before the first step.

        Args:
            config: The recipe, fitted to the data.
            device: Where to train.
            class_names: Of the data, for a new run: its networks start as `config.fine_tuning`
                says. None where a checkpoint follows, which has all weights: the sources of the
                run may be gone by then.

        Raises:
            InputError: A source of fine-tuning cannot be loaded.
        """
        generator_seed = derive_seed(config.seed, Purpose.GENERATOR_WEIGHTS)
        discriminator_seed = derive_seed(config.seed, Purpose.DISCRIMINATOR_WEIGHTS)
        generator = build_generator(config.generator, seed=generator_seed).to(device)
        discriminator = build_discriminator(config.discriminator, seed=discriminator_seed).to(
            device
        )
        sources: Mapping[str, Any] = {}
        if class_names is not None:
            report = initialize(generator, discriminator, config.fine_tuning, class_names)
            sources = report.to_dict()
            if is_first():
                for line in report.lines():
                    _LOG.info("%s", line)
        ema = copy.deepcopy(generator).eval().requires_grad_(False)
        require_gradients(generator, config.fine_tuning.freeze_generator)
        require_gradients(discriminator, config.fine_tuning.freeze_discriminator)
        generator.recompute = discriminator.recompute = config.checkpoint_activations
        if config.compile:
            generator.compile()
            discriminator.compile()
        augmentation = build_augmentation(config)
        return cls(
            generator,
            discriminator,
            ema,
            _adam(generator, config, config.optimizer.g_lr),
            _adam(discriminator, config, config.optimizer.d_lr),
            step=0,
            augmentation=None if augmentation is None else augmentation.to(device),
            lecam=LeCam(config.lecam).to(device),
            g_spectrum=build_spectrum_bound(generator, config.spectrum.generator, config),
            d_spectrum=build_spectrum_bound(discriminator, config.spectrum.discriminator, config),
            sources=sources,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by name."""
        named: dict[str, Tensor] = {}
        for prefix, network in self._networks():
            named |= {f"{prefix}.{name}": value for name, value in network.state_dict().items()}
        for prefix, network, optimizer in self._optimizers():
            for name, parameter in network.named_parameters():
                for key, value in optimizer.state.get(parameter, {}).items():
                    named[f"{prefix}.{name}.{key}"] = value
        for side, looks in self.singular_values.items():
            named |= {f"{_SPECTRA}.{side}.{name}": b for name, b in looks.blocks.items()}
        return named

    def not_finite(self) -> list[str]:
        """The names of all tensors that hold a NaN or an infinity."""
        by_device: dict[torch.device, dict[str, Tensor]] = {}
        for name, value in self.tensors().items():
            by_device.setdefault(value.device, {})[name] = value.isfinite().all()
        return [
            name
            for checked in by_device.values()  # one wait for each device
            for name, good in zip(
                checked, torch.stack(list(checked.values())).tolist(), strict=True
            )
            if not good
        ]

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` gave.

        Raises:
            RuntimeError: Tensors are missing, unexpected, or of another shape.
        """
        for prefix, network in self._networks():
            saved = _under(prefix, tensors)
            if prefix == "lecam" and not saved:
                continue  # a run of before there was LeCam: its averages are still unobserved
            network.load_state_dict(saved)
        for prefix, network, optimizer in self._optimizers():
            saved = _under(prefix, tensors)
            state = optimizer.state_dict()
            # Adam numbers its parameters in the order in which it was given them.
            state["state"] = {
                index: moments
                for index, (name, parameter) in enumerate(network.named_parameters())
                if (moments := _moments(name, parameter, saved))
            }
            optimizer.load_state_dict(state)
        for side, looks in self.singular_values.items():
            saved = _under(f"{_SPECTRA}.{side}", tensors)
            usable = {n: b for n, b in saved.items() if b.dtype == torch.float32}
            looks.blocks = {n: b for n, b in usable.items() if bool(b.isfinite().all())}

    def _networks(self) -> Iterator[tuple[str, nn.Module]]:
        yield "generator", self.generator
        yield "discriminator", self.discriminator
        yield "ema", self.ema
        yield "lecam", self.lecam
        if self.augmentation is not None:
            yield "augmentation", self.augmentation
        if self.g_spectrum is not None:
            yield "g_spectrum", self.g_spectrum
        if self.d_spectrum is not None:
            yield "d_spectrum", self.d_spectrum

    def _optimizers(self) -> Iterator[tuple[str, nn.Module, torch.optim.Adam]]:
        yield "g_optimizer", self.generator, self.g_optimizer
        yield "d_optimizer", self.discriminator, self.d_optimizer


def build_spectrum_bound(
    network: Generator | Discriminator, action: SpectrumAction, config: TrainConfig
) -> SpectrumBound | None:
    """The bound that a recipe asks for, in its first state; None for none."""
    if action == "none":
        return None
    random = random_generator(config.seed, Purpose.SPECTRUM)
    return SpectrumBound(network, action, config.spectrum, random)


def _adam(network: nn.Module, config: TrainConfig, learning_rate: float) -> torch.optim.Adam:
    settings = config.optimizer
    return torch.optim.Adam(
        network.parameters(),
        lr=learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )


def _moments(name: str, parameter: Tensor, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What Adam keeps of a parameter; empty for one that it has not updated.

    Raises:
        RuntimeError: It does not fit the parameter.
    """
    moments = _under(name, saved)
    shapes = {key: value.shape for key, value in moments.items()}
    fitting = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
    if moments and shapes != fitting:
        raise RuntimeError(f"what the optimizer keeps of {name} does not fit")
    return moments


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
