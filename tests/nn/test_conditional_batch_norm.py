"""BatchNorm against torch's own, and the table of statistics."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from biggan.models import hub_grid
from biggan.nn import BatchNorm2d, ConditionalBatchNorm2d, initialize_orthogonal


@pytest.fixture
def x():
    random = torch.Generator().manual_seed(0)
    return 3 * torch.randn(6, 4, 5, 5, generator=random, dtype=torch.float64) + 2


@pytest.fixture
def layer():
    layer = ConditionalBatchNorm2d(4, 7).double()
    initialize_orthogonal(layer, seed=0)
    return layer


def a_condition(num=6):
    return torch.randn(num, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("training", [True, False])
def test_zero_condition_weights_give_plain_batch_norm(layer, x, training):
    torch.nn.init.zeros_(layer.gain.weight)
    torch.nn.init.zeros_(layer.bias.weight)
    layer.train(training)
    expected = F.batch_norm(
        x, torch.zeros(4).double(), torch.ones(4).double(), training=training, eps=1e-4
    )
    torch.testing.assert_close(layer(x, a_condition()), expected)


def test_gain_and_bias_are_one_plus_linear_and_linear(layer, x):
    layer.eval()
    condition = a_condition()
    gain = 1 + condition @ (layer.gain.weight / layer.gain.sigma()).T
    bias = condition @ (layer.bias.weight / layer.bias.sigma()).T
    expected = x / (1 + 1e-4) ** 0.5 * gain[:, :, None, None] + bias[:, :, None, None]
    torch.testing.assert_close(layer(x, condition), expected)


def test_training_uses_the_batch_and_moves_the_averages(layer, x):
    layer.train()(x, a_condition())
    mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3))
    torch.testing.assert_close(layer.running_mean, 0.1 * mean)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * var)


def test_plain_batch_norm_has_gain_and_bias_per_channel(x):
    layer = BatchNorm2d(4, eps=1e-3).double()
    layer.gain.data.copy_(torch.arange(4))
    layer.bias.data.fill_(0.5)
    normal = F.batch_norm(x, None, None, training=True, eps=1e-3)
    torch.testing.assert_close(layer(x), normal * torch.arange(4.0).double()[:, None, None] + 0.5)


@pytest.mark.parametrize("grid", [hub_grid(50), hub_grid(51), (0.2, 0.6, 0.8)])
def test_statistics_are_linear_between_grid_values_and_constant_beyond_them(grid):
    layer = BatchNorm2d(3, grid=grid).double().eval()
    random = np.random.default_rng(0)
    table = random.normal(size=(len(grid), 3))
    layer.table_mean.copy_(torch.tensor(table))
    layer.table_var.copy_(torch.tensor(table**2))
    for truncation in random.uniform(1e-3, 1.5, size=500):
        if np.abs(truncation - np.array(grid)).min() < 2e-6:
            continue  # as good as on the grid
        for found, rows in zip(layer.statistics(truncation), (table, table**2), strict=True):
            expected = [np.interp(truncation, grid, column) for column in rows.T]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    for row, written in enumerate(grid):
        for truncation in (written, 0.02 * round(50 * written)):  # the latter as a slider has it
            mean, var = layer.statistics(truncation)
            assert torch.equal(mean, layer.table_mean[row])
            assert torch.equal(var, layer.table_var[row])
    assert layer.statistics(None)[0] is layer.running_mean


def ivclab_rows(truncation):
    """What ivclab's port computes from a table whose row r holds r, written as it is there."""
    index = round((truncation - 0.02) / 0.02)
    alpha = round((truncation - index * 0.02) / 0.02, 2)
    return alpha * index + (1 - alpha) * (index + 1)


def test_hub_is_what_ivclabs_port_does_off_a_grid_of_fifty():
    layer = BatchNorm2d(1, grid=hub_grid(50), off_grid="hub").double().eval()
    layer.table_mean.copy_(torch.arange(50.0)[:, None])
    for truncation in (0.031, 0.405, 0.411, 0.415, 0.51, 0.977):
        found = float(layer.statistics(truncation)[0])
        assert found == pytest.approx(ivclab_rows(truncation), abs=1e-6)
        assert found != pytest.approx((truncation - 0.02) / 0.02, abs=0.05)
    assert float(layer.statistics(0.58)[0]) == 28
    # above the last but one row the port has nothing to extrapolate from; here the last two rows
    assert float(layer.statistics(0.995)[0]) == pytest.approx(49.25)


def test_without_a_table_truncation_changes_nothing():
    layer = BatchNorm2d(2)
    assert layer.statistics(0.3)[0] is layer.running_mean


def test_statistics_reach_the_output(x):
    layer = BatchNorm2d(4, grid=[0.5]).double().eval()
    layer.table_mean.fill_(2)
    layer.table_var.fill_(9)
    torch.testing.assert_close(layer(x, 0.5), (x - 2) / (9 + 1e-4) ** 0.5)
