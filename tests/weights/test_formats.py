"""What a path holds is found from its contents; what cannot be loaded is named in one line."""

import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import biggan
from biggan.weights.files import Description, save_discriminator, save_generator
from biggan.weights.load import read_network
from biggan.weights.networks import set_statistics_grid
from foreign_networks import RandomWeights, brock_discriminator, brock_generator, ivclab_generator
from tiny import tiny_generator

WIDTHS = [32, 32, 32, 32]


def brock_weights(num=5):
    weights = RandomWeights()
    z = torch.randn(1, 16)
    with torch.no_grad():
        brock_generator(weights, z, torch.tensor([0]), WIDTHS, 16, classes=num)
    return weights.tensors


def brock_d_weights():
    weights = RandomWeights()
    brock_discriminator(weights, torch.rand(1, 3, 32, 32), torch.tensor([0]), WIDTHS, 2, 16)
    return weights.tensors


def ivclab_weights():
    weights = RandomWeights()
    z = torch.randn(1, 12)
    ivclab_generator(weights, z, torch.tensor([0]), [128, 64, 32, 16], 16, 1.0)
    return weights.tensors


@pytest.fixture
def brock_folder(tmp_path):
    """A folder as ajbrock's training leaves it."""
    folder = tmp_path / "weights"
    folder.mkdir()
    ema, plain = brock_weights(), brock_weights()
    plain["output_layer.2.bias"] = plain["output_layer.2.bias"] + 1
    torch.save(ema, folder / "G_ema.pth")
    torch.save(plain, folder / "G.pth")
    torch.save(brock_d_weights(), folder / "D.pth")
    layer = torch.nn.Linear(1, 1)
    for name in ("G_optim.pth", "D_optim.pth"):
        torch.save(torch.optim.Adam(layer.parameters()).state_dict(), folder / name)
    torch.save({"itr": 5, "epoch": 1, "best_IS": 1.0}, folder / "state_dict.pth")
    return folder


