"""Runs that are watched, collapse, roll back and are killed in between: the same to the bit."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import biggan
from biggan.data import ImageDataset
from biggan.errors import InputError
from biggan.fine_tuning import fitted_to_source
from biggan.stability.collapse import Collapse
from biggan.stability.settings import CollapseConfig, WatchConfig
from biggan.training import TrainConfig, loop, run_export, scheduled_evaluation, survival, train
from biggan.training.checkpoint import CheckpointDirectory, rollback_reach
from biggan.training.config import differing_keys
from biggan.training.data_source import split_data
from biggan.training.events import EventsLog
from biggan.training.logging import RunLog
from several_processes import launch
from simple_features import SimpleFeatures

CPU = torch.device("cpu")
RECIPE = {
    "preset": "biggan-32",
    "total_steps": 8,
    "batch_size": 8,
    "d_steps": 1,
    "checkpoint_every": 2,
    "log_every": 1,
    "statistics_images": 8,
    "flip": True,
    "generator": {
        "resolution": 8,
        "channels": 4,
        "widths": [2, 2],
        "z_dim": 8,
        "class_dim": 4,
        "attention_resolution": 0,
    },
    "discriminator": {
        "resolution": 8,
        "channels": 4,
        "widths": [2, 2],
        "down_blocks": 1,
        "attention_resolution": 0,
    },
    "watch": {"every": 1},
    "collapse": {"action": "rollback", "g_lr": 0.5},
}


def noise_images(num=32):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 3, 8, 8), dtype=torch.uint8, generator=random)
    return ImageDataset(images, torch.arange(num) % 2, ("blue", "red"), "noise")


@pytest.fixture(scope="module")
def images():
    return noise_images()


def recipe(**changes):
    return TrainConfig.from_dict({**RECIPE, **changes}).fitted(2)


@pytest.fixture(autouse=True)
def _less_to_export(monkeypatch):
    monkeypatch.setattr(run_export, "HUB_GRID", run_export.COARSE_GRID)


def collapse_at(monkeypatch, step, onset, times=1, **how):
    """Call a collapse at a step, in the first attempts."""

    def find(lines, margin=1.0):
        found = Collapse("test", "It was told to.", onset, {"x": 1.0}, **how)
        return found if lines[-1]["step"] == step and current[0] < times else None

    real_respond, current = survival.Survival.respond, [0]

    def respond(self, collapse, state):
        current[0] = state.attempt.number
        rolled = real_respond(self, collapse, state)
        current[0] = state.attempt.number
        return rolled

    real_init = survival.Survival.__init__

    def init(self, config, run, log, state):
        real_init(self, config, run, log, state)
        current[0] = state.attempt.number

    monkeypatch.setattr(survival.Survival, "__init__", init)
    monkeypatch.setattr(survival.Survival, "respond", respond)
    monkeypatch.setattr(survival, "find_collapse", find)


def run(config, dataset, folder, **options):
    return train(config, dataset, folder, device=CPU, **options)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def steps(path):
    return [line["step"] for line in lines(path)]


def final_tensors(folder):
    return load_file(sorted((folder / "checkpoints").glob("step-*"))[-1])


def assert_same(folder, other):
    found, expected = final_tensors(folder), final_tensors(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    for name in ("signals.jsonl", "signals.before-rollback-1.jsonl", "events.jsonl"):
        assert (folder / name).read_text() == (other / name).read_text(), name


def test_watching_changes_no_bit(images, tmp_path):
    for every in (0, 2):
        run(recipe(watch={"every": every}), images, tmp_path / str(every))
    unseen, seen = (final_tensors(tmp_path / name) for name in ("0", "2"))
    assert not (tmp_path / "0" / "signals.jsonl").exists()
    assert steps(tmp_path / "2" / "signals.jsonl") == [2, 4, 6, 8]
    assert {name for name in seen if name not in unseen} == {
        name for name in seen if name.startswith("singular_values.")
    }
    for name, value in unseen.items():
        assert torch.equal(seen[name], value), name


def test_signals_are_those_of_an_uninterrupted_run(images, tmp_path):
    run(recipe(), images, tmp_path / "whole")
    count = iter(range(1, 100))
    run(recipe(), images, tmp_path / "stopped", should_stop=lambda: next(count) == 3)
    with (tmp_path / "stopped" / "signals.jsonl").open("a") as file:
        file.write('{"step": 4, "div')
    run(recipe(), images, tmp_path / "stopped")
    texts = [(tmp_path / name / "signals.jsonl").read_text() for name in ("whole", "stopped")]
    assert texts[0] == texts[1]
    line = lines(tmp_path / "whole" / "signals.jsonl")[0]
    assert list(line) == [
        "step",
        "singular_values",
        "frobenius_norms",
        "gradient_norms",
        "logits",
        "accuracy",
        "batch_norm",
        "diversity",
    ]
    assert list(line["logits"]) == ["real", "fake"]
    weights = line["singular_values"]
    assert len(weights["generator"]["blocks.0.conv1"]) == 3
    assert len(weights["discriminator"]["head.linear"]) == 1
    assert len(weights["generator"]["class_embedding.table"]) == 2


def test_a_run_goes_on_from_damaged_logs(images, tmp_path):
    run(recipe(total_steps=4), images, tmp_path)
    damage = {
        "signals": b'{"step": 2, "logits": {"real": 0}}\n{"step": 3}\n\xff\x00\n{"step": 4, "div',
        "metrics": b'\xe2\x82\n{"step": Infinity}\n{"step": 3, "d_lo',
        "events": b'{"step": "x", "event": 3}\n{"step": 2}\n\xff\n{"step": 1, "event": "other"}\n',
    }
    deep = b'{"step": 1, "event": "deep", "attempt": 0, "a": ' + b"[" * 900 + b"]" * 900 + b"}\n"
    damage = {name: b"[" * 20_000 + b"\n" + deep + text for name, text in damage.items()}
    for name, text in damage.items():
        with (tmp_path / f"{name}.jsonl").open("ab") as file:
            file.write(text)
    assert run(recipe(), images, tmp_path).step == 8
    assert [event["event"] for event in lines(tmp_path / "events.jsonl")] == ["other"]
    assert steps(tmp_path / "metrics.jsonl") == list(range(1, 9))


@pytest.fixture(scope="module")
def rolled_back(images, tmp_path_factory):
    """A whole run that rolled back on its way; nothing was interrupted."""
    folder = tmp_path_factory.mktemp("rolled") / "whole"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(run_export, "HUB_GRID", run_export.COARSE_GRID)
        collapse_at(monkeypatch, step=7, onset=5)
        run(recipe(), images, folder)
    return folder


@pytest.fixture
def _collapsing(monkeypatch):
    """What is trained collapses as that run did."""
    collapse_at(monkeypatch, step=7, onset=5)


def test_a_rollback_goes_on_from_before_the_collapse_with_other_numbers(rolled_back):
    assert steps(rolled_back / "signals.jsonl") == list(range(1, 9))
    assert steps(rolled_back / "metrics.jsonl") == list(range(1, 9))
    before = lines(rolled_back / "metrics.before-rollback-1.jsonl")
    assert [line["step"] for line in before] == [5, 6, 7]
    assert steps(rolled_back / "signals.before-rollback-1.jsonl") == [5, 6, 7]
    after = lines(rolled_back / "metrics.jsonl")
    assert after[4]["d_loss"] != before[0]["d_loss"]
    events = lines(rolled_back / "events.jsonl")
    assert [(e["step"], e["event"], e["attempt"]) for e in events] == [
        (7, "collapse", 0),
        (7, "rollback", 0),
    ]
    assert events[0]["rule"] == "test"
    assert events[1]["to"] == 4
    assert events[1]["changes"] == {"optimizer.g_lr": 2.5e-5}
    kept = {path.name for path in (rolled_back / "checkpoints").iterdir()}
    assert "pre-collapse-step-00000004.safetensors" in kept
    assert {path.name for path in (rolled_back / "previews" / "before-rollback-1").iterdir()} == {
        "step-00000006.png"
    }


def test_the_model_card_tells_what_happened(rolled_back, images, tmp_path):
    told = biggan.load(rolled_back).description.training
    assert told["attempt"] == 1
    assert [event["event"] for event in told["events"]] == ["collapse", "rollback"]
    run(recipe(), images, tmp_path / "calm", should_stop=lambda: True)
    assert "events" not in biggan.load(tmp_path / "calm").description.training


def test_the_checkpoint_from_before_can_be_gone_on_from(rolled_back, images, tmp_path):
    kept = rolled_back / "checkpoints" / "pre-collapse-step-00000004.safetensors"
    folder = tmp_path / "elsewhere" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "step-00000004.safetensors").write_bytes(kept.read_bytes())
    assert CheckpointDirectory(folder).read(4).attempt.number == 0
    assert run(recipe(total_steps=5), images, tmp_path / "elsewhere").step == 5


class Killed(BaseException):
    pass


def killer(real, call, moment):
    """A function that works, until a kill comes before or after one of its calls."""
    calls = []

    def kill(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call and moment == "before":
            raise Killed
        result = real(*arguments, **options)
        if len(calls) == call:
            raise Killed
        return result

    return kill


@pytest.mark.usefixtures("_collapsing")
@pytest.mark.parametrize(
    ("where", "what", "call"),
    [
        (RunLog, "keep_beyond", 1),
        (survival, "_set_aside", 2),
        (CheckpointDirectory, "delete_beyond", 1),
        (CheckpointDirectory, "save", 4),  # the rollback's own
        (RunLog, "go_back", 1),
        (run_export, "save_generator", 4),
        (CheckpointDirectory, "save", 5),  # the first after it
    ],
)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_kills_around_a_rollback_change_no_bit(
    rolled_back, images, tmp_path, monkeypatch, where, what, call, moment
):
    with monkeypatch.context() as killing:
        killing.setattr(where, what, killer(getattr(where, what), call, moment))
        with pytest.raises(Killed):
            run(recipe(), images, tmp_path / "killed")
    assert run(recipe(), images, tmp_path / "killed").step == 8
    assert_same(tmp_path / "killed", rolled_back)


@pytest.mark.usefixtures("_collapsing")
@pytest.mark.parametrize("stop_at", [3, 5, 8])
def test_stops_around_a_rollback_change_no_bit(rolled_back, images, tmp_path, stop_at):
    count = iter(range(1, 100))
    run(recipe(), images, tmp_path / "run", should_stop=lambda: next(count) == stop_at)
    run(recipe(), images, tmp_path / "run")
    assert_same(tmp_path / "run", rolled_back)


def test_without_a_checkpoint_from_before_it_starts_over(images, tmp_path, monkeypatch):
    collapse_at(monkeypatch, step=3, onset=1)
    state = run(recipe(), images, tmp_path)
    assert (state.step, state.attempt.number) == (8, 1)
    assert lines(tmp_path / "events.jsonl")[1]["to"] == 0
    assert steps(tmp_path / "signals.before-rollback-1.jsonl") == [1, 2, 3]
    start = tmp_path / "checkpoints" / "pre-collapse-step-00000000.safetensors"
    created = loop.TrainState.create(recipe(), CPU).tensors()
    kept = load_file(start)
    assert kept.keys() == created.keys()
    assert all(torch.equal(kept[name], value) for name, value in created.items())


def test_a_rollback_to_the_start_needs_no_source_of_fine_tuning(images, tmp_path, monkeypatch):
    source, folder = tmp_path / "source", tmp_path / "run"
    run(recipe(total_steps=1), images, source)
    tuning = {"generator": str(source), "discriminator": str(source)}
    values = {**RECIPE, "fine_tuning": tuning, "optimizer": {"g_lr": 1e30, "d_lr": 1e30}}
    values["collapse"] = {"action": "rollback", "g_lr": 1e-34, "d_lr": 1e-34}
    config = fitted_to_source(TrainConfig.from_dict(values)).fitted(2)
    created = loop.TrainState.create(config, CPU, images.class_names)
    with monkeypatch.context() as killing:
        killing.setattr(loop, "RunLog", killer(loop.RunLog, 1, "before"))
        with pytest.raises(Killed):
            run(config, images, folder)
    shutil.rmtree(source)
    state = run(config, images, folder)
    assert (state.step, state.attempt.number) == (8, 1)
    assert [event["to"] for event in lines(folder / "events.jsonl") if "to" in event] == [0]
    start = load_file(folder / "checkpoints" / "pre-collapse-step-00000000.safetensors")
    assert start.keys() == created.tensors().keys()
    assert all(torch.equal(start[name], value) for name, value in created.tensors().items())
    assert biggan.load(folder).description.training["fine_tuning"] == created.sources


def test_too_many_rollbacks_stop_the_run(images, tmp_path, monkeypatch):
    collapse_at(monkeypatch, step=7, onset=5, times=9)
    config = recipe(collapse={"action": "rollback", "rollbacks": 2, "g_lr": 0.5, "d_lr": 0.1})
    with pytest.raises(InputError, match="collapsed after 2 rollbacks: It was told to; .* step 4"):
        run(config, images, tmp_path)
    events = lines(tmp_path / "events.jsonl")
    assert [event["event"] for event in events] == ["collapse", "rollback"] * 2 + [
        "collapse",
        "stop",
    ]
    rates = {"optimizer.g_lr": pytest.approx(1.25e-5), "optimizer.d_lr": pytest.approx(2e-6)}
    assert events[3]["changes"] == rates
    assert CheckpointDirectory(tmp_path / "checkpoints").read_newest_header().step == 4


def test_stopping_leaves_the_state_from_before(images, tmp_path, monkeypatch):
    collapse_at(monkeypatch, step=7, onset=5, times=9)
    with pytest.raises(InputError, match="collapse.action=rollback"):
        run(recipe(collapse={"action": "stop"}), images, tmp_path)
    assert biggan.load(tmp_path).description.training["step"] == 4
    monkeypatch.undo()
    monkeypatch.setattr(run_export, "HUB_GRID", run_export.COARSE_GRID)
    assert run(recipe(collapse={"action": "report"}), images, tmp_path).step == 8
    assert lines(tmp_path / "events.jsonl") == []  # of the steps that were gone back over


def test_stopping_says_if_there_is_nothing_from_before(images, tmp_path, monkeypatch):
    collapse_at(monkeypatch, step=3, onset=1, times=9)
    config = recipe(collapse={"action": "rollback", "rollbacks": 1})
    monkeypatch.setattr(CheckpointDirectory, "keep_before_collapse", lambda *_: None)
    monkeypatch.setattr(CheckpointDirectory, "last_until", lambda *_: None)
    with pytest.raises(
        InputError, match="after 1 rollback: .*; there is no checkpoint from before"
    ):
        run(config, images, tmp_path)


def test_reporting_says_it_once_and_goes_on(images, tmp_path, monkeypatch):
    found = Collapse("test", "It was told to.", onset=3)
    monkeypatch.setattr(
        survival, "find_collapse", lambda lines, _: found if len(lines) > 4 else None
    )
    config = recipe(collapse={"action": "report"})
    count = iter(range(1, 100))
    run(config, images, tmp_path, should_stop=lambda: next(count) == 6)
    run(config, images, tmp_path)
    assert [(e["step"], e["event"]) for e in lines(tmp_path / "events.jsonl")] == [(5, "collapse")]
    assert (tmp_path / "checkpoints" / "pre-collapse-step-00000002.safetensors").exists()


def test_a_collapse_at_a_checkpoint_is_answered_once(images, tmp_path, monkeypatch):
    answered, real_respond = [], survival.Survival.respond

    def respond(self, collapse, state):
        answered.append(state.step)
        return real_respond(self, collapse, state)

    monkeypatch.setattr(survival.Survival, "respond", respond)
    collapse_at(monkeypatch, step=4, onset=3)
    run(recipe(total_steps=4, collapse={"action": "report"}), images, tmp_path)
    assert answered == [4]


def test_losses_that_are_no_numbers_roll_back_too(images, tmp_path):
    config = recipe(
        optimizer={"g_lr": 1e30, "d_lr": 1e30},
        collapse={"action": "rollback", "g_lr": 1e-34, "d_lr": 1e-34},
    )
    state = run(config, images, tmp_path)
    assert (state.step, state.attempt.number) == (8, 1)
    assert lines(tmp_path / "events.jsonl")[0]["rule"] == "not finite"


def test_what_is_done_about_a_collapse_may_change_when_a_run_goes_on():
    assert differing_keys(recipe(), recipe(collapse={"action": "stop", "d_lr": 0.1})) == []
    assert differing_keys(recipe(), recipe(watch={"every": 7})) == []
    (differing,) = differing_keys(recipe(), recipe(watch={"every": 1, "held_out": 0.1}))
    assert differing == "watch.held_out: 0.0 -> 0.1"


def test_there_is_always_a_checkpoint_from_far_enough_back(images, tmp_path):
    config = recipe(watch={"every": 20}, checkpoint_every=50)
    assert rollback_reach(config) == 200
    state = loop.TrainState.create(config, CPU)
    directory = CheckpointDirectory(tmp_path, config.checkpoint_every, rollback_reach(config))
    for step in (*range(50, 1001, 50), 1013):  # the last of a run that was stopped
        state.step = step
        directory.save(state, config, "")
        if step >= 250:
            assert step - 400 < directory.last_until(step - 200) <= step - 200
        assert len(list(tmp_path.iterdir())) <= 5
    kept = sorted(int(path.stem[5:]) for path in tmp_path.iterdir())
    assert kept == [800, 950, 1000, 1013]
    assert directory.last_until(1013) == 1000


@pytest.mark.parametrize("every", [60, 150, 190, 250])
def test_a_reach_of_no_whole_number_of_checkpoints_is_kept_too(images, tmp_path, every):
    config = recipe(watch={"every": 20}, checkpoint_every=every)
    state = loop.TrainState.create(config, CPU)
    directory = CheckpointDirectory(tmp_path, every, rollback_reach(config))
    for step in range(0, 2001, every):  # from the start, as a run that is fine-tuned
        state.step = step
        directory.save(state, config, "")
        assert len(list(tmp_path.iterdir())) <= 5
        for later in (step, step + every - 1):  # until the next one
            earliest = later - rollback_reach(config)
            assert earliest < 0 or directory.last_until(earliest) > earliest - 400


def test_held_out_images_are_never_trained_on(tmp_path, monkeypatch):
    marked = noise_images()
    marked = dataclasses.replace(marked, images=marked.images.clone())
    config = recipe(watch={"every": 2, "held_out": 0.25})
    _, held_out = split_data(config, marked)
    assert len(held_out) == 8
    marked.images[:] = 10
    marked.images[torch.from_numpy(held_out)] = 250
    seen = []
    real_step = loop.discriminator_step

    def look(state, real, *arguments):
        seen.append(real[0])
        return real_step(state, real, *arguments)

    monkeypatch.setattr(loop, "discriminator_step", look)
    collapse_at(monkeypatch, step=6, onset=5)  # nor in the next attempt
    state = run(config, marked, tmp_path)
    assert state.attempt.number == 1
    assert torch.cat(seen).max() < 0
    line = lines(tmp_path / "signals.jsonl")[0]
    assert list(line["logits"]) == list(line["accuracy"]) == ["real", "fake", "trained", "held_out"]
    told = biggan.load(tmp_path).description.training
    assert (told["images"], told["held_out_images"]) == (24, 8)


@pytest.mark.parametrize("part", [0.001, 0.99])
def test_a_part_that_leaves_nothing_is_refused(images, tmp_path, part):
    with pytest.raises(InputError, match="leaves some on both sides"):
        run(recipe(watch={"held_out": part}), images, tmp_path)


def test_a_stream_has_nothing_to_hold_out():
    with pytest.raises(InputError, match="watch.held_out needs images in memory"):
        recipe(stream=True, watch={"held_out": 0.1})


def train_together(folder):
    """In each of several processes: a rollback, from losses that are no numbers."""
    run_export.HUB_GRID = run_export.COARSE_GRID
    torch.use_deterministic_algorithms(True)
    config = recipe(
        total_steps=4,
        optimizer={"g_lr": 1e30, "d_lr": 1e30},
        collapse={"action": "rollback", "g_lr": 1e-34, "d_lr": 1e-34},
    )
    state = run(config, noise_images(), folder)
    return state.step, state.attempt.number


def test_several_processes_watch_and_roll_back_together(tmp_path):
    assert launch(train_together, 2, tmp_path / "two") == [(4, 1), (4, 1)]
    assert train_together(tmp_path / "one") == (4, 1)
    torch.use_deterministic_algorithms(False)
    for name in ("events.jsonl", "signals.jsonl"):
        assert steps(tmp_path / "two" / name) == steps(tmp_path / "one" / name)
    ours, theirs = (lines(tmp_path / name / "signals.jsonl")[0] for name in ("one", "two"))
    for kind in ("real", "fake"):
        assert theirs["logits"][kind] == pytest.approx(ours["logits"][kind], rel=1e-3, abs=1e-4)
    assert theirs["diversity"] == pytest.approx(ours["diversity"], rel=1e-3)


@pytest.fixture
def evaluated(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    extractor = SimpleFeatures()
    monkeypatch.setattr("biggan.evaluation.features.open_extractor", lambda *_, **__: extractor)
    evaluation = {"every": 2, "num": 10, "metrics": "fid", "extractor": "simple"}
    return recipe(evaluation=evaluation)


def test_evaluations_call_a_collapse_too_and_are_made_anew(
    evaluated, images, tmp_path, monkeypatch
):
    def judge(scores):
        found = Collapse("distance", "It was told to.", onset=4)
        return (
            found if len(scores) == 3 and not (tmp_path / "run" / "events.jsonl").exists() else None
        )

    monkeypatch.setattr(survival, "scores_collapsed", judge)
    state = run(evaluated, images, tmp_path / "run")
    assert (state.step, state.attempt.number) == (8, 1)
    names = {str(path.relative_to(tmp_path / "run")) for path in tmp_path.rglob("step-*.json")}
    assert names == {
        *(f"evaluations/step-{step:08d}.json" for step in (2, 4, 6, 8)),
        "evaluations/before-rollback-1/step-00000006.json",
    }


def test_evaluations_roll_back_to_before_the_first_that_is_bad(
    evaluated, images, tmp_path, monkeypatch
):
    config = dataclasses.replace(evaluated, watch=WatchConfig(every=0))
    scores = [(2, 10.0), (4, 30.0), (6, 31.0)]

    def distances(self, step):
        gone_back = (tmp_path / "events.jsonl").exists()
        return [] if gone_back else [score for score in scores if score[0] <= step]

    monkeypatch.setattr(scheduled_evaluation.ScheduledEvaluation, "distances", distances)
    assert run(config, images, tmp_path).attempt.number == 1
    collapse, rollback = lines(tmp_path / "events.jsonl")
    assert (collapse["step"], collapse["rule"], rollback["to"]) == (6, "distance", 2)


def test_a_run_that_an_evaluation_stopped_rolls_back_when_it_goes_on(
    evaluated, images, tmp_path, monkeypatch
):
    """Its evaluations are there already, and are judged all the same."""

    def judge(scores):
        return Collapse("distance", "It was told to.", onset=4) if len(scores) == 3 else None

    with monkeypatch.context() as collapsing:
        collapsing.setattr(survival, "scores_collapsed", judge)
        stopping = dataclasses.replace(evaluated, collapse=CollapseConfig(action="stop"))
        with pytest.raises(InputError, match="collapse.action=rollback"):
            run(stopping, images, tmp_path)
        judged = dataclasses.replace(evaluated, total_steps=6)
        collapsing.setattr(survival, "scores_collapsed", lambda s: judge(s) if once else None)
        once = [True]
        real_roll_back = survival.Survival._roll_back

        def roll_back(*arguments):
            once.clear()
            real_roll_back(*arguments)

        collapsing.setattr(survival.Survival, "_roll_back", roll_back)
        assert run(judged, images, tmp_path).attempt.number == 1


@pytest.mark.parametrize(
    ("where", "what", "call"),
    [
        (scheduled_evaluation, "write_atomically", 3),  # the figures that tell
        (RunLog, "write", 9),  # 6 steps and 3 evaluations: of the third
        (CheckpointDirectory, "keep_before_collapse", 1),
        (EventsLog, "write", 1),
        (EventsLog, "write", 2),
        (survival, "_set_aside", 1),
        (survival, "_set_aside", 2),
        (CheckpointDirectory, "delete_beyond", 1),
    ],
)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_kills_after_an_evaluation_that_calls_a_collapse_change_no_bit(
    evaluated, images, tmp_path, monkeypatch, where, what, call, moment
):
    def judge(scores):
        assert len(dict(scores)) == len(scores)
        found = Collapse("distance", "It was told to.", onset=4)
        return found if len(scores) == 3 and attempts[-1] == 0 else None

    attempts, real_save = [0], CheckpointDirectory.save

    def save(self, state, *arguments):
        attempts.append(state.attempt.number)
        return real_save(self, state, *arguments)

    monkeypatch.setattr(CheckpointDirectory, "save", save)
    monkeypatch.setattr(survival, "find_collapse", lambda *_: None)
    monkeypatch.setattr(survival, "scores_collapsed", judge)
    run(evaluated, images, tmp_path / "whole")
    attempts.append(0)
    with monkeypatch.context() as killing:
        killing.setattr(where, what, killer(getattr(where, what), call, moment))
        with pytest.raises(Killed):
            run(evaluated, images, tmp_path / "killed")
    assert run(evaluated, images, tmp_path / "killed").attempt.number == 1
    assert_same(tmp_path / "killed", tmp_path / "whole")
    aside = "evaluations/before-rollback-1/step-00000006.json"
    assert (tmp_path / "killed" / aside).exists()


def test_the_best_of_all_attempts_is_kept(evaluated, images, tmp_path):
    run(evaluated, images, tmp_path / "other")
    better = json.loads((tmp_path / "other" / "evaluations" / "step-00000002.json").read_text())
    better["rows"][0]["scores"]["frechet_distance"] = -1.0
    aside = tmp_path / "run" / "evaluations" / "before-rollback-1"
    aside.mkdir(parents=True)
    (aside / "step-00000003.json").write_text(json.dumps(better))
    run(evaluated, images, tmp_path / "run", should_stop=lambda: True)
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert run(evaluated, images, tmp_path / "run").step == 8
    assert not (tmp_path / "run" / "best.safetensors").exists()
