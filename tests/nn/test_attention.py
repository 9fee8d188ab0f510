"""Self-attention against an einsum written from the SA-GAN code's description."""

import pytest
import torch
from torch.nn import functional as F

from biggan.nn import SelfAttention2d, attention, initialize_orthogonal


def attention_layer(channels=16):
    layer = SelfAttention2d(channels).double().eval()
    initialize_orthogonal(layer, seed=0)
    return layer


def test_equals_an_einsum():
    layer = attention_layer()
    layer.gamma.data.fill_(0.7)
    x = torch.randn(2, 16, 6, 4, dtype=torch.float64)

    def project(conv, image):
        return torch.einsum("oi,nihw->nohw", conv.normalized_weight()[:, :, 0, 0], image)

    query = project(layer.theta, x).flatten(2)
    key = F.max_pool2d(project(layer.phi, x), 2).flatten(2)
    value = F.max_pool2d(project(layer.g, x), 2).flatten(2)
    weights = torch.einsum("ncq,nck->nqk", query, key).softmax(dim=2)
    attended = torch.einsum("nqk,nck->ncq", weights, value).view(2, 8, 6, 4)
    torch.testing.assert_close(layer(x), x + 0.7 * project(layer.o, attended))


def test_starts_as_the_identity():
    layer = attention_layer()
    x = torch.randn(1, 16, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x, rtol=0, atol=0)


def test_widths_follow_the_code_and_not_the_papers_text():
    layer = attention_layer(64)
    assert layer.theta.weight.shape == layer.phi.weight.shape == (8, 64, 1, 1)
    assert layer.g.weight.shape == (32, 64, 1, 1)
    assert layer.o.weight.shape == (64, 32, 1, 1)
    assert [layer.theta.bias, layer.phi.bias, layer.g.bias, layer.o.bias] == [None] * 4


# --- in parts, against the formula ---


def plain(query, key, value):
    return torch.softmax(query @ key.mT, dim=-1) @ value


@pytest.fixture(params=["parts", "whole"])
def inputs(request, monkeypatch):
    """Two images of 7 positions, 5 of them attended to."""
    if request.param == "parts":
        monkeypatch.setattr(attention, "_WEIGHTS", 15)  # 3, 3 and 1 positions
    shapes = (2, 7, 3), (2, 5, 3), (2, 5, 4)
    return [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
def test_it_is_the_formula_with_its_derivatives(inputs):
    torch.testing.assert_close(attention.attend(*inputs), plain(*inputs))
    attend = attention.attend
    assert torch.autograd.gradcheck(attend, inputs, check_batched_grad=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(attend, inputs)


def test_it_takes_the_transforms_of_torch_func(inputs):
    query, key, value = inputs
    queries = torch.stack([query, 2 * query], dim=1)
    made = torch.vmap(attention.attend, in_dims=(1, None, None))(queries, key, value)
    torch.testing.assert_close(made, torch.stack([plain(q, key, value) for q in queries.unbind(1)]))
    with torch.inference_mode():
        torch.testing.assert_close(attention.attend(*inputs), plain(*inputs))


def test_autocast_does_not_lower_its_precision(inputs):
    inputs = [x.detach().float().requires_grad_() for x in inputs]
    weights = torch.randn(2, 7, 4)
    found = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            made = attention.attend(*inputs)
            found.append([made, *torch.autograd.grad((made * weights).sum(), inputs)])
    for lowered, exact in zip(*found, strict=True):
        assert torch.equal(lowered, exact)


@pytest.mark.parametrize("changed", range(4))
def test_what_is_changed_before_the_backward_pass_is_noticed(inputs, changed):
    made = attention.attend(*inputs)
    loss = made.sum()
    with torch.no_grad():
        (*inputs, made)[changed].mul_(2)
    with pytest.raises(RuntimeError, match="modified"):
        torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("mkl_is_slow", [True, False])
def test_large_images_have_their_products_by_the_faster_library(mkl_is_slow, monkeypatch):
    monkeypatch.setattr("biggan.nn.matrix_product.mkl_is_slow", lambda: mkl_is_slow)
    shapes = (1, 1024, 16), (1, 256, 16), (1, 256, 64)
    inputs = [torch.randn(shape).requires_grad_() for shape in shapes]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected, made = plain(*exact), attention.attend(*inputs)
    expected.square().sum().backward()
    made.square().sum().backward()
    torch.testing.assert_close(made.double(), expected, rtol=1e-4, atol=1e-5)
    for x, y in zip(inputs, exact, strict=True):
        torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-3, atol=1e-4)
