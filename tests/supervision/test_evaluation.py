"""Evaluations of a run: on schedule, the best kept, and nothing of them in the training."""

import dataclasses
import json

import pytest
import torch

import biggan
from biggan.errors import InputError
from biggan.supervision.evaluation import RUN_BEST, ScheduledEvaluation
from biggan.training.config import differing_keys
from biggan.training.run import Run
from data_forms import pictures, write_folder
from runs import CPU, assert_same_run, lines, recipe, run

EVALUATION = {"every": 3, "num": 12, "metrics": "fid,is", "extractor": "simple"}


BASE = {"total_steps": 6, "checkpoint_every": 3, "statistics_images": 16}


@pytest.fixture(autouse=True)
def _with_extractor(extractor):
    """No test loads an extractor's weights."""


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "pictures", pictures(8, ("blue", "red"), size=8))


@pytest.fixture
def evaluated():
    return recipe(**BASE, evaluation=EVALUATION)


def scores(folder, step):
    text = (folder / "evaluations" / f"step-{step:08d}.json").read_text()
    return json.loads(text)["rows"][0]["scores"]


def test_every_scheduled_step_has_its_figures(evaluated, images, tmp_path, caplog):
    caplog.set_level("INFO", "biggan")
    run(evaluated, images, tmp_path / "run")
    assert [m for m in caplog.messages if "evaluating" in m] == [
        f"step {step}: evaluating 12 images" for step in (3, 6)
    ]
    names = [path.name for path in sorted((tmp_path / "run" / "evaluations").iterdir())]
    assert names == ["step-00000003.json", "step-00000006.json"]
    logged = {
        line["step"]: line["evaluation/frechet_distance"]
        for line in lines(tmp_path / "run" / "metrics.jsonl")
        if "evaluation/frechet_distance" in line
    }
    assert logged == {step: scores(tmp_path / "run", step)["frechet_distance"] for step in (3, 6)}


def test_the_best_generator_is_kept_with_its_figures(evaluated, images, tmp_path):
    folder = tmp_path / "run"
    run(evaluated, images, folder)
    best = biggan.load(folder / RUN_BEST)
    step = min((3, 6), key=lambda step: scores(folder, step)["frechet_distance"])
    assert best.description.training["step"] == step
    measured = best.description.training["evaluation"]
    assert measured["scores"] == scores(folder, step)
    assert measured["extractor"]["name"] == "simple"
    assert measured["num"] == 12


def test_the_best_generators_stay(images, tmp_path):
    evaluation = EVALUATION | {"every": 1, "keep_best": 2}
    config = recipe(
        total_steps=6, checkpoint_every=1, keep_every=6, statistics_images=8, evaluation=evaluation
    )
    run(config, images, tmp_path)
    distances = {step: scores(tmp_path, step)["frechet_distance"] for step in range(1, 7)}
    best = sorted(distances, key=lambda step: distances[step])[:2]
    kept = {int(path.stem[5:]) for path in (tmp_path / "generators").iterdir()}
    assert kept == {*best, 6}
    for step in kept:
        assert biggan.load(f"{tmp_path}@{step}").description.training["step"] == step
    found = biggan.load(f"{tmp_path}@best").description.training["step"]
    assert found == best[0]


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ("extractor", "name", "simple"),  # as it is
        ("extractor", "sha256", "1" * 64),
        ("extractor", "resize", "nearest"),
        ("reference", "fingerprint", "1" * 64),
        ("protocol", "num", 13),
    ],
)
def test_a_worse_generator_does_not_replace_the_best_by_the_same_yardstick(
    evaluated, images, tmp_path, where, key, value
):
    folder, other = tmp_path / "run", tmp_path / "other"
    run(evaluated, images, other)
    better = json.loads((other / "evaluations" / "step-00000003.json").read_text())
    same = better[where][key] == value
    better[where][key] = value
    better["rows"][0]["scores"]["frechet_distance"] = -1.0
    (folder / "evaluations").mkdir(parents=True)
    (folder / "evaluations" / "step-00000001.json").write_text(json.dumps(better))
    run(evaluated, images, folder)
    assert (folder / RUN_BEST).exists() is not same


def test_only_distances_by_the_newest_ones_yardstick_are_judged(evaluated, images, tmp_path):
    run(evaluated, images, tmp_path)
    evaluation = ScheduledEvaluation(Run(evaluated, images, tmp_path, CPU))
    found = evaluation.distances(6)
    assert found == [(step, scores(tmp_path, step)["frechet_distance"]) for step in (3, 6)]
    file = tmp_path / "evaluations" / "step-00000003.json"
    other = json.loads(file.read_text())
    other["protocol"]["num"] += 1
    file.write_text(json.dumps(other))
    assert evaluation.distances(6) == found[1:]
    assert evaluation.distances(5) == found[:1]


