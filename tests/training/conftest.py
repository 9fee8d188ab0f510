"""A data set small enough to train in a test."""

import numpy as np
import pytest
from PIL import Image

from biggan.data import load_dataset
from biggan.training.config import TrainConfig
from tiny import TINY_RECIPE


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Two classes of eight coloured noise images each."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name, tint in (("blue", (0, 0, 150)), ("red", (150, 0, 0))):
        (root / name).mkdir()
        for i in range(8):
            pixels = random.integers(0, 100, (32, 32, 3)) + np.array(tint)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def dataset(folder):
    return load_dataset(folder, 32, 3)


@pytest.fixture
def config(dataset):
    return TrainConfig.from_dict(TINY_RECIPE).fitted(dataset.num_classes)
