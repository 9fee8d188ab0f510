"""Runs that are watched, collapse, roll back and are stopped in between: the same to the bit."""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import biggan
from biggan.errors import InputError
from biggan.fine_tuning import fitted_to_source
from biggan.supervision.collapse import Collapse, Rules
from biggan.supervision.supervisor import Supervisor
from biggan.training import TrainConfig
from biggan.training.checkpoint import CheckpointDirectory, rollback_reach
from biggan.training.config import differing_keys
from biggan.training.run import Run
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step
from runs import (
    CPU,
    IMAGES,
    SMALL,
    assert_same_run,
    assert_same_tensors,
    final_tensors,
    lines,
    recipe,
    run,
    short_exports,
    steps,
    until,
)
from several_processes import launch

LOGS = ("signals.jsonl", "signals.before-rollback-1.jsonl", "events.jsonl")
ROLLBACK = {"action": "rollback", "g_lr": 0.5}
EVALUATION = {"every": 2, "num": 10, "metrics": "fid", "extractor": "simple"}


Signals = Sequence[Mapping[str, Any]]


def rules_at(step: int, onset: int, attempt: Signals = ()) -> Rules:
    """One rule: it holds at a step, of every attempt or of the one with these signals."""

    def rule(lines: Signals) -> Collapse | None:
        holds = lines[-1] == attempt[step - 1] if attempt else lines[-1]["step"] == step
        return Collapse("test", "It was told to.", onset, {"x": 1.0}) if holds else None

    return Rules(signals=(rule,))


@pytest.fixture(scope="module")
def first_attempt(tmp_path_factory: pytest.TempPathFactory) -> Signals:
    """The signals of a run that no rule stops: after a rollback they are others."""
    folder = tmp_path_factory.mktemp("calm")
    run(recipe(), folder, rules=Rules(signals=()))
    return lines(folder / "signals.jsonl")


