"""StudioGAN's format: what is read from its files computes what its networks compute."""

import pytest
import torch

import biggan
from biggan.weights.load import read_network
from foreign_networks import (
    LABELS,
    STUDIOGAN,
    random_discriminator,
    random_generator,
)
from tiny import refusal

WIDTHS = {
    32: [32, 32, 32, 32],
    64: [64, 32, 16, 8, 4],  # not ajbrock's
    128: [64, 64, 32, 16, 8, 4],
    256: [64, 64, 32, 32, 16, 8, 4],
}


def net(condition="shared", classes=5, *, deep=False):
    return STUDIOGAN | {"condition": condition, "classes": classes, "deep": deep, "in_place": True}


def save(path, tensors, **beside):
    torch.save({"state_dict": tensors, **beside}, path)
    return path


def refused(path):
    message = refusal(read_network, path)
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    ("resolution", "attention", "z_dim", "how"),
    [
        (32, 16, 16, net()),
        (64, 32, 15, net()),
        (128, 32, 18, net()),
        (256, 0, 14, net()),
        (32, 8, 16, net("noise", 0)),
        (32, 16, 12, net("tables")),
        (64, 32, 12, net(deep=True)),
        (32, 16, 12, net("noise", 0, deep=True)),
    ],
)
def test_a_generator(tmp_path, resolution, attention, z_dim, how):
    tensors, z, expected = random_generator(WIDTHS[resolution], attention, z_dim, how)
    gan = biggan.load(save(tmp_path / "x.pth", tensors))
    found = gan.generator(z, LABELS)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    config = gan.config
    assert (config.resolution, config.num_classes, config.z_dim) == (
        *(resolution, how["classes"]),
        z_dim,
    )
    assert (config.bn_eps, config.sn_eps) == (1e-4, 1e-6)


@pytest.mark.parametrize(
    ("resolution", "attention", "how"),
    [
        (32, 16, net()),
        (32, 8, net(deep=True)),
        (64, 32, net("noise", 0)),
        (64, 16, net(deep=True)),
        (128, 32, net()),
    ],
)
def test_a_discriminator(tmp_path, resolution, attention, how):
    tensors, images, expected = random_discriminator(resolution, attention, how)
    found = biggan.load_discriminator(save(tmp_path / "x.pth", tensors))
    torch.testing.assert_close(found(images, LABELS), expected, rtol=1e-4, atol=1e-4)
    assert found.config.relu_before_shortcut
    assert found.config.num_classes == how["classes"]


def test_a_folder_as_its_training_leaves_it(tmp_path):
    digests = {}
    for number, name in enumerate(("G_ema-best", "G-best", "G_ema-current", "G-current")):
        tensors = random_generator(WIDTHS[32], 0, 16, net())[0]
        tensors["conv2d5.bias"] = tensors["conv2d5.bias"] + number
        path = save(tmp_path / f"model={name}-weights-step={number}.pth", tensors, optimizer={})
        digests[path] = biggan.load(path).sha256
    for when in ("best", "current"):
        tensors = random_discriminator(32, 16 if when == "best" else 8, net())[0]
        save(tmp_path / f"model=D-{when}-weights-step=1.pth", tensors)
    assert biggan.load_discriminator(tmp_path).config.attention_resolution == 16
    for path, digest in digests.items():
        assert biggan.load(tmp_path).sha256 == digest
        path.unlink()
    for step in (1, 2):
        save(tmp_path / f"model=G_ema-best-weights-step={step}.pth", {})
    with pytest.raises(biggan.InputError, match=r"several weights files \(model=G_ema-best"):
        biggan.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("linear2.weight_orig", (5, 24), "a head that classifies or embeds"),
        ("linear_mi.weight_orig", (5, 24), "TAC-GAN"),
        ("info_discrete_linear.weight", (5, 24), "InfoGAN"),
        ("linear1.weight_orig", (6, 24), "a head of 6 outputs"),
        ("linear1.weight", (1, 24), "layers without spectral normalization"),
        ("blocks.7.0.sigma", (1,), "attention in 2 places"),
    ],
)
def test_discriminators_of_other_gans_are_refused_by_name(tmp_path, name, shape, message):
    tensors = random_discriminator(32, 16, net())[0]
    tensors[name] = torch.zeros(shape)
    assert message in refused(save(tmp_path / "x.pth", tensors))


def test_other_backbones_are_refused_by_name(tmp_path):
    deep = random_generator(WIDTHS[32], 0, 12, net(deep=True))[0]
    deep["blocks.0.0.conv2d0.weight_orig"] = torch.zeros(32, 32, 1, 1)
    assert "big_resnet_deep_studiogan" in refused(save(tmp_path / "x.pth", deep))
    deep = random_discriminator(64, 0, net(deep=True))[0]
    deep["blocks.0.0.conv2d0.weight_orig"] = torch.zeros(16, 8, 1, 1)
    assert "big_resnet_deep_studiogan" in refused(save(tmp_path / "x.pth", deep))
    plain = random_generator(WIDTHS[32], 0, 12, net("tables"))[0]
    unconditional = {name.replace("bn1.bn.", "bn1."): tensor for name, tensor in plain.items()} | {
        "blocks.0.0.bn1.weight": torch.ones(32)
    }
    assert "without conditions" in refused(save(tmp_path / "x.pth", unconditional))
    dcgan = {"linear0.weight": torch.ones(2), "blocks.0.0.deconv0.weight": torch.ones(2)}
    assert "deep_conv" in refused(save(tmp_path / "x.pth", dcgan))
