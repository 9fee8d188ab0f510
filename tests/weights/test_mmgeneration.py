"""mmgeneration's files: several networks in one, and what its configurations say."""

import numpy as np
import pytest
import torch

import biggan
from foreign_networks import LABELS, MMGENERATION, random_discriminator, random_generator
from tiny import refusal

FILES = "train_pipeline = [dict(type='LoadImageFromFile'), dict(type='Normalize', to_rgb={})]"
ARRAYS = "train_pipeline = [dict(type='Normalize', to_rgb={})]"


def generator(z_dim=16, **changes):
    tensors, *rest = random_generator([32, 32, 32, 32], 0, z_dim, MMGENERATION | changes)
    return {f"generator_ema.{name}": tensor for name, tensor in tensors.items()}, *rest


def discriminator(resolution=32, attention=0, **changes):
    tensors, *rest = random_discriminator(resolution, attention, MMGENERATION | changes)
    return {f"discriminator.{name}": tensor for name, tensor in tensors.items()}, *rest


def save(path, tensors, config=None):
    meta = {"iter": 5, "hook_msgs": {"best_score_fid": np.float64(9.75)}}
    if config is not None:
        meta["config"] = config
    torch.save({"meta": meta, "state_dict": tensors}, path)
    return path


def test_a_file_holds_several_networks(tmp_path):
    averaged, z, expected = generator(12, condition="tables")
    other = {name.replace("_ema", ""): tensor * 0.5 for name, tensor in averaged.items()}
    judge, images, logits = discriminator()
    path = save(tmp_path / "x.pth", {**other, **averaged, **judge})
    gan = biggan.load(path)
    torch.testing.assert_close(gan.generator(z, LABELS), expected, rtol=0, atol=2e-5)
    assert (gan.config.skip_z, gan.config.shared_embedding) == (False, False)
    found = biggan.load_discriminator(path)(images, LABELS)
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-4)
    alone = save(tmp_path / "y.pth", other)
    assert biggan.load(alone).sha256 != gan.sha256
    assert "holds a generator, not a discriminator" in refusal(biggan.load_discriminator, alone)
    bare = {name.removeprefix("generator_ema."): tensor for name, tensor in averaged.items()}
    assert biggan.load(save(tmp_path / "z.pth", bare)).sha256 == gan.sha256


@pytest.mark.parametrize(
    ("config", "is_bgr"),
    [
        (None, False),
        ("model = dict(generator=dict(rgb2bgr=True, sn_eps=1e-06))", False),
        ("model = dict(generator=dict(type='BigGANGenerator'))", True),
        (f"{FILES.format(False)}\nmodel = dict()", True),
        (FILES.format(True), False),
        (ARRAYS.format(True), True),
        (ARRAYS.format(False), False),
        ("total_iters = 10 * 1000\nmodel = {'generator': {'act_cfg': None}}", True),
    ],
)
@pytest.mark.parametrize("norm", ["stored", "ajbrock"])
def test_colours_become_rgb(tmp_path, config, is_bgr, norm):
    tensors, z, images = generator(norm=norm)
    judge, real, logits = discriminator(norm=norm)
    path = save(tmp_path / "x.pth", {**tensors, **judge}, config)
    found = biggan.load(path).generator(z, LABELS)
    torch.testing.assert_close(found.flip(1) if is_bgr else found, images, rtol=0, atol=2e-5)
    seen = biggan.load_discriminator(path)(real.flip(1) if is_bgr else real, LABELS)
    torch.testing.assert_close(seen, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("deep", "act", "in_place"),
    [
        (False, "act_cfg=dict(type='ReLU', inplace=True)", True),
        (False, "act_cfg=dict(type='ReLU')", False),
        (False, "", False),
        (True, "act_cfg=dict(type='ReLU', inplace=True)", True),
        (True, "act_cfg=dict(type='ReLU')", True),  # the default of its convolutions
        (True, "act_cfg={'type': 'ReLU', 'inplace': False}", False),
        (True, "", False),
    ],
)
def test_whether_a_relu_is_in_place(tmp_path, deep, act, in_place):
    tensors, images, logits = discriminator(64, 32, deep=deep, in_place=in_place)
    config = f"model = dict(discriminator=dict(sn_eps=1e-8, {act}))"
    found = biggan.load_discriminator(save(tmp_path / "x.pth", tensors, config))
    torch.testing.assert_close(found(images.flip(1), LABELS), logits, rtol=1e-4, atol=1e-4)
    assert found.config.sn_eps == 1e-8


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model = dict(", "the configuration in its meta cannot be read"),
        ("x = " + "[" * 100_000, "cannot be read"),
        ("#" * (1 << 21), "is too long"),
        ("model = dict(generator=dict(sn_eps='x'))", "sn_eps cannot be 'x'"),
    ],
)
def test_a_configuration_that_cannot_be_read(tmp_path, config, message):
    path = save(tmp_path / "x.pth", generator()[0], config)
    assert message in refusal(biggan.load, path)
