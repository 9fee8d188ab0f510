"""The order of the training images, as pure functions of the seed and the position.

Training draws from one endless stream: epoch after epoch, each a new shuffle of the whole dataset.
What is at a position depends on nothing but (seed, position), so a run resumes from the number of
images it has seen, and several processes can each take their slice of a batch.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biggan.data.dataset import ImageDataset
from biggan.errors import require

# What the random numbers are for: keeps the streams of one seed apart.
_SHUFFLE = 0x5348
_FLIP = 0x464C
_SPLIT = 0x5350
_FLIP_BLOCK = 4096  # positions that share one generator: seeding one is slow, drawing is not


class ShuffledStream:
    """An endless sequence of dataset indices, every epoch a permutation of its own."""

    def __init__(self, dataset_size: int, seed: int) -> None:
        if dataset_size < 1:
            raise ValueError(f"a stream needs at least one image, got {dataset_size}")
        self._size = dataset_size
        self._seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def indices(self, start: int, count: int) -> NDArray[np.int64]:
        """The dataset indices at the positions start to start + count - 1."""
        _check_slice(start, count)
        result = np.empty(count, np.int64)
        done = 0
        while done < count:
            epoch, offset = divmod(start + done, self._size)
            if epoch != self._epoch:
                self._order = generator(self._seed, _SHUFFLE, epoch).permutation(self._size)
                self._epoch = epoch
            part = self._order[offset : offset + count - done]
            result[done : done + len(part)] = part
            done += len(part)
        return result


def flips(seed: int, start: int, count: int) -> NDArray[np.bool_]:
    """Whether the images at the positions start to start + count - 1 are mirrored: one half is."""
    _check_slice(start, count)
    first, last = start // _FLIP_BLOCK, (start + count) // _FLIP_BLOCK
    blocks = [
        generator(seed, _FLIP, block).integers(0, 2, _FLIP_BLOCK, dtype=np.uint8)
        for block in range(first, last + 1)
    ]
    offset = start - first * _FLIP_BLOCK
    return np.concatenate(blocks)[offset : offset + count].astype(bool)


def split_off(
    dataset_size: int, part: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose a part of the images that training never sees, at least 0 and below 1.

    Returns:
        The indices of all others, ascending, and those chosen, in random order.

    Raises:
        InputError: Some are asked for, and either set would be empty.
    """
    count = round(part * dataset_size)
    require(
        (part == 0 or count > 0) and count < dataset_size,
        f"watch.held_out {part:g} of {dataset_size} images is {count} of them: choose a fraction "
        "that leaves images for both, or 0",
    )
    order = generator(seed, _SPLIT, 0).permutation(dataset_size)
    return np.sort(order[count:]), order[:count]


def fetch(
    dataset: ImageDataset, indices: NDArray[np.int64], mirrored: NDArray[np.bool_] | None = None
) -> tuple[Tensor, Tensor]:
    """Copy images and labels at some indices (N,), and flip the mirrored ones left to right.

    Returns:
        uint8 images (N, C, R, R) and int64 labels (N,).
    """
    chosen = torch.from_numpy(indices)
    images = dataset.images[chosen]  # a copy: the dataset itself is never flipped
    if mirrored is not None:
        mask = torch.from_numpy(mirrored)
        images[mask] = images[mask].flip(-1)
    return images, dataset.labels[chosen]


def generator(seed: int, purpose: int, *place: int) -> np.random.Generator:
    """Random numbers for one purpose at one place of the stream."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, purpose, *place])))


def _check_slice(start: int, count: int) -> None:
    if start < 0 or count < 0:
        raise ValueError(f"positions and counts are 0 or more, got {start} and {count}")
