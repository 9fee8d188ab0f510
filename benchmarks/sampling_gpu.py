"""Images per second of a BigGAN-deep on a GPU; a part of gpu.py, which makes a table of the lines.

The first form, ours in plain eager PyTorch and full float32, is what the others are relative to;
its images are what theirs differ from. It is measured again after them. Every form makes one image
and a large batch at a time. The peer is pytorch-pretrained-biggan of the same random weights, if it
can be imported. A form that fails is a line with its error.

    python benchmarks/sampling_gpu.py 128 [--device cuda] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from sampling import LABEL, RESOLUTIONS, TRUNCATION, build_ours, build_peer, peer_config, write_peer
from torch import Tensor, nn

import biggan
from biggan.inference import EngineName, Precision
from biggan.inference.engine import Engine, build_engine
from biggan.models import Generator
from biggan.models.presets import get_preset

ROUNDS, SECONDS = 5, 0.3  # of a round, about
BATCHES = (1, 64)
COMPILED = 128  # the resolution at which the compiler runs, last: it takes minutes
FIRST = "plain eager, float32"

Draw = Callable[[Tensor, Tensor], Tensor]
"""Makes images of noise (N, 128) and labels (N,)."""


def forms(
    peer: nn.Module | None, generator: Generator, device: torch.device
) -> Iterator[tuple[str, bool, Callable[[], Draw]]]:
    """A name, whether TF32 is allowed, and what builds it."""

    def plain() -> Draw:
        return lambda z, labels: generator(z, labels, TRUNCATION)

    def compiled() -> Draw:
        network = torch.compile(generator)
        return lambda z, labels: network(z, labels, TRUNCATION)

    def theirs() -> Draw:
        assert peer is not None
        return lambda z, labels: peer(z, one_hot(labels), TRUNCATION)

    def engine(precision: Precision, name: EngineName = "pytorch") -> Callable[[], Draw]:
        return lambda: at_truncation(exact_engine(generator, name, precision))

    yield FIRST, False, plain
    yield "plain eager, TF32", True, plain
    yield "plain eager, bfloat16", True, lambda: in_bfloat16(plain(), device)
    if peer is not None:
        yield "peer, float32", False, theirs
        yield "peer, TF32", True, theirs
        yield "peer, bfloat16", True, lambda: in_bfloat16(theirs(), device)
    yield "CUDA graphs, float32", False, engine("float32")
    yield "CUDA graphs, TF32", True, engine("float32")
    yield "CUDA graphs, bfloat16", True, engine("bfloat16")
    yield "CUDA graphs, float16", True, engine("float16")
    yield f"{FIRST}, again", False, plain
    if generator.config.resolution == COMPILED:
        yield "plain compiled, bfloat16", True, lambda: in_bfloat16(compiled(), device)
        yield "engine compile, bfloat16", True, engine("bfloat16", "compile")


def exact_engine(generator: Generator, name: EngineName, precision: Precision) -> Engine:
    """An engine that runs as asked for, and not the one that `build_engine` falls back to."""
    engine = build_engine(generator, name, precision)
    fell_back = engine.device.type == "cuda" and type(engine) is Engine
    if fell_back or engine.precision != precision:
        raise RuntimeError("PyTorch in float32 took its place: see the log")
    return engine


def at_truncation(engine: Engine) -> Draw:
    return lambda z, labels: engine(z, labels, TRUNCATION)


def in_bfloat16(draw: Draw, device: torch.device) -> Draw:
    def drawn(z: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return draw(z, labels).float()

    return drawn


def one_hot(labels: Tensor) -> Tensor:
    return nn.functional.one_hot(labels, 1000).float()


def inputs(batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    z = TRUNCATION * torch.randn(batch, 128, generator=torch.Generator().manual_seed(2))
    return z.to(device), torch.full((batch,), LABEL, device=device)


def allow_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def seconds(run: Callable[[], object], times: int, device: torch.device) -> float:
    """Of one run, as the mean of several."""
    wait_for(device)
    start = time.perf_counter()
    for _ in range(times):
        run()
    wait_for(device)
    return (time.perf_counter() - start) / times


def median_seconds(
    run: Callable[[], object], device: torch.device, rounds: int, round_seconds: float
) -> float:
    """Of one run, as the median of rounds of about so many seconds."""
    times = max(1, round(round_seconds / seconds(run, 2, device)))
    return statistics.median(seconds(run, times, device) for _ in range(rounds))


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clear() -> None:
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_gib(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None


def compare(
    peer: nn.Module | None, generator: Generator, device: torch.device, *, quick: bool
) -> None:
    """Measure all forms; print a line as soon as there is one."""
    batches = (1, 2) if quick else BATCHES
    expected: dict[int, Tensor] = {}
    reference: dict[int, float] = {}
    for name, tf32, build in forms(peer, generator, device):
        clear()
        allow_tf32(tf32)
        draw: Draw | None = None
        for batch in batches:
            row: dict[str, object] = {"form": name, "batch": batch}
            try:
                draw = draw or build()
                row |= measure(draw, inputs(batch, device), expected, reference, quick=quick)
            except Exception as error:  # one form that fails should not hide the others
                row["error"] = f"{type(error).__name__}: {error}"
            print(json.dumps(row), flush=True)
            if draw is None:
                break


@torch.inference_mode()
def measure(
    draw: Draw,
    given: tuple[Tensor, Tensor],
    expected: dict[int, Tensor],
    reference: dict[int, float],
    *,
    quick: bool,
) -> dict[str, object]:
    """The figures of a form at a batch size; those of the first form are kept."""
    batch, device = len(given[0]), given[0].device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    images = draw(*given)
    taken = median_seconds(
        lambda: draw(*given), device, 1 if quick else ROUNDS, 0.0 if quick else SECONDS
    )
    images = images if batch in expected else expected.setdefault(batch, images.clone())
    first = reference.setdefault(batch, taken)
    return {
        "rate": batch / taken,
        "speed": first / taken,
        "gib": peak_gib(device),
        "difference": (images - expected[batch]).abs().max().item(),
    }


def networks(resolution: int, *, quick: bool) -> tuple[nn.Module | None, Generator]:
    """The peer's network, if it can be imported, and ours of the same weights."""
    try:
        config = peer_config(resolution)
    except ImportError as error:
        print(f"the peer is left out: {error}")
        shape = get_preset(f"biggan-deep-{resolution}").generator
        return None, build_ours(dataclasses.replace(shape, channels=8) if quick else shape)
    if quick:
        config.channel_width = 8
    peer = build_peer(config)
    with tempfile.TemporaryDirectory() as folder:
        write_peer(peer, Path(folder))
        return peer, biggan.load(folder, device="cpu", offline=True).generator


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("resolution", type=int, choices=RESOLUTIONS)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--quick", action="store_true", help="narrow networks, one round")
    arguments = parser.parse_args()
    peer, generator = networks(arguments.resolution, quick=arguments.quick)
    if peer is not None:
        peer.to(arguments.device)
    compare(peer, generator.to(arguments.device), arguments.device, quick=arguments.quick)


if __name__ == "__main__":
    main()
