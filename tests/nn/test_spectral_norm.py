"""Spectral normalization against the singular value decomposition, in float64."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from biggan.nn import (
    SpectralNormConv2d,
    SpectralNormEmbedding,
    SpectralNormLinear,
    SpectralNormNetwork,
    hold_power_iteration,
    initialize_orthogonal,
    iterate_power,
)

LAYERS = {
    "conv": lambda: SpectralNormConv2d(5, 7, 3),
    "linear": lambda: SpectralNormLinear(6, 9),
    "tall linear": lambda: SpectralNormLinear(4, 40, bias=False),
    "embedding": lambda: SpectralNormEmbedding(11, 5),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    layer = LAYERS[request.param]().double()
    initialize_orthogonal(layer, seed=0)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():  # an orthogonal matrix has all singular values equal: nothing to find
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=random, dtype=torch.float64))
    return layer


class Normalized(nn.Module):
    """The normalized weight of a layer, for functional_call."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self):
        return self.layer.normalized_weight()


def largest_singular_value(weight):
    return torch.linalg.svdvals(weight.flatten(1))[0]


def an_input(layer):
    if isinstance(layer, nn.Conv2d):
        return torch.randn(2, layer.in_channels, 4, 4, dtype=torch.float64)
    if isinstance(layer, nn.Linear):
        return torch.randn(2, layer.in_features, dtype=torch.float64)
    return torch.tensor([0, 3])


def test_training_forwards_converge_to_sigma_one(layer):
    layer.train()
    for _ in range(500):
        layer(an_input(layer))
    torch.testing.assert_close(
        largest_singular_value(layer.eval().normalized_weight()),
        torch.ones((), dtype=torch.float64),
        rtol=0,
        atol=1e-9,
    )


def test_one_training_forward_is_one_power_iteration(layer):
    matrix, u = layer.weight.detach().flatten(1), layer.u.clone()
    v = matrix.T @ u / (matrix.T @ u).norm()
    u = matrix @ v / (matrix @ v).norm()
    layer.train()(an_input(layer))
    torch.testing.assert_close(layer.v, v)
    torch.testing.assert_close(layer.u, u)


def test_eval_mode_moves_nothing_and_uses_what_is_stored(layer):
    layer.eval()
    u, v = layer.u.clone(), layer.v.clone()
    expected = layer.weight / (u @ layer.weight.flatten(1) @ v)
    for _ in range(3):
        layer(an_input(layer))
    assert torch.equal(layer.u, u)
    assert torch.equal(layer.v, v)
    torch.testing.assert_close(layer.normalized_weight(), expected)


def test_held_layers_do_not_iterate_and_move_again_afterwards(layer):
    layer.train()
    u = layer.u.clone()
    with hold_power_iteration(layer):
        layer(an_input(layer))
        assert torch.equal(layer.u, u)
    layer(an_input(layer))
    assert not torch.equal(layer.u, u)


@pytest.mark.parametrize("training", [False, True])
def test_the_gradients_are_those_of_the_quotient(layer, training):
    layer.train(training)
    iterate_power(layer, keep_images=training)

    def normalized(weight):
        layer.image = None if layer.image is None else weight.detach().flatten(1) @ layer.v
        layer.holds_power_iteration = True
        return torch.func.functional_call(Normalized(layer), {"layer.weight": weight}, ())

    weight = layer.weight.detach().requires_grad_()
    u, v = layer.u.clone(), layer.v.clone()
    expected = weight / (u @ weight.flatten(1) @ v)
    torch.testing.assert_close(normalized(weight), expected)
    assert gradcheck(normalized, weight, fast_mode=True)
    assert gradgradcheck(normalized, weight, fast_mode=True)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("side", [2, 6])
