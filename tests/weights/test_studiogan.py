"""StudioGAN's files: folders of them, and networks that are refused."""

import pytest
import torch

import biggan
from biggan.weights.load import read_network
from foreign_networks import (
    STUDIOGAN,
    random_discriminator,
    random_generator,
)
from tiny import refusal

WIDTHS = [32, 32, 32, 32]


def save(path, tensors, **beside):
    torch.save({"state_dict": tensors, **beside}, path)
    return path


def refused(path):
    message = refusal(read_network, path)
    assert str(path) in message
    return message


def test_a_folder_as_its_training_leaves_it(tmp_path):
    digests = {}
    for number, name in enumerate(("G_ema-best", "G-best", "G_ema-current", "G-current")):
        tensors = random_generator(WIDTHS, 0, 16, STUDIOGAN)[0]
        tensors["conv2d5.bias"] = tensors["conv2d5.bias"] + number
        path = save(tmp_path / f"model={name}-weights-step={number}.pth", tensors, optimizer={})
        digests[path] = biggan.load(path).sha256
    for when in ("best", "current"):
        tensors = random_discriminator(32, 16 if when == "best" else 8, STUDIOGAN)[0]
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
    tensors = random_discriminator(32, 16, STUDIOGAN)[0]
    tensors[name] = torch.zeros(shape)
    assert message in refused(save(tmp_path / "x.pth", tensors))


def test_other_backbones_are_refused_by_name(tmp_path):
    deep = random_generator(WIDTHS, 0, 12, STUDIOGAN | {"deep": True})[0]
    deep["blocks.0.0.conv2d0.weight_orig"] = torch.zeros(32, 32, 1, 1)
    assert "big_resnet_deep_studiogan" in refused(save(tmp_path / "x.pth", deep))
    deep = random_discriminator(64, 0, STUDIOGAN | {"deep": True})[0]
    deep["blocks.0.0.conv2d0.weight_orig"] = torch.zeros(16, 8, 1, 1)
    assert "big_resnet_deep_studiogan" in refused(save(tmp_path / "x.pth", deep))
    plain = random_generator(WIDTHS, 0, 12, STUDIOGAN | {"condition": "tables"})[0]
    unconditional = {name.replace("bn1.bn.", "bn1."): tensor for name, tensor in plain.items()} | {
        "blocks.0.0.bn1.weight": torch.ones(32)
    }
    assert "without conditions" in refused(save(tmp_path / "x.pth", unconditional))
    dcgan = {"linear0.weight": torch.ones(2), "blocks.0.0.deconv0.weight": torch.ones(2)}
    assert "deep_conv" in refused(save(tmp_path / "x.pth", dcgan))
