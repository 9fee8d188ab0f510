"""The tables of docs/scale.md: ImageNet at 128 px, batch 2048, on many accelerators.

`--measure` trains tiny networks in 1, 2, 4 and 8 processes over gloo, reads from every TCP
connection how many bytes the kernel sent for it in a step, and prints them beside the formula.
Without it the script applies the formula and the plan of `biggan train --dry-run` to the recipe
biggan-128. The assumptions are options; none of them was measured.

    python benchmarks/scale.py --measure
    python benchmarks/scale.py [--tflops 100] [--gbytes 50] [--hop 5] [--price 2]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import socket
import statistics
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from data_loading import drain_fetch
from torch import distributed as dist
from torch import nn

from biggan.data import ImageDataset
from biggan.distributed import process_group
from biggan.models import make_discriminator, make_generator
from biggan.nn import StandingBatchNorm2d
from biggan.training import TrainConfig, load_recipe
from biggan.training.plan import make_plan
from biggan.training.randomness import Purpose
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, draw_latents, generator_step

CPU = torch.device("cpu")
FLOAT = 4  # bytes
IMAGES = 1_281_167
PROCESSES, STEPS = (1, 2, 4, 8), 3
TINY = {
    "preset": "biggan-32",
    "batch_size": 8,
    "generator": {"channels": 16, "num_classes": 10},
    "discriminator": {"channels": 16, "num_classes": 10},
}
BYTES_SENT = 200  # the offset of tcpi_bytes_sent in Linux's struct tcp_info


# What the processes exchange.


def volumes(config: TrainConfig, processes: int) -> dict[str, float]:
    """Bytes that each process sends in one update, by the ring algorithm that gloo and NCCL use.

    An all_reduce of S bytes sends 2 (N - 1) / N S from every process, an all_gather of S bytes from
    every process (N - 1) S.
    """
    with torch.device("meta"):
        generator = make_generator(config.generator)
        discriminator = make_discriminator(config.discriminator)
    reduced = 2 * (processes - 1) / processes
    channels = norm_channels(generator)
    forward = (processes - 1) * sum(2 * c + 1 for c in channels) * FLOAT
    backward = reduced * sum(2 * c for c in channels) * FLOAT
    return {
        "D gradients": reduced * parameters(discriminator) * FLOAT,
        "D BatchNorm": forward,  # of the generated images
        "G gradients": reduced * parameters(generator) * FLOAT,
        "G BatchNorm": forward + backward,
    }


def norm_channels(generator: nn.Module) -> list[int]:
    """The channels of every BatchNorm."""
    norms = (m for m in generator.modules() if isinstance(m, StandingBatchNorm2d))
    return [norm.running_mean.numel() for norm in norms]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def sent() -> int:
    """Bytes that this process has sent over TCP connections that are open."""
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed since, or no TCP socket
            if entry.readlink().name.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry.name))) as opened:
                    info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    total += struct.unpack_from("Q", info, BYTES_SENT)[0]
    return total


def sent_by(update: Callable[[], object]) -> int:
    """Bytes that this process sends during an update."""
    if dist.is_initialized():  # not by one process alone
        dist.barrier()
    before = sent()
    update()
    return sent() - before


def member(rank: int, processes: int, port: int, results: multiprocessing.Queue) -> None:
    """One process: what it sends in an update of D and of G, medians, after the first step."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    config = TrainConfig.from_dict(TINY)
    shape = config.discriminator
    own = config.batch_size // processes
    with process_group(CPU):
        state = TrainState.create(config, CPU)
        images = torch.rand(own, shape.image_channels, shape.resolution, shape.resolution)
        real = images, torch.zeros(own, dtype=torch.int64)
        counts = []
        for _ in range(1 + STEPS):  # DistributedDataParallel arranges its buckets in the first one
            d = sent_by(lambda: discriminator_step(state, real, config))
            counts.append((d, sent_by(lambda: generator_step(state, config))))
        results.put([statistics.median(column) for column in zip(*counts[1:], strict=True)])


