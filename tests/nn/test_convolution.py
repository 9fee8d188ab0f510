"""Both algorithms against PyTorch's own convolutions, on both sides of the switch."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from biggan.nn import convolution
from biggan.nn.convolution import convolve, outweighs, transposed_convolve

PRODUCT = (1, 3, 5, 4)  # 20 positions: fewer than the kernel's 24 outputs
LIBRARY = (2, 3, 6, 4)


def arguments(shape, kernel, dtype=torch.float64):
    random = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(shape, generator=random, dtype=dtype).requires_grad_()

    return normal(*shape), normal(24, shape[1], kernel, kernel), normal(24)


def assert_same(found, expected, inputs):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view(found.shape)
    gradients = [torch.autograd.grad((y * weights).sum(), inputs) for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [PRODUCT, LIBRARY])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (1, 1, 0), (3, 2, 0)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_convolve(shape, kernel, stride, padding, with_bias):
    x, weight, bias = arguments(shape, kernel)
    bias = bias if with_bias else None
    inputs = [t for t in (x, weight, bias) if t is not None]
    found = convolve(x, weight, bias, stride=stride, padding=padding)
    assert_same(found, F.conv2d(x, weight, bias, stride, padding), inputs)


@pytest.mark.parametrize("shape", [PRODUCT, LIBRARY])
@pytest.mark.parametrize("with_bias", [True, False])
def test_transposed_convolve(shape, with_bias):
    x, weight, bias = arguments(shape, 3)
    bias = bias if with_bias else None
    inputs = [t for t in (x, weight, bias) if t is not None]
    found = transposed_convolve(x, weight, bias, stride=2)
    expected = F.conv_transpose2d(x, weight.flip(2, 3).transpose(0, 1), bias, stride=2)
    assert_same(found, expected, inputs)


def test_the_switch_compares_positions_with_outputs(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the library was asked")

    monkeypatch.setattr(convolution.F, "conv2d", refuse)
    x, weight, _ = arguments((2, 3, 3, 4), 3)
    with pytest.raises(AssertionError):
        convolve(x, weight, None, padding=1)  # 24 positions
    convolve(x[:, :, :2], weight, None, padding=1)


def test_the_switch_takes_more_positions_for_large_kernels():
    large, small = torch.empty(768, 768, 3, 3), torch.empty(512, 512, 3, 3)
    assert outweighs(large, 4096, large)
    assert not outweighs(large, 4097, large)
    assert not outweighs(small, 512, small)


@pytest.mark.parametrize("shape", [PRODUCT, LIBRARY])
def test_results_are_channels_last(shape):
    x, weight, bias = arguments(shape, 3)
    x = x.contiguous(memory_format=torch.channels_last)
    for y in (
        convolve(x, weight, bias, padding=1),
        transposed_convolve(x, weight, bias, stride=2),
    ):
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("positions", [1, 4])
def test_second_derivatives(positions):
    random = torch.Generator().manual_seed(3)
    x = torch.randn(1, 2, 1, positions, generator=random, dtype=torch.float64).requires_grad_()
    weight = torch.randn(3, 2, 3, 3, generator=random, dtype=torch.float64).requires_grad_()
    for function in (
        lambda x, w: convolve(x, w, None, padding=1).square(),
        lambda x, w: transposed_convolve(x, w, None, stride=2).square(),
    ):
        assert gradcheck(function, (x, weight))
        assert gradgradcheck(function, (x, weight))
