"""Hugging Face's format, against the package itself."""

import json
import math
import tempfile
from pathlib import Path

import pytest
import pytorch_pretrained_biggan as peer
import torch

import biggan
from biggan.nn.conditional_batch_norm import locate_on_grid
from biggan.weights.formats import huggingface
from biggan.weights.formats.conversion import ForeignTensors
from biggan.weights.load import assemble
from foreign_networks import near_singular_vectors
from tiny import refusal

LAYERS = {  # (doubles the resolution, channels before, after), in units of channel_width
    128: "F16,16 T16,16 F16,16 T16,8 F8,8 T8,4 F4,4 T4,2 F2,2 T2,1",
    256: "F16,16 T16,16 F16,16 T16,8 F8,8 T8,8 F8,8 T8,4 F4,4 T4,2 F2,2 T2,1",
    512: "F16,16 T16,16 F16,16 T16,8 F8,8 T8,8 F8,8 T8,4 F4,4 T4,2 F2,2 T2,1 F1,1 T1,1",
}


def peer_config(resolution, **settings):
    layers = [
        [layer[0] == "T", *(int(width) for width in layer[1:].split(","))]
        for layer in LAYERS[resolution].split()
    ]
    return peer.BigGANConfig(output_dim=resolution, layers=layers, **settings)


@torch.no_grad()
def peer_model(config):
    """The package's own network with random weights, and statistics near those of its layers."""
    model = peer.BigGAN(config).eval()
    random = torch.Generator().manual_seed(1)

    def record(norm, arguments):
        x = arguments[0]
        std, mean = torch.std_mean(x, dim=(0, 2, 3))
        shape = norm.running_means.shape
        norm.running_means.copy_(mean + 0.1 * std * torch.randn(shape, generator=random))
        norm.running_vars.copy_(std**2 * (0.7 + 0.6 * torch.rand(shape, generator=random)) + 1e-3)

    model.generator.bn.weight.normal_(1, 0.1, generator=random)  # not even set when it is built
    model.generator.bn.bias.normal_(0, 0.1, generator=random)
    hooks = []
    for module in model.modules():
        if hasattr(module, "weight_v"):
            u, v = near_singular_vectors(module.weight_orig.flatten(1), module.weight_u)
            module.weight_u.copy_(u)
            module.weight_v.copy_(v)
        if isinstance(module, peer.model.BigGANBatchNorm):
            hooks.append(module.register_forward_pre_hook(record))
        if isinstance(module, peer.model.SelfAttn):
            module.gamma.fill_(0.7)
    model(torch.randn(2, config.z_dim, generator=random), torch.eye(config.num_classes)[:2], 0.5)
    for hook in hooks:
        hook.remove()
    return model


def convert(model, settings):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(settings))
        source = ForeignTensors(dict(model.state_dict()), Path(folder, "pytorch_model.bin"))
        converted = huggingface.convert(source)
    return assemble(converted.config, converted.grid, converted.tensors, "x")


@torch.no_grad()
def assert_same_pictures(config, dtype, tolerance, truncations):
    model = peer_model(config)
    ours = convert(model, json.loads(config.to_json_string())).to(dtype)
    model = model.to(dtype)
    one_hot = torch.eye(config.num_classes, dtype=dtype)[[1]]
    for truncation in truncations:
        z = torch.tensor(biggan.truncated_noise(1, config.z_dim, truncation, seed=2), dtype=dtype)
        expected = model(z, one_hot, truncation)
        found = ours(z, torch.tensor([1]), truncation)
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
        assert expected.std() > 0.1
    return ours


@pytest.mark.parametrize("resolution", LAYERS)
def test_the_package_itself_at_each_size(resolution):
    config = peer_config(resolution, channel_width=8, z_dim=12, class_embed_dim=12, num_classes=7)
    ours = assert_same_pictures(config, torch.float64, 1e-10, [0.02, 0.4, 1.0])
    assert ours.config.resolution == resolution
    assert ours.config.channels == 8


