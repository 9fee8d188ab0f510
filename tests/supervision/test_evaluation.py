"""Evaluations of a run: on schedule, the best kept, and nothing of them in the training."""

import dataclasses
import json
import shutil

import pytest
import torch

import biggan
from biggan.errors import InputError
from biggan.evaluation.features import extract_features
from biggan.evaluation.images import DatasetImages
from biggan.evaluation.reference import save_statistics
from biggan.supervision.evaluation import RUN_BEST, ScheduledEvaluation
from biggan.supervision.settings import EvaluationConfig
from biggan.training.config import differing_keys
from biggan.training.export import RunInterruptedError
from biggan.training.run import Run
from data_forms import pictures, write_folder
from runs import CPU, IMAGES, assert_same_run, lines, recipe, run
from simple_features import SimpleFeatures

EVALUATION = {"every": 3, "num": 12, "metrics": "fid,is", "extractor": "simple"}
BASE = {"total_steps": 6, "checkpoint_every": 3, "statistics_images": 16}
EVALUATED = recipe(**BASE, evaluation=EVALUATION)


@pytest.fixture(autouse=True)
def _with_extractor(extractor):
    """No test loads an extractor's weights."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGGAN_CACHE", str(folder.with_name("cache")))
        extractor = SimpleFeatures()
        patch.setattr("biggan.evaluation.features.open_extractor", lambda *_, **__: extractor)
        run(EVALUATED, folder)
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of it that may be changed."""
    return shutil.copytree(whole, tmp_path / "run")


def scores(folder, step):
    text = (folder / "evaluations" / f"step-{step:08d}.json").read_text()
    return json.loads(text)["rows"][0]["scores"]


def evaluated_steps(folder):
    return [int(path.stem[5:]) for path in sorted((folder / "evaluations").iterdir())]


def test_every_scheduled_step_has_its_figures(whole):
    assert evaluated_steps(whole) == [3, 6]
    key = "evaluation/frechet_distance"
    logged = {m["step"]: m[key] for m in lines(whole / "metrics.jsonl") if key in m}
    assert logged == {step: scores(whole, step)["frechet_distance"] for step in (3, 6)}


def test_the_best_generator_is_kept_with_its_figures(whole):
    best = biggan.load(whole / RUN_BEST)
    step = min((3, 6), key=lambda step: scores(whole, step)["frechet_distance"])
    assert best.description.training["step"] == step
    measured = best.description.training["evaluation"]
    assert measured["scores"] == scores(whole, step)
    assert measured["extractor"]["name"] == "simple"
    assert measured["num"] == 12


def test_the_best_generators_stay(tmp_path):
    evaluation = EVALUATION | {"every": 1, "keep_best": 2}
    run(recipe(total_steps=6, checkpoint_every=1, keep_every=6, evaluation=evaluation), tmp_path)
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
    whole, tmp_path, where, key, value
):
    folder = tmp_path / "run"
    better = json.loads((whole / "evaluations" / "step-00000003.json").read_text())
    same = better[where][key] == value
    better[where][key] = value
    better["rows"][0]["scores"]["frechet_distance"] = -1.0
    (folder / "evaluations").mkdir(parents=True)
    (folder / "evaluations" / "step-00000001.json").write_text(json.dumps(better))
    run(dataclasses.replace(EVALUATED, total_steps=3), folder)
    assert (folder / RUN_BEST).exists() is not same


def test_only_distances_by_the_newest_ones_yardstick_are_judged(copied):
    evaluation = ScheduledEvaluation(Run(EVALUATED, IMAGES, copied, CPU))
    found = evaluation.distances(6)
    assert found == [(step, scores(copied, step)["frechet_distance"]) for step in (3, 6)]
    file = copied / "evaluations" / "step-00000003.json"
    other = json.loads(file.read_text())
    other["protocol"]["num"] += 1
    file.write_text(json.dumps(other))
    assert evaluation.distances(6) == found[1:]
    assert evaluation.distances(5) == found[:1]


def test_the_weights_are_those_of_a_run_without(whole, tmp_path):
    run(recipe(**BASE), tmp_path)
    assert not (tmp_path / "evaluations").exists()
    assert_same_run(whole, tmp_path)


