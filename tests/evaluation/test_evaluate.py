"""Evaluations of tiny generators, whole, cut short, and shared by processes."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import biggan.evaluation.features as features_module
from biggan.data import ImageDataset
from biggan.errors import InputError
from biggan.evaluation import Protocol, evaluate_generator, evaluate_images
from biggan.evaluation.result import as_csv, as_table, plot_tradeoff
from biggan.gan import Gan
from biggan.images import to_uint8
from biggan.latents import make_noise, statistics_truncation
from biggan.metrics.frechet_distance import frechet_distance
from biggan.metrics.inception_score import inception_score
from biggan.metrics.kernel_inception_distance import kernel_inception_distance
from biggan.metrics.precision_recall import precision_recall
from biggan.metrics.statistics import FeatureStatistics
from biggan.weights.files import Description
from several_processes import launch
from simple_features import SimpleFeatures
from tiny import TINY_CLASSES, tiny_generator

NUM = 60
PROTOCOL = Protocol(num=NUM, seed=3, batch_size=8)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def gan(**changes):
    return Gan(tiny_generator(**changes), Description("tiny", TINY_CLASSES), "f" * 64)


def data(num=80, resolution=16, channels=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (num, channels, resolution, resolution), generator=random)
    labels = torch.arange(num) % len(TINY_CLASSES)
    return ImageDataset(images.to(torch.uint8), labels, TINY_CLASSES, "noise")


def expected_images(model, truncation):
    z = make_noise(NUM, model.config.z_dim, truncation, PROTOCOL.seed)
    return to_uint8(model.generate(z, torch.arange(NUM) % 3, truncation))


def test_figures_are_those_of_the_images_that_the_settings_name():
    model, reference, extractor = gan(), data(), SimpleFeatures()
    result = evaluate_generator(model, reference, extractor, (0.4,), ("fid", "is"), PROTOCOL)
    made = extractor.extract(expected_images(model, 0.4))
    a, b = FeatureStatistics(6), FeatureStatistics(6)
    a.update(made.features)
    b.update(extractor.extract(reference.images).features)
    scores = result.rows[0]["scores"]
    assert scores["frechet_distance"] == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert scores["classifier_score"] == pytest.approx(inception_score(made.logits).mean)


@pytest.mark.parametrize("kind", ["hub", "paper", "scale"])
def test_truncation_means_what_the_protocol_says(kind):
    model, reference, extractor = gan(), data(), SimpleFeatures()
    protocol = dataclasses.replace(PROTOCOL, noise=kind)
    result = evaluate_generator(model, reference, extractor, (0.7,), ("fid",), protocol)
    z = make_noise(NUM, model.config.z_dim, 0.7, PROTOCOL.seed, kind=kind)
    made = to_uint8(model.generate(z, torch.arange(NUM) % 3, statistics_truncation(0.7, kind)))
    a, b = FeatureStatistics(6), FeatureStatistics(6)
    a.update(extractor.extract(made).features)
    b.update(extractor.extract(reference.images).features)
    distance = result.rows[0]["scores"]["frechet_distance"]
    assert distance == pytest.approx(frechet_distance(a, b), rel=1e-6)
    assert result.protocol["noise"] == kind


def test_distances_and_neighbours_are_of_all_images_kept():
    model, reference, extractor = gan(), data(), SimpleFeatures()
    result = evaluate_generator(model, reference, extractor, (0.4,), ("kid", "pr"), PROTOCOL)
    scores = result.rows[0]["scores"]
    made = extractor.extract(expected_images(model, 0.4)).features
    real = extractor.extract(reference.images).features
    kid = kernel_inception_distance(made, real, subset_size=NUM)
    assert scores["kernel_distance"] == pytest.approx(kid.mean, rel=1e-6)
    for name, value in precision_recall(real, made)._asdict().items():
        assert scores[name] == pytest.approx(value), name


def test_another_networks_figures_are_not_called_fid_or_is():
    metrics = ("fid", "is", "kid", "pr", "intra-fid")
    result = evaluate_generator(gan(), data(), SimpleFeatures(), (0.4,), metrics, PROTOCOL)
    scores = result.rows[0]["scores"]
    assert not set(scores) & {"fid", "is", "kid", "intra_fid"}
    assert {"frechet_distance", "classifier_score", "kernel_distance", "precision", "recall"} < set(
        scores
    )
    assert "simple" in as_table(result)
    assert all(np.isfinite(value) for value in scores.values())


def test_what_decides_the_figures_is_written():
    metrics = ("fid", "is")
    result = evaluate_generator(gan(), data(), SimpleFeatures(), (0.4,), metrics, PROTOCOL)
    written = json.loads(result.to_json())
    assert written["protocol"]["num"] == NUM
    assert written["protocol"]["seed"] == 3
    assert written["protocol"]["noise"] == "hub"
    assert written["extractor"] == {
        "name": "simple",
        "sha256": "0" * 64,
        "resize": "area",
        "dim": 6,
    }
    assert written["reference"]["fingerprint"] == data().fingerprint
    assert written["subject"]["sha256"] == "f" * 64
    assert written["versions"]["torch"] == torch.__version__
    assert written["protocol"]["is"] == {"splits": 10, "images": NUM}
    assert written["points"] == {}  # one truncation is no sweep
    assert not {"kid", "pr"} & set(written["protocol"])  # not asked for


def test_the_settings_of_every_metric_are_written_as_they_were():
    images, reference = data(60, seed=1), data(80)
    result = evaluate_images(images, reference, SimpleFeatures(), ("is", "kid", "pr"))
    about, scores = result.protocol, result.rows[0]["scores"]
    made, real = (SimpleFeatures().extract(of.images) for of in (images, reference))
    assert about["kid"] == {"subsets": 100, "subset_size": 60}
    assert about["pr"] == {"neighbors": 3, "images": 60, "reference_images": 80}
    again = inception_score(made.logits, about["is"]["splits"])
    assert scores["classifier_score"] == pytest.approx(again.mean)
    kid = kernel_inception_distance(
        made.features, real.features, about["kid"]["subset_size"], about["kid"]["subsets"]
    )
    assert scores["kernel_distance"] == pytest.approx(kid.mean)
    pr = precision_recall(real.features, made.features, about["pr"]["neighbors"])
    assert scores["density"] == pytest.approx(pr.density)


def test_a_sweep_names_the_points_of_table_2(tmp_path):
    pytest.importorskip("matplotlib")
    sweep = (0.2, 1.0, None)
    result = evaluate_generator(
        gan(), data(), SimpleFeatures(), sweep, ("fid", "is", "pr"), PROTOCOL
    )
    assert [row["truncation"] for row in result.rows] == [0.2, 1.0, None]
    assert result.points["no truncation"] == result.rows[2]
    best = min(result.rows, key=lambda row: row["scores"]["frechet_distance"])
    assert result.points["best frechet_distance"] == best
    assert as_csv(result).splitlines()[0].startswith("truncation,frechet_distance,")
    assert as_csv(result).splitlines()[3].startswith("none,")
    plot_tradeoff(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_data_are_looked_at_once():
    reference = data()
    first = SimpleFeatures()
    evaluate_generator(gan(), reference, first, (0.4,), ("fid",), PROTOCOL)
    second = SimpleFeatures()
    evaluate_generator(gan(), data(), second, (0.4,), ("fid",), PROTOCOL)
    assert first.seen == NUM + len(reference)
    assert second.seen == NUM
    renamed = dataclasses.replace(data(), source="other")
    evaluate_generator(gan(), renamed, second, (0.4,), ("fid",), PROTOCOL)
    assert second.seen == 2 * NUM  # the same contents of another name
    third = SimpleFeatures()
    evaluate_generator(gan(), data(seed=1), third, (0.4,), ("fid",), PROTOCOL)
    assert third.seen == NUM + len(reference)  # other contents of the same name


def test_what_another_version_saw_of_the_data_is_not_taken_over(monkeypatch):
    extractor = SimpleFeatures()
    evaluate_images(data(), data(), extractor, ("fid",))
    assert extractor.seen == len(data())
    other = {"biggan": "0.0.1"}
    monkeypatch.setattr("biggan.evaluation.images.versions", lambda: other)
    evaluate_images(data(), data(), extractor, ("fid",))
    assert extractor.seen == 2 * len(data())


def test_what_was_seen_before_a_kill_is_not_seen_again(monkeypatch):
    metrics = ("fid", "is", "pr")
    whole = evaluate_generator(gan(), data(), SimpleFeatures(), (0.4, 1.0), metrics, PROTOCOL)
    monkeypatch.setattr(features_module, "_SAVE_EVERY", -1)
    broken = SimpleFeatures()
    broken.ends_after = NUM + 20  # in the middle of the second truncation
    with pytest.raises(KeyboardInterrupt):
        evaluate_generator(gan(), data(), broken, (0.4, 1.0), metrics, PROTOCOL)
    rest = SimpleFeatures()
    resumed = evaluate_generator(gan(), data(), rest, (0.4, 1.0), metrics, PROTOCOL)
    assert rest.seen == 2 * NUM - broken.seen
    assert [row["scores"] for row in resumed.rows] == [
        pytest.approx(row["scores"]) for row in whole.rows
    ]


def test_what_is_known_of_the_data_is_not_written_again(own_cache):
    evaluate_images(data(), data(seed=1), SimpleFeatures(), ("fid",))
    before = {path: path.stat().st_mtime_ns for path in (own_cache / "evaluation").iterdir()}
    evaluate_images(data(), data(seed=1), SimpleFeatures(), ("fid",))
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_cache_that_cannot_be_written_is_one_line(own_cache):
    own_cache.write_text("a file, no folder")
    with pytest.raises(InputError, match="cannot create .*evaluation"):
        evaluate_images(data(), data(seed=1), SimpleFeatures(), ("fid",))


def test_a_damaged_file_of_the_cache_is_made_again(own_cache, caplog):
    whole = evaluate_images(data(), data(seed=1), SimpleFeatures(), ("fid",))
    for file in (own_cache / "evaluation").iterdir():
        file.write_bytes(file.read_bytes()[:-20])
    again = evaluate_images(data(), data(seed=1), SimpleFeatures(), ("fid",))
    assert again.rows[0]["scores"] == whole.rows[0]["scores"]
    assert "extracted again" in caplog.text


def test_a_finished_evaluation_leaves_nothing_but_the_data_in_the_cache(own_cache):
    evaluate_generator(gan(), data(), SimpleFeatures(), (0.4, 1.0), ("fid",), PROTOCOL)
    assert len(list((own_cache / "evaluation").iterdir())) == 1


def test_images_of_elsewhere_against_themselves():
    result = evaluate_images(data(), data(), SimpleFeatures(), ("fid", "pr"))
    assert result.rows[0]["scores"]["frechet_distance"] == pytest.approx(0, abs=1e-8)
    assert result.rows[0]["scores"]["precision"] == 1


def test_grey_images_are_shown_as_colour():
    result = evaluate_images(data(channels=1), data(channels=1), SimpleFeatures(), ("fid",))
    assert result.rows[0]["scores"]["frechet_distance"] == pytest.approx(0, abs=1e-8)


def _evaluate_in_process():
    result = evaluate_generator(
        gan(), data(), SimpleFeatures(), (0.4,), ("fid", "is", "kid", "pr"), PROTOCOL
    )
    return None if result is None else result.rows[0]["scores"]


@pytest.mark.slow
def test_two_processes_measure_what_one_does():
    alone = _evaluate_in_process()
    first, second = launch(_evaluate_in_process, 2)
    assert second is None
    assert first == pytest.approx(alone, rel=1e-6)


def test_data_of_another_resolution_are_refused():
    with pytest.raises(InputError, match="16 pixels a side and noise has 8"):
        evaluate_generator(gan(), data(resolution=8), SimpleFeatures(), (0.4,), ("fid",), PROTOCOL)


def test_classes_of_others_are_not_compared():
    other = ImageDataset(data().images, data().labels, ("a", "b", "c"), "others")
    with pytest.raises(InputError, match="leave it out"):
        evaluate_generator(gan(), other, SimpleFeatures(), (0.4,), ("intra-fid",), PROTOCOL)


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
    from biggan.evaluation.evaluate import check_truncations

    with pytest.raises(InputError, match=message):
        check_truncations(truncations, Protocol(num=num))


def test_few_images_are_warned_of(caplog):
    evaluate_images(data(), data(), SimpleFeatures(), ("fid",))
    assert "at least 2048" in caplog.text


def test_a_model_that_makes_no_colours_is_refused(own_cache):
    model = gan()
    with torch.no_grad():
        model.generator.class_embedding.table.weight[1] = torch.nan  # of class 1 alone
    broken = Gan(model.generator, Description("tiny", TINY_CLASSES), "f" * 64)
    with pytest.raises(InputError, match="tiny, truncation 0.4: image 1 holds NaN"):
        evaluate_generator(broken, data(), SimpleFeatures(), (0.4,), ("fid",), PROTOCOL)
    assert len(list((own_cache / "evaluation").iterdir())) == 1  # what is known of the data


def test_what_another_model_made_is_not_taken_over():
    other = Gan(tiny_generator(channels=4), Description("other", TINY_CLASSES), "e" * 64)
    expected = evaluate_generator(other, data(), SimpleFeatures(), (0.4,), ("fid",), PROTOCOL)
    broken = SimpleFeatures()
    broken.ends_after = NUM + 1  # after the first truncation
    with pytest.raises(KeyboardInterrupt):
        evaluate_generator(gan(), data(), broken, (0.4, 1.0), ("fid",), PROTOCOL)
    result = evaluate_generator(other, data(), SimpleFeatures(), (0.4,), ("fid",), PROTOCOL)
    assert result.rows[0]["scores"] == pytest.approx(expected.rows[0]["scores"])


@pytest.mark.parametrize(
    ("num", "metrics", "warned"),
    [
        (2047, ("fid",), True),
        (2048, ("fid",), False),
        (2047, ("is",), False),
        (None, ("fid",), False),
    ],
)
def test_the_warning_ends_at_2048(caplog, num, metrics, warned):
    from biggan.evaluation.evaluate import warn_of_few

    warn_of_few(num, metrics)
    assert bool(caplog.text) is warned
