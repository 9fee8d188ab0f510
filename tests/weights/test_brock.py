"""ajbrock's files: what its trainings leave."""

import numpy as np
import pytest
import torch

import biggan
from biggan.weights.formats import brock
from biggan.weights.formats.conversion import ForeignTensors
from biggan.weights.load import assemble
from foreign_networks import BROCK, LABELS, random_discriminator, random_generator

WIDTHS = [32, 32, 32, 32]


def network(tensors):
    source = ForeignTensors(dict(tensors), "G.pth")
    converted = brock.convert(source)
    return assemble(converted.config, converted.grid, converted.tensors, "G.pth")


def test_accumulated_sums_become_means():
    tensors, z, expected = random_generator(WIDTHS, 0, 16, BROCK | {"statistics": "mybn"})
    for name, tensor in tensors.items():
        if "accumulation_counter" in name:
            tensor.fill_(16)
        elif "stored_" in name:
            tensor.mul_(16)
    torch.testing.assert_close(network(tensors)(z, LABELS), expected, rtol=0, atol=2e-5)


def test_singular_vectors_that_were_only_logged_are_left():
    tensors, z, expected = random_generator(WIDTHS, 16, 16, BROCK)
    tensors |= {"linear.u1": torch.ones(1, 512), "linear.sv1": torch.ones(1)}
    torch.testing.assert_close(network(tensors)(z, LABELS), expected, rtol=0, atol=2e-5)


def test_what_is_loaded_can_be_trained_further():
    """Its spectral norms go on from the stored vectors, as they would have in its own training."""
    tensors, images, _ = random_discriminator(32, 16, BROCK)
    trained = network(tensors).train()
    layer = trained.blocks[1].conv1
    matrix = layer.weight.detach().flatten(1)
    v = torch.nn.functional.normalize(matrix.T @ layer.u, dim=0)
    u = torch.nn.functional.normalize(matrix @ v, dim=0)
    optimizer = torch.optim.Adam(trained.parameters(), 1e-3)
    losses = []
    for step in range(5):
        loss = trained(images, LABELS).square().mean()
        if step == 0:
            torch.testing.assert_close(layer.u, u)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_a_class_conditional_network_of_ic_gan(tmp_path):
    """Saved from a parallel wrapper, with BatchNorm2d in its BatchNorm."""
    net = BROCK | {"statistics": "cross_replica"}
    tensors, z, expected = random_generator(WIDTHS, 16, 16, net)
    judge, images, logits = random_discriminator(32, 0, BROCK)
    wrapped = {f"module.{name}": tensor for name, tensor in judge.items()}
    torch.save(tensors, tmp_path / "G_ema_best0.pth")
    torch.save(wrapped, tmp_path / "D_best0.pth")
    counters = {"itr": 5, "epoch": 1, "best_FID": np.float64(9.5), "config": {"resolution": 32}}
    torch.save(counters, tmp_path / "state_dict_best0.pth")
    found = biggan.load(tmp_path).generator(z, LABELS)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    found = biggan.load_discriminator(tmp_path)(images, LABELS)
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(biggan.InputError, match="a run's counters"):
        biggan.load(tmp_path / "state_dict_best0.pth")
