"""Training data: from folders, archives or packed pixels to an endless stream of batches."""

from typing import TypeAlias

from biggan.data.dataset import ImageDataset, load_dataset
from biggan.data.packed import pack_dataset
from biggan.data.reading import DIGITS
from biggan.data.sampler import ShuffledStream, fetch, flips, split_off
from biggan.data.shards import ShardStream

TrainingData: TypeAlias = ImageDataset | ShardStream
"""What can be trained on. Both have a length, `source`, `class_names`, `num_classes`,
`histogram()` and `fingerprint`; `training.batches` takes images out of them."""

__all__ = [
    "DIGITS",
    "ImageDataset",
    "ShardStream",
    "ShuffledStream",
    "TrainingData",
    "fetch",
    "flips",
    "load_dataset",
    "pack_dataset",
    "split_off",
]
