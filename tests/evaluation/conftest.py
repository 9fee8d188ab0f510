"""What evaluations of tiny things share: a cache of their own, and a model."""

import pytest

from biggan.gan import Gan
from biggan.weights.files import Description
from tiny import TINY_CLASSES, tiny_generator


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gan():
    return Gan(tiny_generator(), Description("tiny", TINY_CLASSES), "f" * 64)
