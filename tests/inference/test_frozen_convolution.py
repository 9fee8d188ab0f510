"""All forms of a frozen convolution against the plain operations that they stand for."""

import copy

import pytest
import torch
from torch.nn import functional as F

from biggan.inference.convolution import (
    FrozenConv2d,
    _LinearConv2d,
    _TapsFirstConv2d,
    _UpsampleLinear,
    _WinogradConv2d,
    can_pack,
    packed_conv2d,
)
from biggan.inference.differentiable import DifferentiableConv2d, differentiable_conv2d

# in, out, kernel, resolution, upsamples
SHAPES = {
    "1x1": (8, 12, 1, 8, False),
    "3x3": (8, 12, 3, 8, False),
    "to an image": (16, 3, 3, 16, False),
    "up": (8, 12, 3, 4, True),
    "up, many channels": (64, 64, 3, 8, True),
    "up, as a product": (256, 264, 3, 4, True),
    "Winograd": (128, 136, 3, 32, False),
    "Winograd in parts": (128, 128, 3, 128, False),
    "a single pixel": (8, 8, 3, 1, False),
}


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def plain(x, weight, bias, upsamples):
    if upsamples:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


@pytest.mark.parametrize("form", [FrozenConv2d, packed_conv2d])
@torch.inference_mode()
def test_every_form_is_the_plain_convolution(shape, form):
    channels, out, size, resolution, upsamples = shape
    x = torch.randn(3, channels, resolution, resolution)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(out, channels, size, size) / (channels * size * size) ** 0.5
    without_bias = plain(x, weight, None, upsamples)
    before = torch.randn_like(without_bias).contiguous(memory_format=torch.channels_last)
    for bias in (None, torch.randn(out)):
        convolution = form(weight, bias, resolution, upsamples=upsamples)
        expected = without_bias if bias is None else without_bias + bias[:, None, None]
        for num in (1, 3):
            made = convolution(x[:num])
            torch.testing.assert_close(made, expected[:num], atol=1e-4, rtol=0)
            made = convolution(x[:num], before[:num].clone())
            torch.testing.assert_close(made, expected[:num] + before[:num], atol=1e-4, rtol=0)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("adds", [False, True])
def test_the_differentiable_form_is_the_plain_convolution_twice(shape, adds, has_bias):
    """Its result, its gradients and their gradients."""
    channels, out, size, resolution, upsamples = shape
    num = 2 if resolution < 128 else 1
    x = torch.randn(num, channels, resolution, resolution)
    weight = torch.randn(out, channels, size, size) / (channels * size * size) ** 0.5
    bias = torch.randn(out) if has_bias else None
    convolution = differentiable_conv2d(weight, bias, resolution, upsamples=upsamples)
    side = resolution * (2 if upsamples else 1)
    before = torch.randn(num, out, side, side)
    kept = before.clone()
    found = []
    for convolve in (convolution, lambda x: plain(x, weight, bias, upsamples)):
        x, before = x.detach().requires_grad_(), before.detach().requires_grad_()
        if convolve is convolution:
            y = convolve(x, before) if adds else convolve(x)
        else:
            y = convolve(x) + before if adds else convolve(x)
        inputs = [x, before] if adds else [x]
        gradients = torch.autograd.grad(y.pow(2).sum(), inputs, create_graph=True)
        (second,) = torch.autograd.grad(gradients[0].square().sum(), x)
        found.append([y, *gradients, second])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4 * theirs.abs().max().item(), rtol=0)
    assert torch.equal(before, kept)


