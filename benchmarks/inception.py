"""TF-Inception's features on the CPU: this package against pytorch-fid and torch-fidelity.

All read the same file of random weights and look at the same pixels, in one process and in turn;
the figures are medians, and the medians of each round's ratios. Before that the features are
compared at several sizes, each peer's with those of the resize that is its own. Then each looks at
images in a process of its own, for the memory that it takes.

The peers are not among the development tools, since the build of torchvision that they import has
operators for CUDA only. Without that, in an environment of its own:

    pip install torch scipy && pip install --no-deps pytorch-fid torch-fidelity torchvision
    pip install .
    python benchmarks/inception.py [--resolution 128] [--batch 8] [--rounds 5]
"""

# Nothing large is imported here: a process's peak includes that of the one which started it.
from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from memory import MEBIBYTE, held, peak

if TYPE_CHECKING:
    from torch import Tensor

    Look = Callable[[Tensor], Tensor]

PEER, OTHER_PEER = "pytorch-fid", "torch-fidelity"
OURS = {PEER: f"ours, as {PEER} resizes", OTHER_PEER: "ours, as TensorFlow resizes"}
SIZES = ((32, 32), (64, 64), (128, 128), (256, 256), (299, 299), (512, 512), (120, 200))
TOLERANCE = 1e-4
IMAGES = 16  # for the memory


def import_torchvision() -> None:
    """Import it though its operators be missing: they are declared, and nobody calls them here."""
    import torch
    from torch import library

    if "torchvision" in sys.modules:
        return
    spec = find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    try:
        for operators in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(operators)
    except OSError:
        for name in ("nms", "qnms"):  # to which torchvision adds shape rules when it is imported
            library.define(f"torchvision::{name}", "(Tensor boxes) -> Tensor")
    warnings.filterwarnings("ignore", module="torchvision")  # of images that it cannot read
    import torchvision  # noqa: F401


@contextlib.contextmanager
def instead_of_download(weights: dict[str, Tensor]) -> Iterator[None]:
    """Let pytorch-fid find these weights where it would download its own."""
    import pytorch_fid.inception

    with mock.patch.object(pytorch_fid.inception, "load_state_dict_from_url", return_value=weights):
        yield


def write_weights(path: Path, images: Tensor) -> None:
    """A file of pytorch-fid's format whose features neither fade nor explode on such images."""
    import torch
    from pytorch_fid.inception import fid_inception_v3
    from torch import nn

    torch.manual_seed(0)
    with instead_of_download({}), mock.patch.object(nn.Module, "load_state_dict"):
        network = fid_inception_v3()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 1.0)
            module.momentum = 1.0  # keep the statistics of the next forward
    network.train()
    with torch.no_grad():
        network(nn.functional.interpolate(images / 127.5 - 1, (299, 299), mode="bilinear"))
    torch.save(network.state_dict(), path)


def make_images(num: int, height: int, width: int) -> Tensor:
    """Random colours of several scales, uint8."""
    import torch
    from torch.nn import functional as F

    random = torch.Generator().manual_seed(height * width)
    image = torch.zeros(num, 3, height, width)
    for scale in (3, 9, 27, 81):
        noise = torch.randn(num, 3, scale, scale, generator=random)
        image += F.interpolate(noise, (height, width), mode="bicubic") * scale**-0.5
    return (128 + 60 * image).clamp(0, 255).to(torch.uint8)


def open_peer(name: str, path: Path) -> Look:
    """One of the peers, reading a weights file."""
    import torch

    import_torchvision()
    if name == PEER:
        from pytorch_fid.inception import InceptionV3

        with instead_of_download(torch.load(path, weights_only=True)):
            network = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
        return lambda images: network(images.float() / 255)[0].flatten(1)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    other: Any = FeatureExtractorInceptionV3(
        "inception", ["2048"], feature_extractor_weights_path=str(path)
    )
    return lambda images: other(images)[0]


def open_ours(peer: str, path: Path) -> Look:
    """Ours, with the resize of one of the peers."""
    from biggan.metrics.inception import InceptionFeatures

    return InceptionFeatures(path, resize="pytorch-fid" if peer == PEER else "tensorflow")


