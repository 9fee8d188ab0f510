"""What changes from a step on: the schedule, whole runs, resuming, and what is refused."""

import dataclasses
import re
import tomllib

import pytest
import torch

from biggan.errors import InputError
from biggan.supervision.log import Event, RunLog
from biggan.supervision.settings import Regime
from biggan.toml import to_toml
from biggan.training import load_recipe
from biggan.training.config import TrainConfig, differing_keys
from runs import SMALL, assert_same_tensors, final_tensors, lines, run, until
from tiny import refusal

BASE = {**SMALL, "d_steps": 2, "checkpoint_every": 3, "watch": {"every": 0}}
CHANGES = [
    {"step": 2, "d_lr": 1e-3, "d_steps": 3},
    {"step": 4, "freeze": "generator", "g_lr": 7e-4},
    {"step": 5, "freeze": "discriminator"},
    {"step": 8, "freeze": "none", "d_steps": 1},
]


def recipe(*interventions, **changes):
    values = {**BASE, "interventions": list(interventions), **changes}
    return TrainConfig.from_dict(values).fitted(2)


def test_regimes_follow_each_other():
    config = recipe(*CHANGES)
    first = Regime(5e-5, 2e-4, 2, "none")
    assert [config.regime_at(step) for step in (0, 1)] == [first, first]
    assert config.regime_at(2) == Regime(5e-5, 1e-3, 3, "none")
    assert config.regime_at(4) == Regime(7e-4, 1e-3, 3, "generator")
    assert config.regime_at(7) == Regime(7e-4, 1e-3, 3, "discriminator")
    assert config.regime_at(1000) == Regime(7e-4, 1e-3, 1, "none")


def test_the_place_in_the_stream_of_real_images():
    """A frozen discriminator is shown one batch a step, to see what it would lose."""
    config = recipe(*CHANGES)
    taken = [2, 2, 3, 3, 3, 1, 1, 1, 1, 1]
    found = [config.real_batches_before(step) for step in range(11)]
    assert found == [sum(taken[:step]) for step in range(11)]
    assert recipe().real_batches_before(7) == 14
    assert [steps for _, steps in config.steps_by_regime(6)] == [2, 2, 1, 1]
    at_once = recipe({"step": 0, "d_steps": 5})
    assert (at_once.regime_at(0).d_steps, at_once.real_batches_before(2)) == (5, 10)


def test_a_recipe_survives_toml():
    config = recipe(*CHANGES)
    text = to_toml(config.to_dict())
    assert text.count("[[interventions]]") == 4
    assert '\n[[interventions]]\nstep = 5\nfreeze = "discriminator"\n' in text
    assert TrainConfig.from_dict(tomllib.loads(text)).fitted(2) == config
    again = load_recipe("digits", ["interventions=[{step = 9, g_lr = 1e-3}]"])
    assert again.to_dict()["interventions"] == [{"step": 9, "g_lr": 1e-3}]


@pytest.mark.parametrize(
    ("interventions", "message"),
    [
        ([{"g_lr": 1e-3}], "an intervention needs a step"),
        ([{"step": 3}], "the intervention at step 3 changes nothing"),
        ([{"step": -1, "g_lr": 1.0}], "step of an intervention must be 0 or above"),
        ([{"step": 1, "lr": 1.0}], "has no key 'lr'; there are step, g_lr, d_lr, d_steps, freeze"),
        ([{"step": 1, "freeze": "both"}], "must be one of none, generator, discriminator, not 'bo"),
        ([{"step": 1, "g_lr": -1.0}], "g_lr of the intervention at step 1 must be above 0"),
        ([{"step": 1, "d_steps": -1}], "d_steps of the intervention at step 1 must be above 0"),
        ([{"step": 1.5, "g_lr": 1.0}], "interventions.step must be a whole number, not 1.5"),
        ([{"step": 1, "g_lr": "x"}], "interventions.g_lr must be a number, not 'x'"),
        ([{"step": 2, "g_lr": 1.0}, {"step": 2, "d_lr": 1.0}], r"order of their steps.*\[2, 2\]"),
        ({"step": 1, "g_lr": 1.0}, r"a list of tables, each \[\[interventions\]\]"),
        ([3], "a list of tables"),
    ],
)
def test_mistakes_are_named(interventions, message):
    with pytest.raises(InputError, match=message):
        TrainConfig.from_dict({**BASE, "interventions": interventions})


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("generator", {"discriminator", "d_optimizer"}),
        ("discriminator", {"generator", "g_optimizer", "ema"}),
    ],
)
def test_a_frozen_network_stays_as_it_is(tmp_path, name, moves):
    run(recipe(total_steps=1), tmp_path / "before")
    run(recipe({"step": 1, "freeze": name}, total_steps=3), tmp_path / "after")
    before, after = (final_tensors(tmp_path / part) for part in ("before", "after"))
    forward_moves = (".u", ".v", "running_mean", "running_var", "num_batches_tracked")
    moved = {
        key.partition(".")[0]
        for key, value in after.items()
        if not torch.equal(value, before[key])
        and (key.startswith("ema.") or not key.endswith(forward_moves))
    }
    assert moved == moves
    metrics = lines(tmp_path / "after" / "metrics.jsonl")
    assert all("d_loss" in line for line in metrics)
    assert ["g_loss" in line for line in metrics] == [True, *2 * [name != "generator"]]


