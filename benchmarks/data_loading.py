"""Images per second on their way to the network, against torch's DataLoader over Pillow.

JPEG files in class folders, at two sizes: 32 px files for 32 px, and photos of 500 x 375 for
128 px. The peer decodes every image each time it is needed, in processes of its own, as the usual
training loops do. Ours decodes once; from then on batches are copied out of memory, or out of a
packed dataset that is mapped from the disk. Decoding itself is measured too, and so is a stream of
shards, which decodes every time like the peer. Everything takes its turn in every round; the
figures are medians. Files are read from the system's cache.

    python benchmarks/data_loading.py
"""

from __future__ import annotations

import io
import itertools
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from biggan.data import ImageDataset, ShuffledStream, fetch, load_dataset
from biggan.data.packed import pack_dataset
from biggan.data.shards import ShardStream

ROUNDS = 3
BATCH = 64
CASES = {
    "32 px from 32 x 32": ((32, 32), 32, 2000),
    "128 px from 500 x 375": ((500, 375), 128, 300),
}


class PillowFiles(Dataset[tuple[torch.Tensor, int]]):
    """The peer's dataset: open, crop, resize, each time."""

    def __init__(self, folder: Path, resolution: int) -> None:
        self.files = sorted(folder.glob("*/*.jpg"))
        self.resolution = resolution

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        file = self.files[index]
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        if image.size != (self.resolution, self.resolution):
            box = (left, top, left + side, top + side)
            size = (self.resolution, self.resolution)
            image = image.resize(size, Image.Resampling.LANCZOS, box)
        return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy()), int(file.parent.name)


def make_files(folder: Path, size: tuple[int, int], count: int) -> None:
    """Blurred noise, which makes JPEG files about as large as photos."""
    generator = np.random.default_rng(0)
    for number in range(count):
        small = generator.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
        path = folder / str(number % 2) / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)


def make_shards(folder: Path, files: Path) -> None:
    folder.mkdir()
    paths = sorted(files.glob("*/*.jpg"), key=lambda path: path.name)
    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for path in paths[shard::4]:
                for suffix, data in (
                    ("jpg", path.read_bytes()),
                    ("cls", path.parent.name.encode()),
                ):
                    info = tarfile.TarInfo(f"{path.stem}.{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def rate(images: Callable[[], int]) -> float:
    start = time.perf_counter()
    return images() / (time.perf_counter() - start)


def drain_loader(files: PillowFiles, workers: int) -> float:
    loader = DataLoader(
        files, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    sum(len(labels) for _, labels in loader)  # start the workers, outside of the measurement
    return rate(lambda: sum(len(labels) for _, labels in loader))


def drain_fetch(dataset: ImageDataset) -> float:
    stream = ShuffledStream(len(dataset), seed=0)

    def images() -> int:
        count = 0
        for start in range(0, 20_000, BATCH):
            count += len(fetch(dataset, stream.indices(start, BATCH))[1])
        return count

    return rate(images)


def drain_shards(folder: Path, resolution: int, count: int, workers: int) -> float:
    stream = ShardStream(folder, resolution, 3, ("0", "1"), seed=0, window=512, workers=workers)
    batches = stream.batches(start + np.arange(BATCH) for start in itertools.count(0, BATCH))
    next(batches)
    speed = rate(lambda: sum(len(labels) for _, labels in islice(batches, count // BATCH)))
    batches.close()
    return speed


def measure(size: tuple[int, int], resolution: int, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        files, packed, shards = (Path(temporary) / name for name in ("files", "packed", "shards"))
        make_files(files, size, count)
        make_shards(shards, files)
        pack_dataset(files, packed, resolution, progress=False)
        peer = PillowFiles(files, resolution)
        in_memory = load_dataset(files, resolution, 3, progress=False)
        mapped = load_dataset(packed, resolution, 3)

        def decode(workers: int) -> float:
            return rate(
                lambda: len(load_dataset(files, resolution, 3, workers=workers, progress=False))
            )

        programs: dict[str, Callable[[], float]] = {
            "DataLoader over Pillow, 2 workers": lambda: drain_loader(peer, 2),
            "DataLoader over Pillow, 1 worker": lambda: drain_loader(peer, 1),
            "ours, fetch from memory": lambda: drain_fetch(in_memory),
            "ours, fetch from a packed dataset": lambda: drain_fetch(mapped),
            "ours, decoding a folder, 1 thread": lambda: decode(1),
            "ours, decoding a folder, 2 threads": lambda: decode(2),
            "ours, streaming shards, 2 threads": lambda: drain_shards(shards, resolution, count, 2),
        }
        rounds = [{name: run() for name, run in programs.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(turn[name] for turn in rounds) for name in programs}


def main() -> None:
    torch.set_num_threads(2)
    print(f"images per second, batches of {BATCH}; medians of {ROUNDS}")
    for title, case in CASES.items():
        rates = measure(*case)
        peer = next(iter(rates.values()))
        print(f"\n{title:36} {'images/s':>10} {'ratio':>8}")
        for name, speed in rates.items():
            print(f"{name:36} {speed:10.0f} {speed / peer:7.2f}x")


if __name__ == "__main__":
    main()
