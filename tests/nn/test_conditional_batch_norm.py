"""BatchNorm against torch's own, and the table of statistics."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from biggan.nn import BatchNorm2d, ConditionalBatchNorm2d, initialize_orthogonal
from biggan.nn.conditional_batch_norm import locate_on_grid
from biggan.weights.load import hub_grid

HUB_GRID = [round(0.02 * i, 2) for i in range(1, 51)]


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


def layer_with_table():
    layer = BatchNorm2d(2, grid=HUB_GRID).double().eval()
    layer.table_mean.copy_(torch.arange(100.0).view(50, 2))
    layer.table_var.copy_(torch.arange(100.0).view(50, 2) + 1)
    return layer


@pytest.mark.parametrize("row", range(50))
def test_grid_values_take_their_own_row_exactly(row):
    layer = layer_with_table()
    # as a slider computes it, and as a person writes it
    for truncation in (0.02 * (row + 1), round(0.02 * (row + 1), 2)):
        mean, var = layer.statistics(truncation)
        assert torch.equal(mean, layer.table_mean[row])
        assert torch.equal(var, layer.table_var[row])


def test_between_grid_values_the_nearer_row_weighs_more():
    layer = layer_with_table()
    mean, var = layer.statistics(0.405)  # a quarter of the way from row 19 (0.40) to row 20 (0.42)
    torch.testing.assert_close(mean, 0.75 * layer.table_mean[19] + 0.25 * layer.table_mean[20])
    torch.testing.assert_close(var, 0.75 * layer.table_var[19] + 0.25 * layer.table_var[20])


@pytest.mark.parametrize("rows", [50, 51])
def test_between_all_grid_values_statistics_are_linear(rows):
    grid = hub_grid(rows)
    layer = BatchNorm2d(3, grid=grid).double().eval()
    random = np.random.default_rng(rows)
    table = random.normal(size=(rows, 3))
    layer.table_mean.copy_(torch.tensor(table))
    layer.table_var.copy_(torch.tensor(table**2))
    for truncation in random.uniform(grid[0], 1, size=2000):
        if np.abs(truncation - np.array(grid)).min() < 2e-6:
            continue  # as good as on the grid
        mean, var = layer.statistics(float(truncation))
        for channel in range(3):
            expected = np.interp(truncation, grid, table[:, channel])
            assert float(mean[channel]) == pytest.approx(expected, abs=1e-9)
            expected = np.interp(truncation, grid, table[:, channel] ** 2)
            assert float(var[channel]) == pytest.approx(expected, abs=1e-9)
    for row, truncation in enumerate(grid):
        assert torch.equal(layer.statistics(truncation)[0], layer.table_mean[row])


def ivclab_rows(truncation):
    """What ivclab's port computes from a table whose row r holds r, written as it is there."""
    index = round((truncation - 0.02) / 0.02)
    alpha = round((truncation - index * 0.02) / 0.02, 2)
    return alpha * index + (1 - alpha) * (index + 1)


def test_hub_is_what_ivclabs_port_does_off_a_grid_of_fifty():
    layer = BatchNorm2d(1, grid=HUB_GRID, off_grid="hub").double().eval()
    layer.table_mean.copy_(torch.arange(50.0)[:, None])
    for truncation in (0.031, 0.405, 0.411, 0.415, 0.51, 0.977):
        found = float(layer.statistics(truncation)[0])
        assert found == pytest.approx(ivclab_rows(truncation), abs=1e-6)
        assert found != pytest.approx((truncation - 0.02) / 0.02, abs=0.05)
    assert float(layer.statistics(0.58)[0]) == 28
    # above the last but one row the port has nothing to extrapolate from; here the last two rows
    assert float(layer.statistics(0.995)[0]) == pytest.approx(49.25)


def test_outside_the_grid_its_end_and_for_untruncated_noise_the_running_statistics():
    layer = layer_with_table()
    assert torch.equal(layer.statistics(0.001)[0], layer.table_mean[0])
    assert torch.equal(layer.statistics(1.5)[0], layer.table_mean[49])
    assert layer.statistics(None)[0] is layer.running_mean


def test_without_a_table_truncation_changes_nothing():
    layer = BatchNorm2d(2)
    assert layer.statistics(0.3)[0] is layer.running_mean


def test_statistics_reach_the_output(x):
    layer = BatchNorm2d(4, grid=[0.5]).double().eval()
    layer.table_mean.fill_(2)
    layer.table_var.fill_(9)
    torch.testing.assert_close(layer(x, 0.5), (x - 2) / (9 + 1e-4) ** 0.5)


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [(0.1, (0, 0.0)), (0.2, (0, 0.0)), (0.3, (0, 0.25)), (0.6, (1, 0.0)), (0.9, (2, 0.0))],
)
def test_location_on_an_uneven_grid(truncation, expected):
    row, weight = locate_on_grid(truncation, (0.2, 0.6, 0.8))
    assert row == expected[0]
    assert weight == pytest.approx(expected[1])
