"""Data sets small enough to train on in a test."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biggan.data import ImageDataset, load_dataset
from biggan.training.config import TrainConfig
from runs import short_exports
from tiny import TINY_RECIPE


@pytest.fixture(scope="module", autouse=True)
def _less_to_export() -> Iterator[None]:
    with short_exports():
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eight noise images each.

    Noise, so that an untrained discriminator is unsure of them: of images that it is sure of, the
    hinge loss has no gradient, and no test would notice which ones it was shown.
    """
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name, tint in (("blue", (0, 0, 55)), ("red", (55, 0, 0))):
        (root / name).mkdir()
        for i in range(8):
            pixels = random.integers(0, 200, (32, 32, 3)) + np.array(tint)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def dataset(folder: Path) -> ImageDataset:
    return load_dataset(folder, 32, 3)


@pytest.fixture
def config(dataset: ImageDataset) -> TrainConfig:
    return TrainConfig.from_dict(TINY_RECIPE).fitted(dataset.num_classes)