def test_learning_rates_change_and_adam_keeps_its_moments(tmp_path):
    state = run(recipe({"step": 2, "g_lr": 3e-3, "d_lr": 4e-3}, total_steps=3), tmp_path)
    rates = [o.param_groups[0]["lr"] for o in (state.g_optimizer, state.d_optimizer)]
    assert rates == [3e-3, 4e-3]
    steps = {int(moments["step"]) for moments in state.d_optimizer.state.values()}
    assert steps == {6}


def test_stopping_and_resuming_changes_no_bit(tmp_path, whole):
    for more in (2, 1, 2, 3):  # at steps 2, 3, 5 and 8
        run(recipe(*CHANGES, total_steps=9), tmp_path, should_stop=until(more))
    run(recipe(*CHANGES, total_steps=9), tmp_path)
    assert_same_tensors(final_tensors(tmp_path), final_tensors(whole))
    assert lines(tmp_path / "events.jsonl") == lines(whole / "events.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interventions")
    run(recipe(*CHANGES, total_steps=9), folder)
    return folder


def test_every_intervention_is_an_event(whole):
    events = lines(whole / "events.jsonl")
    assert [(e["step"], e["event"], e["changes"]) for e in events] == [
        (c["step"], "intervention", {key: value for key, value in c.items() if key != "step"})
        for c in CHANGES
    ]
    assert events[0]["reason"] == "The recipe asks for d_lr = 0.001, d_steps = 3 from step 2 on."


def test_one_may_be_added_to_a_run_that_has_not_reached_it(tmp_path, whole):
    run(recipe(total_steps=2), tmp_path)
    assert not (tmp_path / "events.jsonl").exists()
    run(recipe(*CHANGES, total_steps=9), tmp_path)
    assert_same_tensors(final_tensors(tmp_path), final_tensors(whole))


def test_one_that_is_past_is_refused(tmp_path):
    run(recipe(total_steps=3), tmp_path)
    with pytest.raises(InputError, match=r"interventions before step 3: \[\] -> \[.*'step': 2"):
        run(recipe(*CHANGES, total_steps=9), tmp_path)


def test_what_is_past_decides_the_result_and_what_is_to_come_may_change():
    old, new = recipe(*CHANGES), recipe(*CHANGES[:2])
    assert differing_keys(old, new, 5) == []
    (difference,) = differing_keys(old, new, 6)
    assert difference.startswith("interventions before step 6: ")
    assert differing_keys(old, dataclasses.replace(old, d_steps=7), 6) == ["d_steps: 2 -> 7"]


def logged(folder, step, attempt=0):
    log = RunLog(folder, step, attempt)
    log.close()
    return log


def test_events_after_the_last_checkpoint_happen_again(tmp_path):
    log = logged(tmp_path, 0)
    log.write_event(Event(3, "intervention", "a"))
    log.write_event(Event(5, "collapse", "b", rule="blind", values={"separation": 0.0}))
    log.write_event(Event(5, "intervention", "c"))
    log.write_event(Event(6, "stop", "d"))
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"step": 1, "even')
    logged(tmp_path, 5)
    assert [event["reason"] for event in lines(tmp_path / "events.jsonl")] == ["a", "b"]


def test_a_rollback_leaves_what_led_to_it(tmp_path):
    logged(tmp_path, 0).write_event(Event(9, "rollback", "a", to=4))
    logged(tmp_path, 4, 1).write_event(Event(7, "collapse", "b", attempt=1))
    log = logged(tmp_path, 6, 1)
    assert [event["reason"] for event in lines(tmp_path / "events.jsonl")] == ["a"]
    (tmp_path / "events.jsonl").unlink()
    (tmp_path / "events.jsonl").mkdir()
    assert re.search("cannot write .*events.jsonl", refusal(log.write_event, Event(1, "stop", "a")))
