"""The fused forms against the plain ones, forward and backward, on both sides of the switch."""

import pytest
import torch
from torch.nn import functional as F

from biggan.nn import convolve_average_pool, upsample_convolve


def gradients(output, inputs):
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5)).to(output)
    return torch.autograd.grad((output * weights).sum(), inputs)


def arguments(height, width):
    random = torch.Generator().manual_seed(height)

    def normal(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()

    return normal(2, 3, height, width), normal(5, 3, 3, 3), normal(5)


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (8, 8), (16, 20)])
def test_upsample_convolve(size):
    x, weight, bias = arguments(*size)
    large = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = F.conv2d(large, weight, bias, padding=1)
    found = upsample_convolve(x, weight, bias)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        gradients(found, (x, weight, bias)), gradients(expected, (x, weight, bias))
    )


@pytest.mark.parametrize("size", [(2, 2), (8, 10), (16, 16), (32, 20)])
def test_convolve_average_pool(size):
    x, weight, bias = arguments(*size)
    expected = F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)
    found = convolve_average_pool(x, weight, bias)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        gradients(found, (x, weight, bias)), gradients(expected, (x, weight, bias))
    )
