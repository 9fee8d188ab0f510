"""Winograd's convolution against the direct one."""

import pytest
import torch
from torch.nn import functional as F

from biggan.inference.winograd import winograd_convolve, winograd_kernel


@pytest.mark.parametrize("rows", [0, 4, 8, 100])
@pytest.mark.parametrize(("batch", "size"), [(1, (4, 4)), (2, (12, 8)), (3, (16, 20))])
def test_it_is_a_convolution(batch, size, rows):
    x = torch.randn(batch, 5, *size, dtype=torch.float64)
    weight = torch.randn(7, 5, 3, 3, dtype=torch.float64)
    expected = F.conv2d(x, weight, padding=1)
    result = winograd_convolve(x, winograd_kernel(weight), rows=rows)
    torch.testing.assert_close(result, expected, atol=1e-12, rtol=1e-12)


def test_the_result_is_in_channels_last_memory():
    x = torch.randn(2, 8, 8, 8).contiguous(memory_format=torch.channels_last)
    kernel = winograd_kernel(torch.randn(4, 8, 3, 3))
    for rows in (0, 4):
        result = winograd_convolve(x, kernel, rows=rows)
        assert result.is_contiguous(memory_format=torch.channels_last)


def test_float32_loses_a_digit_and_no_more():
    x, weight = torch.randn(1, 128, 16, 16), torch.randn(128, 128, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd_convolve(x, winograd_kernel(weight)) - exact).abs().max() / exact.abs().max()
    assert error < 3e-5
