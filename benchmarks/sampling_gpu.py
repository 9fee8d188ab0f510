"""Images per second on a GPU: this package against pytorch-pretrained-biggan.

BigGAN-deep of the same random weights: the peer in float32 and under autocast, our plain network in
float32, and our engine (CUDA graphs) in float32, bfloat16 and float16. Where the peer is not
installed, our plain network takes its place, in float32 and under autocast. Everybody makes the
same batch, the largest of 1, 2, 4 ... 64 that all of them could make; all take turns in every
round, and the figures are medians. Float32 runs as PyTorch has it by default: the first lines say
what that is. `--device cpu` runs float32 alone, to try the script.

    python benchmarks/sampling_gpu.py [--resolutions 128 256 512] [--rounds 7] [--quick]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sampling import (
    LABEL,
    PEER,
    PLAIN,
    RESOLUTIONS,
    TRUNCATION,
    as_ours,
    build_ours,
    build_peer,
    peer_config,
    ratio,
)
from torch import Tensor, nn

from biggan.inference.engine import build_engine
from biggan.models import Generator

ROUNDS, SECONDS = 7, 1.0  # of a round, about
MOST = 64
PRECISIONS = ("float32", "bfloat16", "float16")

Draw = Callable[[Tensor, Tensor], Tensor]
"""Makes images of noise (N, 128) and labels (N,)."""


def contenders(
    peer: nn.Module | None, generator: Generator, device: torch.device
) -> dict[str, Draw]:
    """All that make the images of one network; the reference first."""
    drawing: dict[str, Draw] = {}
    if peer is not None:
        drawing[PEER] = lambda z, labels: peer(z, one_hot(labels), TRUNCATION)
    drawing[PLAIN] = lambda z, labels: generator(z, labels, TRUNCATION)
    if device.type == "cuda":
        reference = next(iter(drawing))
        drawing[f"{reference}, autocast"] = under_autocast(drawing[reference])
    for precision in PRECISIONS if device.type == "cuda" else PRECISIONS[:1]:
        engine = build_engine(generator, "pytorch", precision)
        if engine.precision == precision:  # not one that took its place
            drawing[f"ours, engine, {precision}"] = at_truncation(engine)
    return drawing


def one_hot(labels: Tensor) -> Tensor:
    return nn.functional.one_hot(labels, 1000).float()


def under_autocast(draw: Draw) -> Draw:
    def drawn(z: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return draw(z, labels).float()

    return drawn


def at_truncation(engine: Callable[..., Tensor]) -> Draw:
    return lambda z, labels: engine(z, labels, TRUNCATION)


def inputs(batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    z = TRUNCATION * torch.randn(batch, 128, generator=torch.Generator().manual_seed(2))
    return z.to(device), torch.full((batch,), LABEL, device=device)


def largest_batch(drawing: dict[str, Draw], device: torch.device, most: int) -> int:
    """The largest power of two at which everybody makes images."""
    batch = most
    for draw in drawing.values():
        while batch:
            try:
                draw(*inputs(batch, device))
                break
            except torch.OutOfMemoryError:
                batch //= 2
            clear()  # not above: while the error is handled, it holds what was allocated
    if batch == 0:
        sys.exit("not even one image fits the GPU's memory")
    return batch


def seconds(draw: Draw, z: Tensor, labels: Tensor, times: int) -> float:
    """Of one batch, as the mean of several."""
    synchronize(z.device)
    start = time.perf_counter()
    for _ in range(times):
        draw(z, labels)
    synchronize(z.device)
    return (time.perf_counter() - start) / times


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clear() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@torch.inference_mode()
def compare(
    title: str, drawing: dict[str, Draw], device: torch.device, most: int, rounds: int
) -> None:
    """Measure one image at a time and the largest batch; print."""
    batches = sorted({1, largest_batch(drawing, device, most)})
    for batch in batches:
        z, labels = inputs(batch, device)
        images = {name: draw(z, labels) for name, draw in drawing.items()}
        expected = next(iter(images.values()))
        differences = {n: (image - expected).abs().max().item() for n, image in images.items()}
        repeats = {
            name: max(1, round(SECONDS / seconds(draw, z, labels, 2)))
            for name, draw in drawing.items()
        }
        times: dict[str, list[float]] = {name: [] for name in drawing}
        for _ in range(rounds):
            for name, draw in drawing.items():
                times[name].append(seconds(draw, z, labels, repeats[name]))
        reference = next(iter(times.values()))
        print(f"\n{title}, batch {batch}")
        print(f"  {'':36} {'images/s':>9} {'speed':>7} {'largest difference':>19}")
        for name, taken in times.items():
            rate = batch / statistics.median(taken)
            print(
                f"  {name:36} {rate:9.1f} {ratio(reference, taken):6.2f}x "
                f"{differences[name]:19.1e}",
                flush=True,
            )


def networks(resolution: int) -> tuple[nn.Module | None, Generator]:
    """The peer's network, if it is installed, and ours of the same weights."""
    try:
        config = peer_config(resolution)
    except ImportError:
        print(f"{PEER} is not installed: left out")
        return None, build_ours(f"biggan-deep-{resolution}")
    peer = build_peer(config)
    with tempfile.TemporaryDirectory() as folder:
        return peer, as_ours(peer, Path(folder))


def describe(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{device.type}, torch {torch.__version__}"
    lines = [f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"]
    for what, allowed in (
        ("convolutions", torch.backends.cudnn.allow_tf32),
        ("matrix products", torch.backends.cuda.matmul.allow_tf32),
    ):
        lines.append(f"{what} in float32 run as {'TF32' if allowed else 'full float32'}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--resolutions", type=int, nargs="+", choices=RESOLUTIONS)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="128 px and 3 rounds unless said")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--most", type=int, default=MOST, help="images at once")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("sampling_gpu: there is no CUDA device here, nothing measured")
        return
    print(describe(device))
    rounds = arguments.rounds or (3 if arguments.quick else ROUNDS)
    for resolution in arguments.resolutions or ([128] if arguments.quick else RESOLUTIONS):
        peer, generator = networks(resolution)
        if peer is not None:
            peer.to(device)
        generator.to(device)
        drawing = contenders(peer, generator, device)
        compare(f"biggan-deep-{resolution}", drawing, device, arguments.most, rounds)
        del peer, generator, drawing
        clear()


if __name__ == "__main__":
    main()
