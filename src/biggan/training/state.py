"""The state of a training run: the one thing that is saved."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from biggan.distributed import averaging_gradients, is_first, synchronize_batch_norm
from biggan.errors import require
from biggan.fine_tuning.freezing import require_gradients
from biggan.models import Discriminator, Generator, build_discriminator, build_generator
from biggan.supervision.settings import CollapseConfig, InterventionConfig
from biggan.training.augmentation import Augmentation
from biggan.training.config import OptimizerConfig, TrainConfig
from biggan.training.randomness import Purpose, derive_seed, random_generator
from biggan.training.regularization import LeCam
from biggan.training.singular_values import SpectrumAction, SpectrumBound

_LOG = logging.getLogger("biggan.training")
_SINGULAR_VALUES = "singular_values"
_Rates = TypeVar("_Rates", OptimizerConfig, InterventionConfig)


@dataclass(frozen=True)
class Attempt:
    """One attempt of a run; another one follows each rollback.

    The same weights then go on with other noise, other batches and, if the recipe says so, other
    learning rates: a pure function of the recipe and the attempt, so that a kill changes nothing.
    """

    number: int = 0
    """Rollbacks before it."""
    g_lr: float = 1.0
    """Factor of the generator's learning rate."""
    d_lr: float = 1.0
    """Factor of the discriminator's learning rate."""

    def __post_init__(self) -> None:
        is_number = type(self.number) is int and 0 <= self.number < 2**32
        rates = self.g_lr, self.d_lr
        positive = all(isinstance(rate, int | float) and 0 < rate < math.inf for rate in rates)
        require(is_number and positive, "an attempt is a number and two factors above 0")

    def next(self, settings: CollapseConfig) -> Attempt:
        """The attempt after one more rollback."""
        return Attempt(self.number + 1, self.g_lr * settings.g_lr, self.d_lr * settings.d_lr)

    def applied_to(self, config: TrainConfig) -> TrainConfig:
        """The recipe as this attempt trains: for the first one, the recipe."""
        if self.number == 0:
            return config
        return dataclasses.replace(
            config,
            seed=derive_seed(config.seed, Purpose.ATTEMPT, self.number),
            optimizer=self._scaled(config.optimizer),
            interventions=tuple(map(self._scaled, config.interventions)),
        )

    def _scaled(self, rates: _Rates) -> _Rates:
        g_lr, d_lr = rates.g_lr * self.g_lr, rates.d_lr * self.d_lr
        return dataclasses.replace(rates, g_lr=g_lr, d_lr=d_lr)


