"""Training steps against ajbrock's BigGAN-PyTorch, of which a checkout is needed.

Networks of the same shapes, hinge loss, Adam, no orthogonal regularization; a step of D and one of
G by each in turn: in float32 and, where the CPU has it, in bfloat16 (the peer by autocast). Each
has a process of its own, as its users run it: ours keeps freed memory, as `biggan train` does, and
the peer does not. With --kept a second one of the peer does. Processes of fewer precisions need
less memory. Prints the medians of wall and processor time, and the medians of each round's ratios
to the first, the peer in float32 unless that is left out.

    git clone https://github.com/ajbrock/BigGAN-PyTorch
    python benchmarks/training_peer.py BigGAN-PyTorch [--size biggan-128] [--batch 4] [--rounds 7]
        [--precisions float32 bfloat16] [--kept]
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from turns import Functions, Plan, Times, ratio, running

from biggan.devices import has_bfloat16, keep_freed_memory
from biggan.training.config import TrainConfig
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step
from training import RECIPES, real_batch, recipe

PEER = "BigGAN-PyTorch"


def peer_steps(
    folder: Path, config: TrainConfig, real: tuple[torch.Tensor, torch.Tensor]
) -> Functions:
    """A step of D and one of G as the peer's `train_fns.py` takes them."""
    sys.path.insert(0, str(folder))
    peer: Any = importlib.import_module("BigGAN")
    device = real[0].device
    shape = config.generator
    common = {
        "dim_z": shape.z_dim,
        "resolution": shape.resolution,
        "n_classes": shape.num_classes,
        "G_ch": shape.channels,
        "D_ch": shape.channels,
        "G_attn": str(shape.attention_resolution),
        "D_attn": str(config.discriminator.attention_resolution),
        "shared_dim": 128,
        "hier": True,
        "G_init": "N02",
        "D_init": "N02",
    }
    generator = peer.Generator(**common, G_activation=nn.ReLU(inplace=True))
    discriminator = peer.Discriminator(**common, D_activation=nn.ReLU(inplace=True))
    both = peer.G_D(generator, discriminator).to(device)

    def prepare(trained: Any, other: Any) -> tuple[torch.Tensor, torch.Tensor]:
        other.requires_grad_(False)
        trained.requires_grad_(True)
        trained.optim.zero_grad()
        z = torch.randn(config.batch_size, shape.z_dim, device=device)
        return z, torch.randint(shape.num_classes, (config.batch_size,), device=device)

    def autocast() -> torch.autocast:
        low = config.precision == "bfloat16"
        return torch.autocast(device.type, torch.bfloat16, enabled=low)

    def discriminator_update() -> None:
        with autocast():
            fake, seen = both(*prepare(discriminator, generator), *real, train_G=False)
            loss = F.relu(1 - seen).mean() + F.relu(1 + fake).mean()
        loss.backward()
        discriminator.optim.step()

    def generator_update() -> None:
        with autocast():
            loss = -both(*prepare(generator, discriminator), train_G=True).mean()
        loss.backward()
        generator.optim.step()

    return {"D": discriminator_update, "G": generator_update}


def own_steps(config: TrainConfig, real: tuple[torch.Tensor, torch.Tensor]) -> Functions:
    state = TrainState.create(config, real[0].device)
    return {
        "D": lambda: discriminator_step(state, real, config),
        "G": lambda: generator_step(state, config),
    }


def peer_process(folder: Path, config: TrainConfig, keeps: bool) -> Functions:
    if keeps:
        keep_freed_memory()
    return peer_steps(folder, config, real_batch(config))


def own_process(config: TrainConfig) -> Functions:
    keep_freed_memory()  # as `biggan train` does
    return own_steps(config, real_batch(config))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=RECIPES, default="biggan-128")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("float32", "bfloat16"),
        default=["float32", "bfloat16"] if has_bfloat16() else ["float32"],
    )
    parser.add_argument(
        "--kept", action="store_true", help="also the peer with freed memory kept as ours"
    )
    arguments = parser.parse_args()
    plans: dict[str, Plan] = {}
    for precision in arguments.precisions:
        config = recipe(arguments.size, batch_size=arguments.batch, precision=precision)
        peer = partial(peer_process, arguments.folder, config)
        plans[f"{PEER}, {precision}"] = Plan(partial(peer, keeps=False))
        if arguments.kept and precision == "float32":
            plans["  with freed memory kept"] = Plan(partial(peer, keeps=True))
        plans[f"ours, {precision}"] = Plan(partial(own_process, config))
    times: dict[tuple[str, str], list[Times]] = {}
    with running(plans) as contenders:
        for i in range(1 + arguments.rounds):
            for name, contender in contenders.items():
                for step in "DG":
                    taken = contender.times(step)
                    if i > 0:  # the first one warms up
                        times.setdefault((step, name), []).extend(taken)
    first = next(iter(contenders))
    print(f"{arguments.size}, batch {arguments.batch}, {torch.get_num_threads()} threads")
    print(f"  speeds are relative to {first}")
    for clock in Times._fields:
        for step in "DG":
            by_name = {
                name: [getattr(call, clock) for call in times[step, name]] for name in contenders
            }
            for name, taken in by_name.items():
                print(
                    f"  {step} step, {clock:9} time: {name:24} {statistics.median(taken):.3f} s, "
                    f"{ratio(by_name[first], taken):.2f} times as fast"
                )


if __name__ == "__main__":
    main()
