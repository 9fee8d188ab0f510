import pytest
import torch
from torch import nn

from biggan.nn import SpectralNormConv2d, initialize_orthogonal


def test_weights_are_orthogonal_and_biases_zero():
    layer = SpectralNormConv2d(6, 4, 3)
    initialize_orthogonal(layer, seed=0)
    matrix = layer.weight.detach().flatten(1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(4))
    assert torch.equal(layer.bias, torch.zeros(4))
    torch.testing.assert_close(layer.u.norm(), torch.ones(()))
    torch.testing.assert_close(layer.sigma(), torch.ones(()))


@pytest.mark.parametrize("shape", [(256, 128, 3, 3), (1100, 256)])
def test_large_matrices_are_those_of_a_qr_decomposition(shape):
    layer = nn.Linear(*shape[::-1]) if len(shape) == 2 else SpectralNormConv2d(128, 256, 3)
    initialize_orthogonal(layer, seed=3)
    exact = torch.empty(shape, dtype=torch.float64)
    rows, columns = exact.flatten(1).shape
    drawn = torch.randn(rows, columns, generator=torch.Generator().manual_seed(3)).double()
    q, r = torch.linalg.qr(drawn.mT if rows < columns else drawn)
    q = q * r.diagonal().sign()
    exact = (q.mT if rows < columns else q).reshape(shape)
    torch.testing.assert_close(layer.weight.detach().double(), exact, atol=1e-6, rtol=0)


def test_a_seed_names_a_network_and_leaves_the_global_stream_alone():
    def weights(seed):
        network = nn.Sequential(SpectralNormConv2d(3, 4, 3), SpectralNormConv2d(4, 4, 1))
        initialize_orthogonal(network, seed)
        return torch.cat([value.flatten() for value in network.state_dict().values()])

    before = torch.random.get_rng_state()
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(torch.random.get_rng_state(), before)
