"""ajbrock's format: what is read from its files computes what its networks compute."""

import numpy as np
import pytest
import torch

import biggan
from biggan.weights.formats import brock
from biggan.weights.formats.conversion import ForeignTensors
from biggan.weights.networks import assemble
from foreign_networks import (
    BROCK,
    RandomWeights,
    brock_deep_discriminator,
    brock_deep_generator,
    brock_discriminator,
    brock_generator,
)
from tiny import refusal

# Channels at 4x4 pixels and after each doubling, as its table of architectures has them.
G_WIDTHS = {
    32: [32, 32, 32, 32],
    64: [64, 64, 32, 16, 8],
    128: [128, 128, 64, 32, 16, 8],
    256: [128, 128, 64, 64, 32, 16, 8],
    512: [128, 128, 64, 64, 32, 16, 8, 8],
}
D_WIDTHS = {
    32: [32, 32, 32, 32],
    64: [8, 16, 32, 64, 128],
    128: [8, 16, 32, 64, 128, 128],
    256: [8, 16, 32, 64, 64, 128, 128],
    512: [8, 8, 16, 32, 64, 64, 128, 128],
}


def network(weights, **epsilons):
    source = ForeignTensors(dict(weights.tensors), "G.pth", epsilons)
    assert brock.matches(source)
    converted = brock.convert(source)
    return assemble(converted.config, converted.grid, converted.tensors, "G.pth")


def assert_same_generator(theirs, z_dim, widths, attention, options, classes=5):
    weights = RandomWeights()
    random = torch.Generator().manual_seed(3)
    z, labels = torch.randn(2, z_dim, generator=random), torch.tensor([0, classes - 1])
    with torch.no_grad():
        expected = theirs(weights, z, labels, widths, attention, classes=classes, **options)
        epsilons = {key: options[key] for key in ("bn_eps", "sn_eps") if key in options}
        ours = network(weights, **epsilons)
        found = ours(z, labels)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert expected.std() > 0.1  # neither flat nor saturated
    assert expected.abs().mean() < 0.95
    return ours.config


@pytest.mark.parametrize("resolution", G_WIDTHS)
def test_a_generator_of_each_size(resolution):
    widths = G_WIDTHS[resolution]
    attention = {32: 16, 64: 32, 128: 64, 256: 64, 512: 64}[resolution]
    config = assert_same_generator(brock_generator, 4 * len(widths), widths, attention, {})
    assert config.resolution == resolution
    assert config.channels == 8 if resolution != 64 else 4
    assert (config.bn_eps, config.sn_eps) == (1e-5, 1e-6)


@pytest.mark.parametrize(
    ("options", "attention"),
    [
        ({"hier": False}, 16),
        ({"hier": False, "shared": False}, 0),  # its script for CIFAR-10
        ({"hier": False, "shared": False}, 8),
        ({"bn": "mybn"}, 16),
        ({"bn": "cross_replica"}, 0),
        ({"bn_eps": 0.1, "sn_eps": 1e-4}, 0),
    ],
)
def test_every_way_of_conditioning(options, attention):
    config = assert_same_generator(brock_generator, 12, G_WIDTHS[32], attention, options, classes=7)
    assert config.num_classes == 7
    assert config.skip_z == options.get("hier", True)
    assert config.shared_embedding == options.get("shared", True)


@pytest.mark.parametrize(("resolution", "rgb"), [(32, 3), (64, 3), (128, 32)])
def test_a_deep_generator(resolution, rgb):
    widths = [2 * width for width in G_WIDTHS[resolution]]
    attention = {32: 0, 64: 64, 128: 64}[resolution]
    config = assert_same_generator(brock_deep_generator, 12, widths, attention, {"rgb": rgb})
    assert config.family == "biggan-deep"
    assert config.rgb_channels == (rgb if rgb > 3 else 0)


@pytest.mark.parametrize("resolution", D_WIDTHS)
@pytest.mark.parametrize("deep", [False, True])
def test_a_discriminator_of_each_size(resolution, deep):
    widths = D_WIDTHS[resolution]
    down = 2 if resolution == 32 else len(widths) - 1
    # at 32 px its table has attention after every block or after none
    attention = {32: 0, 64: 32}.get(resolution, 64)
    theirs = brock_deep_discriminator if deep else brock_discriminator
    weights = RandomWeights()
    images = torch.rand(2, 3, resolution, resolution) * 2 - 1
    labels = torch.tensor([4, 1])
    with torch.no_grad():
        expected = theirs(weights, images, labels, widths, down, attention)
        ours = network(weights)
        found = ours(images, labels)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert ours.config.resolution == resolution
    assert ours.config.attention_resolution == attention


def test_accumulated_sums_become_means():
    weights = RandomWeights()
    z, labels = torch.randn(2, 16), torch.tensor([0, 1])
    with torch.no_grad():
        expected = brock_generator(weights, z, labels, G_WIDTHS[32], 0, bn="mybn")
        for name, tensor in weights.tensors.items():
            if "accumulation_counter" in name:
                tensor.fill_(16)
            elif "stored_" in name:
                tensor.mul_(16)
        torch.testing.assert_close(network(weights)(z, labels), expected, rtol=0, atol=2e-5)


