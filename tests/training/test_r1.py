"""R1's gradient: against finite differences, a network written out, and hand-made cases."""

import pytest
import torch
from torch.nn import functional as F

from biggan.models import DiscriminatorConfig, build_discriminator
from biggan.nn import hold_power_iteration, iterate_power
from biggan.training.regularization import add_r1_gradient
from tiny import TINY_DISCRIMINATOR

SHAPES = {**TINY_DISCRIMINATOR, "image_channels": 3}
DEEP = {"family": "biggan-deep", "widths": [1, 2, 4, 4]}
# Every kind of block, and convolutions by the library and, with many channels, by products.
NETWORKS = {
    "BigGAN": {},
    "BigGAN, wide and without attention": {"channels": 80, "attention_resolution": 0},
    "BigGAN, unconditional": {"num_classes": 0},
    "BigGAN-deep": DEEP,
    "BigGAN-deep, widening nowhere": {**DEEP, "widths": [4, 4, 4, 4], "attention_resolution": 4},
}
BATCH = 2


def discriminator(**changes):
    config = DiscriminatorConfig.from_dict({**SHAPES, **changes})
    network = build_discriminator(config, seed=1).double()
    if config.attention_resolution:
        network.attention.gamma.data.fill_(0.5)  # at 0, as it starts, attention has no part
    iterate_power(network, 5)
    network.join_power_iteration()
    return network


def inputs(batch=BATCH):
    random = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, 16, 16, generator=random, dtype=torch.float64) * 2 - 1
    return images, torch.arange(batch) % 3


def r1_gradients(network, *arguments, weight=0.5, mask=None):
    network.zero_grad()
    with hold_power_iteration(network):
        penalty = add_r1_gradient(network, *arguments, mask, weight=weight)
    gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    return penalty, gradients


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS)
def test_the_gradient_is_that_of_finite_differences(changes, recompute):
    network = discriminator(**changes)
    network.recompute = recompute
    _, gradients = r1_gradients(network, *inputs())
    # The bias of the last layer moves no gradient of the output.
    assert gradients.keys() == dict(network.named_parameters()).keys() - {"head.linear.bias"}
    random = torch.Generator().manual_seed(3)
    # Small steps, so that no ReLU changes sides on the way.
    directions = {
        name: 1e-8 * torch.randn(g.shape, generator=random).to(g) / g.numel() ** 0.5
        for name, g in gradients.items()
    }
    penalties = []
    for sign in (1, -1):
        moved = discriminator(**changes)
        moved.load_state_dict(network.state_dict())
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                if name in directions:
                    parameter += sign * directions[name]
        penalties.append(r1_gradients(moved, *inputs())[0])
    difference = 0.5 * (penalties[0] - penalties[1]) / 2
    expected = sum((gradients[name] * step).sum() for name, step in directions.items())
    assert difference.item() == pytest.approx(expected.item(), rel=1e-4)


def plain_biggan(network, images, labels):
    """The discriminator of SHAPES as a textbook writes it: no fusion, no products, no kernels."""

    def weight(layer):
        return layer.weight / (layer.u @ layer.weight.flatten(1) @ layer.v)

    def conv(layer, x):
        return F.conv2d(x, weight(layer), layer.bias, padding=layer.weight.shape[-1] // 2)

    x = images
    for block in network.blocks:
        h = conv(block.conv1, x if block.first else F.relu(x))
        h = conv(block.conv2, F.relu(h))
        if not isinstance(block.shortcut, torch.nn.Identity):
            x = conv(block.shortcut, x)
        x = h + x
        if block.down:
            x = F.avg_pool2d(x, 2)
        if x.shape[-1] == 8 and block.down:
            layer = network.attention
            theta = conv(layer.theta, x).flatten(2)
            phi = F.max_pool2d(conv(layer.phi, x), 2).flatten(2)
            g = F.max_pool2d(conv(layer.g, x), 2).flatten(2)
            attended = g @ (theta.mT @ phi).softmax(dim=2).mT
            x = x + layer.gamma * conv(layer.o, attended.unflatten(2, x.shape[2:]))
    h = F.relu(x).sum(dim=(2, 3))
    head = network.head
    return (
        h @ weight(head.linear).T
        + head.linear.bias
        + (weight(head.embedding)[labels] * h).sum(1, keepdim=True)
    )


def test_the_gradient_is_that_of_autograd_through_a_plain_network():
    network = discriminator()
    images, labels = inputs(3)
    penalty, found = r1_gradients(network, images, labels, weight=5.0)
    network.zero_grad()
    images.requires_grad_()
    logits = plain_biggan(network, images, labels)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    expected = sum(gradient[i].norm() ** 2 for i in range(3)) / 3
    (5.0 * expected).backward()
    torch.testing.assert_close(penalty, expected.detach(), rtol=1e-10, atol=0)
    for name, parameter in network.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-12)


def test_it_adds_to_what_is_there_and_takes_one_power_iteration():
    network = discriminator()
    images, labels = inputs()
    _, once = r1_gradients(network, images, labels)
    with hold_power_iteration(network):
        add_r1_gradient(network, images, labels, weight=1.0)
    for name, parameter in network.named_parameters():
        if name in once:
            assert parameter.grad.data_ptr() == once[name].data_ptr()
    _, alone = r1_gradients(network, images, labels)
    _, three = r1_gradients(network, images, labels, weight=1.5)
    torch.testing.assert_close(three, {name: 3 * value for name, value in alone.items()})
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.blocks[0].conv1.weight.data.mul_(torch.rand(8, 1, 1, 1).double())
    add_r1_gradient(network, images, labels, weight=1.0)
    assert not torch.equal(network.get_buffer("blocks.0.conv1.u"), before["blocks.0.conv1.u"])
    assert images.grad is None


def test_low_precision_around_it_is_not_in_it():
    network = discriminator().float()
    images, labels = (inputs()[0].float(), inputs()[1])
    penalty, gradients = r1_gradients(network, images, labels)
    with torch.autocast("cpu", torch.bfloat16):
        again, same = r1_gradients(network, images, labels)
    assert torch.equal(penalty, again)
    for name, value in gradients.items():
        assert torch.equal(value, same[name]), name


def test_dropped_features_are_dropped_here_too():
    network = discriminator()
    nothing = torch.zeros(BATCH, 32, dtype=torch.float64)
    assert r1_gradients(network, *inputs(), mask=nothing)[0] == 0
    everything = r1_gradients(network, *inputs())[0]
    doubled = r1_gradients(network, *inputs(), mask=2 * torch.ones_like(nothing))[0]
    assert doubled.item() == pytest.approx(4 * everything.item())


def test_a_compiled_discriminator_is_differentiated_twice_as_it_was_written():
    network = discriminator()
    penalty, gradients = r1_gradients(network, *inputs())
    network.compile(backend="aot_eager")  # whose gradients have no gradients
    again, same = r1_gradients(network, *inputs())
    assert torch.equal(penalty, again)
    for name, value in gradients.items():
        assert torch.equal(value, same[name]), name
