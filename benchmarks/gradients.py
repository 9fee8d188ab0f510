"""Forward and backward to the noise of one image: this package against pytorch-pretrained-biggan.

BigGAN-deep of the same random weights: the peer, our plain network, and the folded generator of
`Gan.differentiable`. The peer runs twice: with frozen weights as ours, and as it comes, where
`backward()` computes the gradients of all weights too. On a CPU with AMX ours also runs in
bfloat16. All take turns in every round; the figures are medians, and the medians of each round's
ratios.

Before that all compute the gradients of several noises, which are compared with those of the plain
network in float64. A value near zero before a ReLU changes its sign by rounding, so that the error
in float32 differs from noise to noise, whoever computes; the median is printed.

Then 64 images of free class vectors are compared with 64 images of `Gan.sample`, bundled model.

    python benchmarks/gradients.py [--resolution 128] [--rounds 9] [--quick]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from sampling import (
    LABEL,
    PLAIN,
    RESOLUTIONS,
    TRUNCATION,
    as_ours,
    build_ours,
    build_peer,
    noise,
    one_hot,
    peer_config,
    ratio,
    seconds,
)
from torch import Tensor, nn

import biggan
from biggan.devices import has_amx
from biggan.images import to_pil, to_uint8
from biggan.inference.differentiable import differentiable_conv2d
from biggan.inference.folded import FoldedGenerator

PEER = "the port, weights frozen"
AS_IT_COMES = "the port as it comes"
OURS = "ours, differentiable"
IN_BFLOAT16 = "  in bfloat16"
BATCH = 64
NOISES = 9
TOLERANCE = 1e-3  # of the largest value of the gradient

Gradient = Callable[[Tensor], Tensor]
"""The gradient of a noise (1, z_dim), of its shape."""


def gradients_by_name(resolution: int) -> tuple[dict[str, Gradient], Gradient]:
    """What computes the gradient of one noise, by name; and what does so in float64."""
    made: dict[str, Gradient] = {}
    try:
        peer = build_peer(peer_config(resolution))
    except ImportError:
        print("pytorch-pretrained-biggan is not installed: left out")
        generator = build_ours(f"biggan-deep-{resolution}")
    else:
        trainable = copy.deepcopy(peer).requires_grad_(True)
        peer.requires_grad_(False)
        made[PEER] = lambda z: gradient(lambda z: peer(z, one_hot(), TRUNCATION), z)
        made[AS_IT_COMES] = lambda z: backward(trainable, z)
        with tempfile.TemporaryDirectory() as folder:
            generator = as_ours(peer, Path(folder))
    generator.requires_grad_(False)
    folded = FoldedGenerator(generator, differentiable_conv2d)
    exact = copy.deepcopy(generator).double()
    label = torch.tensor([LABEL])
    made[PLAIN] = lambda z: gradient(lambda z: generator(z, label, TRUNCATION), z)
    made[OURS] = lambda z: gradient(lambda z: folded(z, label, TRUNCATION), z)
    if has_amx():
        low = FoldedGenerator(generator, partial(differentiable_conv2d, dtype=torch.bfloat16))
        low.convolve_in(torch.bfloat16)
        made[IN_BFLOAT16] = lambda z: gradient(lambda z: low(z, label, TRUNCATION), z)
    return made, lambda z: gradient(lambda z: exact(z, label, TRUNCATION), z.double())


def errors(contenders: dict[str, Gradient], exact: Gradient, z_dim: int) -> dict[str, float]:
    """The median over noises of the largest error, as a share of the gradient's largest value."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for seed in range(NOISES):
        z = torch.from_numpy(biggan.truncated_noise(1, z_dim, TRUNCATION, seed)).float()
        expected = exact(z)
        for name, compute in contenders.items():
            error = (compute(z) - expected).abs().max() / expected.abs().max()
            found[name].append(error.item())
    return {name: statistics.median(values) for name, values in found.items()}


def gradient(network: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    z = z.detach().requires_grad_()
    return torch.autograd.grad(network(z).square().sum(), z)[0]


def backward(peer: nn.Module, z: Tensor) -> Tensor:
    """The gradient as scripts compute it: with those of the weights, which are dropped."""
    z = z.detach().requires_grad_()
    peer(z, one_hot(), TRUNCATION).square().sum().backward()
    peer.zero_grad()
    assert z.grad is not None
    return z.grad


def compare_free_vectors(rounds: int) -> None:
    """Images of free class vectors by `Gan.generate`, against those of `Gan.sample`."""
    gan = biggan.load()
    z = torch.from_numpy(biggan.truncated_noise(BATCH, gan.config.z_dim, TRUNCATION, 0)).float()
    vectors = gan.embed([k % len(gan.class_names) for k in range(BATCH)])
    vectors += 0.01 * torch.randn(vectors.shape)

    def sample() -> object:
        return gan.sample(None, BATCH, TRUNCATION)

    def generate() -> object:
        return to_pil(to_uint8(gan.generate(z, class_vectors=vectors, truncation=TRUNCATION)))

    times: dict[str, list[float]] = {"gan.sample": [], "free class vectors": []}
    for _ in range(1 + rounds):  # the first one warms up
        for own, make in zip(times.values(), (sample, generate), strict=True):
            own.append(seconds(make))
    print(f"{gan.name}, {BATCH} images:")
    first = times["gan.sample"][1:]
    for name, taken in times.items():
        faster = ratio(first, taken[1:])
        print(f"  {name:28} {statistics.median(taken[1:]):8.3f} s {faster:7.2f}x as fast")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--resolution", type=int, choices=RESOLUTIONS, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    arguments = parser.parse_args()
    contenders, exact = gradients_by_name(arguments.resolution)
    z = noise()
    error = errors(contenders, exact, z.shape[1])  # warms up
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(3 if arguments.quick else arguments.rounds):
        for name, compute in contenders.items():
            times[name].append(seconds(lambda compute=compute: compute(z)))
    first = next(iter(times))
    print(f"biggan-deep-{arguments.resolution}, forward and backward to the noise of one image:")
    for name, taken in times.items():
        faster = ratio(times[first], taken)
        print(
            f"  {name:28} {statistics.median(taken):8.3f} s {faster:7.2f}x as fast, "
            f"error {error[name]:.1e}"
        )
    error.pop(IN_BFLOAT16, None)
    equal = "equal" if max(error.values()) <= TOLERANCE else "NOT EQUAL"
    print(f"  {equal}: error in float32 of the gradient's largest value, median of {NOISES} noises")
    compare_free_vectors(3 if arguments.quick else arguments.rounds)


if __name__ == "__main__":
    main()