def refusal(read, *arguments, **options):
    with pytest.raises(biggan.InputError) as raised:
        read(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_folder_of_ajbrocks_gives_its_averaged_generator_and_its_discriminator(brock_folder):
    from_folder = biggan.load(brock_folder)
    assert from_folder.sha256 == biggan.load(brock_folder / "G_ema.pth").sha256
    assert from_folder.sha256 != biggan.load(brock_folder / "G.pth").sha256
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(
        biggan.load_discriminator(brock_folder)(images, torch.tensor([1])),
        biggan.load_discriminator(brock_folder / "D.pth")(images, torch.tensor([1])),
    )
    (brock_folder / "G_ema.pth").unlink()
    assert biggan.load(brock_folder).sha256 != from_folder.sha256


def test_every_other_file_of_that_folder_is_refused_by_what_it_is(brock_folder):
    assert "an optimizer's state" in refusal(biggan.load, brock_folder / "G_optim.pth")
    assert "a run's counters" in refusal(biggan.load, brock_folder / "state_dict.pth")
    message = refusal(biggan.load, brock_folder / "D.pth")
    assert "holds a discriminator, not a generator" in message
    message = refusal(biggan.load_discriminator, brock_folder / "G.pth")
    assert "holds a generator, not a discriminator" in message


def test_a_single_file_in_a_folder_is_found_and_several_are_not_chosen_from(tmp_path):
    torch.save(ivclab_weights(), tmp_path / "biggan32-release.pt")
    assert biggan.load(tmp_path).config.resolution == 32
    torch.save(ivclab_weights(), tmp_path / "other.pt")
    assert "several weights files (biggan32-release.pt, other.pt)" in refusal(biggan.load, tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no weights of another format" in refusal(biggan.load, tmp_path / "empty")


def test_a_model_is_the_same_under_any_name_and_after_conversion(tmp_path):
    torch.save(ivclab_weights(), tmp_path / "a.pt")
    torch.save(ivclab_weights(), tmp_path / "b.bin", _use_new_zipfile_serialization=False)
    save_file(
        {name: tensor.contiguous() for name, tensor in ivclab_weights().items()},
        tmp_path / "c.safetensors",
    )
    gan = biggan.load(tmp_path / "a.pt")
    assert gan.sha256 == biggan.load(tmp_path / "b.bin").sha256
    assert gan.sha256 == biggan.load(tmp_path / "c.safetensors").sha256
    ours = tmp_path / "ours.safetensors"
    assert save_generator(ours, gan.generator, gan.description) == gan.sha256
    again = biggan.load(ours)
    assert again.sha256 == gan.sha256
    z = biggan.truncated_noise(2, gan.config.z_dim, 0.5, 0)
    labels = torch.tensor([0, 4])
    assert torch.equal(gan.generate(z, labels, 0.5), again.generate(z, labels, 0.5))


def test_the_prefix_of_data_parallel_is_dropped(tmp_path):
    prefixed = {f"module.{name}": tensor for name, tensor in brock_weights().items()}
    torch.save(prefixed, tmp_path / "G.pth")
    save_file(prefixed, tmp_path / "G.safetensors")
    torch.save(brock_weights(), tmp_path / "plain.pth")
    digests = {
        biggan.load(tmp_path / name).sha256 for name in ("G.pth", "G.safetensors", "plain.pth")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("weights", [brock_weights, brock_d_weights, ivclab_weights])
def test_every_tensor_that_is_missing_or_too_much_is_named(tmp_path, weights):
    path, tensors = tmp_path / "x.pth", weights()
    unread = re.compile(r".*\.sv0|.*bn\.(running_mean|running_var|num_batches_tracked)")
    table = {"shared.weight", "linear.weight"} if weights is ivclab_weights else {"shared.weight"}
    for missing in tensors:
        if unread.fullmatch(missing):
            continue
        torch.save({n: t for n, t in tensors.items() if n != missing} | SURPLUS, path)
        message = refusal(read_network, path)
        assert missing in message
        # without the classes' table nothing can be laid out, so that nothing more is known
        assert missing in table or "unexpected surplus" in message, message


SURPLUS = {"surplus": torch.zeros(1)}


def test_values_that_are_no_numbers_and_other_types(tmp_path):
    tensors = brock_weights()
    tensors["linear.bias"][3] = float("nan")
    torch.save(tensors, tmp_path / "x.pth")
    assert "linear.bias has values that are not finite" in refusal(biggan.load, tmp_path / "x.pth")
    torch.save({name: tensor.double() for name, tensor in tensors.items()}, tmp_path / "x.pth")
    message = refusal(biggan.load, tmp_path / "x.pth")
    assert "shared.weight is float64, not float32" in message
    assert message.endswith("; and 63 more")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weights", [brock_weights, brock_d_weights, ivclab_weights])
def test_half_precision_is_widened(tmp_path, weights, dtype):
    rounded = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in weights().items()
    }
    widened = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in rounded.items()
    }
    torch.save(rounded, tmp_path / "half.pth")
    torch.save(widened, tmp_path / "full.pth")
    assert read_network(tmp_path / "half.pth").sha256 == read_network(tmp_path / "full.pth").sha256


def test_the_container_is_known_by_its_first_bytes_alone(tmp_path):
    """Not by its name; and the size of a safetensors header may look like a pickle's start."""
    tensors = {name: tensor.contiguous() for name, tensor in ivclab_weights().items()}
    torch.save(tensors, tmp_path / "plain.pth")
    expected = biggan.load(tmp_path / "plain.pth").sha256
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.safetensors"
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
        assert biggan.load(path).sha256 == expected
    save_file(tensors, tmp_path / "whole")
    contents = (tmp_path / "whole").read_bytes()
    size = int.from_bytes(contents[:8], "little")
    header, rest = contents[8 : 8 + size], contents[8 + size :]
    for start in (b"\x80\x02", b"\x1f\x8b", b"\x80\x04"):
        longer = int.from_bytes(start + b"\x01", "little")
        path = tmp_path / f"{start.hex()}.pth"
        path.write_bytes(longer.to_bytes(8, "little") + header.ljust(longer) + rest)
        assert biggan.load(path).sha256 == expected


def test_other_things_that_are_called_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    for contents, message in (
        (pickle.dumps({"a": 1}), "may be damaged; nothing was run"),
        (b"PK\x03\x04 cut short", "not a whole torch file"),
        (b"<html>", "is a web page"),
        (b"\x00" * 100, "is no weights file"),
        (b"", "is empty"),
    ):
        path.write_bytes(contents)
        assert message in refusal(biggan.load, path)


def test_ajbrocks_other_names(brock_folder):
    (brock_folder / "G_ema.pth").rename(brock_folder / "G_ema_best0.pth")
    (brock_folder / "D.pth").rename(brock_folder / "D_best0.pth")
    (brock_folder / "G.pth").unlink()
    assert biggan.load(brock_folder).config.resolution == 32
    assert biggan.load_discriminator(brock_folder).config.resolution == 32


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refusal(biggan.load, tmp_path / "pipe")
    assert "the model's name is empty" in refusal(biggan.load, "")


def test_a_device_that_is_not_there():
    assert "no device 'nowhere'" in refusal(biggan.load, device="nowhere")


def test_bn_eps_for_a_discriminator_is_refused(brock_folder):
    message = refusal(read_network, brock_folder / "D.pth", bn_eps=1e-4)
    assert "no bn_eps" in message


def test_classes_without_names_get_numbers_and_a_thousand_get_imagenets(tmp_path):
    torch.save(brock_weights(), tmp_path / "five.pth")
    assert biggan.load(tmp_path / "five.pth").class_names[3] == "class 3"
    torch.save(brock_weights(1000), tmp_path / "thousand.pth")
    gan = biggan.load(tmp_path / "thousand.pth")
    assert gan.class_index("cheeseburger") == 933
    assert len(gan.sample("hen", num=1)) == 1


def test_epsilons_are_for_ajbrocks_files(tmp_path):
    torch.save(brock_weights(), tmp_path / "G.pth")
    torch.save(ivclab_weights(), tmp_path / "ivclab.pt")
    gan = biggan.load(tmp_path / "G.pth", bn_eps=1e-3, sn_eps=1e-8)
    assert (gan.config.bn_eps, gan.config.sn_eps) == (1e-3, 1e-8)
    assert "bn_eps and sn_eps" in refusal(biggan.load, tmp_path / "ivclab.pt", bn_eps=1e-3)
    assert "bn_eps and sn_eps" in refusal(biggan.load, "digits", sn_eps=1e-3)
    assert "bn_eps must be at least 1e-12" in refusal(biggan.load, tmp_path / "G.pth", bn_eps=0.0)
    assert "bn_eps cannot be inf" in refusal(biggan.load, tmp_path / "G.pth", bn_eps=math.inf)


def test_off_grid_changes_pictures_between_grid_values_and_the_digest(tmp_path):
    torch.save(ivclab_weights(), tmp_path / "ivclab.pt")
    linear, hub = biggan.load(tmp_path), biggan.load(tmp_path, off_grid="hub")
    z, labels = biggan.truncated_noise(1, 12, 0.41, 0), torch.tensor([1])
    assert torch.equal(linear.generate(z, labels, 0.4), hub.generate(z, labels, 0.4))
    assert not torch.equal(linear.generate(z, labels, 0.41), hub.generate(z, labels, 0.41))
    assert hub.sha256 != linear.sha256
    save_generator(tmp_path / "hub.safetensors", hub.generator, hub.description)
    again = biggan.load(tmp_path / "hub.safetensors")
    assert again.config.off_grid == "hub"
    assert again.sha256 == hub.sha256


def test_off_grid_hub_is_for_the_published_grids(tmp_path):
    generator = tiny_generator()
    set_statistics_grid(generator, [0.2, 0.4, 0.6, 0.8, 1.0])
    save_generator(tmp_path / "x.safetensors", generator, Description("x"))
    assert "here are 5 truncations" in refusal(biggan.load, tmp_path, off_grid="hub")


def test_hugging_faces_settings_are_read_from_beside_the_weights(tmp_path):
    peer = pytest.importorskip("pytorch_pretrained_biggan")
    widths = [(16, 16), (16, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1)]
    layers = [[i % 2 == 1, *pair] for i, pair in enumerate(widths)]
    config = peer.BigGANConfig(
        output_dim=64, channel_width=8, num_classes=3, layers=layers, attention_layer_position=4
    )
    model = peer.BigGAN(config)
    torch.save(model.state_dict(), tmp_path / "biggan-deep-64-pytorch_model.bin")
    settings = json.loads(config.to_json_string()) | {"eps": 1e-3}
    path = tmp_path / "biggan-deep-64-config.json"  # as Hugging Face's bucket names the two
    path.write_text(json.dumps(settings))
    assert biggan.load(tmp_path).config.bn_eps == 1e-3
    for contents, message in (
        ("{", "is no JSON object"),
        ("[]", "is no JSON object"),
        ("[" * 100_000, "is no JSON object"),
        (json.dumps(settings | {"num_classes": 7}), "num_classes 7"),
    ):
        path.write_text(contents)
        assert message in refusal(biggan.load, tmp_path)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in", "is a web page"),
        (b"\n<?xml version='1.0'?><Error>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "is a Git LFS pointer"),
        (b"hello, I am no weights file" * 10, "is no weights file"),
        (bytes(1000), "is no weights file"),
        (b"PK\x03\x04 cut short", "not a whole torch file"),
        (b"\x80\x02 cut short", "may be damaged; nothing was run"),
        (b"\x1f\x8b cut short", "x.bin"),
    ],
)
def test_other_files(tmp_path, contents, message):
    path = tmp_path / "x.bin"
    path.write_bytes(contents)
    assert message in refusal(biggan.load, path)
    assert message in refusal(biggan.load_discriminator, path)


