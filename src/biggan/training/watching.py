"""Watching a run: what `stability.signals` needs of a state, gathered and put into one line.

Nothing of it enters the training: its noise is its own, and networks are run without gradients, in
eval mode, where neither spectral norms nor BatchNorm's statistics move. With and without, the
weights are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from biggan.data import ImageDataset, TrainingData, fetch
from biggan.distributed import gather, is_first, num_processes
from biggan.images import from_uint8
from biggan.stability.signals import (
    accuracy,
    batch_norm_statistics,
    describe_logits,
    diversity,
    frobenius_norms,
    gradient_norm,
)
from biggan.stability.singular_values import weight_matrices
from biggan.training.config import TrainConfig
from biggan.training.randomness import Purpose, random_generator
from biggan.training.state import TrainState

Outputs = list[tuple[Tensor, Tensor]]
"""The discriminator's logits of real and generated images, by micro-batch."""

_GROUPS, _GROUP = 4, 8  # the fixed sample: of so many classes, so many images each
_JUDGED = 64  # images that the discriminator is shown, each of trained and of held-out ones


class Watch:
    """What is looked at again and again: a fixed sample of noise, and held-out images.

    Several processes must use it together; the first one computes and knows the result.

    Args:
        config: The recipe.
        dataset: The real images.
        seen: The indices of those that are trained on; None for all.
        held_out: The indices of those that are kept from training; empty for none.
        device: Where to train.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: TrainingData,
        seen: NDArray[np.int64] | None,
        held_out: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        self._every = config.watch.every
        random = random_generator(config.seed, Purpose.WATCH)
        size = (_GROUPS * _GROUP, config.generator.z_dim)
        self._z = torch.randn(size, generator=random).to(device)
        classes = torch.arange(_GROUPS) * max(config.generator.num_classes, 1) // _GROUPS
        self._labels = classes.repeat_interleave(_GROUP).to(device)
        # Never more at once than training itself has to hold.
        own_batch = config.micro_batch_size // num_processes()
        self._at_once = min(len(self._z), max(own_batch, _GROUP))
        # Both are judged after the update and without augmentation: they differ in nothing else.
        self._judged: dict[str, tuple[Tensor, Tensor]] = {}
        if self._every and seen is not None and isinstance(dataset, ImageDataset):
            spread = seen[:: -(-len(seen) // _JUDGED)]  # data are often sorted by class
            for kind, indices in (("trained", spread), ("held_out", held_out[:_JUDGED])):
                images, labels = fetch(dataset, indices)
                self._judged[kind] = from_uint8(images.to(device)), labels.to(device)

    def outputs(self, step: int) -> Outputs | None:
        """A list for the outputs of the discriminator's last update before a step, if it is due."""
        return [] if self._every and step % self._every == 0 else None

    @torch.no_grad()
    def signals(self, state: TrainState, outputs: Outputs) -> dict[str, Any] | None:
        """A line of signals.jsonl, without the step; None on all processes but the first.

        Args:
            state: Just after an update of each network, whose gradients are still there.
            outputs: Of the discriminator's update.
        """
        logits = _gathered(outputs)
        if not is_first():
            return None
        for kind, shown in self._judged.items():
            logits[kind] = self._judge(state.discriminator, *shown)
        networks: dict[str, nn.Module] = {
            "generator": state.generator,
            "discriminator": state.discriminator,
        }
        matrices = {name: weight_matrices(network) for name, network in networks.items()}
        return {
            "singular_values": {
                name: looks.measure(matrices[name]) for name, looks in state.singular_values.items()
            },
            "frobenius_norms": {name: frobenius_norms(m) for name, m in matrices.items()},
            "gradient_norms": {name: gradient_norm(network) for name, network in networks.items()},
            "logits": describe_logits(logits),
            "accuracy": accuracy(logits),
            "batch_norm": batch_norm_statistics(state.generator),
            "diversity": self._diversity(state.generator),
        }

    def _diversity(self, generator: nn.Module) -> float:
        with _in_eval_mode(generator):
            # `forward`, not a call: a compiled network need not be compiled for eval mode as well.
            images = torch.cat(
                [
                    generator.forward(z, labels)
                    for z, labels in zip(
                        self._z.split(self._at_once),
                        self._labels.split(self._at_once),
                        strict=True,
                    )
                ]
            )
        return diversity(images.unflatten(0, (_GROUPS, _GROUP)))

    def _judge(self, discriminator: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
        with _in_eval_mode(discriminator):
            judged = [
                discriminator.forward(*part)
                for part in zip(
                    images.split(self._at_once), labels.split(self._at_once), strict=True
                )
            ]
        return torch.cat(judged).flatten().tolist()


@contextmanager
def _in_eval_mode(network: nn.Module) -> Iterator[None]:
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)


def _gathered(outputs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, list[float]]:
    """The logits of the whole batch, on the first process."""
    real, fake = (torch.cat(parts).flatten().float() for parts in zip(*outputs, strict=True))
    own = torch.stack([real, fake]).tolist()  # one wait for the device
    everyone = gather(own)
    return {
        "real": [value for process in everyone for value in process[0]],
        "fake": [value for process in everyone for value in process[1]],
    }
