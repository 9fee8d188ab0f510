"""Metrics of features: seconds and memory, the Frechet distance against scipy's square root.

The peer is the usual formula: the trace of `scipy.linalg.sqrtm` of the product of the covariances.
Both take the same statistics, in turn, of more and of fewer images than dimensions; the figures are
medians. The other metrics run alone, each in a process of its own, at the numbers of images that
their papers take, with what it held before, inputs included, and what it held at most.

    python benchmarks/metrics.py [--rounds 1]
"""

# Nothing large is imported here: a process's peak includes that of the one which started it.
from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from memory import MEBIBYTE, held, peak

if TYPE_CHECKING:
    from torch import Tensor

    from biggan.metrics.statistics import FeatureStatistics

DIM, CLASSES = 2048, 1008  # of TF-Inception
IMAGES = (10_000, 1_000)  # of either set, for the Frechet distance
BATCH = 64
QUERIES = 64


def measure_frechet_distance(rounds: int) -> None:
    import torch

    from biggan.metrics.frechet_distance import frechet_distance

    print(f"Frechet distance, {DIM} dimensions, {torch.get_num_threads()} threads, seconds")
    has_peer = find_spec("scipy") is not None
    if not has_peer:
        print("scipy is not installed: left out")
    frechet_distance(*(synthetic_statistics(100, seed, 64) for seed in (1, 2)))  # starts threads
    for num in IMAGES:
        a, b = (synthetic_statistics(num, seed) for seed in (1, 2))
        times, peers = [], []
        for _ in range(rounds):
            taken, ours = seconds(lambda a=a, b=b: frechet_distance(a, b))
            times.append(taken)
            if has_peer:
                taken, theirs = seconds(lambda a=a, b=b: distance_by_scipy(a, b))
                peers.append(taken)
        line = f"  {num:6} images: ours {statistics.median(times):6.2f}"
        if has_peer:
            ratio = statistics.median(p / t for p, t in zip(peers, times, strict=True))
            line += f", scipy's square root {statistics.median(peers):7.2f}: {ratio:.1f} times"
            line += f"; {abs(ours - theirs) / theirs:.0e} apart"
        print(line, flush=True)


def distance_by_scipy(a: FeatureStatistics, b: FeatureStatistics) -> float:
    import warnings

    import numpy as np
    import scipy.linalg

    first, second = a.covariance().numpy(), b.covariance().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the product is singular
        root = scipy.linalg.sqrtm(first @ second)
    shift = (a.mean - b.mean).numpy()
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * np.trace(root.real))


def seconds(function: Callable[[], float]) -> tuple[float, float]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def synthetic_features(num: int, seed: int, dim: int = DIM) -> Tensor:
    """float32 (num, dim), at least 0, correlated, of variances that fall like 1/i."""
    import torch

    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=random) / torch.arange(1, dim + 1).sqrt()[:, None]
    features = torch.empty(num, dim)
    for rows in features.split(1000):  # the peak shall not be theirs
        torch.mm(torch.randn(len(rows), dim, generator=random), mix, out=rows)
    return features.div_(dim**0.5).add_(0.3).relu_()


def synthetic_statistics(num: int, seed: int, dim: int = DIM) -> FeatureStatistics:
    from biggan.metrics.statistics import FeatureStatistics

    result = FeatureStatistics(dim)
    result.update(synthetic_features(num, seed, dim))
    return result


def accumulate() -> Callable[[], object]:
    from biggan.metrics.statistics import FeatureStatistics

    batch = synthetic_features(BATCH, 1)
    result = FeatureStatistics(DIM)

    def work() -> None:
        for _ in range(50_000 // BATCH):
            result.update(batch)
        result.covariance()

    return work


def inception_score() -> Callable[[], object]:
    import torch

    from biggan.metrics import inception_score as module

    logits = torch.randn(50_000, CLASSES)
    return lambda: module.inception_score(logits)


def precision_recall() -> Callable[[], object]:
    from biggan.metrics import precision_recall as module

    real, fake = (synthetic_features(10_000, seed) for seed in (1, 2))
    return lambda: module.precision_recall(real, fake)


def kernel_inception_distance() -> Callable[[], object]:
    from biggan.metrics import kernel_inception_distance as module

    a, b = (synthetic_features(10_000, seed) for seed in (1, 2))
    return lambda: module.kernel_inception_distance(a, b)


def nearest_neighbors() -> Callable[[], object]:
    from biggan.metrics import nearest_neighbors as module

    reference = synthetic_features(50_000, 1)
    query = synthetic_features(QUERIES, 2)
    return lambda: module.nearest_neighbors(query, reference, 8)


ALONE = {
    f"statistics of 50,000 images in batches of {BATCH}": accumulate,
    "Inception Score of 50,000 images": inception_score,
    "precision, recall, density, coverage, 10,000 each": precision_recall,
    "kernel distance, 100 subsets of 1,000": kernel_inception_distance,
    f"8 neighbours of {QUERIES} images among 50,000": nearest_neighbors,
}


def measure_alone(name: str) -> None:
    """Print seconds, and MiB before and after, of one metric in this process."""
    work = ALONE[name]()
    before = held()
    taken, _ = seconds(work)
    print(f"{taken:.2f} {before / MEBIBYTE:.0f} {peak() / MEBIBYTE:.0f}")


def in_a_process(*arguments: str) -> str:
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1, help="of the Frechet distance")
    # What follows is for the script itself.
    parser.add_argument("--alone", choices=ALONE, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        measure_alone(arguments.alone)
        return
    if not Path("/proc/self/statm").exists():
        sys.exit("there is no /proc here to read from what a process holds")
    print(f"{'':52}{'seconds':>8}{'MiB before':>12}{'at most':>9}{'more':>6}")
    for name in ALONE:
        taken, before, after = map(float, in_a_process("--alone", name).split())
        print(f"{name:52}{taken:8.2f}{before:12.0f}{after:9.0f}{after - before:6.0f}", flush=True)
    measure_frechet_distance(arguments.rounds)


if __name__ == "__main__":
    main()
