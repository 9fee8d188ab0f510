"""Classification accuracy score: sets made to be good, mislabelled, collapsed, incomplete."""

import pytest
import torch

from biggan.data import ImageDataset, load_dataset
from biggan.evaluation.scores import accuracy, classification_accuracy_score

OPTIONS = {"steps": 60, "width": 8, "seed": 0, "flip": False, "progress": False}


def score(images, labels, real, **changes):
    """Accuracy of all real images, and by class."""
    guesses = classification_accuracy_score(images, labels, real, **OPTIONS | changes)
    return accuracy(guesses, real.labels)


@pytest.fixture(scope="module")
def digits():
    """Every third digit to test on, the others as if generated."""
    dataset = load_dataset("digits", 8, 1)
    real = torch.arange(len(dataset)) % 3 == 0
    images, labels = dataset.images, dataset.labels
    held_out = ImageDataset(images[real], labels[real], dataset.class_names, "digits")
    return images[~real], labels[~real], held_out


@pytest.fixture(scope="module")
def good(digits):
    return score(*digits)


def test_good_images_teach_every_class(good):
    of_all, by_class = good
    assert 0.9 < of_all <= 1
    assert sorted(by_class) == list(range(10))
    assert min(by_class.values()) > 0.7


def test_a_class_that_is_missing_or_another_one_is_never_guessed(digits, good):
    images, labels, real = digits
    of_all, by_class = score(images[labels != 3], labels[labels != 3], real)
    assert by_class[3] == 0
    assert of_all < good[0]
    swapped = torch.where(labels == 3, 5, torch.where(labels == 5, 3, labels))
    _, by_class = score(images, swapped, real)
    assert max(by_class[3], by_class[5]) < 0.2
    assert min(by_class[label] for label in range(3)) > 0.7


def test_classes_without_real_images_have_no_score(digits):
    images, labels, real = digits
    kept = real.labels != 4
    rest = ImageDataset(real.images[kept], real.labels[kept], real.class_names, "rest")
    _, by_class = score(images, labels, rest, steps=1)
    assert sorted(by_class) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_it_is_a_function_of_the_seed(digits):
    first, same, other = (score(*digits, steps=5, seed=seed) for seed in (0, 0, 1))
    assert first == same != other
