"""The rules by which a collapse is called: what each needs, and what it lets pass."""

import pytest

from biggan.supervision.collapse import WINDOW, Rules, distance
from biggan.training.checkpoint import rollback_reach
from runs import recipe

STEP = 20
find_collapse = Rules().find


def look(real=0.8, fake=-0.6, std=0.5, diversity=0.5, sigma0=2.0, **changes):
    line = {
        "singular_values": {"generator": {"linear": [sigma0, 1.0]}, "discriminator": {}},
        "frobenius_norms": {"generator": {"linear": 3.0}, "discriminator": {}},
        "gradient_norms": {"generator": 5.0, "discriminator": 20.0},
        "logits": {
            "real": {"mean": real, "std": std, "min": real - 1, "max": real + 1},
            "fake": {"mean": fake, "std": std, "min": fake - 1, "max": fake + 1},
        },
        "accuracy": {"real": 0.9, "fake": 0.8},
        "batch_norm": {},
        "diversity": diversity,
    }
    return {**line, **changes}


def history(*looks):
    return [{"step": STEP * (i + 1), **line} for i, line in enumerate(looks)]


HEALTHY = [look() for _ in range(20)]


def test_a_healthy_run_raises_no_alarm_at_any_step():
    growing = [look(sigma0=1 + 0.05 * i, diversity=0.2 + 0.01 * i) for i in range(40)]
    lines = history(*growing)
    assert all(find_collapse(lines[:end]) is None for end in range(len(lines) + 1))


BAD = {
    "blind": look(real=0.12, fake=0.1),
    "wrong": look(real=-2.0, fake=1.5),
    "uniform": look(diversity=0.1),
}


@pytest.mark.parametrize("rule", BAD)
def test_a_rule_needs_three_looks_running(rule):
    bad = BAD[rule]
    assert find_collapse(history(*HEALTHY, bad, bad)) is None
    assert find_collapse(history(*HEALTHY, bad, bad, look(), bad, bad)) is None
    found = find_collapse(history(*HEALTHY, bad, bad, bad))
    assert found.rule == rule
    assert found.onset == 20 * STEP  # the last healthy look
    assert not found.fatal
    assert f"step {23 * STEP}" in found.reason
    assert found.values


@pytest.mark.parametrize("value", [1e308, -1e308, 10**400, "1", None])
def test_any_figure_in_a_log_is_judged_or_left_out(value):
    odd = [look(std=value), look(diversity=value), look(sigma0=value)]
    assert find_collapse(history(*odd * 5, *HEALTHY)) is None
    find_collapse(history(*HEALTHY, *odd * 5))


def test_the_onset_is_before_the_decline():
    fading = [look(real=x, fake=0.0) for x in (0.4, 0.3, 0.2, 0.05, 0.05, 0.05)]
    assert find_collapse(history(*HEALTHY, *fading)).onset == 20 * STEP


def test_outputs_that_are_close_but_sharp_are_not_blind():
    """As with a strong gradient penalty: D's outputs are small, and still right."""
    sharp = look(real=0.03, fake=-0.03, std=0.01)
    assert find_collapse(history(*HEALTHY, sharp, sharp, sharp)) is None
    dead = look(real=-0.14, fake=-0.141, std=0.0001)
    assert find_collapse(history(*HEALTHY, dead, dead, dead)).rule == "blind"
    assert find_collapse(history(*[BAD["blind"]] * 3)).onset == -1  # no step was good


def test_diversity_is_judged_by_what_was_usual_within_the_window():
    long = history(*[look(diversity=9.0)] * 200, *HEALTHY * 5)
    assert find_collapse(long) is find_collapse(long[-WINDOW:]) is None
    never = [look(diversity=0.01)] * 10
    assert find_collapse(history(*never)) is None
    low = look(diversity=0.13)
    assert find_collapse(history(*HEALTHY, low, low, low)) is None


def test_sigma0_that_explodes_is_called_and_growth_is_not():
    explosion = [look(sigma0=2.0 * 1.3**i) for i in range(9)]
    lines = history(*HEALTHY, *explosion)
    calls = [find_collapse(lines[:end]) for end in range(20, len(lines) + 1)]
    found = next(filter(None, calls))
    assert found.rule == "sigma0"
    assert "linear" in found.reason
    assert found.onset <= 21 * STEP
    assert found.values["growth"] > 2
    jump = history(*HEALTHY, *[look(sigma0=3.9)] * 9)  # less than double, and it stays
    assert all(find_collapse(jump[:end]) is None for end in range(len(jump) + 1))
    spike = [look(), look(sigma0=9.0), look(), look()]
    assert find_collapse(history(*HEALTHY, *spike)) is None


@pytest.mark.parametrize(
    "spoilt",
    [
        {"diversity": float("nan")},
        {"gradient_norms": {"generator": float("inf"), "discriminator": 1.0}},
        {"frobenius_norms": {"generator": {"linear": float("nan")}, "discriminator": {}}},
    ],
)
def test_what_is_not_finite_is_called_at_once(spoilt):
    found = find_collapse(history(*HEALTHY, look(**spoilt)))
    assert (found.rule, found.fatal, found.onset) == ("not finite", True, 20 * STEP)


def test_every_rule_says_what_it_is_and_why():
    assert len(Rules().signals) == 5
    assert all(rule.__doc__.startswith("Rule `") for rule in (*Rules().signals, distance))


@pytest.mark.parametrize(
    ("distances", "called"),
    [
        ([90, 50, 40, 45, 38], False),
        ([90, 50, 40, 95, 39], False),
        ([90, 50, 40, 45, 95], False),
        ([90, 50, 40, 95, 99], True),
        ([40, 95, 99], True),
        ([40, 95], False),
        ([], False),
    ],
)
def test_a_distance_that_doubles_twice_running_is_called(distances, called):
    found = distance([(100 * i, d) for i, d in enumerate(distances)])
    assert (found is not None) == called
    if found:
        assert found.onset == 100 * (len(distances) - 3)
        assert found.values == {"distance": 99, "best": 40}


def test_outputs_are_judged_in_margins():
    close = history(*HEALTHY, *[look(real=0.3, fake=0.05, std=0.6)] * 3)
    assert find_collapse(close) is None
    assert find_collapse(close, margin=3).rule == "blind"
    wrong = history(*HEALTHY, *[look(real=-2.0, fake=1.5)] * 3)
    assert [find_collapse(wrong, margin).rule for margin in (1, 3)] == ["wrong", "blind"]


@pytest.mark.parametrize("rule", BAD)
def test_dense_looks_must_hold_over_as_many_steps(rule):
    looks = [look()] * 20 + [BAD[rule]] * 41
    lines = [{"step": step, **line} for step, line in enumerate(looks)]
    assert find_collapse(lines[:-1]) is None
    assert find_collapse(lines).rule == rule


@pytest.mark.parametrize("every", [1, 2, 4, 5, 20])
@pytest.mark.parametrize("rule", BAD)
def test_a_rollback_reaches_back_before_the_collapse(rule, every):
    looks = [look()] * 18 + [BAD[rule]] * 42
    lines = [{"step": every * (i + 1), **line} for i, line in enumerate(looks)]
    seen = (lines[: end + 1] for end in range(len(lines)))
    step, found = next(
        (line[-1]["step"], find_collapse(line)) for line in seen if find_collapse(line)
    )
    assert found.onset == 18 * every
    assert step - rollback_reach(recipe(watch={"every": every})) <= found.onset
