"""Signals of the state of both networks: what a line of signals.jsonl is made of.

Those of Section 4 and Appendix F: singular values and norms of all weights; the discriminator's
outputs on real, generated and held-out images; gradient norms; statistics of the generator's
BatchNorm; and how much the images of one class differ from each other.

Measuring changes no training: its noise is its own, and networks run without gradients in eval
mode, where neither spectral norms nor BatchNorm's statistics move.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from biggan.data import ImageDataset, fetch
from biggan.distributed import gather, is_first, num_processes
from biggan.images import from_uint8
from biggan.nn import StandingBatchNorm2d
from biggan.training.randomness import Purpose, random_generator
from biggan.training.run import Run
from biggan.training.singular_values import measure, weight_matrices
from biggan.training.state import TrainState

_CLASSES, _EACH = 4, 8  # the fixed sample: classes, and images of each
_SHOWN = 64  # images that the discriminator is shown, each of trained and of held-out ones

# The sign of a correct logit.
_SIGNS = {"real": 1, "fake": -1, "trained": 1, "held_out": 1}


class Signals:
    """Measures the networks of a run, always with the same noise and the same images.

    Several processes must use it together; the first one computes the result.
    """

    def __init__(self, run: Run) -> None:
        config, dataset, device = run.config, run.dataset, run.device
        random = random_generator(config.seed, Purpose.WATCH)
        size = (_CLASSES * _EACH, config.generator.z_dim)
        self._z = torch.randn(size, generator=random).to(device)
        classes = torch.arange(_CLASSES) * max(config.generator.num_classes, 1) // _CLASSES
        self._labels = classes.repeat_interleave(_EACH).to(device)
        # Never more at once than training itself has to hold.
        own_batch = config.micro_batch_size // num_processes()
        self._at_once = min(len(self._z), max(own_batch, _EACH))
        self._images: dict[str, tuple[Tensor, Tensor]] = {}
        trained = run.trained_on
        if trained is not None and isinstance(dataset, ImageDataset):
            spread = trained[:: -(-len(trained) // _SHOWN)]  # data are often sorted by class
            for kind, indices in (("trained", spread), ("held_out", run.held_out[:_SHOWN])):
                images, labels = fetch(dataset, indices)
                self._images[kind] = from_uint8(images.to(device)), labels.to(device)

    @torch.no_grad()
    def measure(self, state: TrainState) -> dict[str, Any] | None:
        """A line of signals.jsonl, without the step; None on all processes but the first.

        To be called just after an update of each network, whose gradients are still there.
        """
        kinds = (torch.cat(parts).flatten().float() for parts in zip(*state.logits, strict=True))
        everyone = gather(torch.stack([*kinds]).tolist())  # one wait for the device
        if not is_first():
            return None
        real, fake = (list(itertools.chain(*parts)) for parts in zip(*everyone, strict=True))
        logits = {"real": real, "fake": fake}
        for kind, (images, labels) in self._images.items():
            outputs = self._run(state.discriminator, images, labels)
            logits[kind] = outputs.flatten().tolist()
        networks = {"generator": state.generator, "discriminator": state.discriminator}
        matrices = {name: weight_matrices(network) for name, network in networks.items()}
        fakes = self._run(state.generator, self._z, self._labels)
        return {
            "singular_values": {
                name: measure(matrices[name], blocks)
                for name, blocks in state.singular_values.items()
            },
            "frobenius_norms": {name: frobenius_norms(m) for name, m in matrices.items()},
            "gradient_norms": {name: gradient_norm(network) for name, network in networks.items()},
            "logits": describe_logits(logits),
            "accuracy": accuracy(logits),
            "batch_norm": batch_norm_statistics(state.generator),
            "diversity": diversity(fakes.unflatten(0, (_CLASSES, _EACH))),
        }

    def _run(self, network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        parts = zip(inputs.split(self._at_once), labels.split(self._at_once), strict=True)
        before = network.training
        try:
            # `forward`, not a call: a compiled network need not be compiled for eval mode as well.
            return torch.cat([network.eval().forward(*part) for part in parts])
        finally:
            network.train(before)


def frobenius_norms(matrices: Mapping[str, Tensor]) -> dict[str, float]:
    """The Frobenius norm of each matrix."""
    norms = torch.stack(torch._foreach_norm(list(matrices.values()))).tolist()
    return dict(zip(matrices, norms, strict=True))


def gradient_norm(network: nn.Module) -> float:
    """The L2 norm over all gradients that a network's parameters hold; 0 without any."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    if not gradients:
        return 0.0
    return float(torch.stack(torch._foreach_norm(gradients)).norm())


def describe_logits(logits: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation, minimum and maximum of the discriminator's outputs by kind."""
    described = {}
    for kind, values in logits.items():
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        described[kind] = {
            "mean": mean,
            "std": math.sqrt(squares / len(values)),
            "min": min(values),
            "max": max(values),
        }
    return described


def accuracy(logits: Mapping[str, list[float]]) -> dict[str, float]:
    """The share of the discriminator's outputs of the correct sign: real > 0, fake < 0."""
    return {
        kind: sum(_SIGNS[kind] * value > 0 for value in values) / len(values)
        for kind, values in logits.items()
    }


def batch_norm_statistics(generator: nn.Module) -> dict[str, dict[str, float]]:
    """Of each BatchNorm: root mean square of the running means, mean of the running variances."""
    layers = {
        name: layer
        for name, layer in generator.named_modules()
        if isinstance(layer, StandingBatchNorm2d)
    }
    numbers = [
        torch.stack([layer.running_mean.square().mean().sqrt(), layer.running_var.mean()])
        for layer in layers.values()
    ]
    read = torch.stack(numbers).tolist() if numbers else []  # one wait for the device
    return {name: {"mean": m, "var": v} for name, (m, v) in zip(layers, read, strict=True)}


def diversity(images: Tensor) -> float:
    """How far images of the same class are from each other: 0 if they are alike, at most 2.

    The mean over all pairs of a class, and over classes, of the root mean square difference of
    pixels, of images (classes, images of each, C, H, W) in [-1, 1].
    """
    flat = images.flatten(2).float()
    pairs = list(itertools.combinations(range(flat.shape[1]), 2))
    first, second = (flat[:, list(indices)] for indices in zip(*pairs, strict=True))
    return float((first - second).square().mean(dim=2).sqrt().mean())
