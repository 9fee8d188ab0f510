"""bfloat16 beside float32: how far apart the losses of two runs of the built-in digits go.

Both start from the same weights and see the same noise and images. Prints the means of every 20
steps, and the largest distance between them over the run: the band.

    python benchmarks/precision.py [--device cuda] [--steps 200] [--channels 16] [--batch-size 16]

The networks are narrow by default: a CPU without bfloat16 emulates it, in up to tenfold time.
"""

from __future__ import annotations

import argparse
import dataclasses

import torch

from biggan.data import load_dataset
from biggan.training import load_recipe
from biggan.training.batches import real_batches
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step

_NETWORKS = ("generator", "discriminator")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    changes = [f"{network}.channels={arguments.channels}" for network in _NETWORKS]
    recipe = load_recipe("digits", [*changes, f"batch_size={arguments.batch_size}"])
    dataset = load_dataset("digits", recipe.generator.resolution, recipe.generator.image_channels)
    recipe = recipe.fitted(dataset.num_classes)
    curves = []
    for precision in ("float32", "bfloat16"):
        config = dataclasses.replace(recipe, precision=precision)
        state = TrainState.create(config, device)
        real = real_batches(config, dataset, device, start=0)
        rows = []
        for _ in range(arguments.steps):
            metrics = discriminator_step(state, next(real), config)
            metrics |= generator_step(state, config)
            state.step += 1
            rows.append(torch.stack([metrics["d_loss"], metrics["g_loss"]]).cpu())
        curves.append(torch.stack(rows).unfold(0, 20, 20).mean(dim=-1))
    for i, (full, low) in enumerate(zip(*curves, strict=True)):
        print(f"steps {20 * i:4} on: D {full[0]:.3f} {low[0]:.3f}   G {full[1]:.3f} {low[1]:.3f}")
    distance = (curves[0] - curves[1]).abs().amax(dim=0)
    print(f"largest distance: D {distance[0]:.3f}, G {distance[1]:.3f}")


if __name__ == "__main__":
    main()
