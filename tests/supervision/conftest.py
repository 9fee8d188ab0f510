"""A data set small enough to train on, and an extractor that needs no weights."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runs import short_exports
from simple_features import SimpleFeatures


@pytest.fixture(scope="module", autouse=True)
def _less_to_export() -> Iterator[None]:
    with short_exports():
        yield


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleFeatures:
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    extractor = SimpleFeatures()
    monkeypatch.setattr("biggan.evaluation.features.open_extractor", lambda *_, **__: extractor)
    return extractor
