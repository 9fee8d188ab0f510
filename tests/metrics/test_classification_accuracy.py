"""Classification accuracy score: sets made to be good, mislabelled, collapsed, incomplete."""

import numpy as np
import pytest
import torch

from biggan.data import load_dataset, pack_dataset
from biggan.errors import InputError
from biggan.metrics.classification_accuracy import classification_accuracy_score
from data_forms import pictures, write_folder

OPTIONS = {"steps": 60, "width": 8, "flip": False, "progress": False}


@pytest.fixture(scope="module")
def digits():
    """Every third digit to test on, the others as if generated."""
    dataset = load_dataset("digits", 8, 1)
    real = torch.arange(len(dataset)) % 3 == 0
    images, labels = dataset.images, dataset.labels
    return images[~real], labels[~real], images[real], labels[real]


@pytest.fixture(scope="module")
def good(digits):
    return classification_accuracy_score(*digits, **OPTIONS)


def test_good_images_teach_every_class(good):
    assert 0.9 < good.accuracy <= 1
    assert len(good.per_class) == 10
    assert min(good.per_class) > 0.7


def test_accuracy_is_the_mean_over_real_images(digits, good):
    counts = torch.bincount(digits[3]).double()
    recalls = torch.tensor(good.per_class, dtype=torch.float64)
    assert good.accuracy == pytest.approx((recalls * counts).sum().item() / len(digits[3]))


def test_shuffled_labels_teach_nothing(digits):
    images, labels, *real = digits
    shuffled = labels[torch.randperm(len(labels))]
    score = classification_accuracy_score(images, shuffled, *real, **OPTIONS)
    assert score.accuracy < 0.35


def test_a_collapsed_set_teaches_less(digits, good):
    images, labels, *real = digits
    first = torch.stack([images[labels == label][0] for label in range(10)])
    score = classification_accuracy_score(first[labels], labels, *real, **OPTIONS)
    assert score.accuracy < good.accuracy - 0.1


def test_a_class_that_is_missing_or_another_one_is_never_guessed(digits, good):
    images, labels, *real = digits
    score = classification_accuracy_score(
        images[labels != 3], labels[labels != 3], *real, **OPTIONS
    )
    assert score.per_class[3] == 0
    assert score.accuracy < good.accuracy
    swapped = torch.where(labels == 3, 5, torch.where(labels == 5, 3, labels))
    score = classification_accuracy_score(images, swapped, *real, **OPTIONS)
    assert max(score.per_class[3], score.per_class[5]) < 0.2
    assert min(score.per_class[:3]) > 0.7


def test_classes_without_real_images_have_no_score(digits):
    images, labels, real, real_labels = digits
    kept = real_labels != 4
    score = classification_accuracy_score(
        images, labels, real[kept], real_labels[kept], **OPTIONS | {"steps": 1}
    )
    assert [label for label in range(10) if score.per_class[label] is None] == [4]


def test_it_is_a_function_of_the_seed(digits, good):
    assert classification_accuracy_score(*digits, **OPTIONS) == good
    assert classification_accuracy_score(*digits, **OPTIONS, seed=1) != good


def test_images_mapped_from_the_disk_give_the_same(tmp_path):
    folder = write_folder(tmp_path / "noise", pictures(12))
    pack_dataset(folder, tmp_path / "packed", 8, 3, progress=False)
    mapped, loaded = load_dataset(tmp_path / "packed", 8, 3), load_dataset(folder, 8, 3)
    options = OPTIONS | {"steps": 3}
    one, two = (
        classification_accuracy_score(data.images, data.labels, data.images, data.labels, **options)
        for data in (mapped, loaded)
    )
    assert one == two


def test_sets_that_do_not_fit(digits):
    images, labels, real, real_labels = digits

    def score(*sets):
        return classification_accuracy_score(*sets, **OPTIONS)

    with pytest.raises(InputError, match="generated images are 4 px with 1 channels.*real ones 8"):
        score(images[:, :, :4, :4], labels, real, real_labels)
    with pytest.raises(InputError, match="8 px with 3 channels"):
        score(images.expand(-1, 3, -1, -1), labels, real, real_labels)
    with pytest.raises(InputError, match="of class 12.*end at class 9"):
        score(images, labels.clamp(min=1).masked_fill(labels == 2, 12), real, real_labels)
    with pytest.raises(InputError, match="a real image has the class -1"):
        score(images, labels, real, real_labels - 1)
    with pytest.raises(InputError, match="no generated images"):
        score(images[:0], labels[:0], real, real_labels)
    with pytest.raises(InputError, match="at least 1 step"):
        classification_accuracy_score(*digits, **OPTIONS | {"steps": 0})
    with pytest.raises(ValueError, match="uint8"):
        score(images.float(), labels, real, real_labels)
    with pytest.raises(ValueError, match=r"int64 labels \(1198,\), got torch.int64 \(1197,\)"):
        score(images, labels[1:], real, real_labels)
    with pytest.raises(ValueError, match="int64"):
        score(images, torch.from_numpy(labels.numpy().astype(np.int32)), real, real_labels)
