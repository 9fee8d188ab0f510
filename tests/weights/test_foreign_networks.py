"""What is read from files of other software computes what its networks compute."""

import pytest
import torch

import biggan
from foreign_networks import (
    BROCK,
    IVCLAB,
    LABELS,
    MMGENERATION,
    STUDIOGAN,
    random_discriminator,
    random_generator,
)

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
