"""What is read from files of other software computes what its networks compute, or is refused."""

from functools import partial

import pytest
import torch

import biggan
from biggan.weights.load import read_network
from foreign_networks import (
    BROCK,
    IVCLAB,
    LABELS,
    MMGENERATION,
    STUDIOGAN,
    random_discriminator,
    random_generator,
)
from tiny import refusal

# Channels at 4x4 pixels and after each doubling, as ajbrock's table of architectures has them.
WIDTHS = {
    32: [32, 32, 32, 32],
    64: [64, 64, 32, 16, 8],
    128: [128, 128, 64, 32, 16, 8],
    256: [128, 128, 64, 64, 32, 16, 8],
    512: [128, 128, 64, 64, 32, 16, 8, 8],
}
OTHER_WIDTHS = [64, 32, 16, 8, 4]
DEEP = {"deep": True, "dim": 8}
LATER = {"class_first": False}
BARE = {"condition": "noise", "classes": 0}


@pytest.mark.parametrize(
    ("format_", "widths", "attention", "z_dim", "changes"),
    [
        (BROCK, WIDTHS[32], 16, 16, {}),
        (BROCK, WIDTHS[64], 32, 20, {}),
        (BROCK, WIDTHS[128], 64, 24, {}),
        (BROCK, WIDTHS[256], 64, 28, {}),
        (BROCK, WIDTHS[512], 64, 32, {}),
        (BROCK, WIDTHS[32], 16, 12, {"condition": "embedding"}),
        (BROCK, WIDTHS[32], 0, 12, {"condition": "tables"}),  # its script for CIFAR-10
        (BROCK, WIDTHS[32], 8, 12, {"condition": "tables", "classes": 7}),
        (BROCK, WIDTHS[32], 16, 12, {"statistics": "mybn"}),
        (BROCK, WIDTHS[32], 0, 12, {"statistics": "cross_replica"}),
        (BROCK, WIDTHS[32], 0, 12, {"bn_eps": 0.1, "sn_eps": 1e-4}),
        (BROCK, [64, 64, 64, 64], 0, 12, DEEP),
        (BROCK, [128, 128, 64, 32, 16], 64, 12, DEEP),
        (BROCK, [256, 256, 128, 64, 32, 16], 64, 12, DEEP | LATER | {"rgb": 32}),
        *(
            (BROCK, [channels * width for width in (16, 16, 8, 4, 2, 1)], 0, 12, deep)
            for channels in (2, 3, 5)
            for deep in ({}, DEEP)
        ),
        (STUDIOGAN, WIDTHS[32], 16, 16, {}),
        (STUDIOGAN, OTHER_WIDTHS, 32, 15, {}),
        (STUDIOGAN, WIDTHS[128], 32, 18, {}),
        (STUDIOGAN, WIDTHS[256], 0, 14, {}),
        (STUDIOGAN, WIDTHS[32], 8, 16, BARE),
        (STUDIOGAN, WIDTHS[32], 16, 12, {"condition": "tables"}),
        (STUDIOGAN, WIDTHS[32], 0, 16, {"rgb": 1}),
        (STUDIOGAN, OTHER_WIDTHS, 32, 12, DEEP),
        (STUDIOGAN, WIDTHS[32], 16, 12, DEEP | BARE),
        (MMGENERATION, WIDTHS[32], 0, 16, {"norm": "ajbrock"}),
        (MMGENERATION, WIDTHS[64], 64, 15, {}),
        (MMGENERATION, WIDTHS[128], 64, 18, {"norm": "ajbrock"}),
        (MMGENERATION, WIDTHS[32], 0, 16, BARE | {"norm": "ajbrock"}),
        (MMGENERATION, WIDTHS[64], 64, 12, DEEP | LATER | {"channels_last": True}),
        (
            MMGENERATION,
            WIDTHS[32],
            0,
            12,
            DEEP | LATER | {"channels_last": True, "norm": "ajbrock"},
        ),
        (IVCLAB, WIDTHS[128], 64, 18, {"truncation": 0.02}),
        (IVCLAB, WIDTHS[256], 128, 21, {"truncation": 0.58}),
        (IVCLAB, WIDTHS[512], 64, 24, {"truncation": 1.0}),
    ],
)
def test_a_generator(tmp_path, format_, widths, attention, z_dim, changes):
    net = format_ | changes
    tensors, z, expected = random_generator(widths, attention, z_dim, net)
    torch.save(tensors, tmp_path / "x.pth")
    epsilons = {name: value for name, value in changes.items() if name.endswith("_eps")}
    gan = biggan.load(tmp_path / "x.pth", **epsilons)
    found, config = gan.generator(z, LABELS, net.get("truncation")), gan.config
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert (config.family == "biggan-deep") == net["deep"]
    assert [config.channels * width for width in config.widths] == widths
    assert config.channels == max(widths) // (4 if min(widths) == max(widths) else 16)
    assert (config.resolution, config.z_dim) == (4 * 2 ** (len(widths) - 1), z_dim)
    assert (config.num_classes, config.attention_resolution) == (net["classes"], attention)
    assert (config.bn_eps, config.sn_eps) == (net["bn_eps"], net["sn_eps"])
    assert config.shared_embedding == (net["condition"] != "tables")
    assert config.skip_z == (net["condition"] in ("shared", "noise"))
    assert config.image_channels == min(net["rgb"], 3)
    assert config.rgb_channels == (net["rgb"] if net["rgb"] > 3 else 0)


