"""The rule for spikes, on curves whose spikes are known."""

import math

import numpy as np
import pytest

from biggan.reporting.run import Curve
from biggan.reporting.spikes import Spike, find_spikes, group_spikes


def curve(values):
    return Curve([20 * (i + 1) for i in range(len(values))], [float(v) for v in values])


def noisy(length=200, scale=0.01, seed=0):
    random = np.random.RandomState(seed)
    return np.exp(np.cumsum(random.normal(0.001, scale, length)))


def test_a_spike_is_found_once_with_its_height():
    values = noisy()
    values[120] *= 1.7
    (spike,) = find_spikes(curve(values))
    assert spike.step == 20 * 121
    assert spike.value == values[120]
    assert spike.factor == pytest.approx(values[120] / values[119])


def test_a_rise_over_several_lines_is_one_spike_at_its_top():
    values = noisy()
    values[150:] *= 3
    values[149] *= 1.5
    values[152] *= 1.2
    (spike,) = find_spikes(curve(values))
    assert spike.step == 20 * 153
    assert spike.factor == pytest.approx(values[152] / values[148])


def test_spikes_far_apart_are_two():
    values = noisy()
    values[[60, 140]] *= 1.5
    assert [spike.step for spike in find_spikes(curve(values))] == [20 * 61, 20 * 141]


@pytest.mark.parametrize("scale", [0.0, 0.002, 0.05])
def test_noise_growth_and_falls_are_none(scale):
    for seed in range(10):
        values = noisy(400, scale, seed)
        assert find_spikes(curve(values)) == []
    assert find_spikes(curve(np.linspace(1, 30, 400))) == []
    falls = noisy()
    falls[100:] /= 2
    assert find_spikes(curve(falls)) == []


@pytest.mark.parametrize(("rise", "spikes"), [(1.04, 0), (1.06, 1)])
def test_a_small_rise_of_a_still_curve_is_none(rise, spikes):
    assert len(find_spikes(curve([1.0] * 30 + [rise] * 10))) == spikes


def test_the_beginning_only_serves_to_compare_with():
    values = np.ones(30)
    values[5] = 2.0
    assert find_spikes(curve(values)) == []
    values[20] = 2.0
    assert [spike.step for spike in find_spikes(curve(values))] == [20 * 21]


def test_what_comes_later_does_not_hide_a_spike():
    values = noisy(100)
    values[60] *= 1.3
    alone = find_spikes(curve(values))
    explosion = np.concatenate([values, values[-1] * np.exp(np.arange(100) * 0.5)])
    assert find_spikes(curve(explosion))[0] == alone[0]


def test_values_without_a_logarithm_are_passed_over():
    values = [1.0] * 20 + [0.0, -3.0] + [1.0] * 10 + [5.0]
    (spike,) = find_spikes(curve(values))
    assert spike.value == 5.0
    assert find_spikes(Curve([], [])) == []
    assert find_spikes(curve([1.0] * 20 + [1e-320] * 20 + [1e308]))[-1].factor == math.exp(700)


def test_layers_that_spike_together_are_one_burst():
    steps = list(range(20, 2020, 20))
    spikes = {
        "first": [Spike(400, 2.0, 1.2), Spike(1000, 2.0, 1.3)],
        "second": [Spike(440, 2.0, 1.8)],
    }
    together, alone = group_spikes(spikes, steps)
    assert (together.first, together.last) == (400, 440)
    assert list(together.layers) == ["second", "first"]
    assert list(alone.layers) == ["first"]
    assert group_spikes({}, steps) == []
