"""Evaluations of tiny generators, whole, cut short, and shared by processes."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import biggan.evaluation.features as features_module
from biggan.classifier import ClassifierFeatures, train_classifier
from biggan.data import ImageDataset
from biggan.errors import InputError
from biggan.evaluation import Protocol, evaluate_generator, evaluate_images
from biggan.evaluation.evaluate import check_truncations, warn_of_few
from biggan.evaluation.features import extract_features, open_extractor
from biggan.evaluation.images import DatasetImages
from biggan.evaluation.result import as_csv, as_table, plot_tradeoff
from biggan.gan import Gan
from biggan.images import to_uint8
from biggan.latents import make_noise, statistics_truncation
from biggan.metrics.frechet_distance import frechet_distance
from biggan.metrics.inception_score import inception_score
from biggan.metrics.kernel_inception_distance import kernel_inception_distance
from biggan.metrics.precision_recall import precision_recall
from biggan.metrics.statistics import FeatureStatistics
from biggan.sampling import generate_batches
from biggan.weights.files import Description
from runs import noise_images
from several_processes import launch
from simple_features import SimpleFeatures
from tiny import TINY_CLASSES, tiny_generator

NUM = 60
PROTOCOL = Protocol(num=NUM, seed=3, batch_size=8)


def tiny_gan(**changes):
    return Gan(tiny_generator(**changes), Description("tiny", TINY_CLASSES), "f" * 64)


def data(num=80, side=16, **options):
    return noise_images(num, side, TINY_CLASSES, **options)


def evaluate(model, truncations=(0.4,), metrics=("fid",), reference=None, extractor=None):
    reference, extractor = reference or data(), extractor or SimpleFeatures()
    return evaluate_generator(model, reference, extractor, truncations, metrics, PROTOCOL)


def scores_of(result):
    return [row["scores"] for row in result.rows]


def features_of(images):
    return SimpleFeatures().extract(images)


def made_by(model, truncation, kind="hub"):
    z = make_noise(NUM, model.config.z_dim, truncation, PROTOCOL.seed, kind=kind)
    labels = torch.arange(NUM) % 3
    statistics = statistics_truncation(truncation, kind)
    made = generate_batches(model.engine, labels, z, statistics, PROTOCOL.batch_size)
    return to_uint8(torch.cat([batch.images for batch in made]))  # rounding depends on the batch


def distance_between(*images):
    both = [FeatureStatistics(6), FeatureStatistics(6)]
    for statistics, some in zip(both, images, strict=True):
        statistics.update(features_of(some).features)
    return frechet_distance(*both)


# --- the figures ---


def test_figures_are_those_of_the_images_that_the_settings_name(gan):
    metrics = ("fid", "is", "kid", "pr", "intra-fid")
    result = evaluate(gan, metrics=metrics)
    [scores] = scores_of(result)
    images = made_by(gan, 0.4)
    made, real = features_of(images), features_of(data().images)
    distance = distance_between(images, data().images)
    assert scores["frechet_distance"] == pytest.approx(distance, rel=1e-9)
    assert scores["classifier_score"] == pytest.approx(inception_score(made.logits).mean)
    kid = kernel_inception_distance(made.features, real.features, subset_size=NUM)
    assert scores["kernel_distance"] == pytest.approx(kid.mean, rel=1e-6)
    for name, value in precision_recall(real.features, made.features)._asdict().items():
        assert scores[name] == pytest.approx(value), name
    # Another network's figures are not called FID or IS.
    assert not set(scores) & {"fid", "is", "kid", "intra_fid"}
    assert "simple" in as_table(result)
    assert all(np.isfinite(value) for value in scores.values())


@pytest.mark.parametrize("kind", ["paper", "scale"])
def test_truncation_means_what_the_protocol_says(gan, kind):
    protocol = dataclasses.replace(PROTOCOL, noise=kind)
    result = evaluate_generator(gan, data(), SimpleFeatures(), (0.7,), ("fid",), protocol)
    [scores] = scores_of(result)
    expected = distance_between(made_by(gan, 0.7, kind), data().images)
    assert scores["frechet_distance"] == pytest.approx(expected, rel=1e-6)
    assert result.protocol["noise"] == kind


def test_what_decides_the_figures_is_written(gan):
    written = json.loads(evaluate(gan, metrics=("fid", "is")).to_json())
    about = written["protocol"]
    assert (about["num"], about["seed"], about["noise"]) == (NUM, 3, "hub")
    assert about["is"] == {"splits": 10, "images": NUM}
    assert not {"kid", "pr"} & set(about)  # not asked for
    simple = {"name": "simple", "sha256": "0" * 64, "resize": "area", "dim": 6}
    assert written["extractor"] == simple
    assert written["reference"]["fingerprint"] == data().fingerprint
    assert written["subject"]["sha256"] == "f" * 64
    assert written["versions"]["torch"] == torch.__version__
    assert written["points"] == {}  # one truncation is no sweep


def test_the_settings_of_every_metric_are_written_as_they_were(monkeypatch):
    monkeypatch.setattr("biggan.evaluation.scores._SUBSETS", 5)
    images, reference = data(60, seed=1), data(80)
    result = evaluate_images(images, reference, SimpleFeatures(), ("is", "kid", "pr"))
    about, [scores] = result.protocol, scores_of(result)
    made, real = (features_of(of.images) for of in (images, reference))
    assert about["kid"] == {"subsets": 5, "subset_size": 60}
    assert about["pr"] == {"neighbors": 3, "images": 60, "reference_images": 80}
    again = inception_score(made.logits, about["is"]["splits"])
    assert scores["classifier_score"] == pytest.approx(again.mean)
    kid = kernel_inception_distance(made.features, real.features, 60, 5)
    assert scores["kernel_distance"] == pytest.approx(kid.mean)
    pr = precision_recall(real.features, made.features, about["pr"]["neighbors"])
    assert scores["density"] == pytest.approx(pr.density)


def test_a_sweep_names_the_points_of_table_2(gan, tmp_path):
    pytest.importorskip("matplotlib")
    result = evaluate(gan, (0.2, 1.0, None), ("fid", "is", "pr"))
    assert [row["truncation"] for row in result.rows] == [0.2, 1.0, None]
    assert result.points["no truncation"] == result.rows[2]
    best = min(result.rows, key=lambda row: row["scores"]["frechet_distance"])
    assert result.points["best frechet_distance"] == best
    assert as_csv(result).splitlines()[0].startswith("truncation,frechet_distance,")
    assert as_csv(result).splitlines()[3].startswith("none,")
    plot_tradeoff(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_elsewhere_against_themselves(channels, caplog):
    """Grey images are shown as colour."""
    images = data(channels=channels)
    [scores] = scores_of(evaluate_images(images, images, SimpleFeatures(), ("fid", "pr")))
    assert scores["frechet_distance"] == pytest.approx(0, abs=1e-8)
    assert scores["precision"] == 1
    assert "at least 2048" in caplog.text


# --- the cache ---


def test_the_data_are_looked_at_once(gan, own_cache, monkeypatch):
    reference, first = data(), SimpleFeatures()
    evaluate(gan, (0.4, 1.0), reference=reference, extractor=first)
    assert first.seen == 2 * NUM + len(reference)
    assert len(list((own_cache / "evaluation").iterdir())) == 1  # that of the data is left
    before = {path: path.stat().st_mtime_ns for path in (own_cache / "evaluation").iterdir()}
    second = SimpleFeatures()
    evaluate(gan, reference=dataclasses.replace(data(), source="other name"), extractor=second)
    assert second.seen == NUM
    assert before == {path: path.stat().st_mtime_ns for path in before}
    third = SimpleFeatures()
    evaluate(gan, reference=data(seed=1), extractor=third)
    assert third.seen == NUM + len(reference)  # other contents of the same name
    monkeypatch.setattr("biggan.evaluation.images.versions", lambda: {"biggan": "0.0.1"})
    evaluate_images(data(), data(), second, ("fid",))
    assert second.seen == NUM + len(reference)


def test_what_was_seen_before_a_kill_is_not_seen_again(gan, monkeypatch):
    metrics = ("fid", "is", "pr")
    whole = evaluate(gan, (0.4, 1.0), metrics)
    monkeypatch.setattr(features_module, "_SAVE_EVERY", -1)
    broken = SimpleFeatures()
    broken.ends_after = NUM + 20  # in the middle of the second truncation
    with pytest.raises(KeyboardInterrupt):
        evaluate(gan, (0.4, 1.0), metrics, extractor=broken)
    rest = SimpleFeatures()
    resumed = evaluate(gan, (0.4, 1.0), metrics, extractor=rest)
    assert rest.seen == 2 * NUM - broken.seen
    assert scores_of(resumed) == list(map(pytest.approx, scores_of(whole)))


def test_what_another_model_made_is_not_taken_over(gan):
    other = Gan(tiny_generator(channels=4), Description("other", TINY_CLASSES), "e" * 64)
    expected = evaluate(other)
    broken = SimpleFeatures()
    broken.ends_after = NUM + 1  # after the first truncation
    with pytest.raises(KeyboardInterrupt):
        evaluate(gan, (0.4, 1.0), extractor=broken)
    assert scores_of(evaluate(other)) == list(map(pytest.approx, scores_of(expected)))


def test_a_cache_that_is_damaged_is_made_again_and_one_that_cannot_be_written_is_one_line(
    own_cache, caplog
):
    whole = evaluate_images(data(), data(seed=1), SimpleFeatures(), ("fid",))
    for file in (own_cache / "evaluation").iterdir():
        file.write_bytes(file.read_bytes()[:-20])
    again = evaluate_images(data(), data(seed=1), SimpleFeatures(), ("fid",))
    assert scores_of(again) == scores_of(whole)
    assert "extracted again" in caplog.text
    own_cache.rename(own_cache.with_name("old"))
    own_cache.write_text("a file, no folder")
    with pytest.raises(InputError, match="cannot create .*evaluation"):
        evaluate_images(data(), data(seed=1), SimpleFeatures(), ("fid",))


def test_a_random_part_is_kept_of_many(monkeypatch):
    monkeypatch.setattr(features_module, "KEPT_FEATURES", 40)
    monkeypatch.setattr(features_module, "KEPT_LOGITS", 60)
    names, labels = tuple("abcd"), torch.arange(200) // 50
    images = dataclasses.replace(data(200, 8), labels=labels, class_names=names)
    kept = extract_features(DatasetImages(images), SimpleFeatures())
    features = torch.cat(kept.features)
    assert (len(features), sum(map(len, kept.logits)), kept.statistics.count) == (40, 60, 200)
    assert kept.by_class == {}
    # From all classes, though the images are sorted by class.
    everything = features_of(images.images).features.double()
    distances = torch.cdist(features.double(), everything)
    assert distances.min(dim=1).values.max() < 1e-5
    numbers = distances.argmin(dim=1)
    assert len(set(numbers.tolist())) == 40
    assert torch.bincount(images.labels[numbers], minlength=4).min() >= 4
    # What was kept without classes does not do for classes.
    by_class = extract_features(DatasetImages(images), SimpleFeatures(), per_class=True).by_class
    assert sorted(by_class) == [0, 1, 2, 3]
    for label, statistics in by_class.items():
        assert statistics.count == 50
        torch.testing.assert_close(statistics.mean, everything[images.labels == label].mean(0))


def _evaluate_in_process():
    result = evaluate(tiny_gan(), metrics=("fid", "is", "kid", "pr"))
    return None if result is None else result.rows[0]["scores"]


@pytest.mark.slow
def test_two_processes_measure_what_one_does():
    alone = _evaluate_in_process()
    first, second = launch(_evaluate_in_process, 2)
    assert second is None
    assert first == pytest.approx(alone, rel=1e-6)


# --- what is refused ---


def test_data_that_do_not_fit_are_refused(gan):
    with pytest.raises(InputError, match="16 pixels a side and noise has 8"):
        evaluate(gan, reference=data(side=8))
    other = dataclasses.replace(data(), class_names=("a", "b", "c"))
    with pytest.raises(InputError, match="omit it"):
        evaluate(gan, metrics=("intra-fid",), reference=other)
    for metrics in ("fid", (), ("fdi",)):
        with pytest.raises(InputError, match="metrics are some of"):
            evaluate(gan, metrics=metrics)
    with pytest.raises(InputError, match="with load_dataset first"):
        evaluate(gan, reference="digits")


@pytest.mark.parametrize(
    ("truncations", "num", "message"),
    [
        ((), 60, "at least one"),
        ((0.4, 0.4), 60, "once"),
        ((1.5,), 60, "at most 1"),
        ((0.4,), 9, "at least 10 images, and 9 are asked for"),
    ],
)
def test_impossible_sweeps_are_refused(truncations, num, message):
    with pytest.raises(InputError, match=message):
        check_truncations(truncations, Protocol(num=num))


def test_a_model_that_makes_no_colours_is_refused(own_cache):
    model = tiny_gan()
    with torch.no_grad():
        model.generator.class_embedding.table.weight[1] = torch.nan  # of class 1 alone
    broken = Gan(model.generator, Description("tiny", TINY_CLASSES), "f" * 64)
    with pytest.raises(InputError, match="tiny, truncation 0.4: image 1 holds NaN"):
        evaluate(broken)
    assert len(list((own_cache / "evaluation").iterdir())) == 1  # what is known of the data


def test_the_warning_ends_at_2048(caplog):
    for num, metric in ((2048, "fid"), (2047, "is"), (None, "fid")):
        warn_of_few(num, (metric,))
    assert not caplog.text
    warn_of_few(2047, ("fid",))
    assert caplog.text


# --- from a word or a file to an extractor ---


def test_a_classifier_is_known_by_its_contents_and_anything_else_is_inception(
    tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        features_module, "InceptionFeatures", lambda path, **how: asked.append((path, how))
    )
    labels = torch.arange(20) % 2
    images = (100 * labels[:, None, None, None]).to(torch.uint8).expand(-1, 1, 8, 8)
    dataset = ImageDataset(images.contiguous(), labels, ("dark", "bright"), "shades")
    file = tmp_path / "c.safetensors"
    train_classifier(dataset, file, steps=1, width=2)
    assert isinstance(open_extractor(str(file)), ClassifierFeatures)
    with pytest.raises(InputError, match=r"--resize applies to TF-Inception.*antialiased bicubic"):
        open_extractor(file, resize="pytorch-fid")
    assert asked == []
    open_extractor("inception", offline=True)
    open_extractor(tmp_path / "w.pth", resize="pytorch-fid")
    options = [(path, how["resize"], how["offline"]) for path, how in asked]
    weights = (tmp_path / "w.pth", "pytorch-fid", False)
    assert options == [(None, "tensorflow", True), weights]


def test_a_picture_is_no_extractor(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 a JPEG")
    with pytest.raises(InputError, match=r"photo.jpg is not a torch file$"):
        open_extractor(tmp_path / "photo.jpg")