@pytest.fixture(scope="module")
def rolled_back(first_attempt: Signals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run that rolled back on its way; nothing was interrupted."""
    folder = tmp_path_factory.mktemp("rolled") / "whole"
    run(recipe(collapse=ROLLBACK), folder, rules=rules_at(7, 5, first_attempt))
    return folder


def test_watching_changes_no_bit(tmp_path: Path) -> None:
    for every in (0, 2):
        run(recipe(watch={"every": every}), tmp_path / str(every))
    unseen, seen = (final_tensors(tmp_path / name) for name in ("0", "2"))
    assert not (tmp_path / "0" / "signals.jsonl").exists()
    assert steps(tmp_path / "2" / "signals.jsonl") == [2, 4, 6, 8]
    assert all(name.startswith("singular_values.") for name in seen.keys() - unseen.keys())
    assert_same_tensors({name: seen[name] for name in unseen}, unseen)


def test_a_line_of_signals(first_attempt: Signals) -> None:
    line = first_attempt[0]
    norms = ["singular_values", "frobenius_norms", "gradient_norms"]
    assert list(line) == ["step", *norms, "logits", "accuracy", "batch_norm", "diversity"]
    assert list(line["logits"]) == ["real", "fake"]
    weights = line["singular_values"]
    assert len(weights["generator"]["blocks.0.conv1"]) == 3
    assert len(weights["discriminator"]["head.linear"]) == 1
    assert len(weights["generator"]["class_embedding.table"]) == 2


def test_a_run_goes_on_from_damaged_logs(tmp_path: Path) -> None:
    run(recipe(total_steps=4), tmp_path)
    damage = {
        "signals": b'{"step": 2, "logits": {"real": 0}}\n{"step": 3}\n\xff\x00\n{"step": 4, "div',
        "metrics": b'\xe2\x82\n{"step": Infinity}\n{"step": 3, "d_lo',
        "events": b'{"step": "x", "event": 3}\n{"step": 2}\n\xff\n{"step": 1, "event": "other"}\n',
    }
    deep = b'{"step": 1, "event": "deep", "attempt": 0, "a": ' + b"[" * 900 + b"]" * 900 + b"}\n"
    for name, text in damage.items():
        with (tmp_path / f"{name}.jsonl").open("ab") as file:
            file.write(b"[" * 20_000 + b"\n" + deep + text)
    assert run(recipe(), tmp_path).step == 8
    assert [event["event"] for event in lines(tmp_path / "events.jsonl")] == ["other"]
    assert steps(tmp_path / "metrics.jsonl") == list(range(1, 9))


def test_a_rollback_goes_on_from_before_the_collapse_with_other_numbers(rolled_back: Path) -> None:
    for log in ("signals", "metrics"):
        assert steps(rolled_back / f"{log}.jsonl") == list(range(1, 9))
        assert steps(rolled_back / f"{log}.before-rollback-1.jsonl") == [5, 6, 7]
    before = lines(rolled_back / "metrics.before-rollback-1.jsonl")
    assert lines(rolled_back / "metrics.jsonl")[4]["d_loss"] != before[0]["d_loss"]
    collapse, rollback = lines(rolled_back / "events.jsonl")
    assert (collapse["step"], collapse["event"], collapse["rule"]) == (7, "collapse", "test")
    assert (rollback["step"], rollback["event"], rollback["to"]) == (7, "rollback", 4)
    assert rollback["changes"] == {"optimizer.g_lr": 2.5e-5}
    kept = {path.name for path in (rolled_back / "checkpoints").iterdir()}
    assert "pre-collapse-step-00000004.safetensors" in kept
    for name in ("generators/before-rollback-1", "previews/before-rollback-1"):
        assert [path.stem for path in (rolled_back / name).iterdir()] == ["step-00000006"]
    card: Any = biggan.load(rolled_back).description.training
    assert card["attempt"] == 1
    assert [event["event"] for event in card["events"]] == ["collapse", "rollback"]


def test_the_checkpoint_from_before_can_be_gone_on_from(rolled_back: Path, tmp_path: Path) -> None:
    kept = rolled_back / "checkpoints" / "pre-collapse-step-00000004.safetensors"
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    shutil.copyfile(kept, folder / "step-00000004.safetensors")
    assert CheckpointDirectory(folder).read(4).attempt.number == 0
    assert run(recipe(total_steps=5), tmp_path).step == 5


def test_stops_around_a_rollback_change_no_bit(
    rolled_back: Path, first_attempt: Signals, tmp_path: Path
) -> None:
    config, rules = recipe(collapse=ROLLBACK), rules_at(7, 5, first_attempt)
    for more in (3, 2, 3):  # at steps 3 and 5, and at step 5 of the second attempt
        run(config, tmp_path, rules=rules, should_stop=until(more))
    run(config, tmp_path, rules=rules)
    assert_same_run(tmp_path, rolled_back, *LOGS)


def test_without_a_checkpoint_from_before_it_starts_over(
    first_attempt: Signals, tmp_path: Path
) -> None:
    state = run(recipe(collapse=ROLLBACK), tmp_path, rules=rules_at(3, 1, first_attempt))
    assert (state.step, state.attempt.number) == (8, 1)
    assert lines(tmp_path / "events.jsonl")[1]["to"] == 0
    assert steps(tmp_path / "signals.before-rollback-1.jsonl") == [1, 2, 3]
    start = load_file(tmp_path / "checkpoints" / "pre-collapse-step-00000000.safetensors")
    assert_same_tensors(start, TrainState.create(recipe(), CPU).tensors())


def test_a_rollback_to_the_start_needs_no_source_of_fine_tuning(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "run"
    run(recipe(total_steps=1), source)
    tuning = {"generator": str(source), "discriminator": str(source)}
    values = {**SMALL, "fine_tuning": tuning, "optimizer": {"g_lr": 1e30, "d_lr": 1e30}}
    values["collapse"] = {"action": "rollback", "g_lr": 1e-34, "d_lr": 1e-34}
    config = fitted_to_source(TrainConfig.from_dict(values)).fitted(2)
    created = TrainState.create(config, CPU, IMAGES.class_names)
    folder.mkdir()
    Run(config, IMAGES, folder, CPU).open()
    shutil.rmtree(source)
    state = run(config, folder)
    assert (state.step, state.attempt.number) == (8, 1)
    assert [event["to"] for event in lines(folder / "events.jsonl") if "to" in event] == [0]
    start = load_file(folder / "checkpoints" / "pre-collapse-step-00000000.safetensors")
    assert_same_tensors(start, created.tensors())
    assert biggan.load(folder).description.training["fine_tuning"] == created.sources


def test_too_many_rollbacks_stop_the_run(tmp_path: Path) -> None:
    config = recipe(collapse={"action": "rollback", "rollbacks": 2, "g_lr": 0.5, "d_lr": 0.1})
    with pytest.raises(InputError, match="collapsed after 2 rollbacks: It was told to; .* step 4"):
        run(config, tmp_path, rules=rules_at(7, 5))
    events = lines(tmp_path / "events.jsonl")
    kinds = ["collapse", "rollback", "collapse", "rollback", "collapse", "stop"]
    assert [event["event"] for event in events] == kinds
    rates = {"optimizer.g_lr": pytest.approx(1.25e-5), "optimizer.d_lr": pytest.approx(2e-6)}
    assert events[3]["changes"] == rates
    header = CheckpointDirectory(tmp_path / "checkpoints").read_newest(header_only=True)
    assert header is not None
    assert header.step == 4


def test_stopping_leaves_the_state_from_before(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="collapse.action=rollback"):
        run(recipe(collapse={"action": "stop"}), tmp_path, rules=rules_at(7, 5))
    assert biggan.load(tmp_path).description.training["step"] == 4
    assert run(recipe(collapse={"action": "report"}), tmp_path).step == 8
    assert lines(tmp_path / "events.jsonl") == []  # of the steps that were gone back over
    with pytest.raises(InputError, match="collapsed: .*; there is no earlier checkpoint"):
        run(recipe(collapse={"action": "stop"}), tmp_path / "1", rules=rules_at(1, -1))


def test_reporting_says_it_once_and_goes_on(tmp_path: Path) -> None:
    def rule(lines: Signals) -> Collapse | None:
        return Collapse("test", "It was told to.", onset=3) if len(lines) > 4 else None

    rules = Rules(signals=(rule,))
    run(recipe(), tmp_path, rules=rules, should_stop=until(6))
    run(recipe(), tmp_path, rules=rules)
    assert [(e["step"], e["event"]) for e in lines(tmp_path / "events.jsonl")] == [(5, "collapse")]
    assert (tmp_path / "checkpoints" / "pre-collapse-step-00000002.safetensors").exists()


@pytest.mark.parametrize(
    ("network", "name"), [("generator", "linear.weight"), ("ema", "head.bn.running_mean")]
)
def test_an_update_to_nothing_finite_is_not_saved(tmp_path: Path, network: str, name: str) -> None:
    """The losses of the step are still good: only the tensors tell."""
    config = recipe(log_every=100)
    supervised = Run(config, IMAGES, tmp_path, CPU)
    state = supervised.open()
    with closing(Supervisor(supervised, state)) as supervisor:
        supervisor.before_step(state)
        real = torch.rand(8, 3, 8, 8), torch.arange(8) % 2
        metrics = discriminator_step(state, real, config) | generator_step(state, config)
        getattr(state, network).state_dict()[name][0] = float("inf")
        state.step = 4
        with pytest.raises(InputError, match=rf"diverged: {network}.{name} .* at step 4"):
            supervisor.after_step(state, metrics, stopping=False)
    assert not (tmp_path / "checkpoints").exists()


def test_what_is_done_about_a_collapse_may_change_when_a_run_goes_on() -> None:
    old = recipe(collapse=ROLLBACK)
    assert differing_keys(old, recipe(collapse={"action": "stop", "d_lr": 0.1})) == []
    assert differing_keys(old, recipe(watch={"every": 7})) == []
    (differing,) = differing_keys(old, recipe(watch={"every": 1, "held_out": 0.1}))
    assert differing == "watch.held_out: 0.0 -> 0.1"


def test_the_checkpoints_that_are_kept(tmp_path: Path) -> None:
    config = recipe(watch={"every": 20}, checkpoint_every=50)
    assert rollback_reach(config) == 200
    state = TrainState.create(config, CPU)
    directory = CheckpointDirectory(tmp_path, config.checkpoint_every, rollback_reach(config))
    for step in (*range(50, 1001, 50), 1013):  # the last of a run that was stopped
        state.step = step
        directory.save(state, config, "")
    assert sorted(int(path.stem[5:]) for path in tmp_path.iterdir()) == [800, 950, 1000, 1013]
    assert directory.last_until(1013) == 1000


@pytest.mark.parametrize("every", [50, 60, 150, 190, 250])
def test_there_is_always_a_checkpoint_from_far_enough_back(tmp_path: Path, every: int) -> None:
    config = recipe(watch={"every": 20}, checkpoint_every=every)
    state = TrainState.create(config, CPU)
    directory = CheckpointDirectory(tmp_path, every, rollback_reach(config))
    for step in range(0, 2001, every):  # from the start, as a run that is fine-tuned
        state.step = step
        directory.save(state, config, "")
        assert len(list(tmp_path.iterdir())) <= 5
        for later in (step, step + every - 1):  # until the next one
            earliest = later - rollback_reach(config)
            newest = directory.last_until(earliest)
            assert earliest < 0 or (newest is not None and newest > earliest - 400)


def test_held_out_images_are_never_trained_on(tmp_path: Path) -> None:
    """Whatever they hold, the weights are the same, also after a rollback."""
    config = recipe(
        watch={"every": 2, "held_out": 0.25}, collapse={"action": "rollback", "rollbacks": 1}
    )
    held_out = Run(config, IMAGES, tmp_path, CPU).held_out
    assert len(held_out) == 8
    for value in (10, 250):
        pixels = IMAGES.images.clone()
        pixels[torch.from_numpy(held_out)] = value
        changed = dataclasses.replace(IMAGES, images=pixels)
        with pytest.raises(InputError, match="after 1 rollback"):
            run(config, tmp_path / str(value), changed, rules=rules_at(6, 5))
    assert_same_run(tmp_path / "10", tmp_path / "250")
    dark, bright = (lines(tmp_path / name / "signals.jsonl")[0] for name in ("10", "250"))
    kinds = ["real", "fake", "trained", "held_out"]
    assert list(dark["logits"]) == list(dark["accuracy"]) == kinds
    assert dark["logits"]["trained"] == bright["logits"]["trained"]
    assert dark["logits"]["held_out"] != bright["logits"]["held_out"]
    card: Any = biggan.load(tmp_path / "10").description.training
    assert (card["images"], card["held_out_images"]) == (24, 8)
    for part in (0.001, 0.99):
        with pytest.raises(InputError, match="leaves images for both"):
            run(recipe(watch={"held_out": part}), tmp_path / "none")
    with pytest.raises(InputError, match="watch.held_out needs images in memory"):
        recipe(stream=True, watch={"held_out": 0.1})


def train_together(folder: Path) -> tuple[int, int]:
    """In each of several processes: a rollback, from losses that are no numbers."""
    torch.use_deterministic_algorithms(True)
    config = recipe(
        total_steps=4,
        optimizer={"g_lr": 1e30, "d_lr": 1e30},
        collapse={"action": "rollback", "g_lr": 1e-34, "d_lr": 1e-34},
    )
    with short_exports():
        state = run(config, folder)
    return state.step, state.attempt.number


def test_several_processes_watch_and_roll_back_together(tmp_path: Path) -> None:
    assert launch(train_together, 2, tmp_path / "two") == [(4, 1), (4, 1)]
    assert train_together(tmp_path / "one") == (4, 1)
    assert lines(tmp_path / "one" / "events.jsonl")[0]["rule"] == "not finite"
    torch.use_deterministic_algorithms(False)
    for name in ("events.jsonl", "signals.jsonl"):
        assert steps(tmp_path / "two" / name) == steps(tmp_path / "one" / name)
    ours, theirs = (lines(tmp_path / name / "signals.jsonl")[0] for name in ("one", "two"))
    for kind in ("real", "fake"):
        assert theirs["logits"][kind] == pytest.approx(ours["logits"][kind], rel=1e-3, abs=1e-4)
    assert theirs["diversity"] == pytest.approx(ours["diversity"], rel=1e-3)


def worse_at(step: int, folder: Path) -> Rules:
    """The rule for distances holds at a step, as long as the run was not rolled back."""

    def rule(scores: Sequence[tuple[int, float]]) -> Collapse | None:
        assert len(dict(scores)) == len(scores)
        kinds = [event["event"] for event in lines(folder / "events.jsonl")]
        holds = scores[-1][0] == step and "rollback" not in kinds
        return Collapse("distance", "It was told to.", onset=4) if holds else None

    return Rules(signals=(), scores=rule)


@pytest.mark.usefixtures("extractor")
def test_evaluations_find_a_collapse_too_and_are_made_anew(tmp_path: Path) -> None:
    config = recipe(evaluation=EVALUATION, collapse=ROLLBACK)
    folder = tmp_path / "run"
    state = run(config, folder, rules=worse_at(6, folder))
    assert (state.step, state.attempt.number) == (8, 1)
    names = {str(path.relative_to(folder)) for path in folder.rglob("step-*.json")}
    assert names == {
        *(f"evaluations/step-{step:08d}.json" for step in (2, 4, 6, 8)),
        "evaluations/before-rollback-1/step-00000006.json",
    }
    assert lines(folder / "events.jsonl")[1]["to"] == 4


@pytest.mark.usefixtures("extractor")
def test_a_run_that_an_evaluation_stopped_rolls_back_when_it_goes_on(tmp_path: Path) -> None:
    """Its evaluations are there already, and are judged all the same."""
    rules = worse_at(6, tmp_path / "run")
    stopping = recipe(evaluation=EVALUATION, collapse={"action": "stop"})
    with pytest.raises(InputError, match="collapse.action=rollback"):
        run(stopping, tmp_path / "run", rules=rules)
    config = recipe(evaluation=EVALUATION, collapse=ROLLBACK, total_steps=6)
    assert run(config, tmp_path / "run", rules=rules).attempt.number == 1


@pytest.mark.usefixtures("extractor")
def test_the_best_of_all_attempts_is_kept(tmp_path: Path) -> None:
    config = recipe(evaluation=EVALUATION)
    run(config, tmp_path / "other", should_stop=until(2))
    better = json.loads((tmp_path / "other" / "evaluations" / "step-00000002.json").read_text())
    better["rows"][0]["scores"]["frechet_distance"] = -1.0
    aside = tmp_path / "run" / "evaluations" / "before-rollback-1"
    aside.mkdir(parents=True)
    (aside / "step-00000003.json").write_text(json.dumps(better))
    assert run(config, tmp_path / "run").step == 8
    assert not (tmp_path / "run" / "best.safetensors").exists()
