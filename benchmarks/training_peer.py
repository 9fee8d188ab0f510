"""Training steps against ajbrock's BigGAN-PyTorch, of which a checkout is needed.

Networks of the same shapes, hinge loss, Adam, no orthogonal regularization; a step of D and one of
G by each in turn, in one process: in float32 and, on a CPU with AMX, in bfloat16 too (the peer by
autocast). Prints the medians of wall and processor time, and the medians of each round's ratios to
the peer in float32.

    git clone https://github.com/ajbrock/BigGAN-PyTorch
    python benchmarks/training_peer.py BigGAN-PyTorch [--size biggan-128] [--batch 4] [--rounds 7]
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sampling import ratio
from torch import nn
from torch.nn import functional as F

from biggan.devices import has_amx, keep_freed_memory
from biggan.training.config import TrainConfig
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step
from training import RECIPES, real_batch, recipe

PEER = "BigGAN-PyTorch"
Steps = dict[str, Callable[[], object]]


def peer_steps(folder: Path, config: TrainConfig, real: tuple[torch.Tensor, torch.Tensor]) -> Steps:
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


def own_steps(config: TrainConfig, real: tuple[torch.Tensor, torch.Tensor]) -> Steps:
    state = TrainState.create(config, real[0].device)
    return {
        "D": lambda: discriminator_step(state, real, config),
        "G": lambda: generator_step(state, config),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=RECIPES, default="biggan-128")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    keep_freed_memory()
    contenders: dict[str, Steps] = {}
    for precision in ("float32", "bfloat16") if has_amx() else ("float32",):
        config = recipe(arguments.size, batch_size=arguments.batch, precision=precision)
        real = real_batch(config)
        contenders[f"{PEER}, {precision}"] = peer_steps(arguments.folder, config, real)
        contenders[f"ours, {precision}"] = own_steps(config, real)
    clocks = {"wall": time.perf_counter, "processor": time.process_time}
    times: dict[tuple[str, str, str], list[float]] = {}
    for i in range(1 + arguments.rounds):
        for name, steps in contenders.items():
            for step, update in steps.items():
                before = {clock: now() for clock, now in clocks.items()}
                update()
                if i > 0:  # the first one warms up
                    for clock, now in clocks.items():
                        times.setdefault((clock, step, name), []).append(now() - before[clock])
    print(f"{arguments.size}, batch {arguments.batch}, {torch.get_num_threads()} threads")
    for clock in clocks:
        for step in "DG":
            reference = times[clock, step, f"{PEER}, float32"]
            for name in contenders:
                own = times[clock, step, name]
                print(
                    f"  {step} step, {clock:9} time: {name:24} {statistics.median(own):.3f} s, "
                    f"{ratio(reference, own):.2f} times as fast"
                )


if __name__ == "__main__":
    main()