def compare(peers: dict[str, Look], ours: dict[str, Look]) -> None:
    """Print how far the features are apart, at most."""
    print("\nlargest difference of a feature from each peer's, and the features' deviation;")
    print("last, the norm of the peers' own difference relative to the features'")
    for height, width in SIZES:
        images = make_images(2, height, width)
        features = {name: look(images) for name, look in peers.items()}
        line, equal = f"  {width:3} x {height:3}", True
        for name, theirs in features.items():
            difference = (ours[name](images) - theirs).abs().max().item()
            equal &= difference <= TOLERANCE  # NaN is not
            line += f"   {name} {difference:.1e}"
        line += f"   {'equal' if equal else 'NOT EQUAL'}"
        line += f"   deviation {features[PEER].std().item():.2f}"
        if len(features) == 2:
            apart = (features[PEER] - features[OTHER_PEER]).norm() / features[PEER].norm()
            line += f"   {apart.item():.1%}"
        print(line, flush=True)


def race(contenders: dict[str, Look], images: Tensor, rounds: int) -> None:
    """Measure in turn, print."""
    for look in contenders.values():
        look(images)  # warms up
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, look in contenders.items():
            start = time.perf_counter()
            look(images)
            times[name].append((time.perf_counter() - start) / len(images))
    print(f"\n{'':30} {'s/image':>8} {'images/s':>9} {PEER + '/it':>15}")
    for name, taken in times.items():
        median = statistics.median(taken)
        ratio = statistics.median(p / t for p, t in zip(times[PEER], taken, strict=True))
        print(f"{name:30} {median:8.3f} {1 / median:9.2f} {ratio:14.2f}x", flush=True)


def measure_memory(name: str, path: Path, resolution: int, batch: int) -> None:
    """Print what this process takes beyond its imports, in MiB, at most."""
    import torch

    import biggan.metrics.inception  # noqa: F401  # of all, so that all have the same imports

    import_torchvision()
    peers = {label: peer for peer, label in OURS.items()}
    before = held()
    look = open_ours(peers[name], path) if name in peers else open_peer(name, path)
    with torch.no_grad():
        for images in make_images(IMAGES, resolution, resolution).split(batch):
            look(images)
    print((peak() - before) // MEBIBYTE)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8, help="images at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)  # a child's part
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)  # another's
    arguments = parser.parse_args()
    if arguments.write:
        import_torchvision()
        write_weights(arguments.write, make_images(8, arguments.resolution, arguments.resolution))
    elif arguments.memory:
        name, file = arguments.memory
        measure_memory(name, Path(file), arguments.resolution, arguments.batch)
    elif find_spec("pytorch_fid") is None or find_spec("torchvision") is None:
        print(f"{PEER} or torchvision is not installed: there is nothing to compare with")
        print("(how to install them stands at the head of this script)")
    else:
        compare_all(arguments.resolution, arguments.batch, arguments.rounds)


def compare_all(resolution: int, batch: int, rounds: int) -> None:
    """Compare memory, features and seconds."""
    found = [PEER] + ([OTHER_PEER] if find_spec("torch_fidelity") else [])
    if OTHER_PEER not in found:
        print(f"{OTHER_PEER} is not installed: left out")

    def in_a_child(*options: str) -> str:
        command = [sys.executable, __file__, *options, "--batch", str(batch)]
        command += ["--resolution", str(resolution)]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.pth")
        in_a_child("--write", str(path))
        print(f"peak memory beyond the imports, {IMAGES} images by {batch}, MiB")
        for name in [*found, *(OURS[name] for name in found)]:
            print(f"{name:30} {in_a_child('--memory', name, str(path)):>8}", flush=True)

        import torch

        import_torchvision()
        peers = {name: open_peer(name, path) for name in found}
        ours = {name: open_ours(name, path) for name in found}
        threads = torch.get_num_threads()
        print(f"\n{threads} threads, torch {torch.__version__}, {rounds} rounds, batch {batch}")
        images = make_images(batch, resolution, resolution)
        with torch.no_grad():
            compare(peers, ours)
            race(peers | {OURS[name]: look for name, look in ours.items()}, images, rounds)


if __name__ == "__main__":
    main()
