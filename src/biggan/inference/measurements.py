"""Which engine is the fastest on this machine: measured by `biggan bench`, and kept in a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from biggan._version import __version__
from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.inference import PRECISIONS, EngineName, openvino
from biggan.inference.engine import Engine, build_engine, check_precision
from biggan.inference.folded import FoldedGenerator
from biggan.models import Generator
from biggan.nn.matrix_product import matrix_product

_LOG = logging.getLogger("biggan.inference")

_ROUNDS = 5
_SIDE = 2048  # of the matrices: large enough for the library's best rate
_PRODUCTS = 7

_Network = Callable[[Tensor, Tensor], Tensor]
"""From noise and labels to images."""


def measure_all(
    generator: Generator, measurements: Path, report: Callable[[str], None]
) -> dict[str, Any]:
    """What `biggan bench` tells of a generator in eval mode on its device, as plain data.

    `report` is called before each step, with what is done.
    """
    operations = FoldedGenerator(generator).operations
    device = next(generator.parameters()).device
    report("measuring matrix products")
    rate = matrix_product_rate(device)
    seconds = measure_engines(
        generator,
        measurements,
        lambda name: report(f"building the {name} engine"),
        _not_for_auto(generator),
    )
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "operations_per_image": operations,
        "matrix_product_rate": rate,
        "auto": fastest_engine(generator, measurements),
        "engines": [
            {
                "name": name,
                "seconds_per_image": of_image,
                "images_per_second": 1 / of_image,
                "speed_over_pytorch": seconds["pytorch"] / of_image,
                "share_of_rate": operations / of_image / rate,
            }
            for name, of_image in seconds.items()
        ],
    }


def _not_for_auto(generator: Generator) -> dict[str, _Network]:
    """The plain network, and the PyTorch engine in the lower precisions of this device."""
    networks: dict[str, _Network] = {"plain": generator}
    for precision in PRECISIONS[1:]:
        with contextlib.suppress(InputError):
            check_precision(precision, next(generator.parameters()).device)
            engine = build_engine(generator, "pytorch", precision)
            if engine.precision == precision:  # not one that took its place
                networks[precision] = engine
    return networks


def matrix_product_rate(device: torch.device) -> float:
    """The best rate of float32 matrix products here, in floating-point operations per second."""
    a = torch.randn(_SIDE, _SIDE, device=device)
    best = math.inf
    for _ in range(_PRODUCTS):
        start = time.perf_counter()
        matrix_product(a, a)[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2 * _SIDE**3 / best


def measure_engines(
    generator: Generator,
    measurements: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
    others: Mapping[str, _Network] = MappingProxyType({}),
) -> dict[str, float]:
    """Time every engine that can run a generator in float32, in turn.

    Args:
        generator: In eval mode.
        measurements: Where to keep the times, for `build_engine`; None to keep nothing.
        report: Called with the name of each engine before it is built, which may take minutes.
        others: Networks by name that are timed beside them; of these nothing is kept.

    Returns:
        Median seconds per image of each engine that agrees with PyTorch, at its own batch size, and
        of the others at that of the PyTorch engine.
    """
    engines: dict[EngineName, Engine] = {}
    for name in _candidates(generator):
        report(name)
        try:
            engine = build_engine(generator, name)
        except InputError as error:  # it is installed, and broken
            _LOG.warning("leaving out the %s engine: %s", name, error)
            continue
        if engine.name == name:  # not one that took its place
            engines[name] = engine
    times: dict[str, list[float]] = {name: [] for name in [*engines, *others]}
    for _ in range(_ROUNDS + 1):  # the first is for warming up
        for name, engine in engines.items():
            times[name].append(_seconds_per_image(engine))
        for other, network in others.items():
            times[other].append(_seconds_per_image(engines["pytorch"], network))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    if measurements is not None:
        kept = {name: medians[name] for name in engines}
        known = _read(measurements) | {_key(generator): kept}
        write_atomically(measurements, json.dumps(known, indent=1).encode())
    return medians


def fastest_engine(generator: Generator, measurements: Path) -> EngineName:
    """The engine that `auto` stands for in float32: PyTorch where nothing was measured."""
    times = _read(measurements).get(_key(generator), {})
    candidates = [name for name in _candidates(generator) if name in times]
    return min(candidates, key=lambda name: times[name], default="pytorch")


def _candidates(generator: Generator) -> list[EngineName]:
    on_cpu = next(generator.parameters()).device.type == "cpu"
    return ["pytorch", "openvino"] if on_cpu and openvino.version() else ["pytorch"]


@torch.inference_mode()
def _seconds_per_image(engine: Engine, run: _Network | None = None) -> float:
    """Of an engine, or of a network that is run as this engine would be."""
    num = engine.batch_size
    z = torch.zeros(num, engine.config.z_dim, device=engine.device)
    labels = torch.zeros(num, dtype=torch.int64, device=engine.device)
    start = time.perf_counter()
    (run or engine)(z, labels).cpu()  # waits for a GPU
    return (time.perf_counter() - start) / num


def _key(generator: Generator) -> str:
    """What a measurement depends on: the architecture, the machine, the libraries."""
    device = next(generator.parameters()).device
    machine = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else (_processor(), os.cpu_count(), torch.get_num_threads())
    )
    libraries = (__version__, torch.__version__, openvino.version())
    about = (generator.config.to_dict(), machine, libraries)
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def _read(measurements: Path) -> dict[str, dict[str, float]]:
    """What was measured; nothing where the file is missing or damaged: it is only a hint."""
    try:
        known = json.loads(measurements.read_text(encoding="utf-8"))
        return {
            str(key): {
                name: seconds
                for name, seconds in times.items()
                if isinstance(seconds, float) and 0 < seconds < math.inf
            }
            for key, times in known.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _processor() -> str:
    """The processor's model where the system tells it, else its architecture."""
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
