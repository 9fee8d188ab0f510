"""The parts of a line of signals, against formulas by hand and other functions."""

import pytest
import torch
from torch import nn

from biggan.nn import BatchNorm2d
from biggan.supervision.log import scalars
from biggan.supervision.signals import (
    accuracy,
    batch_norm_statistics,
    describe_logits,
    diversity,
    frobenius_norms,
    gradient_norm,
)


def test_logits_are_described():
    described = describe_logits({"real": [1.0, 3.0], "fake": [-2.0, -2.0]})
    assert described == {
        "real": {"mean": 2.0, "std": 1.0, "min": 1.0, "max": 3.0},
        "fake": {"mean": -2.0, "std": 0.0, "min": -2.0, "max": -2.0},
    }


def test_accuracy_counts_signs_and_zero_is_no_answer():
    parts = accuracy({"real": [1, -1, 0, 2], "fake": [-1, 0, 1, 1], "held_out": [0.1, 0.1]})
    assert parts == {"real": 0.5, "fake": 0.25, "held_out": 1.0}


def test_gradient_norm_is_that_of_all_parameters_together():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    assert gradient_norm(network) == 0
    network(torch.randn(5, 3)).square().sum().backward()
    expected = nn.utils.clip_grad_norm_(network.parameters(), float("inf"))
    assert gradient_norm(network) == pytest.approx(expected.item())


def test_frobenius_norms():
    weights = {"a": torch.tensor([[3.0, 4.0]]), "b": torch.ones(2, 2)}
    assert frobenius_norms(weights) == {"a": 5.0, "b": 2.0}


def test_batch_norm_statistics():
    network = nn.Sequential(BatchNorm2d(2))
    network[0].running_mean.copy_(torch.tensor([3.0, -1.0]))
    network[0].running_var.copy_(torch.tensor([1.0, 4.0]))
    assert batch_norm_statistics(network) == {"0": {"mean": pytest.approx(5**0.5), "var": 2.5}}
    assert batch_norm_statistics(nn.ReLU()) == {}


def test_diversity_is_the_mean_distance_within_a_class():
    images = torch.rand(3, 4, 1, 5, 5) * 2 - 1
    pixels = images.flatten(2)
    distances = [torch.pdist(of_class).mean() / 25**0.5 for of_class in pixels]
    assert diversity(images) == pytest.approx(sum(distances).item() / 3, rel=1e-5)
    assert diversity(images[:, :1].expand(-1, 4, -1, -1, -1)) == 0
    black_and_white = torch.tensor([-1.0, 1.0])[None, :, None, None, None].expand(1, 2, 3, 4, 4)
    assert diversity(black_and_white) == 2
    apart = torch.tensor([-1.0, 1.0])[:, None, None, None, None].expand(2, 2, 3, 4, 4)
    assert diversity(apart) == 0  # between classes does not count


def test_curves_for_tensorboard_are_few():
    line = {
        "singular_values": {"generator": {"linear": [3.0, 2.0, 1.0]}, "discriminator": {}},
        "frobenius_norms": {"generator": {"linear": 4.0}, "discriminator": {}},
        "gradient_norms": {"generator": 1.0, "discriminator": 2.0},
        "logits": {"real": {"mean": 0.5, "std": 1.0, "min": -1.0, "max": 2.0}},
        "accuracy": {"real": 0.75},
        "batch_norm": {"head.bn": {"mean": 0.1, "var": 1.0}},
        "diversity": 0.4,
    }
    assert dict(scalars(line)) == {
        "sigma0 of generator/linear": 3.0,
        "gradient_norm/generator": 1.0,
        "gradient_norm/discriminator": 2.0,
        "logits/real": 0.5,
        "accuracy/real": 0.75,
        "diversity": 0.4,
    }
