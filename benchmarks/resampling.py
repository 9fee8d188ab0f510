"""The fused upsample+conv and conv+pool against the plain ones, forward and backward.

Peer: the same layer as two PyTorch calls, in the same process, in turn. Prints medians and ratios.

    python benchmarks/resampling.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from biggan.nn import resampling

ROUNDS = 9
SIZES = [(4, 256), (8, 256), (16, 256), (16, 64), (32, 128), (32, 32), (64, 64)]  # pixels, channels


def seconds(function: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    function().sum().backward()
    return time.perf_counter() - start


def compare(name: str, plain: Callable[[], Tensor], fused: Callable[[], Tensor]) -> None:
    seconds(plain), seconds(fused)
    times = [(seconds(plain), seconds(fused)) for _ in range(ROUNDS)]
    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(p / f for p, f in times)
    print(f"{name:34} {before * 1e3:8.2f} {after * 1e3:8.2f} {ratio:7.2f}x")


def main() -> None:
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, batch 8, milliseconds")
    print(f"{'':34} {'plain':>8} {'fused':>8} {'ratio':>8}")
    for size, channels in SIZES:
        x = torch.randn(8, channels, size, size, requires_grad=True)
        weight = torch.randn(channels, channels, 3, 3, requires_grad=True)
        bias = torch.randn(channels, requires_grad=True)
        arguments = (x, weight, bias)
        compare(
            f"upsample+conv, {size} to {2 * size} px, {channels} ch",
            lambda a=arguments: F.conv2d(F.interpolate(a[0], scale_factor=2), *a[1:], padding=1),
            lambda a=arguments: resampling.upsample_convolve(*a),
        )
        compare(
            f"conv+pool, {size} to {size // 2} px, {channels} ch",
            lambda a=arguments: F.avg_pool2d(F.conv2d(*a, padding=1), 2),
            lambda a=arguments: resampling.convolve_average_pool(*a),
        )


if __name__ == "__main__":
    main()
