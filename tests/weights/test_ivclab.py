"""ivclab's format: what is read from its files computes what its networks compute."""

import pytest
import torch

import biggan
from biggan.weights.formats import ivclab
from biggan.weights.formats.conversion import ForeignTensors
from biggan.weights.networks import assemble
from foreign_networks import RandomWeights, ivclab_generator

WIDTHS = {  # and where attention sits
    128: ([128, 128, 64, 32, 16, 8], 64),
    256: ([128, 128, 64, 64, 32, 16, 8], 128),
    512: ([128, 128, 64, 64, 32, 16, 8, 8], 64),
}


def convert(weights):
    return ivclab.convert(ForeignTensors(dict(weights.tensors), "release.pt"))


@pytest.mark.parametrize("resolution", WIDTHS)
def test_a_generator_of_each_size(resolution):
    widths, attention = WIDTHS[resolution]
    weights = RandomWeights()
    z, labels = torch.randn(1, 3 * len(widths)), torch.tensor([3])
    with torch.no_grad():
        for truncation in (0.02, 0.58, 1.0):
            expected = ivclab_generator(weights, z, labels, widths, attention, truncation)
            converted = convert(weights)
            ours = assemble(converted.config, converted.grid, converted.tensors, "x")
            found = ours(z, labels, truncation)
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert expected.std() > 0.1
    assert ours.config.attention_resolution == attention
    assert converted.grid == tuple(round(0.02 * i, 2) for i in range(1, 51))


def small():
    """The weights of a generator at 32 px."""
    weights = RandomWeights()
    z, labels = torch.randn(1, 12), torch.tensor([0])
    ivclab_generator(weights, z, labels, [128, 64, 32, 16], 16, 1.0)
    return weights


def test_untruncated_noise_takes_the_statistics_of_truncation_1():
    converted = convert(small())
    table = converted.tensors["blocks.1.bn2.table_mean"]
    assert torch.equal(converted.tensors["blocks.1.bn2.running_mean"], table[-1])


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
    weights = small()
    change(weights.tensors)
    with pytest.raises(biggan.InputError) as raised:
        convert(weights)
    assert message in str(raised.value)


def test_attention_that_could_sit_in_two_places():
    weights = RandomWeights()
    z, labels = torch.randn(1, 12), torch.tensor([0])
    ivclab_generator(weights, z, labels, [64, 32, 32, 16], 8, 1.0)
    with pytest.raises(biggan.InputError, match="fits at 8, 16 pixels alike"):
        convert(weights)
