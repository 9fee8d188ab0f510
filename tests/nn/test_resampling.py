"""The fused forms against the plain ones, forward and backward."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from biggan.nn import convolve_average_pool, upsample_convolve


def gradients(output, inputs):
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5)).to(output)
    return torch.autograd.grad((output * weights).sum(), inputs)


def arguments(height, width, dtype=torch.float64, outputs=5):
    random = torch.Generator().manual_seed(height)

    def normal(*shape):
        return torch.randn(shape, generator=random, dtype=dtype).requires_grad_()

    # With the factor a sum over 3 * 9 products is of size 1, as in a normalized network.
    x, weight, bias = normal(2, 3, height, width), normal(outputs, 3, 3, 3), normal(outputs)
    return x, (weight.detach() / 5).requires_grad_(), bias


# In float64 where a mistake cannot hide in rounding; in float32 as networks use them.
TOLERANCES = [(torch.float64, 1e-10), (torch.float32, 1e-5)]


def assert_equal_with_gradients(found, expected, inputs, tolerance):
    for a, b in zip(
        (found, *gradients(found, inputs)), (expected, *gradients(expected, inputs)), strict=True
    ):
        assert (a - b).abs().max() <= tolerance * max(1, b.abs().max())


@pytest.mark.parametrize("outputs", [5, 600])  # the latter by a matrix product
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 6), (8, 8), (16, 15)])
def test_upsample_convolve(size, dtype, tolerance, outputs):
    inputs = arguments(*size, dtype, outputs)
    large = F.interpolate(inputs[0], scale_factor=2, mode="nearest")
    expected = F.conv2d(large, *inputs[1:], padding=1)
    assert_equal_with_gradients(upsample_convolve(*inputs), expected, inputs, tolerance)


@pytest.mark.parametrize("outputs", [5, 600])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("size", [(2, 2), (8, 10), (16, 16), (32, 20)])
def test_convolve_average_pool(size, dtype, tolerance, outputs):
    inputs = arguments(*size, dtype, outputs)
    expected = F.avg_pool2d(F.conv2d(*inputs, padding=1), 2)
    assert_equal_with_gradients(convolve_average_pool(*inputs), expected, inputs, tolerance)


@pytest.mark.parametrize("fused", [upsample_convolve, convolve_average_pool])
@pytest.mark.parametrize("outputs", [2, 40])
def test_second_derivatives(fused, outputs):
    """What a gradient penalty needs: the gradient of a gradient."""
    x, weight, _ = arguments(4, 2)
    weight = weight[:, :2].repeat(outputs, 1, 1, 1)[:outputs].detach()[:, :, :3].requires_grad_()
    x = x[:1, :2].detach().requires_grad_()
    function = lambda x, w: fused(x, w, None).square().mean(dim=1)  # noqa: E731
    assert gradcheck(function, (x, weight), fast_mode=True)
    assert gradgradcheck(function, (x, weight), fast_mode=True)
