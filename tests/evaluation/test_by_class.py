"""Metrics that look at classes one by one: intra-class distance and classification accuracy."""

import dataclasses
import json
from unittest import mock

import numpy as np
import pytest
import torch

from biggan.classifier import train_classifier
from biggan.data import ImageDataset
from biggan.errors import InputError
from biggan.evaluation import Protocol, evaluate_generator, evaluate_images, scores
from biggan.evaluation.images import DatasetImages
from biggan.evaluation.pictures import RankedClass, draw_ranking, rank_classes
from biggan.evaluation.reference import in_order_of
from biggan.evaluation.result import as_csv, as_table
from biggan.gan import Gan
from biggan.images import to_uint8
from biggan.latents import make_noise
from biggan.weights.files import Description
from simple_features import SimpleFeatures
from tiny import TINY_CLASSES, tiny_generator

NAMES = ("red", "green", "blue")
PROTOCOL = Protocol(num=40, seed=3, batch_size=8)


@pytest.fixture(autouse=True)
def _little_training(monkeypatch):
    monkeypatch.setattr(scores, "default_steps", lambda num: num // 15)


@pytest.fixture
def taught(monkeypatch):
    """What the classifiers of cas are to be taught with: images, labels, the data, the recipe."""
    calls = []

    def listen(images, labels, real, **options):
        calls.append((images, labels, real, options))
        return real.labels

    monkeypatch.setattr(scores, "classification_accuracy_score", listen)
    return calls


@pytest.fixture
def real():
    """Data of the tiny model's size and classes."""
    return ImageDataset(tinted().images.repeat(1, 1, 2, 2), tinted().labels, TINY_CLASSES, "tints")


def tinted(num=120, seed=0, names=NAMES):
    """Noise of any brightness, in each class with one channel brighter than the others."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 3
    images = torch.randint(0, 150, (num, 3, 8, 8), generator=random, dtype=torch.uint8)
    images[torch.arange(num), labels] += 80
    return ImageDataset(images, labels, names, f"tints {seed}")


def test_every_class_has_a_line_of_its_own(monkeypatch):
    monkeypatch.setattr(scores, "default_steps", lambda num: num // 3)
    made, real = tinted(seed=1), tinted()
    made.images[made.labels == 2] = made.images[made.labels == 0]  # blue is red
    result = evaluate_images(made, real, SimpleFeatures(), ("fid", "intra-fid", "cas"), flip=False)
    [row] = json.loads(result.to_json())["rows"]
    table = row["per_class"]
    assert [(line["class"], line["name"]) for line in table] == list(enumerate(NAMES))
    distances = [line["intra_class_frechet_distance"] for line in table]
    assert sum(distances) / 3 == pytest.approx(row["scores"]["intra_class_frechet_distance"])
    assert distances[2] > 5 * max(distances[:2])
    assert table[1]["cas"] > 0.9
    assert max(table[0]["cas"], table[2]["cas"]) < 0.85  # what is red may be of either class
    assert row["scores"]["cas"] == pytest.approx(sum(line["cas"] for line in table) / 3)
    assert row["seconds"] >= row["cas_seconds"] >= 0
    [plain] = evaluate_images(made, real, SimpleFeatures(), ("fid",)).rows
    assert set(plain) == {"truncation", "scores", "seconds"}  # no table
    assert "CAS" in as_table(result)
    assert "cas" in as_csv(result).splitlines()[0].split(",")


def test_accuracy_is_the_share_of_images_that_a_classifier_of_real_ones_reads_right(tmp_path):
    made, real = tinted(seed=1), tinted()
    made.images[made.labels == 2] = made.images[made.labels == 0]  # no blue one is blue
    classifier = train_classifier(
        tinted(names=("a_red", "b_green", "c_blue")), tmp_path / "classifier", steps=60, flip=False
    )
    classifier.class_names = NAMES
    whole = classifier.extract(made.images).logits.argmax(dim=1) == made.labels
    for order in ([0, 1, 2], [2, 0, 1]):  # the classes of the model in another order
        names = tuple(NAMES[label] for label in order)
        labels = torch.tensor(order).argsort()[made.labels]
        result = evaluate_images(
            dataclasses.replace(made, labels=labels, class_names=names),
            real,
            classifier,
            ("accuracy",),
        )
        [row] = result.rows
        assert row["scores"]["accuracy"] == whole.double().mean()
        assert result.reference["accuracy"] > 0.95
        by_name = {line["name"]: line["accuracy"] for line in row["per_class"]}
        assert by_name["blue"] < 0.1 < 0.9 < by_name["green"]


def test_both_spellings_of_an_accent_are_the_same_class(tmp_path):
    composed, decomposed = ("a", "b", "caf\u00e9"), ("a", "b", "cafe\u0301")
    classifier = train_classifier(
        tinted(names=decomposed), tmp_path / "classifier", steps=1, flip=False
    )
    metrics = ("intra-fid", "accuracy")
    result = evaluate_images(
        tinted(seed=1, names=decomposed), tinted(names=composed), classifier, metrics
    )
    assert "accuracy" in result.rows[0]["scores"]


def test_classes_are_ranked_with_images_of_each():
    made, real = tinted(seed=1), tinted()
    made.images[made.labels == 2] = made.images[made.labels == 0]
    made.images[made.labels == 1] = real.images[real.labels == 1]
    [row] = evaluate_images(made, real, SimpleFeatures(), ("intra-fid",)).rows
    ranked = rank_classes(row)
    assert [each.name for each in ranked] == ["green", "red", "blue"]
    assert ranked[0].distance < 1e-6 < ranked[1].distance < ranked[2].distance / 5
    page = np.asarray(draw_ranking(DatasetImages(made), ranked))
    for place, label in enumerate((1, 0, 2)):
        first = made.images[made.labels == label][0].permute(1, 2, 0).numpy()
        assert np.array_equal(page[66 * place : 66 * place + 64 : 8, 190:254:8], first)
    with pytest.raises(InputError, match="needs the metric intra-fid"):
        rank_classes({"scores": {}})


def test_of_many_classes_the_easiest_and_the_hardest_are_drawn():
    made = tinted(60)
    labels = torch.arange(60) % 20
    many = dataclasses.replace(made, labels=labels, class_names=tuple(map(str, range(20))))
    ranked = [RankedClass(19 - place, str(19 - place), float(place)) for place in range(20)]
    page = np.asarray(draw_ranking(DatasetImages(many), ranked))
    assert page.shape == (16 * 66 + 2, 190 + 3 * 66, 3)
    last = made.images[labels == 0][0].permute(1, 2, 0).numpy()
    assert np.array_equal(page[15 * 66 + 2 : 15 * 66 + 66 : 8, 190:254:8], last)


def test_the_recipe_of_cas_is_written_and_followed(taught):
    made, real = tinted(30, seed=1), tinted()
    for flip in (True, False):
        result = evaluate_images(made, real, None, ("cas",), flip=flip)
        recipe = {"steps": 2, "width": 16, "seed": 0, "flip": flip}
        assert result.protocol["cas"] == {**recipe, "tested_on": 120}
        images, labels, of, options = taught.pop()
        assert options.items() >= recipe.items()
        assert images is made.images
        assert torch.equal(labels, made.labels)
        assert torch.equal(of.images, real.images)
        assert torch.equal(of.labels, real.labels)


def test_cas_learns_from_the_images_of_the_evaluation_and_needs_no_extractor(gan, real, taught):
    result = evaluate_generator(gan, real, None, (0.4, None), ("cas",), PROTOCOL)
    assert result.extractor == {}
    assert set(result.rows[0]["scores"]) == {"cas"}
    assert "seen by" not in as_table(result)
    for truncation, (images, labels, _, _) in zip((0.4, None), taught, strict=True):
        z = make_noise(40, gan.config.z_dim, truncation, 3)
        expected = to_uint8(gan.generate(z, torch.arange(40) % 3, truncation))
        assert (images.int() - expected.int()).abs().max() <= 1
        assert torch.equal(labels, torch.arange(40) % 3)
    with pytest.raises(ValueError, match="need an extractor"):
        evaluate_generator(gan, real, None, (0.4,), ("fid", "cas"), PROTOCOL)


@pytest.mark.parametrize("metric", ["intra-fid", "cas"])
def test_classes_have_to_be_the_same(metric):
    other = tinted(names=("red", "blue", "yellow"))
    without = ImageDataset(other.images, torch.zeros_like(other.labels), (), "photos")
    for made, reference, message in (
        (tinted(), other, f"{metric} needs the same classes.*omit it"),
        (without, without, f"photos has no classes for {metric}"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_images(made, reference, SimpleFeatures(), (metric,))


def test_what_accuracies_need_is_named(gan, real, monkeypatch):
    with pytest.raises(InputError, match="accuracy needs a classifier of the classes of tints 1"):
        evaluate_images(tinted(seed=1), tinted(), SimpleFeatures(), ("accuracy",))
    monkeypatch.setattr("biggan.data.loading.memory_limit", lambda: 40 * 3 * 16 * 16 - 1)
    with pytest.raises(InputError, match="cas keeps the 40 images"):
        evaluate_generator(gan, real, None, (0.4,), ("cas",), PROTOCOL)
    monkeypatch.setattr("biggan.evaluation.evaluate.num_processes", lambda: 2)
    with pytest.raises(InputError, match="without torchrun"):
        evaluate_images(tinted(), tinted(), None, ("cas",))


def test_cas_that_was_killed_does_not_look_again(gan, real):
    metrics = ("fid", "cas")
    extractor = SimpleFeatures()
    killed = mock.patch.object(
        scores, "classification_accuracy_score", side_effect=KeyboardInterrupt
    )
    with killed, pytest.raises(KeyboardInterrupt):
        evaluate_generator(gan, real, extractor, (0.4,), metrics, PROTOCOL)
    seen = extractor.seen
    resumed = evaluate_generator(gan, real, extractor, (0.4,), metrics, PROTOCOL)
    assert extractor.seen == seen == 40 + 120
    whole = evaluate_generator(gan, real, SimpleFeatures(), (0.4,), metrics, PROTOCOL)
    assert resumed.rows[0]["scores"] == pytest.approx(whole.rows[0]["scores"])


def test_the_same_classes_in_another_order_are_the_same():
    made, real = tinted(seed=1), tinted()
    order = torch.tensor([2, 0, 1])  # as if sorted: blue, red, green
    sorted_real = ImageDataset(
        real.images, order.argsort()[real.labels], ("blue", "red", "green"), "sorted"
    )
    metrics = ("intra-fid", "cas")
    plain, other = (
        evaluate_images(made, data, SimpleFeatures(), metrics, flip=False).rows[0]
        for data in (real, sorted_real)
    )
    assert [line["name"] for line in other["per_class"]] == list(NAMES)
    assert other["scores"] == plain["scores"]
    assert other["per_class"] == plain["per_class"]


def test_the_order_of_classes_is_in_the_fingerprint():
    real = tinted()
    same = in_order_of(real, NAMES)
    moved = in_order_of(real, ("green", "blue", "red"))
    assert same.fingerprint == real.fingerprint
    assert moved.fingerprint != real.fingerprint
    assert moved.labels[:3].tolist() == [2, 0, 1]
    assert in_order_of(real, ("green", "blue", "pink")) is real


def test_wordnet_ids_are_imagenets_classes():
    from biggan.classes import imagenet_classes, wordnet_ids

    labels = torch.arange(1000)
    folders = ImageDataset(
        torch.zeros(1000, 1, 1, 1, dtype=torch.uint8), labels, wordnet_ids(), "imagenet"
    )
    renamed = in_order_of(folders, imagenet_classes())
    assert renamed.class_names == imagenet_classes()
    assert torch.equal(renamed.labels, labels)
    backwards = dataclasses.replace(folders, class_names=wordnet_ids()[::-1])
    assert torch.equal(in_order_of(backwards, imagenet_classes()).labels, labels.flip(0))


def test_a_row_of_another_recipe_of_cas_is_not_taken_over(gan, real, monkeypatch):
    flips = []
    original = scores.classification_accuracy_score

    def listen(*sets, flip, **options):
        flips.append(flip)
        if len(flips) == 2:
            raise KeyboardInterrupt
        return original(*sets, flip=flip, **options)

    monkeypatch.setattr(scores, "classification_accuracy_score", listen)
    with pytest.raises(KeyboardInterrupt):
        evaluate_generator(gan, real, None, (0.4, 1.0), ("cas",), PROTOCOL, flip=True)
    evaluate_generator(gan, real, None, (0.4, 1.0), ("cas",), PROTOCOL, flip=False)
    assert flips == [True, True, False, False]
    evaluate_generator(gan, real, None, (0.4, 1.0), ("cas",), PROTOCOL, flip=True)
    assert flips[4:] == [True]  # the first row is there


def test_a_class_with_one_image_is_refused_before_any_is_looked_at(gan):
    extractor = SimpleFeatures()
    real = tinted()
    one_blue = dataclasses.replace(real, labels=real.labels.clone())
    one_blue.labels[5:][real.labels[5:] == 2] = 0
    for made, reference in ((real, one_blue), (one_blue, real)):
        with pytest.raises(InputError, match="every class, and tints 0 has 1 of blue"):
            evaluate_images(made, reference, extractor, ("intra-fid",))
    few = ImageDataset(
        torch.zeros(12, 3, 16, 16, dtype=torch.uint8), torch.arange(12) % 9, tuple("abcdefghi"), "x"
    )
    model = Gan(tiny_generator(num_classes=9), Description("nine", few.class_names), "f" * 64)
    data = dataclasses.replace(
        few, images=few.images.repeat(2, 1, 1, 1), labels=torch.arange(24) % 9
    )
    with pytest.raises(InputError, match="nine has 1 of d"):
        evaluate_generator(model, data, extractor, (None,), ("intra-fid",), Protocol(num=12))
    assert extractor.seen == 0