@pytest.mark.parametrize(
    ("format_", "resolution", "attention", "changes"),
    [
        *(
            (BROCK, resolution, attention, deep)
            for resolution, attention in {32: 16, 64: 32, 128: 64, 256: 64, 512: 64}.items()
            for deep in ({}, DEEP)
        ),
        (STUDIOGAN, 32, 16, {}),
        (STUDIOGAN, 32, 8, DEEP),
        (STUDIOGAN, 64, 32, BARE),
        (STUDIOGAN, 64, 16, DEEP),
        (STUDIOGAN, 128, 32, {}),
        (MMGENERATION, 64, 32, {}),
    ],
)
def test_a_discriminator(tmp_path, format_, resolution, attention, changes):
    net = format_ | changes
    tensors, images, expected = random_discriminator(resolution, attention, net)
    torch.save(tensors, tmp_path / "x.pth")
    ours = biggan.load_discriminator(tmp_path / "x.pth")
    torch.testing.assert_close(ours(images, LABELS), expected, rtol=1e-3, atol=1e-4)
    assert (ours.config.family == "biggan-deep") == net["deep"]
    assert (ours.config.resolution, ours.config.attention_resolution) == (resolution, attention)
    assert ours.config.num_classes == net["classes"]
    assert ours.config.relu_before_shortcut == net["in_place"]


def read(tmp_path, tensors):
    torch.save(tensors, tmp_path / "x.pth")
    return read_network(tmp_path / "x.pth").network


def test_accumulated_sums_become_means(tmp_path):
    tensors, z, expected = random_generator(WIDTHS[32], 0, 16, BROCK | {"statistics": "mybn"})
    for name, tensor in tensors.items():
        if "accumulation_counter" in name:
            tensor.fill_(16)
        elif "stored_" in name:
            tensor.mul_(16)
    torch.testing.assert_close(read(tmp_path, tensors)(z, LABELS), expected, rtol=0, atol=2e-5)


def test_singular_vectors_that_were_only_logged_are_left(tmp_path):
    tensors, z, expected = random_generator(WIDTHS[32], 16, 16, BROCK)
    tensors |= {"linear.u1": torch.ones(1, 512), "linear.sv1": torch.ones(1)}
    torch.testing.assert_close(read(tmp_path, tensors)(z, LABELS), expected, rtol=0, atol=2e-5)


def test_what_is_loaded_can_be_trained_further(tmp_path):
    """Its spectral norms go on from the stored vectors, as they would have in its own training."""
    tensors, images, _ = random_discriminator(32, 16, BROCK)
    trained = read(tmp_path, tensors).train()
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


