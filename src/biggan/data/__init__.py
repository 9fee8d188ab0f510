"""Training data: from a folder, a zip or the built-in digits to an endless stream of batches."""

from biggan.data.dataset import ImageDataset, load_dataset
from biggan.data.sampler import ShuffledStream, fetch, flips

__all__ = [
    "ImageDataset",
    "ShuffledStream",
    "fetch",
    "flips",
    "load_dataset",
]