def test_the_weights_are_those_of_a_run_without(evaluated, images, tmp_path):
    run(evaluated, images, tmp_path / "with")
    plain = dataclasses.replace(evaluated, evaluation=type(evaluated.evaluation)())
    run(plain, images, tmp_path / "without")
    assert not (tmp_path / "without" / "evaluations").exists()
    assert_same_run(tmp_path / "with", tmp_path / "without")


def test_an_evaluation_that_was_killed_is_made_after_resuming(
    evaluated, images, tmp_path, extractor
):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    run(evaluated, images, whole)
    extractor.seen, extractor.ends_after = 0, 5
    with pytest.raises(KeyboardInterrupt):
        run(evaluated, images, folder)
    assert not (folder / "evaluations").exists()
    extractor.ends_after = None
    run(evaluated, images, folder)
    for step in (3, 6):
        assert scores(folder, step) == pytest.approx(scores(whole, step))


def test_a_schedule_may_change_from_one_start_to_the_next(evaluated):
    other = dataclasses.replace(evaluated, evaluation=type(evaluated.evaluation)(every=6))
    assert differing_keys(evaluated, other) == []


def test_steps_without_a_checkpoint_are_refused():
    with pytest.raises(InputError, match=r"multiple of checkpoint_every \(3\), not 4"):
        recipe(**BASE, evaluation={"every": 4})


def test_a_stream_needs_images_to_compare_with(evaluated, images, tmp_path):
    class Stream:  # whatever it is, it is no images in memory
        pass

    with pytest.raises(InputError, match=r"evaluation\.data"):
        ScheduledEvaluation(Run(evaluated, Stream(), tmp_path, CPU))


def test_the_last_step_is_evaluated_whatever_the_schedule(evaluated, images, tmp_path):
    run(dataclasses.replace(evaluated, total_steps=4), images, tmp_path / "run")
    names = [path.name for path in sorted((tmp_path / "run" / "evaluations").iterdir())]
    assert names == ["step-00000003.json", "step-00000004.json"]


@pytest.mark.parametrize("flip", [True, False])
def test_other_data_are_compared_class_by_class(
    evaluated, images, folder, tmp_path, monkeypatch, flip
):
    calls = []

    def listen(fakes, labels, real, *, flip, **_):
        calls.append((len(fakes), len(real), real.class_names, flip))
        return torch.where(torch.arange(len(real)) % 2 == 0, real.labels, -1)

    monkeypatch.setattr("biggan.evaluation.evaluate.classification_accuracy_score", listen)
    settings = dataclasses.replace(
        evaluated.evaluation, every=6, metrics="fid,intra-fid,cas", data=str(folder)
    )
    config = dataclasses.replace(evaluated, evaluation=settings, flip=flip)
    run(config, images, tmp_path / "run")
    assert calls == [(12, 16, ("blue", "red"), flip)]
    assert scores(tmp_path / "run", 6)["cas"] == 0.5
    assert scores(tmp_path / "run", 6)["intra_class_frechet_distance"] > 0


def test_data_that_do_not_fit_are_refused_before_the_first_step(
    evaluated, images, tmp_path, extractor
):
    from biggan.evaluation.features import extract_features
    from biggan.evaluation.images import DatasetImages
    from biggan.evaluation.reference import save_statistics

    file = tmp_path / "s.safetensors"
    features = extract_features(DatasetImages(images), extractor, progress=False)
    save_statistics(features, images, extractor, file)
    settings = dataclasses.replace(evaluated.evaluation, metrics="fid,kid", data=str(file))
    config = dataclasses.replace(evaluated, evaluation=settings)
    with pytest.raises(InputError, match=r"s.safetensors contains statistics.*kid"):
        run(config, images, tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize(
    "text", ["", "3", "[" * 20_000, '{"rows": []}', '{"rows": [{"scores": {"fid": "a"}}]}']
)
def test_a_damaged_evaluation_is_made_again(evaluated, images, tmp_path, text):
    run(evaluated, images, tmp_path)
    files = [tmp_path / "evaluations" / f"step-{step:08d}.json" for step in (3, 6)]
    whole = scores(tmp_path, 6)
    for file in files:
        file.write_text(text)
    (tmp_path / "evaluations" / "step-x.json").write_text(text)
    run(evaluated, images, tmp_path)
    assert scores(tmp_path, 6) == pytest.approx(whole)
    assert files[0].read_text() == text  # the generator of that step is gone
