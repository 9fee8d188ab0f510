"""One image at a time on the CPU: this package against pytorch-pretrained-biggan.

Both build BigGAN-deep with random weights and make images in eval mode at truncation 0.4, in the
same process, in turn. Prints medians and ratios. The peer comes with the development tools
(`make test`).

    python benchmarks/sampling.py [128 256 512]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from pytorch_pretrained_biggan import BigGAN, BigGANConfig

import biggan
from biggan.weights.files import set_statistics_grid

ROUNDS = 7
TRUNCATION = 0.4
# The peer's own configurations, as its weights are published: (upsample, in, out) in units of ch.
LAYERS = {
    128: "F16,16 T16,16 F16,16 T16,8 F8,8 T8,4 F4,4 T4,2 F2,2 T2,1",
    256: "F16,16 T16,16 F16,16 T16,8 F8,8 T8,8 F8,8 T8,4 F4,4 T4,2 F2,2 T2,1",
    512: "F16,16 T16,16 F16,16 T16,8 F8,8 T8,8 F8,8 T8,4 F4,4 T4,2 F2,2 T2,1 F1,1 T1,1",
}


def peer(resolution: int) -> Callable[[], torch.Tensor]:
    layers = [
        (block[0] == "T", *(int(width) for width in block[1:].split(",")))
        for block in LAYERS[resolution].split()
    ]
    config = BigGANConfig(output_dim=resolution, layers=layers)
    model = BigGAN(config).eval()
    z, label = torch.randn(1, 128), torch.zeros(1, 1000)
    label[0, 207] = 1
    return lambda: model(z, label, TRUNCATION)


def ours(resolution: int) -> Callable[[], torch.Tensor]:
    generator = biggan.build_generator(f"biggan-deep-{resolution}")
    set_statistics_grid(generator, [round(0.02 * i, 2) for i in range(51)])
    generator.eval()
    z, label = torch.randn(1, 128), torch.tensor([207])
    return lambda: generator(z, label, TRUNCATION)


def seconds(function: Callable[[], torch.Tensor]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    resolutions = [int(argument) for argument in sys.argv[1:]] or [128]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, seconds per image")
    print(f"{'':18} {'peer':>8} {'ours':>8} {'ratio':>8}")
    for resolution in resolutions:
        theirs, own = peer(resolution), ours(resolution)
        seconds(theirs), seconds(own)
        times = [(seconds(theirs), seconds(own)) for _ in range(ROUNDS)]
        before, after = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(p / o for p, o in times)
        print(f"biggan-deep-{resolution:<6} {before:8.3f} {after:8.3f} {ratio:7.2f}x")


if __name__ == "__main__":
    main()
