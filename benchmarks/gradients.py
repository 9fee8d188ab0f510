"""Forward and backward to the noise of one image: this package against pytorch-pretrained-biggan.

BigGAN-deep of the same random weights: the peer, our plain network, and the folded generator of
`Gan.differentiable`. The peer runs twice: with frozen weights as ours, and as it comes, where
`backward()` computes the gradients of all weights too. Where the CPU has bfloat16, ours also runs
in it. Each has a process of its own: ours with the environment of `biggan invert`, the peer as it
comes. All take turns in every round, of several gradients in a row; the figures are medians of the
turns' medians, and the medians of each round's ratios.

Before that all compute the gradients of several noises, which are compared with those of the plain
network in float64. A value near zero before a ReLU changes its sign by rounding, so that the error
in float32 differs from noise to noise, whoever computes; the median is printed.

Then 64 images of free class vectors are compared with 64 images of `Gan.sample`, bundled model.

    python benchmarks/gradients.py [--resolution 128] [--rounds 9] [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from sampling import (
    LABEL,
    PLAIN,
    RESOLUTIONS,
    TRUNCATION,
    load_peer,
    noise,
    one_hot,
    write_deep,
)
from torch import Tensor, nn
from turns import Contender, Functions, Plan, ratio, running, take_turns

import biggan
from biggan.cli.options import set_environment
from biggan.devices import has_bfloat16, keep_freed_memory
from biggan.images import to_pil, to_uint8

PEER = "the port, weights frozen"
AS_IT_COMES = "the port as it comes"
OURS = "ours, differentiable"
IN_BFLOAT16 = "  in bfloat16"
EXACT = "our plain network in float64"
BATCH = 64
NOISES, GRADIENTS = 9, 4  # of the errors; of a turn
TOLERANCE = 1e-3  # of the largest value of the gradient


def port_gradient(folder: Path, name: str) -> Functions:
    peer = load_peer(folder)
    if name == AS_IT_COMES:
        return of_noises(lambda z: backward(peer, z), noise().shape[1])
    peer.requires_grad_(False)
    return of_noises(
        lambda z: gradient(lambda z: peer(z, one_hot(), TRUNCATION), z), noise().shape[1]
    )


def own_gradient(weights: Path, name: str) -> Functions:
    gan = biggan.load(weights, device="cpu", offline=True)
    network, label = gan.generator.requires_grad_(False), torch.tensor([LABEL])
    if name == EXACT:
        network.double()
    elif name != PLAIN:
        network = gan.differentiable(precision="bfloat16" if name == IN_BFLOAT16 else "float32")
    dtype = torch.float64 if name == EXACT else torch.float32
    keep_freed_memory()  # as `biggan invert` does
    return of_noises(
        lambda z: gradient(lambda z: network(z, label, TRUNCATION), z.to(dtype)), gan.config.z_dim
    )


def of_noises(compute: Callable[[Tensor], Tensor], z_dim: int) -> Functions:
    """The gradient of a noise (1, z_dim), of its shape, by the number of the noise."""
    noises = [
        torch.from_numpy(biggan.truncated_noise(1, z_dim, TRUNCATION, seed)).float()
        for seed in range(NOISES)
    ]
    return {"gradient": lambda number=0: compute(noises[number])}


def errors(contenders: dict[str, Contender], exact: Callable[[int], Tensor]) -> dict[str, float]:
    """The median over noises of the largest error, as a share of the gradient's largest value."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for seed in range(NOISES):
        expected = exact(seed)
        for name, contender in contenders.items():
            error = (contender.result("gradient", seed) - expected).abs().max()
            found[name].append((error / expected.abs().max()).item())
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
            start = time.perf_counter()
            make()
            own.append(time.perf_counter() - start)
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
    rounds = 3 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        weights, peer = write_deep(arguments.resolution, Path(folder))
        plans = {}
        for name in () if peer is None else (PEER, AS_IT_COMES):
            plans[name] = Plan(partial(port_gradient, weights, name))
        for name in (PLAIN, OURS, *([IN_BFLOAT16] if has_bfloat16() else [])):
            plans[name] = Plan(partial(own_gradient, weights, name), set_environment)
        del peer
        exact = own_gradient(weights, EXACT)["gradient"]
        with running(plans) as contenders:
            error = errors(contenders, exact)  # warms up
            times = take_turns(contenders, "gradient", rounds, GRADIENTS)
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
    compare_free_vectors(rounds)


if __name__ == "__main__":
    main()
