"""Training steps per second on a GPU; a part of gpu.py, which makes a table of the lines.

A step is a recipe's discriminator updates and one of the generator, on synthetic images that lie on
the GPU: CIFAR-10 as its recipe says, and biggan-128 at a batch of 64. The first form, to which the
others are relative, is the same networks without fused resampling (plain_form.py), eager, in full
float32; it is measured again at the end. All start from the same weights. The peer is ajbrock's
BigGAN-PyTorch (training_peer.py), without orthogonal regularization. A form that fails is a line
with its error.

    python benchmarks/training_gpu.py cifar10 [--device cuda] [--quick] [--peers FOLDER]
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from plain_form import plain
from sampling_gpu import allow_tf32, clear, median_seconds, peak_gib
from torch import Tensor, nn
from training_peer import PEER, peer_steps

from biggan.models import build_discriminator, build_generator
from biggan.training import TrainConfig, load_recipe
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step

ROUNDS, SECONDS = 5, 0.8  # of a round, about
WARM_UP = 4  # steps; compilation, the choice of kernels and the recording of graphs happen here
BATCHES = {"cifar10": 128, "biggan-128": 64}


class Form(NamedTuple):
    tf32: bool = True
    plain: bool = False
    precision: str = "float32"
    compile_mode: str | None = None
    peer: bool = False


FIRST = Form(tf32=False, plain=True)
FORMS = {
    "plain eager, float32": FIRST,
    "eager, float32": Form(tf32=False),
    "eager, TF32": Form(),
    "eager, bfloat16": Form(precision="bfloat16"),
    "compiled, float32": Form(tf32=False, compile_mode="default"),
    "compiled, bfloat16": Form(precision="bfloat16", compile_mode="default"),
    "compiled with CUDA graphs, bfloat16": Form(
        precision="bfloat16", compile_mode="reduce-overhead"
    ),
    f"{PEER}, float32": Form(tf32=False, peer=True),
    f"{PEER}, TF32": Form(peer=True),
    f"{PEER}, bfloat16": Form(precision="bfloat16", peer=True),
    "plain eager, float32, again": FIRST,
}
Step = Callable[[], object]
Networks = tuple[nn.Module, nn.Module]


def build(
    form: Form,
    config: TrainConfig,
    networks: Networks,
    real: tuple[Tensor, Tensor],
    peers: Path | None,
) -> Step:
    """A whole step of a form, from new copies of the networks."""
    config = dataclasses.replace(config, precision=form.precision)
    if form.peer:
        assert peers is not None
        steps = peer_steps(peers / PEER, config, real)
        return lambda: [steps["D"]() for _ in range(config.d_steps)] and steps["G"]()
    generator, discriminator = (copy.deepcopy(network) for network in networks)
    for network in (generator, discriminator):
        if form.plain:
            plain(network)
        if form.compile_mode is not None:
            network.compile(mode=form.compile_mode)
    state = TrainState.of(config, generator, discriminator, copy.deepcopy(networks[0]))

    def step() -> None:
        for i in range(config.d_steps):
            discriminator_step(state, real, config, i)
        generator_step(state, config, config.d_steps)
        state.step += 1

    return step


def compare(config: TrainConfig, device: torch.device, peers: Path | None, *, quick: bool) -> None:
    """Measure all forms; print a line as soon as there is one."""
    torch.manual_seed(0)
    networks = (
        build_generator(config.generator).to(device),
        build_discriminator(config.discriminator).to(device),
    )
    shape = config.generator
    pixels = (config.batch_size, shape.image_channels, shape.resolution, shape.resolution)
    labels = torch.randint(shape.num_classes, pixels[:1], device=device)
    real = (torch.rand(pixels, device=device) * 2 - 1, labels)
    first = None
    for name, form in FORMS.items():
        if form.peer and not (config.name == "biggan-128" and peers and (peers / PEER).exists()):
            continue  # its networks for CIFAR-10 have other shapes
        clear()
        allow_tf32(form.tf32)
        row: dict[str, object] = {"form": name, "batch": config.batch_size}
        try:
            step = build(form, config, networks, real, peers)
            for _ in range(1 if quick else WARM_UP):
                step()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            taken = median_seconds(step, device, 1 if quick else ROUNDS, 0.0 if quick else SECONDS)
            first = first or taken
            row |= {"rate": 1 / taken, "speed": first / taken, "gib": peak_gib(device)}
        except Exception as error:  # one form that fails should not hide the others
            row["error"] = f"{type(error).__name__}: {error}"
        step = None
        print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", choices=BATCHES)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--quick", action="store_true", help="narrow networks, one round")
    parser.add_argument("--peers", type=Path)
    arguments = parser.parse_args()
    changes = [f"batch_size={2 if arguments.quick else BATCHES[arguments.recipe]}"]
    if arguments.quick:
        changes += ["generator.channels=8", "discriminator.channels=8"]
    config = load_recipe(arguments.recipe, changes)
    compare(config, arguments.device, arguments.peers, quick=arguments.quick)


if __name__ == "__main__":
    main()