def test_a_configuration_in_place_of_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"output_dim": 128}')
    assert "give the weights file beside it" in refusal(biggan.load, tmp_path / "config.json")


def test_tensors_of_no_known_format(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    message = refusal(biggan.load, tmp_path / "resnet.pth")
    assert "no format known here (such as conv1.weight)" in message


def test_a_generator_of_ours_as_a_discriminator_and_the_other_way_round(tmp_path):
    save_generator(tmp_path / "g.safetensors", tiny_generator(), Description("g"))
    config = biggan.DiscriminatorConfig("biggan", 16, 8, (1, 2, 4), 2, 3, 8)
    network = biggan.build_discriminator(config)
    save_discriminator(tmp_path / "d.safetensors", network, Description("d"))
    assert "not a discriminator" in refusal(biggan.load_discriminator, tmp_path / "g.safetensors")
    assert "not a generator" in refusal(biggan.load, tmp_path / "d.safetensors")


has_proc = Path("/proc/self/status").exists()
linux = pytest.mark.skipif(not has_proc, reason="measures as Linux counts")
LOAD = "biggan.load(sys.argv[1])"
LOAD_AND_SAVE = """
import biggan.weights.files as files
gan = biggan.load(sys.argv[1])
files.save_generator(pathlib.Path(sys.argv[1] + ".new"), gan.generator, gan.description)
"""


@linux
@pytest.mark.slow
@pytest.mark.parametrize("name", ["biggan-512", "biggan-deep-512"])
def test_the_memory_of_loading_512_pixels(tmp_path, name):
    path = tmp_path / f"{name}.safetensors"
    save_generator(path, biggan.build_generator(name), Description(name))
    assert peak_memory(LOAD, path) < 2.5 * path.stat().st_size


@linux
@pytest.mark.slow
def test_the_memory_of_loading_and_converting_a_foreign_file_of_512_pixels(tmp_path):
    weights, widths = RandomWeights(), [96 * width for width in (16, 16, 8, 8, 4, 2, 1, 1)]
    z, label = torch.randn(1, 128), torch.tensor([0])
    with torch.no_grad():
        ivclab_generator(weights, z, label, widths, 64, 1.0, classes=1000, dim=128)
    path = tmp_path / "biggan512-release.pt"
    torch.save(weights.tensors, path)
    assert peak_memory(LOAD, path) < 2.5 * path.stat().st_size
    assert peak_memory(LOAD_AND_SAVE, path) < 2.5 * path.stat().st_size


def peak_memory(code, path):
    """Bytes that a process has at most while it does something, those of Python and torch apart."""
    whole = f"""
import biggan, biggan.gan, pathlib, sys
def peak():
    return 1024 * int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
{code}
print(peak() - before)
"""
    result = subprocess.run(
        [sys.executable, "-c", whole, path], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


def test_mistakes_in_an_archive_name_the_archive(tmp_path):
    path = tmp_path / "biggan-128_2.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, contents in (
            ("saved_model.pb", b""),
            ("variables/variables.index", b"not an index"),
            ("variables/variables.data-00000-of-00001", b""),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(contents)
            archive.addfile(entry, io.BytesIO(contents))
    message = refusal(biggan.load, path)
    assert message.startswith(f"{path}/variables/variables.index is not a whole index")


def test_shapes_that_cannot_be_built_name_the_file(tmp_path):
    weights = brock_weights()
    weights["shared.weight"] = torch.zeros(5, 30)  # wider than the conditions
    torch.save(weights, tmp_path / "G.pth")
    assert str(tmp_path / "G.pth") in refusal(biggan.load, tmp_path / "G.pth")
