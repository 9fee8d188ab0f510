"""Winograd's convolution and its gradients against the direct one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from biggan.nn.convolution import convolve, suits_winograd
from biggan.nn.winograd import (
    WinogradConvolution,
    winograd_convolve,
    winograd_kernel,
    winograd_weight_gradient,
)


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("windows", [1, 3, 4, 1000])
@pytest.mark.parametrize(("batch", "size"), [(1, (4, 4)), (2, (12, 8)), (3, (16, 20))])
def test_it_is_a_convolution_in_strips_of_any_size(batch, size, windows, threads):
    in_strips = {"windows_per_strip": windows}
    x, weight, bias = drawn(batch, 5, *size), drawn(7, 5, 3, 3), drawn(7)
    expected = F.conv2d(x, weight, bias, padding=1)
    gradient = drawn(*expected.shape)
    of_weight = torch.nn.grad.conv2d_weight(x, weight.shape, gradient, padding=1)
    of_x = torch.nn.grad.conv2d_input(x.shape, weight, gradient, padding=1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        kernel = winograd_kernel(weight)
        result = winograd_convolve(x, kernel, bias, **in_strips)
        torch.testing.assert_close(result, expected, atol=1e-12, rtol=1e-12)
        addend = torch.ones_like(expected)
        added = winograd_convolve(x, kernel, bias, add_to=addend, **in_strips)
        assert added is addend
        torch.testing.assert_close(added, expected + 1, atol=1e-12, rtol=1e-12)
        result = winograd_weight_gradient(x, gradient, **in_strips)
        torch.testing.assert_close(result, of_weight, atol=1e-11, rtol=1e-11)
        kernel = winograd_kernel(weight, adjoint=True)
        result = winograd_convolve(gradient, kernel, **in_strips)
        torch.testing.assert_close(result, of_x, atol=1e-12, rtol=1e-12)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("adjoint", [False, True])
def test_first_and_second_derivatives(adjoint):
    weight, bias = drawn(3, 2, 3, 3).requires_grad_(), drawn(2 if adjoint else 3).requires_grad_()
    x = drawn(2, 3 if adjoint else 2, 4, 8).requires_grad_()

    def convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return WinogradConvolution.apply(x, weight, bias, adjoint)

    assert torch.autograd.gradcheck(convolution, (x, weight, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(convolution, (x, weight, bias), fast_mode=True)


def test_the_result_is_in_channels_last_memory():
    x = drawn(2, 8, 8, 8).contiguous(memory_format=torch.channels_last)
    result = winograd_convolve(x, winograd_kernel(drawn(4, 8, 3, 3)))
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_float32_loses_less_than_a_digit():
    x, weight = drawn(2, 128, 16, 16), drawn(128, 128, 3, 3)
    gradient = drawn(2, 128, 16, 16)
    exact = F.conv2d(x, weight, padding=1)
    exact_gradient = torch.nn.grad.conv2d_weight(x, weight.shape, gradient, padding=1)
    x, weight, gradient = x.float(), weight.float(), gradient.float()
    result = winograd_convolve(x, winograd_kernel(weight))
    assert (result - exact).norm() < 3e-6 * exact.norm()
    result = winograd_weight_gradient(x, gradient)
    assert (result - exact_gradient).norm() < 2e-6 * exact_gradient.norm()


def test_the_gradient_of_the_weight_rounds_the_same_each_time():
    x, gradient = (drawn(8, 32, 32, 32, dtype=torch.float32) for _ in range(2))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, *others = (
            winograd_weight_gradient(x, gradient, windows_per_strip=8) for _ in range(5)
        )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(other, first) for other in others)


def test_wide_layers_are_convolved_so_and_others_are_not():
    wide, narrow = torch.empty(192, 256, 3, 3), torch.empty(192, 96, 3, 3)
    assert suits_winograd(wide, torch.empty(4, 256, 16, 16))
    assert not suits_winograd(narrow, torch.empty(4, 96, 16, 16))
    few = torch.empty(1, 256, 16, 16)  # for the transform of the kernel
    assert not suits_winograd(wide, few)
    assert not suits_winograd(wide, torch.empty(2, 256, 30, 30))
    x = drawn(4, 192, 16, 16, dtype=torch.float32)
    weight = drawn(192, 192, 3, 3, dtype=torch.float32)
    result = convolve(x.requires_grad_(), weight, None, padding=1)
    assert type(result.grad_fn).__name__ == "WinogradConvolutionBackward"
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(x, weight, None, padding=1).dtype == torch.bfloat16