def test_singular_vectors_that_were_only_logged_are_left():
    weights = RandomWeights()
    z, labels = torch.randn(2, 16), torch.tensor([0, 1])
    expected = brock_generator(weights, z, labels, G_WIDTHS[32], 16)
    weights("linear.u1", 1, 512)
    weights("linear.sv1", 1)
    torch.testing.assert_close(network(weights)(z, labels), expected, rtol=0, atol=2e-5)


def faulty(change):
    weights = RandomWeights()
    brock_generator(weights, torch.randn(1, 16), torch.tensor([0]), G_WIDTHS[32], 16)
    change(weights.tensors)
    return refusal(network, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("shared.weight"), "lacks shared.weight"),
        (lambda t: t.update({"linear.weight": torch.zeros(3)}), "linear.weight is (3,)"),
        (lambda t: t.update({"blocks.2.1.theta.weight": torch.zeros(1)}), "only one"),
        (lambda t: t.update({"blocks.0.0.conv4.weight": torch.zeros(1)}), "has 3 blocks, not two"),
    ],
)
def test_networks_that_cannot_be_built(change, message):
    assert message in faulty(change)


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_narrow_networks(channels):
    widths = [channels * width for width in (16, 16, 8, 4, 2, 1)]
    config = assert_same_generator(brock_deep_generator, 8, widths, 0, {})
    assert config.channels == channels
    assert assert_same_generator(brock_generator, 12, widths, 0, {}).channels == channels


@pytest.mark.parametrize("depth", [1, 3, 4])
@pytest.mark.parametrize("widths", [[32, 32, 32, 32], [64, 64, 32, 16, 8]])
def test_another_depth_is_refused(depth, widths):
    weights = RandomWeights()
    z, labels = torch.randn(1, 8), torch.tensor([0])
    with torch.no_grad():
        brock_deep_generator(weights, z, labels, widths, 0, depth=depth)
    with pytest.raises(biggan.InputError, match="a --G_depth other than 2"):
        network(weights)


def test_a_narrow_discriminator_is_refused():
    weights = RandomWeights()
    brock_discriminator(weights, torch.rand(1, 3, 32, 32), torch.tensor([0]), D_WIDTHS[32], 2, 0)
    weights.tensors["blocks.1.0.conv1.weight"] = torch.zeros(3, 32, 3, 3)
    with pytest.raises(biggan.InputError, match="D_wide"):
        network(weights)


def test_what_is_loaded_can_be_trained_further():
    """Its spectral norms go on from the stored vectors, as they would have in its own training."""
    weights = RandomWeights()
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 3])
    brock_discriminator(weights, images, labels, D_WIDTHS[32], 2, 16)
    trained = network(weights).train()
    layer = trained.blocks[1].conv1
    matrix = layer.weight.detach().flatten(1)
    v = torch.nn.functional.normalize(matrix.T @ layer.u, dim=0)
    u = torch.nn.functional.normalize(matrix @ v, dim=0)
    optimizer = torch.optim.Adam(trained.parameters(), 1e-3)
    losses = []
    for step in range(5):
        loss = trained(images, labels).square().mean()
        if step == 0:
            torch.testing.assert_close(layer.u, u)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_defaults_are_those_of_its_training_scripts():
    assert BROCK["bn_eps"] == brock.BN_EPS
    assert BROCK["sn_eps"] == brock.SN_EPS


@torch.no_grad()
def test_a_class_conditional_network_of_ic_gan(tmp_path):
    """Saved from a parallel wrapper, with BatchNorm2d in its BatchNorm."""
    weights, judge = RandomWeights(), RandomWeights()
    z, labels, images = torch.randn(2, 16), torch.tensor([0, 1]), torch.rand(2, 3, 32, 32)
    expected = brock_generator(weights, z, labels, G_WIDTHS[32], 16, bn="cross_replica")
    logits = brock_discriminator(judge, images, labels, D_WIDTHS[32], 2, 0)
    wrapped = {f"module.{name}": tensor for name, tensor in judge.tensors.items()}
    torch.save(weights.tensors, tmp_path / "G_ema_best0.pth")
    torch.save(wrapped, tmp_path / "D_best0.pth")
    counters = {"itr": 5, "epoch": 1, "best_FID": np.float64(9.5), "config": {"resolution": 32}}
    torch.save(counters, tmp_path / "state_dict_best0.pth")
    found = biggan.load(tmp_path).generator(z, labels)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    found = biggan.load_discriminator(tmp_path)(images, labels)
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(biggan.InputError, match="a run's counters"):
        biggan.load(tmp_path / "state_dict_best0.pth")


@pytest.mark.parametrize("name", ["shared_feat.weight", "module.linear_feat.u0"])
def test_networks_conditioned_on_features_are_refused(tmp_path, name):
    weights = RandomWeights()
    brock_generator(weights, torch.randn(1, 16), torch.tensor([0]), G_WIDTHS[32], 0)
    prefix = name.partition("module.")[1]
    tensors = {prefix + key: tensor for key, tensor in weights.tensors.items()}
    torch.save({**tensors, name: torch.zeros(1)}, tmp_path / "G.pth")
    with pytest.raises(biggan.InputError, match=r"features of images \(IC-GAN\)"):
        biggan.load(tmp_path / "G.pth")