@pytest.mark.parametrize("form", [packed_conv2d, differentiable_conv2d])
@torch.inference_mode()
def test_a_copy_makes_the_same(shape, form):
    channels, out, size, resolution, upsamples = shape
    convolution = form(
        torch.randn(out, channels, size, size), torch.randn(out), resolution, upsamples=upsamples
    )
    x = torch.randn(1, channels, resolution, resolution)
    torch.testing.assert_close(copy.deepcopy(convolution)(x), convolution(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
def test_activation_and_convolution_have_first_and_second_derivatives():
    """For each image its own scale and shift; also by the transforms of `torch.func`."""
    kernel = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    linear = FrozenConv2d(kernel, None, 5)
    adjoint = FrozenConv2d(kernel.transpose(0, 1).flip(2, 3), None, 5)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64).requires_grad_()
    scale, shift = (torch.randn(2, 3, 1, 1, dtype=torch.float64).requires_grad_() for _ in range(2))

    bias = torch.randn(4, dtype=torch.float64)
    convolution = FrozenConv2d(kernel, bias, 5)
    made = DifferentiableConv2d(kernel, bias, convolution, linear, adjoint).activated
    add_to = torch.randn(2, 4, 5, 5, dtype=torch.float64).requires_grad_()
    inputs = x, scale, shift, add_to
    assert torch.autograd.gradcheck(made, inputs, check_batched_grad=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(made, inputs)
    expected = F.conv2d(F.relu(scale * x + shift), kernel, bias, padding=1)
    torch.testing.assert_close(made(x, scale, shift), expected)
    torch.testing.assert_close(made(*inputs), expected + add_to)
    for added in ((), (add_to,)):
        once = torch.vmap(made, in_dims=(0, None, 0, None)[: 3 + len(added)])(
            torch.stack([x, 2 * x]), scale, shift.expand(2, -1, -1, -1, -1), *added
        )
        each = [made(x, scale, shift, *added), made(2 * x, scale, shift, *added)]
        torch.testing.assert_close(once, torch.stack(each))


@pytest.mark.skipif(not can_pack(), reason="this build of PyTorch does not pack")
@pytest.mark.parametrize(
    ("form", "taken", "others"),
    [
        # Output and input channels, kernel, resolution, upsamples.
        (
            _WinogradConv2d,
            (384, 384, 3, 32, False),
            [(32, 32, 3, 32, False), (128, 128, 3, 16, False)],
        ),
        (_LinearConv2d, (512, 2048, 1, 8, False), []),
        (_TapsFirstConv2d, (3, 96, 3, 32, False), [(8, 96, 3, 32, False)]),
        (
            _UpsampleLinear,
            (256, 256, 3, 8, True),
            [(32, 256, 3, 8, True), (256, 256, 3, 32, True)],
        ),
    ],
)
def test_each_form_is_for_its_shapes(form, taken, others):
    def packed(out, channels, size, resolution, upsamples):
        weight = torch.zeros(out, channels, size, size)
        return packed_conv2d(weight, None, resolution, upsamples=upsamples)

    assert isinstance(packed(*taken), form)
    assert not any(isinstance(packed(*other), form) for other in others)


@pytest.mark.parametrize("size", [(5, 7), (34, 32), (2, 1)])
@torch.inference_mode()
def test_winograds_convolution_takes_images_of_any_size(size):
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    weight, bias = torch.randn(6, 8, 3, 3, dtype=torch.float64), torch.randn(6).double()
    convolution = _WinogradConv2d(weight, bias, 32)
    expected = F.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(convolution(x), expected)
    before = torch.randn_like(expected)
    torch.testing.assert_close(convolution(x, before.clone()), expected + before)


@pytest.mark.parametrize("size", [(5, 7), (2, 1)])
@torch.inference_mode()
def test_taps_see_their_neighbours_and_nothing_beyond_the_border(size):
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    weight, bias = torch.randn(3, 6, 3, 3, dtype=torch.float64), torch.randn(3).double()
    result = _TapsFirstConv2d(weight, bias, size[1])(x)
    torch.testing.assert_close(result, F.conv2d(x, weight, bias, padding=1))


def test_without_the_librarys_packing_the_plain_form_takes_over(monkeypatch):
    monkeypatch.setattr("biggan.inference.convolution.can_pack", lambda: False)
    convolution = packed_conv2d(torch.zeros(4, 4, 3, 3), None, 8)
    assert isinstance(convolution, FrozenConv2d)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("sum_squares", lambda x: x[..., 1:, 1:]),
        ("_spread_taps", lambda taps, dim: torch.cat([taps[0], taps[1]], dim)),
    ],
)
def test_packing_that_is_wrong_is_not_used(monkeypatch, name, wrong):
    can_pack.cache_clear()
    monkeypatch.setattr(f"biggan.inference.convolution.{name}", wrong)
    try:
        assert not can_pack()
    finally:
        can_pack.cache_clear()


def test_operations_of_a_shape(shape):
    channels, out, size, resolution, upsamples = shape
    convolution = FrozenConv2d(
        torch.zeros(out, channels, size, size), None, resolution, upsamples=upsamples
    )
    multiplications = (16 if upsamples else size * size) * channels * out * resolution**2
    assert convolution.operations == 2 * multiplications
    assert str(resolution) in repr(convolution)
