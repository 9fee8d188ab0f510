"""From a word or a file to a network."""

import pytest
import torch

from biggan.classifier import ClassifierFeatures, train_classifier
from biggan.data import ImageDataset
from biggan.errors import InputError
from biggan.evaluation import features
from biggan.evaluation.features import open_extractor


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory):
    labels = torch.arange(20) % 2
    images = (100 * labels[:, None, None, None]).to(torch.uint8).expand(-1, 1, 8, 8)
    dataset = ImageDataset(images.contiguous(), labels, ("dark", "bright"), "shades")
    path = tmp_path_factory.mktemp("choice") / "c.safetensors"
    train_classifier(dataset, path, steps=1, width=2, progress=False)
    return path


@pytest.fixture
def asked(monkeypatch):
    """What TF-Inception is asked for."""
    calls = []
    monkeypatch.setattr(
        features, "InceptionFeatures", lambda path, **how: calls.append((path, how))
    )
    return calls


def test_a_classifier_is_known_by_its_contents(classifier_file, asked):
    assert isinstance(open_extractor(str(classifier_file)), ClassifierFeatures)
    assert asked == []


def test_the_word_and_any_other_file_are_inception(asked, tmp_path):
    open_extractor("inception", offline=True)
    open_extractor(tmp_path / "w.pth", resize="pytorch-fid")
    (word, word_how), (file, file_how) = asked
    assert (word, word_how["resize"], word_how["offline"]) == (None, "tensorflow", True)
    assert (file, file_how["resize"], file_how["offline"]) == (
        tmp_path / "w.pth",
        "pytorch-fid",
        False,
    )


def test_a_classifier_has_no_other_resize(classifier_file):
    with pytest.raises(InputError, match=r"--resize is for TF-Inception.*antialiased bicubic"):
        open_extractor(classifier_file, resize="pytorch-fid")
