"""Activation checkpointing changes nothing but what is kept."""

import copy

import pytest
import torch

from biggan import build_discriminator, build_generator
from biggan.models import get_preset

FAMILIES = ["biggan-128", "biggan-deep-128"]


def networks(name):
    preset = get_preset(name)
    generator = preset.generator.updated(
        {"channels": 4, "resolution": 32, "widths": [4, 4, 2, 2], "attention_resolution": 16}
        | {"z_dim": 16, "num_classes": 3}
    )
    discriminator = preset.discriminator.updated(
        {"channels": 4, "resolution": 32, "widths": [2, 2, 4, 4], "attention_resolution": 16}
        | {"down_blocks": 2, "num_classes": 3}
    )
    return build_generator(generator, seed=0), build_discriminator(discriminator, seed=1)


def step(generator, discriminator):
    random = torch.Generator().manual_seed(2)
    z = torch.randn(4, 16, generator=random)
    labels = torch.tensor([0, 1, 2, 1])
    logits = discriminator(generator(z, labels), labels)
    logits.mean().backward()
    return logits


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_to_the_bit(name):
    plain = networks(name)
    recomputed = copy.deepcopy(plain)
    for network in recomputed:
        network.recompute = True
    assert torch.equal(step(*plain), step(*recomputed))
    for network, other in zip(plain, recomputed, strict=True):
        for (key, value), same in zip(network.named_parameters(), other.parameters(), strict=True):
            assert torch.equal(value.grad, same.grad), key
        for (key, value), same in zip(
            network.state_dict().items(), other.state_dict().values(), strict=True
        ):
            assert torch.equal(value, same), key
    momenta = {m.momentum for m in recomputed[0].modules() if hasattr(m, "momentum")}
    assert momenta == {0.1}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("which", [0, 1])
def test_at_most_half_is_kept(name, which):
    def kept(recompute):
        network = networks(name)[which]
        network.recompute = recompute
        own = {t.untyped_storage().data_ptr() for t in network.state_dict().values()}
        seen = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own and tensor.ndim == 4 and len(tensor) == 4:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        labels = torch.tensor([0, 1, 2, 1])
        first = torch.randn((4, 16) if which == 0 else (4, 3, 32, 32))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = network(first, labels)
        assert output.requires_grad
        return sum(seen.values())

    assert kept(recompute=True) <= 0.5 * kept(recompute=False)


def test_nothing_is_recomputed_without_gradients(monkeypatch):
    from biggan.nn import recomputation

    generator, _ = networks("biggan-128")
    generator.recompute = True
    monkeypatch.setattr(recomputation, "checkpoint", None)
    with torch.no_grad():
        generator(torch.randn(2, 16), torch.tensor([0, 1]))