def measured(processes: int) -> tuple[float, float]:
    """The mean over processes of what each sends in an update of D and of G."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["biggan.training", "torch._dynamo"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    results = context.Queue()
    started = [
        context.Process(target=member, args=(rank, processes, port, results), daemon=True)
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    counts = [results.get(timeout=300) for _ in started]
    for process in started:
        process.join()
    d, g = (statistics.mean(column) for column in zip(*counts, strict=True))
    return d, g


def compare() -> None:
    """Print what was sent beside the formula."""
    config = TrainConfig.from_dict(TINY)
    print("| processes | D update: sent, formula, ratio | G update: sent, formula, ratio |")
    print("| --- | --- | --- |")
    for processes in PROCESSES:
        formula = volumes(config, processes)
        cells = []
        for side, count in zip("DG", measured(processes), strict=True):
            expected = sum(size for name, size in formula.items() if name.startswith(side))
            ratio = f"{count / expected:.4f}" if expected else "-"
            cells.append(f"{count:,.0f}; {expected:,.0f}; {ratio}")
        print(f"| {processes} | {' | '.join(cells)} |", flush=True)


# What that makes of the recipe.


def draws_seconds(config: TrainConfig) -> float:
    """Seconds in which one thread draws the noise and labels of one update."""
    torch.set_num_threads(1)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        draw_latents(config, (), Purpose.GENERATOR_STEP)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def loader_rate(resolution: int) -> float:
    """Images per second that one thread copies out of memory, from random places of 200 MB."""
    torch.set_num_threads(1)
    count = 200_000_000 // (3 * resolution**2)
    images = torch.zeros((count, 3, resolution, resolution), dtype=torch.uint8)
    images += 1  # zeros share their memory until something is written
    dataset = ImageDataset(images, torch.zeros(count, dtype=torch.int64), (), "memory")
    return statistics.median(drain_fetch(dataset) for _ in range(5))


def project(arguments: argparse.Namespace) -> None:
    """Print the tables of the page."""
    # bfloat16: the plan then counts direct convolutions, as accelerators compute them.
    config = load_recipe("biggan-128", ["precision=bfloat16"]).fitted(1000)
    updates = config.d_steps + 1
    with torch.device("meta"):
        layers = len(norm_channels(make_generator(config.generator)))
    # Forward passes of the generator gather statistics, its backward pass reduces their gradients.
    gathers, reductions = updates * layers, layers
    draws = updates * draws_seconds(config)
    columns = {
        count: column(config, count, (gathers, reductions), draws, arguments)
        for count in arguments.devices
    }
    rate = loader_rate(config.generator.resolution)
    print(f"measured here: one thread loads {rate:,.0f} images per second")
    print(
        f"BatchNorm in a step: {gathers} gathers and {reductions} reductions, one after the other"
    )
    print(
        f"assumed: {arguments.tflops:g} TFLOP/s and {arguments.gbytes:g} GB/s per device, "
        f"{arguments.hop:g} us per hop, {arguments.price:g} dollars per device and hour"
    )
    print(f"| devices | {' | '.join(map(str, columns))} |")
    print(f"| --- |{' --- |' * len(columns)}")
    for name in next(iter(columns.values())):
        print(f"| {name} | {' | '.join(values[name] for values in columns.values())} |")


def column(
    config: TrainConfig,
    devices: int,
    exchanges: tuple[int, int],
    draws: float,
    assumed: argparse.Namespace,
) -> dict[str, str]:
    """The figures of one number of devices, by name; `exchanges` are BatchNorm's of a step."""
    plan = make_plan(config, IMAGES, devices)
    own_flops, peak = plan["step_flops"] / devices, max(plan["d_peak_bytes"], plan["g_peak_bytes"])
    sizes = volumes(config, devices)
    gradients = config.d_steps * sizes["D gradients"] + sizes["G gradients"]
    norms = config.d_steps * sizes["D BatchNorm"] + sizes["G BatchNorm"]
    compute = own_flops / assumed.tflops / 1e12
    # In a backward pass, two thirds of an update, gradients travel while others are computed.
    exposed = max(0.0, gradients / assumed.gbytes / 1e9 - 2 / 3 * compute)
    gathers, reductions = exchanges  # by rings, and by trees up and down
    hops = gathers * (devices - 1) + reductions * 2 * math.ceil(math.log2(devices))
    latency = hops * assumed.hop * 1e-6 + norms / assumed.gbytes / 1e9
    step = compute + exposed + latency + draws
    hours = step * config.total_steps / 3600
    images = config.d_steps * config.batch_size / step
    return {
        "images per device and update": f"{plan['micro_batch']}",
        "TFLOP of a step, all devices": f"{plan['step_flops'] / 1e12:.0f}",
        "TFLOP of a step, one device": f"{own_flops / 1e12:.2f}",
        "GiB at the peak, one device": f"{peak / 2**30:.1f}",
        "gradients that a device sends in a step, GB": f"{gradients / 1e9:.2f}",
        "BatchNorm statistics that a device sends in a step, MB": f"{norms / 1e6:.2f}",
        "ms of arithmetic": f"{1e3 * compute:.0f}",
        "ms of gradients that arithmetic does not hide": f"{1e3 * exposed:.0f}",
        "ms of BatchNorm's exchanges": f"{1e3 * latency:.1f}",
        "ms of drawing random numbers": f"{1e3 * draws:.1f}",
        "ms of a step": f"{1e3 * step:.0f}",
        "real images per second, all devices": f"{images:,.0f}",
        "real images per second, one device": f"{images / devices:,.0f}",
        f"hours of {config.total_steps:,} steps": f"{hours:.1f}",
        "device hours": f"{hours * devices:,.0f}",
        "cost, dollars": f"{hours * devices * assumed.price:,.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--devices", type=int, nargs="+", default=[8, 64, 128, 512])
    parser.add_argument("--tflops", type=float, default=100, help="arithmetic of a device")
    parser.add_argument("--gbytes", type=float, default=50, help="what a device sends in a second")
    parser.add_argument("--hop", type=float, default=5, help="microseconds of a small message")
    parser.add_argument("--price", type=float, default=2, help="dollars for a device and hour")
    arguments = parser.parse_args()
    if arguments.measure:
        compare()
    else:
        project(arguments)


if __name__ == "__main__":
    main()
