"""Derivatives of the folded generator, exact in float64, against the plain generator's."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from biggan.inference.convolution import FrozenConv2d, FrozenConvolution
from biggan.inference.differentiable import DifferentiableConv2d, differentiable_conv2d
from biggan.inference.folded import FoldedGenerator
from biggan.nn import attention
from tiny import ARCHITECTURES, DEEP, tiny_generator

SMALL = [name for name in ARCHITECTURES if name != "wide enough for Winograd"]

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's


class _DownConv2d(FrozenConvolution):
    """The adjoint of a `FrozenConv2d` that upsamples."""

    def __init__(self, convolution):
        weight = convolution.weight  # (in, out, 4, 4)
        super().__init__(weight, 2 * convolution.resolution, upsamples=False)
        self._weight = weight

    def forward(self, x):
        return F.conv2d(x, self._weight, stride=2, padding=1)


def exact_conv2d(weight, bias, resolution, *, upsamples=False):
    """The differentiable form with convolutions that also run in float64."""
    convolution = FrozenConv2d(weight, bias, resolution, upsamples=upsamples)
    linear = FrozenConv2d(weight, None, resolution, upsamples=upsamples)
    if upsamples:
        adjoint = _DownConv2d(linear)
    else:
        adjoint = FrozenConv2d(weight.transpose(0, 1).flip(2, 3), None, resolution)
    return DifferentiableConv2d(weight, bias, convolution, linear, adjoint)


def networks(monkeypatch, **changes):
    """A generator in float64, folded, its attention in several parts; and noise and vectors."""
    monkeypatch.setattr(attention, "_WEIGHTS", 200)
    generator = tiny_generator(**changes).double().requires_grad_(False)
    config = generator.config
    if config.attention_resolution:
        generator.attention.gamma.fill_(0.5)  # 0 in a new network
    z, vectors = (
        torch.randn(3, width, dtype=torch.float64) for width in (config.z_dim, config.embedding_dim)
    )
    return generator, FoldedGenerator(generator, exact_conv2d), z, vectors


def weighted(images):
    weights = torch.linspace(-1, 1, images.numel(), dtype=images.dtype)
    return (images.flatten() * weights).sum()


@pytest.mark.parametrize("architecture", SMALL)
def test_first_second_and_mixed_derivatives(monkeypatch, architecture):
    generator, folded, *inputs = networks(monkeypatch, **ARCHITECTURES[architecture])
    inputs = [x.requires_grad_() for x in inputs if x.numel()]
    none = [torch.zeros(3, 0, dtype=torch.float64)] * (2 - len(inputs))
    found = []
    for network in (folded, generator):
        # The plain network's attention has second derivatives with this kernel alone.
        with sdpa_kernel(SDPBackend.MATH):
            images = network.synthesize(*inputs, *none, 0.4)
        first = torch.autograd.grad(weighted(images), inputs, retain_graph=True)
        again = torch.autograd.grad(weighted(images), inputs, create_graph=True)
        size = sum(x.square().sum() for x in again)
        found.append([images, *first, *again, *torch.autograd.grad(size, inputs)])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("changes", [{}, DEEP], ids=["biggan", "biggan-deep"])
def test_second_derivatives_by_every_order_of_modes(monkeypatch, changes):
    generator, folded, *inputs = networks(monkeypatch, **changes)
    z, vectors = (x[:1] for x in inputs)

    def loss(z, network=folded):
        return weighted(network.synthesize(z, vectors, 0.4))

    with sdpa_kernel(SDPBackend.MATH):
        hessian = torch.autograd.functional.hessian(lambda z: loss(z, generator), z)
    modes = torch.func.jacfwd, torch.func.jacrev
    for outer in modes:
        for inner in modes:
            torch.testing.assert_close(outer(inner(loss))(z), hessian, rtol=1e-8, atol=1e-10)
    with torch.autograd.forward_ad.dual_level():  # backward without `create_graph`
        dual = torch.autograd.forward_ad.make_dual(z.clone().requires_grad_(), z)
        gradient = torch.autograd.grad(loss(dual), dual)[0]
        slope = torch.autograd.forward_ad.unpack_dual(gradient).tangent
    torch.testing.assert_close(slope, (hessian * z).sum((2, 3)), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("layer", ["linear", "blocks.0", "attention", "blocks.1"])
def test_derivatives_of_an_activation(monkeypatch, layer):
    """Behind every layer, also mapped over activations."""
    generator, folded, *inputs = networks(monkeypatch)
    prepared = folded.prepare(*inputs, 0.4)
    made = folded.activations([layer], *prepared)[layer]
    plain = FoldedGenerator(generator)

    def loss(made, network=folded):
        return weighted(network.render_from(layer, made, *prepared))

    gradient = torch.func.grad(lambda made: loss(made, plain))(made)
    step = torch.randn(made.shape, dtype=torch.float64)
    product = torch.autograd.functional.vhp(lambda made: loss(made, plain), made, step)[1]
    for memory in (torch.contiguous_format, torch.channels_last):
        activation = made.clone(memory_format=memory).requires_grad_()
        found = torch.autograd.grad(loss(activation), activation)[0]
        torch.testing.assert_close(found, gradient)
    both = torch.stack([made, made])
    for mapped in torch.vmap(torch.func.grad(loss))(both):
        torch.testing.assert_close(mapped, gradient)
    forward = torch.func.jvp(torch.func.grad(loss), (made,), (step,))[1]
    torch.testing.assert_close(forward, product)


@pytest.mark.parametrize("changes", [{}, DEEP], ids=["biggan", "biggan-deep"])
def test_graphs_do_not_share_memory(monkeypatch, changes):
    """Several forward passes, then backward passes in another order, one of them twice."""
    _, folded, z, vectors = networks(monkeypatch, **changes)
    noises = [(scale * z).requires_grad_() for scale in (1, 2)]
    expected = [torch.autograd.grad(weighted(folded.synthesize(z, vectors)), z) for z in noises]
    losses = [weighted(folded.synthesize(z, vectors)) for z in noises]
    for k in (1, 0, 1):
        found = torch.autograd.grad(losses[k], noises[k], retain_graph=True)
        assert torch.equal(found[0], expected[k][0])


def test_what_is_changed_before_the_backward_pass_is_noticed(monkeypatch):
    _, folded, *inputs = networks(monkeypatch, **DEEP)
    grid, scale, shift = (x.requires_grad_() for x in folded.prepare(*inputs, 0.4))
    made = {"scale": scale}
    for name in ("blocks.0", "attention.projections"):
        folded.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: made.__setitem__(name, output)
        )
    for name in ("blocks.0", "attention.projections", "scale"):
        loss = weighted(folded.render(grid, scale, shift))
        with torch.no_grad():
            made[name].mul_(2)
        with pytest.raises(RuntimeError, match="modified"):
            torch.autograd.grad(loss, (grid, scale))


@pytest.mark.parametrize("make", [FrozenConv2d, differentiable_conv2d])
def test_no_images_have_gradients_too(make):
    folded = FoldedGenerator(tiny_generator(), make)
    z, vectors = torch.zeros(0, 12, requires_grad=True), torch.zeros(0, 16)
    (gradient,) = torch.autograd.grad(folded.synthesize(z, vectors).sum(), z)
    assert gradient.shape == (0, 12)