@pytest.mark.parametrize("rows", [11, 50])
def test_tables_of_other_lengths_go_from_0_to_1_as_well(rows):
    config = peer_config(128, channel_width=8, z_dim=12, class_embed_dim=12, num_classes=7)
    config.n_stats = rows
    model = peer_model(config).double()
    ours = convert(model.float(), json.loads(config.to_json_string())).double()
    model = model.double()
    z = torch.tensor(biggan.truncated_noise(1, 12, 0.5, seed=2))
    pictures = []
    for row in (1, 2, 5, 6, rows // 2, rows - 2):
        truncation = row / (rows - 1)
        if abs(peer_row(truncation, rows) - row) > 1e-3:
            continue  # here the package takes a neighbour's
        with torch.no_grad():
            expected = model(z, torch.eye(7).double()[[1]], truncation)
            found = ours(z, torch.tensor([1]), truncation)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        pictures.append(found)
    assert len(pictures) >= 3
    assert not torch.allclose(pictures[0], pictures[-1], atol=1e-2)  # the statistics matter


@pytest.mark.slow
@pytest.mark.parametrize("resolution", LAYERS)
def test_the_package_itself_at_full_width(resolution):
    ours = assert_same_pictures(peer_config(resolution), torch.float32, 1e-4, [0.4])
    counts = {128: 50_388_609, 256: 55_880_833, 512: 56_163_905}
    assert sum(p.numel() for p in ours.parameters()) == counts[resolution]


def peer_row(truncation, rows=51):
    """The row that the package takes for a truncation, as a fraction where it takes two."""
    model = peer.model.BigGANBatchNorm(1, n_stats=rows, conditional=False, eps=0.0)
    model.running_means.copy_(torch.arange(float(rows))[:, None])
    model.running_vars.fill_(1)
    model.weight.data.fill_(1)
    model.bias.data.fill_(0)
    with torch.no_grad():
        return -float(model(torch.zeros(1, 1, 1, 1), truncation))


def test_the_five_grid_values_at_which_the_package_takes_another_row():
    grid = tuple(round(0.02 * i, 2) for i in range(51))
    differing = {}
    for row in range(1, 51):
        truncation = grid[row]
        assert locate_on_grid(truncation, grid) == (row, 0.0)
        if abs(peer_row(truncation) - row) > 1e-3:
            differing[truncation] = round(peer_row(truncation))
    assert differing == {0.14: 8, 0.28: 15, 0.56: 29, 0.58: 28, 0.94: 46}


def test_off_the_grid_the_package_swaps_the_weights_and_hub_does_as_it_does():
    from biggan.nn import BatchNorm2d

    grid = tuple(round(0.02 * i, 2) for i in range(51))
    for truncation in (0.405, 0.411, 0.51, 0.013):
        rows = {}
        for off_grid in ("linear", "hub"):
            layer = BatchNorm2d(1, grid=grid, off_grid=off_grid).eval()
            layer.table_mean.copy_(torch.arange(51.0)[:, None])
            rows[off_grid] = float(layer.statistics(truncation)[0])
        assert rows["linear"] == pytest.approx(truncation / 0.02, abs=1e-4)
        assert rows["hub"] == pytest.approx(peer_row(truncation), abs=1e-4)
        mirrored = 2 * math.floor(truncation / 0.02) + 1 - truncation / 0.02
        assert rows["hub"] == pytest.approx(mirrored, abs=1e-4)


@pytest.fixture(scope="module")
def small():
    return peer_model(peer_config(128, channel_width=8, num_classes=7))


def test_without_settings_those_of_the_published_files_are_taken(small):
    ours = convert(small, {})
    assert (ours.config.bn_eps, ours.config.sn_eps) == (1e-4, 1e-4)
    assert ours.config == convert(small, json.loads(small.config.to_json_string())).config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output_dim": 256}, "output_dim 256, but the tensors are those of 128"),
        ({"num_classes": 1000}, "num_classes 1000"),
        ({"n_stats": 50}, "n_stats 50"),
        ({"z_dim": 64}, "z_dim 64"),
        ({"class_embed_dim": 64}, "class_embed_dim 64"),
        ({"layers": [[True, 16, 16]], "channel_width": 16}, "layers"),
        ({"layers": "all"}, "layers 'all'"),
        ({"layers": [[True, 10**12, 1]], "channel_width": "x"}, "layers [[True"),
        ({"attention_layer_position": 6}, "attention_layer_position 6"),
        ({"eps": "small"}, "bn_eps cannot be 'small'"),
    ],
)
def test_settings_of_other_weights_are_refused(small, settings, message):
    assert message in refusal(convert, small, settings)