def zeros(*shape):
    return torch.zeros(shape)


GENERATOR = partial(random_generator, WIDTHS[32], 0, 16)
DISCRIMINATOR = partial(random_discriminator, 32, 0)
HEAD = partial(DISCRIMINATOR, STUDIOGAN)


@pytest.mark.parametrize(
    ("make", "name", "tensor", "message"),
    [
        (partial(GENERATOR, BROCK), "shared.weight", None, "lacks shared.weight"),
        (partial(GENERATOR, BROCK), "linear.weight", zeros(3), "linear.weight is (3,)"),
        (partial(GENERATOR, BROCK), "blocks.0.0.conv4.weight", zeros(1), "has 3 blocks, not two"),
        (partial(GENERATOR, BROCK), "shared_feat.weight", zeros(1), "features of images (IC-GAN)"),
        (partial(DISCRIMINATOR, BROCK), "blocks.1.0.conv1.weight", zeros(3, 24, 3, 3), "D_wide"),
        *(
            (
                partial(random_generator, widths, 0, 8, BROCK | {"deep": True, "depth": depth}),
                *(None, None, "a --G_depth other than 2"),
            )
            for depth in (1, 3, 4)
            for widths in (WIDTHS[32], WIDTHS[64])
        ),
        (
            partial(random_generator, WIDTHS[32], 16, 16, BROCK),
            *("blocks.2.1.theta.weight", zeros(1), "only one is supported"),
        ),
        (
            partial(GENERATOR, IVCLAB),
            *("scaledcrossreplicabn.standing_means", zeros(49, 32), "49 truncations"),
        ),
        (
            partial(GENERATOR, IVCLAB),
            *("attention.g.weight_orig", zeros(3, 24, 1, 1), "on 24 channels fits nowhere"),
        ),
        (
            partial(random_generator, [64, 32, 32, 16], 8, 12, IVCLAB),
            *(None, None, "fits at 8, 16 pixels alike"),
        ),
        (HEAD, "linear2.weight_orig", zeros(5, 24), "a head that classifies or embeds"),
        (HEAD, "linear_mi.weight_orig", zeros(5, 24), "TAC-GAN"),
        (HEAD, "info_discrete_linear.weight", zeros(5, 24), "InfoGAN"),
        (HEAD, "linear1.weight_orig", zeros(6, 24), "a head of 6 outputs"),
        (HEAD, "linear1.weight", zeros(1, 24), "layers without spectral normalization"),
        (HEAD, "blocks.4.0.sigma", zeros(1), "attention after block 4, which does not halve"),
        (
            partial(random_discriminator, 32, 16, STUDIOGAN),
            *("blocks.7.0.sigma", zeros(1), "attention in 2 places"),
        ),
        (
            partial(GENERATOR, STUDIOGAN | DEEP),
            *("blocks.0.0.conv2d0.weight_orig", zeros(32, 32, 1, 1), "big_resnet_deep_studiogan"),
        ),
        (
            partial(random_discriminator, 64, 0, STUDIOGAN | DEEP),
            *("blocks.0.0.conv2d0.weight_orig", zeros(16, 8, 1, 1), "big_resnet_deep_studiogan"),
        ),
        (
            partial(GENERATOR, STUDIOGAN | {"condition": "tables"}),
            *("blocks.0.0.bn1.weight", zeros(32), "without conditions"),
        ),
        (
            lambda: [{"linear0.weight": zeros(2)}],
            "blocks.0.0.deconv0.weight",
            zeros(2),
            "deep_conv",
        ),
        (
            partial(GENERATOR, MMGENERATION),
            *("conv_blocks.0.bn1.bn.weight", zeros(32), "BatchNorm without conditions"),
        ),
    ],
)
def test_networks_that_cannot_be_built(tmp_path, make, name, tensor, message):
    tensors, path = make()[0], tmp_path / "x.pth"
    if name is not None:
        tensors[name] = tensor
    torch.save({key: value for key, value in tensors.items() if value is not None}, path)
    said = refusal(read_network, path)
    assert message in said
    assert str(path) in said
