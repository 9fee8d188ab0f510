"""Training data: from folders, archives or packed pixels to an endless stream of batches."""

from biggan.data.dataset import ImageDataset, load_dataset
from biggan.data.packing import pack_dataset
from biggan.data.sampler import ShuffledStream, fetch, flips
from biggan.data.shards import ShardStream

__all__ = [
    "ImageDataset",
    "ShardStream",
    "ShuffledStream",
    "fetch",
    "flips",
    "load_dataset",
    "pack_dataset",
]
