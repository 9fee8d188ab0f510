"""What is kept of images that went by."""

import pytest
import torch

import biggan.evaluation.features as module
from biggan.data import ImageDataset
from biggan.evaluation import evaluate_images
from biggan.evaluation.images import DatasetImages
from simple_features import SimpleFeatures

NUM = 200


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data():
    images = torch.randint(256, (NUM, 3, 8, 8), dtype=torch.uint8)
    return ImageDataset(images, torch.arange(NUM) // 50, ("a", "b", "c", "d"), "noise")


def look(data, per_class=False):
    images = DatasetImages(data)
    return module.extract_features(images, SimpleFeatures(), per_class=per_class, progress=False)


def test_a_random_part_is_kept_of_many(data, monkeypatch):
    monkeypatch.setattr(module, "KEPT_FEATURES", 40)
    monkeypatch.setattr(module, "KEPT_LOGITS", 60)
    kept = look(data)
    features = torch.cat(kept.features)
    assert len(features) == 40
    assert sum(map(len, kept.logits)) == 60
    assert kept.statistics.count == NUM
    # From all classes, though the images are sorted by class.
    everything = SimpleFeatures().extract(data.images).features
    distances = torch.cdist(features.double(), everything.double())
    assert distances.min(dim=1).values.max() < 1e-5
    numbers = distances.argmin(dim=1)
    assert len(set(numbers.tolist())) == 40
    assert torch.bincount(data.labels[numbers], minlength=4).min() >= 4


def test_what_was_kept_without_classes_does_not_do_for_classes(data):
    assert look(data).by_class == {}
    by_class = look(data, per_class=True).by_class
    assert sorted(by_class) == [0, 1, 2, 3]
    features = SimpleFeatures().extract(data.images).features.double()
    for label, statistics in by_class.items():
        assert statistics.count == 50
        torch.testing.assert_close(statistics.mean, features[data.labels == label].mean(0))


def test_figures_of_all_then_of_classes(data):
    for metrics in (("fid",), ("intra-fid",), ("fid",)):
        [scores] = [
            row["scores"] for row in evaluate_images(data, data, SimpleFeatures(), metrics).rows
        ]
        assert next(iter(scores.values())) == pytest.approx(0, abs=1e-8)
