"""Every metric moves the right way where a set of images was spoiled on purpose.

The features are those of a classifier trained on the digits; the good set is one half of them, the
reference the other.
"""

import pytest
import torch

from biggan.classifier import train_classifier
from biggan.data import ImageDataset, load_dataset
from biggan.evaluation import METRICS, evaluate_images, scores

BETTER_LARGE = {"classifier_score", "precision", "recall", "density", "coverage", "accuracy", "cas"}
BETTER_SMALL = {"frechet_distance", "kernel_distance", "intra_class_frechet_distance"}
STEPS, WIDTH = 60, 8


@pytest.fixture(scope="module")
def digits():
    dataset = load_dataset("digits", 8, 1)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    order = order[dataset.labels[order].argsort(stable=True)]
    halves = (order[0::2], order[1::2])
    return [part(dataset, numbers, name) for numbers, name in zip(halves, "ab", strict=True)]


def part(dataset, numbers, name="spoiled"):
    images, labels = dataset.images[numbers], dataset.labels[numbers]
    return ImageDataset(images, labels, dataset.class_names, name)


@pytest.fixture(scope="module")
def measure(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spoiled")
    file = folder / "classifier.safetensors"
    options = {"steps": STEPS, "width": WIDTH, "flip": False}
    extractor = train_classifier(digits[1], file, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGGAN_CACHE", str(folder / "cache"))
        patch.setattr(scores, "default_steps", lambda _: STEPS)
        patch.setattr(scores, "default_width", lambda _: WIDTH)
        patch.setattr(scores, "_SUBSETS", 10)

        def figures(images):
            result = evaluate_images(images, digits[1], extractor, METRICS, flip=False)
            return result.rows[0]["scores"]

        yield figures


@pytest.fixture(scope="module")
def good(measure, digits):
    return measure(digits[0])


def assert_worse(spoiled, good, names):
    for name in names:
        if name in BETTER_LARGE:
            assert spoiled[name] < good[name], name
        else:
            assert spoiled[name] > good[name], name


def test_every_metric_takes_part(good):
    figures = {name for name in good if not name.endswith("_std")}
    assert figures == BETTER_LARGE | BETTER_SMALL


def test_one_image_of_each_class_again_and_again(measure, digits, good):
    # Every image is a fine one, so what asks for fidelity alone must not fall for it.
    first = torch.tensor([int((digits[0].labels == k).nonzero()[0]) for k in range(10)])
    collapsed = measure(part(digits[0], first[digits[0].labels]))
    assert_worse(collapsed, good, {"recall", "coverage", "cas"} | BETTER_SMALL)
    assert collapsed["recall"] < 0.1
    assert collapsed["coverage"] < 0.3 * good["coverage"]
    assert collapsed["frechet_distance"] > 5 * good["frechet_distance"]


def test_one_class_alone(measure, digits, good):
    # A metric of classes would refuse it: no image of the others is there.
    numbers = (digits[0].labels == 3).nonzero()[:, 0].repeat(10)
    labels = torch.arange(len(numbers)) % 10
    single = ImageDataset(digits[0].images[numbers], labels, digits[0].class_names, "threes")
    names = {"classifier_score", "recall", "coverage", "cas"} | BETTER_SMALL
    collapsed = measure(single)
    assert_worse(collapsed, good, names)
    assert collapsed["classifier_score"] < 2
    assert collapsed["cas"] < 0.3


def test_every_image_twice(measure, digits, good):
    # Copies tell nothing new: distances stay, and neighbours are so near that balls shrink.
    numbers = torch.arange(len(digits[0]))
    doubled = measure(part(digits[0], numbers.repeat_interleave(2)))
    assert doubled["frechet_distance"] == pytest.approx(good["frechet_distance"], rel=0.05)
    assert doubled["classifier_score"] == pytest.approx(good["classifier_score"], rel=0.05)
    assert doubled["precision"] == pytest.approx(good["precision"], abs=1e-9)
    assert doubled["density"] == pytest.approx(good["density"], abs=1e-9)
    assert doubled["coverage"] == pytest.approx(good["coverage"], abs=1e-9)
    assert doubled["recall"] < good["recall"]
    few = torch.arange(0, len(digits[0]), 8).repeat_interleave(8)  # an eighth of them, 8 times each
    assert_worse(measure(part(digits[0], few)), good, {"recall", "coverage"} | BETTER_SMALL)


def test_noise_over_every_image(measure, digits, good):
    noise = torch.randint(256, digits[0].images.shape, dtype=torch.uint8)
    mask = torch.rand(digits[0].images.shape) < 0.5
    images = torch.where(mask, noise, digits[0].images)
    noisy = ImageDataset(images, digits[0].labels, digits[0].class_names, "noisy")
    assert_worse(measure(noisy), good, BETTER_LARGE | BETTER_SMALL)


def test_classes_that_changed_places(measure, digits, good):
    # As a set they are the same images: only what looks at classes may tell.
    labels = (digits[0].labels + 1) % 10
    order = labels.argsort(stable=True)
    moved = ImageDataset(digits[0].images[order], labels[order], digits[0].class_names, "moved")
    spoiled = measure(moved)
    assert_worse(spoiled, good, {"intra_class_frechet_distance", "accuracy", "cas"})
    assert spoiled["cas"] < 0.2
    for name in (BETTER_LARGE | BETTER_SMALL) - {"intra_class_frechet_distance", "accuracy", "cas"}:
        assert spoiled[name] == pytest.approx(good[name], rel=1e-6), name


def test_the_order_of_the_images_is_nothing(measure, digits, good):
    # The good set is sorted by class: a score of splits in this order would be near 1.
    assert digits[0].labels.diff().min() >= 0
    assert good["classifier_score"] > 3
    shuffled = torch.randperm(len(digits[0]))
    spoiled = measure(part(digits[0], shuffled))
    for name in (BETTER_LARGE | BETTER_SMALL) - {"cas"}:
        assert spoiled[name] == pytest.approx(good[name], rel=1e-5), name
    assert spoiled["cas"] == pytest.approx(good["cas"], abs=0.05)
