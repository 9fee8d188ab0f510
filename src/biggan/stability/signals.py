"""What a line of signals.jsonl is made of: pure functions of networks, outputs and images.

The signals of Section 4 and Appendix F: outputs of the discriminator on real, generated and
held-out images; gradient norms; statistics of the generator's BatchNorm; and one that the paper
looked at by eye, how much the images of one class differ from each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from biggan.nn import StandingBatchNorm2d

# The sign of a logit that is right.
_REAL_SIGNS = {"real": 1, "fake": -1, "trained": 1, "held_out": 1}


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
    """Mean, standard deviation, minimum and maximum of the discriminator's outputs.

    Args:
        logits: Of images called `real`, `fake`, `trained` or `held_out`.
    """
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
    """The part of the discriminator's outputs whose sign is right: real > 0, fake < 0."""
    return {
        kind: sum(_REAL_SIGNS[kind] * value > 0 for value in values) / len(values)
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
    """How far images of the same class are from each other.

    Args:
        images: (classes, images of each, C, H, W) in [-1, 1], two images or more of each class.

    Returns:
        The mean over all pairs of a class, and over classes, of the root mean square difference of
        their pixels: 0 where a class has one image, at most 2.
    """
    flat = images.flatten(2).float()
    pairs = list(itertools.combinations(range(flat.shape[1]), 2))
    first, second = (flat[:, list(indices)] for indices in zip(*pairs, strict=True))
    return float((first - second).square().mean(dim=2).sqrt().mean())


def scalars(signals: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The part of a line that is drawn in TensorBoard, by curve: of spectra sigma0 alone."""
    for network, layers in signals["singular_values"].items():
        for layer, values in layers.items():
            yield f"sigma0 of {network}/{layer}", values[0]
    for network, norm in signals["gradient_norms"].items():
        yield f"gradient_norm/{network}", norm
    for kind, described in signals["logits"].items():
        yield f"logits/{kind}", described["mean"]
    for kind, part in signals["accuracy"].items():
        yield f"accuracy/{kind}", part
    yield "diversity", signals["diversity"]
