"""Training data: from folders, archives or packed pixels to an endless stream of batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from biggan.data.dataset import DIGITS, ImageDataset, load_dataset
from biggan.data.sampler import ShuffledStream, fetch, flips, split_off

if TYPE_CHECKING:
    from biggan.data.packed import pack_dataset
    from biggan.data.shards import ShardStream

TrainingData: TypeAlias = "ImageDataset | ShardStream"
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


def __getattr__(name: str) -> Any:
    # When first used: most runs neither pack nor stream.
    homes = {"ShardStream": "shards", "pack_dataset": "packed"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"biggan.data.{homes[name]}"), name)