def test_an_interrupt_starts_no_evaluation_and_the_same_call_makes_it(tmp_path, whole):
    with pytest.raises(RunInterruptedError):
        run(EVALUATED, tmp_path, interrupted=lambda: True)
    assert not list(tmp_path.glob("evaluations/*"))
    assert biggan.load(tmp_path).description.training["step"] == 3
    run(EVALUATED, tmp_path)
    assert evaluated_steps(tmp_path) == [3, 6]
    assert_same_run(tmp_path, whole)


def test_an_evaluation_that_was_killed_is_made_after_resuming(whole, tmp_path, extractor, caplog):
    extractor.ends_after = 5
    with pytest.raises(KeyboardInterrupt):
        run(EVALUATED, tmp_path)
    assert not (tmp_path / "evaluations").exists()
    extractor.ends_after = None
    caplog.set_level("INFO", "biggan")
    run(EVALUATED, tmp_path)
    assert [m for m in caplog.messages if "evaluating" in m] == [
        f"step {step}: evaluating 12 images" for step in (3, 6)
    ]
    for step in (3, 6):
        assert scores(tmp_path, step) == pytest.approx(scores(whole, step))


def test_a_schedule_may_change_from_one_start_to_the_next():
    other = dataclasses.replace(EVALUATED, evaluation=EvaluationConfig(every=6))
    assert differing_keys(EVALUATED, other) == []


def test_steps_without_a_checkpoint_are_refused():
    with pytest.raises(InputError, match=r"multiple of checkpoint_every \(3\), not 4"):
        recipe(**BASE, evaluation={"every": 4})


def test_a_stream_needs_images_to_compare_with(tmp_path):
    class Stream:  # whatever it is, it is no images in memory
        pass

    with pytest.raises(InputError, match=r"evaluation\.data"):
        ScheduledEvaluation(Run(EVALUATED, Stream(), tmp_path, CPU))


def test_the_last_step_is_evaluated_whatever_the_schedule(tmp_path):
    run(dataclasses.replace(EVALUATED, total_steps=4), tmp_path)
    assert evaluated_steps(tmp_path) == [3, 4]


@pytest.mark.parametrize("flip", [True, False])
def test_other_data_are_compared_class_by_class(tmp_path, monkeypatch, flip):
    folder = write_folder(tmp_path / "pictures", pictures(8, ("blue", "red"), size=8))
    calls = []

    def listen(fakes, labels, real, *, flip, **_):
        calls.append((len(fakes), len(real), real.class_names, flip))
        return torch.where(torch.arange(len(real)) % 2 == 0, real.labels, -1)

    monkeypatch.setattr("biggan.evaluation.scores.classification_accuracy_score", listen)
    other = {"every": 6, "metrics": "fid,intra-fid,cas", "data": str(folder)}
    config = recipe(**BASE, evaluation=EVALUATION | other, flip=flip)
    run(config, tmp_path / "run")
    assert calls == [(12, 16, ("blue", "red"), flip)]
    assert scores(tmp_path / "run", 6)["cas"] == 0.5
    assert scores(tmp_path / "run", 6)["intra_class_frechet_distance"] > 0


def test_data_that_do_not_fit_are_refused_before_the_first_step(tmp_path, extractor):
    file = tmp_path / "s.safetensors"
    features = extract_features(DatasetImages(IMAGES), extractor, progress=False)
    save_statistics(features, IMAGES, extractor, file)
    config = recipe(**BASE, evaluation=EVALUATION | {"metrics": "fid,kid", "data": str(file)})
    with pytest.raises(InputError, match=r"s.safetensors contains statistics.*kid"):
        run(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize(
    "text", ["", "3", "[" * 20_000, '{"rows": []}', '{"rows": [{"scores": {"fid": "a"}}]}']
)
def test_a_damaged_evaluation_is_made_again(whole, copied, text):
    files = [copied / "evaluations" / f"step-{step:08d}.json" for step in (3, 6)]
    for file in (*files, copied / "evaluations" / "step-x.json"):
        file.write_text(text)
    run(EVALUATED, copied)
    assert scores(copied, 6) == pytest.approx(scores(whole, 6))
    assert files[0].read_text() == text  # the generator of that step is gone
