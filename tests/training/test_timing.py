"""How long a run takes: measured rates, and settings that end overnight."""

import pytest
import torch

from biggan.toml import to_toml
from biggan.training import load_recipe
from biggan.training.plan import (
    NIGHT,
    answer,
    differences,
    duration,
    make_plan,
    measure_rate,
    propose,
)
from runs import simulated_once
from tiny import ONE_STAGE


@pytest.fixture
def load(tmp_path):
    """A recipe of one stage, with changes."""
    file = tmp_path / "one_stage.toml"
    wide = {name: {**shape, "channels": 64} for name, shape in ONE_STAGE.items()}
    rest = {"total_steps": 20_000, "batch_size": 64, "d_steps": 1, "checkpoint_every": 500}
    file.write_text(to_toml({"preset": "biggan-32", **rest, **wide}))
    return lambda changes=(): load_recipe(file, changes).fitted(2)


def test_the_rate_is_that_of_real_updates(load):
    rate = measure_rate(load(), torch.device("cpu"))
    assert 1e6 < rate < 1e14


def test_plans_and_measurements_of_one_process_do_not_meet(load, monkeypatch):
    """They share what Winograd's convolution keeps, which is of fake tensors in a plan."""
    monkeypatch.setattr("biggan.nn.convolution._WINOGRAD_CHANNELS", 64)
    monkeypatch.setattr("biggan.nn.convolution._WINOGRAD_POSITIONS", 64)
    config = load(["batch_size=2"])
    flops = [make_plan(config, None)["step_flops"]]
    measure_rate(config, torch.device("cpu"))
    flops.append(make_plan(config, None)["step_flops"])
    assert flops[0] == flops[1] > 0


def test_proposed_settings_end_over_night_and_change_as_little_as_they_can(load):
    with simulated_once():
        step = make_plan(load(), None)["step_flops"]
        fast = propose(load, [], 20_100 * step / NIGHT)
        assert fast == ["total_steps=20000", "checkpoint_every=80"]
        slow = propose(load, ["d_steps=2"], 4_000 * step / NIGHT)
        assert "generator.channels=16" in slow
        plan = make_plan(load(["d_steps=2", *slow]), None)
        assert plan["run_flops"] / (4_000 * step / NIGHT) <= NIGHT
        assert propose(load, [], 10 * step / NIGHT) is None
        assert propose(load, ["total_steps=4000"], 4_100 * step / NIGHT)[0] == "total_steps=4000"


def test_what_proposed_settings_change_is_said_in_words():
    config = load_recipe("small-folder")
    changes = ["preset=biggan-32", "generator.channels=16", "batch_size=16"]
    assert differences(config, load_recipe("small-folder", changes)) == (
        ", at 32 px instead of 64, with 16 channels instead of 32, in batches of 16 instead of 32"
    )
    assert differences(config, load_recipe("small-folder", ["total_steps=10"])) == ""


def test_the_answer_names_hours_preview_memory_and_disk(load):
    config = load()
    plan = make_plan(config, None)
    said = answer(plan, config, plan["step_flops"] / 3.6, torch.device("cpu"))
    assert said.startswith(
        "About 20 hours on this machine (cpu): 20,000 steps of 3.6 seconds.\n"
        "First preview after 30 minutes, at step 500. Memory about "
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.25, "0.25 seconds"), (90, "90 seconds"), (150, "2.5 minutes"), (86400, "24 hours")],
)
def test_a_time_in_words(seconds, words):
    assert duration(seconds) == words
