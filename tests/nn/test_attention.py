"""Self-attention against an einsum written from the SA-GAN code's description."""

import torch
from torch.nn import functional as F

from biggan.nn import SelfAttention2d, initialize_orthogonal


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