def test_a_small_input_is_divided_instead_of_the_weight(side, training):
    layer = SpectralNormConv2d(5, 7, 3).double().train(training)
    initialize_orthogonal(layer, seed=0)
    x = torch.randn(1, 5, side, side, dtype=torch.float64).requires_grad_()
    with hold_power_iteration(layer):
        divided, weight = layer.normalize(x)
        assert (weight is layer.weight) == (side == 2)
        assert (divided is x) == (side == 6)

        def convolve(x, weight, bias):
            values = {"weight": weight, "bias": bias}
            return torch.func.functional_call(layer, values, x).square()

        inputs = [x, *(p.detach().requires_grad_() for p in layer.parameters())]
        assert gradcheck(convolve, inputs, fast_mode=True)
        assert gradgradcheck(convolve, inputs, fast_mode=True)
        expected = F.conv2d(x, layer.normalized_weight(), layer.bias, padding=1)
        torch.testing.assert_close(layer(x), expected)


def test_two_forwards_before_one_backward(layer):
    """The second forward updates u and v in place; the first one's graph must not notice."""
    layer.train()
    x = an_input(layer)
    first = layer(x)
    matrix, u, v = layer.weight.detach().flatten(1), layer.u.clone(), layer.v.clone()
    layer(x)
    (gradient,) = torch.autograd.grad(first.sum(), layer.weight)

    weight = layer.weight.detach().clone().requires_grad_()
    sigma = u @ weight.flatten(1) @ v
    if isinstance(layer, nn.Conv2d):
        expected = F.conv2d(x, weight / sigma, layer.bias, padding=layer.padding)
    elif isinstance(layer, nn.Linear):
        expected = F.linear(x, weight / sigma, layer.bias)
    else:
        expected = (weight / sigma)[x]
    (expected_gradient,) = torch.autograd.grad(expected.sum(), weight)
    torch.testing.assert_close(gradient, expected_gradient)
    assert matrix.shape == layer.weight.flatten(1).shape


def test_embedding_of_class_weights_mixes_rows():
    layer = SpectralNormEmbedding(4, 3)
    initialize_orthogonal(layer, seed=0)
    layer.eval()
    mixed = layer(torch.tensor([[0.25, 0.75, 0.0, 0.0]]))
    rows = layer(torch.tensor([0, 1]))
    torch.testing.assert_close(mixed[0], 0.25 * rows[0] + 0.75 * rows[1])


class TwoLayers(SpectralNormNetwork):
    def __init__(self):
        super().__init__()
        self.first = SpectralNormConv2d(3, 8, 3)
        self.second = SpectralNormConv2d(8, 4, 1)
        self.join_power_iteration()

    def forward(self, x):
        self.begin_forward()
        return self.second(self.first(x))


@pytest.fixture
def network():
    network = TwoLayers()
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.normal_(generator=random)
    return network


def test_a_network_takes_the_steps_that_its_layers_would_have_taken(network):
    alone = copy.deepcopy(network)
    for layer in (alone.first, alone.second):
        layer.iterate_power()
    network.train()(torch.zeros(1, 3, 4, 4))
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor)


def test_a_network_that_is_held_or_in_eval_mode_takes_no_step(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with hold_power_iteration(network):
        network.train()(torch.zeros(1, 3, 4, 4))
    network.eval()(torch.zeros(1, 3, 4, 4))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    network.train()(torch.zeros(1, 3, 4, 4))
    assert not torch.equal(network.first.u, before["first.u"])


def test_a_forward_that_failed_leaves_nothing_to_the_next_one_in_eval_mode(network):
    network.train()
    network.begin_forward()  # and no layer ran
    with torch.no_grad():
        network.first.weight *= 2
    expected = network.first.weight / network.first.sigma()
    torch.testing.assert_close(network.eval().first.normalized_weight(), expected)


class CountOperations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view:  # a view starts nothing on a GPU
            self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def test_a_layer_more_costs_two_products_more_and_nothing_else():
    def operations(layers):
        network = nn.ModuleList(SpectralNormLinear(4, 4) for _ in range(layers))
        initialize_orthogonal(network, seed=0)
        iterate_power(network)  # what is done once only
        with CountOperations() as counted:
            iterate_power(network)
        return counted.counts

    assert operations(12) - operations(4) == Counter(mv=2 * 8)
