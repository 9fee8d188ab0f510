"""ivclab's files: statistics, and files that do not fit."""

import pytest
import torch

from biggan.weights.formats import ivclab
from biggan.weights.formats.conversion import ForeignTensors
from foreign_networks import IVCLAB, random_generator
from tiny import refusal


def convert(tensors):
    return ivclab.convert(ForeignTensors(dict(tensors), "release.pt"))


def small(widths=(128, 64, 32, 16), attention=16):
    """The weights of a generator at 32 px."""
    return random_generator(list(widths), attention, 12, IVCLAB)[0]


def test_untruncated_noise_takes_the_statistics_of_truncation_1():
    converted = convert(small())
    table = converted.tensors["blocks.1.bn2.table_mean"]
    assert torch.equal(converted.tensors["blocks.1.bn2.running_mean"], table[-1])
    assert converted.grid == tuple(round(0.02 * i, 2) for i in range(1, 51))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.update({"scaledcrossreplicabn.standing_means": torch.zeros(49, 16)}),
            "49 truncations",
        ),
        (
            lambda t: t.update({"attention.theta.weight_orig": torch.zeros(3, 24, 1, 1)}),
            "its attention on 24 channels fits nowhere",
        ),
    ],
)
def test_files_that_do_not_fit(change, message):
    tensors = small()
    change(tensors)
    assert message in refusal(convert, tensors)


def test_attention_that_could_sit_in_two_places():
    assert "fits at 8, 16 pixels alike" in refusal(convert, small((64, 32, 32, 16), 8))