@dataclass
class TrainState:
    """Networks, their moving average, optimizers, and how far the run is."""

    generator: Generator
    discriminator: Discriminator
    ema: Generator
    """The moving average of the generator; its BatchNorm statistics are the generator's own."""
    g_optimizer: torch.optim.Adam
    d_optimizer: torch.optim.Adam
    augmentation: Augmentation
    lecam: LeCam
    g_spectrum: SpectrumBound | None = None
    d_spectrum: SpectrumBound | None = None
    class_counts: Sequence[int] = ()
    """Images of each class, for generated labels that are drawn as often; not saved."""
    sources: Mapping[str, Any] = field(default_factory=dict)
    """What the networks were fine-tuned from, for the model card; empty for random weights."""
    step: int = 0
    """Generator updates done."""
    attempt: Attempt = field(default_factory=Attempt)
    """How often the run was rolled back, and what that changed."""
    singular_values: Mapping[str, dict[str, Tensor]] = field(
        default_factory=lambda: {"generator": {}, "discriminator": {}}
    )
    """What `singular_values.measure` keeps of each network; training does not depend on it."""
    logits: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)
    """Logits (N, 1) of real and of generated images by micro-batch, of the newest update of the
    discriminator; not saved."""
    parallel_generator: nn.Module = field(init=False, repr=False)
    """What an update calls: the generator, or DistributedDataParallel around it."""
    parallel_discriminator: nn.Module = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Join the other processes' networks. What is frozen must be marked by now."""
        synchronize_batch_norm(self.generator)
        self.parallel_generator = averaging_gradients(self.generator)
        self.parallel_discriminator = averaging_gradients(self.discriminator)

    @classmethod
    def create(
        cls,
        config: TrainConfig,
        device: torch.device,
        class_names: Sequence[str] | None = None,
        class_counts: Sequence[int] = (),
    ) -> Self:
        """The state before the first step of a recipe that was fitted to its data.

        `class_names` are those of the data, for a new run that may be fine-tuned; None where a
        checkpoint follows: the sources of the run may be gone by then.

        Raises:
            InputError: A source of fine-tuning cannot be loaded.
        """
        seeds = [
            derive_seed(config.seed, purpose)
            for purpose in (Purpose.GENERATOR_WEIGHTS, Purpose.DISCRIMINATOR_WEIGHTS)
        ]
        generator = build_generator(config.generator, seed=seeds[0]).to(device)
        discriminator = build_discriminator(config.discriminator, seed=seeds[1]).to(device)
        sources: Mapping[str, Any] = {}
        if class_names is not None and config.fine_tuning.sources:
            from biggan.fine_tuning.transfer import initialize

            given = initialize(generator, discriminator, config.fine_tuning, class_names)
            sources = {transfer.name: transfer.card() for transfer in given}
            for before, transfer in zip((None, *given), given, strict=False):
                for line in transfer.lines(before) if is_first() else ():
                    _LOG.info("%s", line)
        state = cls.of(config, generator, discriminator, copy.deepcopy(generator))
        state.sources, state.class_counts = sources, class_counts
        return state

    @classmethod
    def of(
        cls, config: TrainConfig, generator: Generator, discriminator: Discriminator, ema: Generator
    ) -> Self:
        """The state of three networks before the first step, with all that the recipe adds."""
        ema.eval().requires_grad_(False)
        device = next(generator.parameters()).device
        require_gradients(generator, config.fine_tuning.freeze_generator)
        require_gradients(discriminator, config.fine_tuning.freeze_discriminator)
        for network in (generator, discriminator):
            network.recompute = config.checkpoint_activations
            if config.compile:
                network.compile()
        settings = config.optimizer
        augmentation = Augmentation(
            config.augmentation, config.instance_noise, config.dropout, config.discriminator
        )
        if augmentation.transform is not None:
            augmentation.transform.to(device)
        return cls(
            generator,
            discriminator,
            ema,
            _adam(generator, settings, settings.g_lr, settings.beta1),
            _adam(discriminator, settings, settings.d_lr, settings.d_beta1),
            augmentation,
            LeCam(config.lecam).to(device),
            _bound(generator, config.spectrum.generator, config),
            _bound(discriminator, config.spectrum.discriminator, config),
        )

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.generator.parameters()).device

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by name."""
        named: dict[str, Tensor] = {}
        for prefix, network in self._networks():
            named |= {f"{prefix}.{name}": value for name, value in network.state_dict().items()}
        for prefix, network, optimizer in self._optimizers():
            for name, parameter in network.named_parameters():
                for key, value in optimizer.state.get(parameter, {}).items():
                    named[f"{prefix}.{name}.{key}"] = value
        for side, blocks in self.singular_values.items():
            named |= {f"{_SINGULAR_VALUES}.{side}.{name}": block for name, block in blocks.items()}
        return named

    def not_finite(self) -> list[str]:
        """The names of all tensors that hold a NaN or an infinity."""
        by_device: dict[torch.device, dict[str, Tensor]] = {}
        for name, value in self.tensors().items():
            by_device.setdefault(value.device, {})[name] = value.isfinite().all()
        return [
            name
            for checked in by_device.values()  # one wait for each device
            for name, good in zip(checked, torch.stack([*checked.values()]).tolist(), strict=True)
            if not good
        ]

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` gave; RuntimeError if it does not fit."""
        for prefix, network in self._networks():
            saved = _under(prefix, tensors)
            if prefix == "lecam" and not saved:
                continue  # a run from before LeCam: its averages are still unobserved
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
        for side, blocks in self.singular_values.items():
            blocks.clear()
            for name, block in _under(f"{_SINGULAR_VALUES}.{side}", tensors).items():
                if block.dtype == torch.float32 and bool(block.isfinite().all()):
                    blocks[name] = block

    def _networks(self) -> Iterator[tuple[str, nn.Module]]:
        named = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "ema": self.ema,
            "lecam": self.lecam,
            "augmentation": self.augmentation.transform,
            "g_spectrum": self.g_spectrum,
            "d_spectrum": self.d_spectrum,
        }
        yield from ((name, network) for name, network in named.items() if network is not None)

    def _optimizers(self) -> Iterator[tuple[str, nn.Module, torch.optim.Adam]]:
        yield "g_optimizer", self.generator, self.g_optimizer
        yield "d_optimizer", self.discriminator, self.d_optimizer


def _adam(
    network: nn.Module, settings: OptimizerConfig, rate: float, beta1: float
) -> torch.optim.Adam:
    betas = (beta1, settings.beta2)
    return torch.optim.Adam(network.parameters(), rate, betas, settings.eps, fused=True)


def _bound(
    network: Generator | Discriminator, action: SpectrumAction, config: TrainConfig
) -> SpectrumBound | None:
    if action == "none":
        return None
    random = random_generator(config.seed, Purpose.SPECTRUM)
    return SpectrumBound(network, action, config.spectrum, random)


def _moments(name: str, parameter: Tensor, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What Adam keeps of a parameter; empty for one that it has not updated."""
    moments = _under(name, saved)
    shapes = {key: value.shape for key, value in moments.items()}
    fitting = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
    if moments and shapes != fitting:
        raise RuntimeError(f"the optimizer's state of {name} does not match")
    return moments


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
