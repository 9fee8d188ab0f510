"""The largest singular values against an SVD, on trained networks and on hard matrices."""

import pytest
import torch
from torch import nn

import biggan
from biggan.training import singular_values
from biggan.training.singular_values import measure, weight_matrices
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step

CPU = torch.device("cpu")


def assert_near_svd(found, matrices):
    assert found.keys() == matrices.keys()
    for name, matrix in matrices.items():
        expected = torch.linalg.svdvals(matrix.double())[:3]
        assert found[name] == pytest.approx(expected.tolist(), rel=0.01, abs=0), name


def with_spectrum(values, rows, columns):
    random = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(
        torch.randn(rows, columns, generator=random, dtype=torch.float64), full_matrices=False
    )
    return (left * torch.tensor(values, dtype=torch.float64) @ right).float()


@pytest.fixture(scope="module")
def trained():
    """A discriminator and a generator that large steps have moved far from where they began."""
    from biggan.training import load_recipe

    narrow = ["generator.channels=8", "discriminator.channels=8", "batch_size=8"]
    rates = ["optimizer.g_lr=1e-2", "optimizer.d_lr=1e-2"]
    config = load_recipe("digits", narrow + rates).fitted(10)
    state = TrainState.create(config, CPU)
    random = torch.Generator().manual_seed(0)
    for _ in range(4):
        labels = torch.randint(10, (8,), generator=random)
        images = torch.rand(8, 1, 32, 32, generator=random) * 2 - 1
        discriminator_step(state, (images, labels), config)
        generator_step(state, config)
    return state


def test_the_bundled_generator():
    matrices = weight_matrices(biggan.load("digits").generator)
    assert {"class_embedding.table", "linear", "blocks.0.conv1", "head.conv"} <= matrices.keys()
    assert_near_svd(measure(matrices, {}), matrices)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_networks_in_training_one_look_after_another(trained, network):
    blocks = {}
    matrices = weight_matrices(getattr(trained, network))
    random = torch.Generator().manual_seed(1)
    for _ in range(3):
        assert_near_svd(measure(matrices, blocks), matrices)
        for matrix in matrices.values():  # as far as some steps take it
            matrix += 0.01 * torch.randn(matrix.shape, generator=random)


@pytest.mark.parametrize(
    "values",
    [
        [1.0] * 40,
        [1.001, 1.0, 0.999, *(0.99 - 0.001 * i for i in range(37))],
        [2.0**-i for i in range(40)],
        [100.0, *[0.1] * 39],
        [1e-6] * 40,
        [88.0, 30.0, 29.99, 29.98, *(25 - 0.5 * i for i in range(36))],
        [10.0 ** (5 - i / 4) for i in range(40)],
    ],
    ids=["flat", "close", "halving", "one", "tiny", "collapse", "wide"],
)
@pytest.mark.parametrize("tall", [False, True])
def test_spectra_that_are_hard(values, tall):
    matrix = with_spectrum(values, 40, 120)
    matrices = {"layer": matrix.mT.contiguous() if tall else matrix}
    assert_near_svd(measure(matrices, {}), matrices)


def test_random_matrices_whose_largest_values_crowd():
    random = torch.Generator().manual_seed(0)
    shapes = [(256, 2304), (300, 300), (9, 400)]
    matrices = {str(s): torch.randn(s, generator=random) for s in shapes}
    assert_near_svd(measure(matrices, {}), matrices)


def test_thin_matrices_have_fewer_values():
    two = torch.tensor([[2.0, 0, 0], [0, 5, 0]])
    matrices = {"row": torch.tensor([[3.0, 4.0]]), "two": two, "tall": two.mT.repeat(10, 1)}
    found = measure(matrices, {})
    assert found["tall"] == pytest.approx([5 * 10**0.5, 2 * 10**0.5])
    assert found["row"] == pytest.approx([5])
    assert found["two"] == pytest.approx([5, 2])


def test_zeros_and_what_is_not_finite_spoil_no_other_layer():
    bad = torch.eye(20)
    bad[3, 4] = float("nan")
    matrices = {"zero": torch.zeros(20, 30), "bad": bad, "good": 7 * torch.eye(20)}
    blocks = {}
    found = measure(matrices, blocks)
    assert found["zero"] == [0, 0, 0]
    assert found["bad"] == pytest.approx([float("nan")] * 3, nan_ok=True)
    assert found["good"] == pytest.approx([7, 7, 7])
    assert measure({**matrices, "bad": torch.eye(20)}, blocks)["bad"] == pytest.approx([1, 1, 1])


def test_a_kernel_is_its_matrix_and_an_embedding_its_table():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Embedding(5, 7), nn.BatchNorm2d(8))
    matrices = weight_matrices(network)
    assert {name: tuple(m.shape) for name, m in matrices.items()} == {"0": (8, 27), "1": (5, 7)}
    assert not matrices["0"].requires_grad


def test_a_second_look_takes_few_iterations(monkeypatch):
    random = torch.Generator().manual_seed(0)
    matrices = {"layer": torch.randn(200, 300, generator=random)}
    blocks, iterations = {}, []
    real = singular_values._orthonormal
    monkeypatch.setattr(
        singular_values, "_orthonormal", lambda b: iterations.append(len(b)) or real(b)
    )
    measure(matrices, blocks)
    first = sum(iterations)
    matrices["layer"] += 0.001 * torch.randn(200, 300, generator=random)
    measure(matrices, blocks)
    assert sum(iterations) - first <= 3 < first
