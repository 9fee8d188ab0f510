"""Foreign files as users have them: found, read under any name, and refused in one line."""

import json
import math
import os
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import biggan
from biggan.models import get_preset, set_statistics_grid
from biggan.weights import load
from biggan.weights.files import Description, save_network
from biggan.weights.load import read_network
from foreign_networks import (
    BROCK,
    IVCLAB,
    MMGENERATION,
    STUDIOGAN,
    hugging_face_weights,
    of_each_kind,
    random_discriminator,
    random_generator,
)
from tiny import refusal, tiny_generator

LABEL = torch.tensor([0])


def brock_weights(num=5):
    return random_generator([8, 8, 8, 8], 16, 16, BROCK | {"classes": num})[0]


def brock_d_weights():
    return random_discriminator(32, 16, BROCK)[0]


def ivclab_weights():
    return random_generator([64, 32, 16, 8], 16, 12, IVCLAB)[0]


def listed(format_, kind="generator", **changes):
    """A network of one of the formats with a list of blocks."""
    if kind == "discriminator":
        return random_discriminator(32, 0, format_ | changes)[0]
    return random_generator([32, 32, 32, 32], 0, 16, format_ | changes)[0]


KINDS = ("generator", "discriminator")
MMGENERATIONS = (
    {"condition": "tables"},
    {"norm": "ajbrock"},
    {"deep": True, "class_first": False, "channels_last": True},
)


def contiguous(tensors):
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def test_a_folder_as_ajbrocks_training_leaves_it(tmp_path):
    ema, plain = brock_weights(), brock_weights()
    plain["output_layer.2.bias"] = plain["output_layer.2.bias"] + 1
    optimizer = torch.optim.Adam(torch.nn.Linear(1, 1).parameters()).state_dict()
    files = {"G_ema": ema, "G": plain, "D": brock_d_weights()}
    files |= {"G_optim": optimizer, "D_optim": optimizer, "state_dict": {"itr": 5, "epoch": 1}}
    for name, contents in files.items():
        torch.save(contents, tmp_path / f"{name}.pth")
    averaged = biggan.load(tmp_path)
    assert averaged.sha256 == biggan.load(tmp_path / "G_ema.pth").sha256
    assert averaged.sha256 != biggan.load(tmp_path / "G.pth").sha256
    images = torch.rand(1, 3, 32, 32)
    found, direct = (
        biggan.load_discriminator(path)(images, LABEL) for path in (tmp_path, tmp_path / "D.pth")
    )
    assert torch.equal(found, direct)
    for read, name, message in (
        (biggan.load, "G_optim", "an optimizer's state"),
        (biggan.load, "state_dict", "a run's counters"),
        (biggan.load, "D", "holds a discriminator, not a generator"),
        (biggan.load_discriminator, "G", "holds a generator, not a discriminator"),
    ):
        assert message in refusal(read, tmp_path / f"{name}.pth")
    (alone := tmp_path / "alone").mkdir()
    (alone / "G.pth").write_bytes((tmp_path / "G.pth").read_bytes())
    assert f"{alone / 'G.pth'} holds a generator" in refusal(biggan.load_discriminator, alone)
    assert "no bn_eps" in refusal(read_network, tmp_path / "D.pth", bn_eps=1e-4)
    (tmp_path / "G_ema.pth").rename(tmp_path / "G_ema_best0.pth")
    (tmp_path / "D.pth").rename(tmp_path / "D_best0.pth")
    assert biggan.load(tmp_path).sha256 == averaged.sha256
    assert biggan.load_discriminator(tmp_path).config.resolution == 32
    (tmp_path / "G_ema_best0.pth").unlink()
    assert biggan.load(tmp_path).sha256 != averaged.sha256


def test_a_folder_as_studiogans_training_leaves_it(tmp_path):
    digests = {}
    for number, name in enumerate(("G_ema-best", "G-best", "G_ema-current", "G-current")):
        tensors = listed(STUDIOGAN)
        tensors["conv2d5.bias"] = tensors["conv2d5.bias"] + number
        path = tmp_path / f"model={name}-weights-step={number}.pth"
        torch.save({"state_dict": tensors, "optimizer": {}}, path)
        digests[path] = biggan.load(path).sha256
    for when in ("best", "current"):
        tensors = random_discriminator(32, 16 if when == "best" else 8, STUDIOGAN)[0]
        torch.save(tensors, tmp_path / f"model=D-{when}-weights-step=1.pth")
    assert biggan.load_discriminator(tmp_path).config.attention_resolution == 16
    for path, digest in digests.items():
        assert biggan.load(tmp_path).sha256 == digest
        path.unlink()
    for step in (1, 2):
        (tmp_path / f"model=G_ema-best-weights-step={step}.pth").touch()
    assert "several weights files (model=G_ema-best" in refusal(biggan.load, tmp_path)


def test_a_single_file_in_a_folder_is_found_and_several_are_not_chosen_from(tmp_path):
    torch.save(ivclab_weights(), tmp_path / "biggan32-release.pt")
    assert biggan.load(tmp_path).config.resolution == 32
    (tmp_path / "other.pt").touch()
    assert "several weights files (biggan32-release.pt, other.pt)" in refusal(biggan.load, tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no weights of another format" in refusal(biggan.load, tmp_path / "empty")


def test_a_model_is_the_same_in_any_container_under_any_name_and_after_conversion(tmp_path):
    """The size of a safetensors header may look like the start of a pickle or an archive."""
    tensors = contiguous(ivclab_weights())
    torch.save(tensors, tmp_path / "a.pt")
    torch.save(tensors, tmp_path / "b.safetensors", _use_new_zipfile_serialization=False)
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "c.bin")
    save_file(tensors, tmp_path / "d")
    contents = (tmp_path / "d").read_bytes()
    size = int.from_bytes(contents[:8], "little")
    header, rest = contents[8 : 8 + size], contents[8 + size :]
    for start in (b"\x80\x02", b"\x1f\x8b", b"\x80\x04"):
        longer = int.from_bytes(start + b"\x01", "little")
        path = tmp_path / f"{start.hex()}.pth"
        path.write_bytes(longer.to_bytes(8, "little") + header.ljust(longer) + rest)
    gan = biggan.load(tmp_path / "a.pt")
    ours = tmp_path / "ours.safetensors"
    assert save_network(ours, gan.generator, gan.description) == gan.sha256
    assert {read_network(path).sha256 for path in tmp_path.iterdir()} == {gan.sha256}
    z = biggan.truncated_noise(2, gan.config.z_dim, 0.5, 0)
    labels = torch.tensor([0, 4])
    again = biggan.load(ours)
    assert torch.equal(gan.generate(z, labels, 0.5), again.generate(z, labels, 0.5))


@pytest.mark.parametrize("name", ["x.bin", "x.safetensors"])
@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in", "is a web page"),
        (b"\n<?xml version='1.0'?><Error>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "is a Git LFS pointer"),
        (b"hello, I am no weights file" * 10, "is not a weights file"),
        (bytes(1000), "is not a weights file"),
        (b"PK\x03\x04 cut short", "not a whole torch file"),
        (b"\x80\x02", "not a whole torch file (EOFError: it ends early)"),
        (b"\x80\x02 cut short", "is damaged; no code was run"),
        (pickle.dumps({"a": 1}), "is damaged; no code was run"),
        (b"\x1f\x8b cut short", "x."),
    ],
)
def test_other_files(tmp_path, name, contents, message):
    path = tmp_path / name
    path.write_bytes(contents)
    assert message in refusal(biggan.load, path)
    assert message in refusal(biggan.load_discriminator, path)


def test_what_is_no_weights_file_at_all(tmp_path):
    (tmp_path / "config.json").write_text('{"output_dim": 128}')
    assert "give the weights file beside it" in refusal(biggan.load, tmp_path / "config.json")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(biggan.load, tmp_path / "pipe")
    assert "the model's name is empty" in refusal(biggan.load, "")
    assert "no device 'nowhere'" in refusal(biggan.load, device="nowhere")


@pytest.mark.parametrize(
    "weights",
    [
        *(brock_weights, brock_d_weights, ivclab_weights, lambda: hugging_face_weights()[0]),
        *(partial(listed, STUDIOGAN, kind, deep=deep) for kind in KINDS for deep in (False, True)),
        *(partial(listed, MMGENERATION, kind, **how) for kind in KINDS for how in MMGENERATIONS),
    ],
)
def test_every_tensor_that_is_missing_or_too_much_is_named(weights):
    tensors, how = weights(), {"epsilons": {"bn_eps": None, "sn_eps": None}, "kind": "generator"}
    unread = re.compile(r".*\.(sv0|num_batches_tracked)|.*crossreplicabn\.running_(mean|var)")
    for missing in of_each_kind(tensors):
        if unread.fullmatch(missing):
            continue
        left = {name: tensor for name, tensor in tensors.items() if name != missing}
        message = refusal(load._convert, left | {"surplus": torch.zeros(1)}, Path("x.pth"), how)
        # Without its table of classes a network is taken for one that has none, or refused at once.
        if "shared" not in missing:
            assert (missing.partition("_ema.")[2] or missing) in message
            required = missing.startswith(("input_conv", "embeddings", "linear", "noise2feat"))
            assert "unexpected surplus" in message or required, message


def test_values_shapes_and_types_that_do_not_fit(tmp_path):
    path, tensors = tmp_path / "x.pth", brock_weights()
    torch.save({name: tensor.double() for name, tensor in tensors.items()}, path)
    message = refusal(biggan.load, path)
    assert "shared.weight is float64, not float32" in message
    assert message.endswith("; and 63 more")
    bias = tensors["linear.bias"].clone()
    bias[3] = float("nan")
    torch.save(tensors | {"linear.bias": bias}, path)
    assert "linear.bias has values that are not finite" in refusal(biggan.load, path)
    # wider than the conditions
    torch.save(tensors | {"shared.weight": torch.zeros(5, 30)}, path)
    assert str(path) in refusal(biggan.load, path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "weights",
    [brock_d_weights, ivclab_weights, partial(listed, STUDIOGAN), partial(listed, MMGENERATION)],
)
def test_half_precision_is_widened(tmp_path, weights, dtype):
    digests = set()
    for name, dtypes in (("half", [dtype]), ("full", [dtype, torch.float32])):
        tensors = weights()
        for each in dtypes:
            tensors = {n: t.to(each) if t.is_floating_point() else t for n, t in tensors.items()}
        torch.save(tensors, tmp_path / f"{name}.pth")
        digests.add(read_network(tmp_path / f"{name}.pth").sha256)
    assert len(digests) == 1


def test_untruncated_noise_takes_the_statistics_of_truncation_1(tmp_path):
    torch.save(ivclab_weights(), tmp_path / "x.pth")
    norm = read_network(tmp_path / "x.pth").network.blocks[1].bn2
    assert norm.grid == tuple(round(0.02 * i, 2) for i in range(1, 51))
    assert torch.equal(norm.running_mean, norm.table_mean[-1])


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
    assert "bn_eps must be at least 1e-12" in refusal(biggan.load, tmp_path / "G.pth", bn_eps=0.0)
    assert "bn_eps cannot be inf" in refusal(biggan.load, tmp_path / "G.pth", bn_eps=math.inf)


def test_off_grid_changes_pictures_between_grid_values_and_the_digest(tmp_path):
    torch.save(ivclab_weights(), tmp_path / "ivclab.pt")
    linear, hub = biggan.load(tmp_path), biggan.load(tmp_path, off_grid="hub")
    z, labels = biggan.truncated_noise(1, 12, 0.41, 0), torch.tensor([1])
    assert torch.equal(linear.generate(z, labels, 0.4), hub.generate(z, labels, 0.4))
    assert not torch.equal(linear.generate(z, labels, 0.41), hub.generate(z, labels, 0.41))
    assert hub.sha256 != linear.sha256
    save_network(tmp_path / "hub.safetensors", hub.generator, hub.description)
    again = biggan.load(tmp_path / "hub.safetensors")
    assert (again.config.off_grid, again.sha256) == ("hub", hub.sha256)
    generator = tiny_generator()
    set_statistics_grid(generator, [0.2, 0.4, 0.6, 0.8, 1.0])
    other = tmp_path / "x.safetensors"
    save_network(other, generator, Description("x"))
    assert "not for 5 truncations" in refusal(biggan.load, other, off_grid="hub")


def test_hugging_faces_settings_are_read_from_beside_the_weights(tmp_path):
    tensors, settings = hugging_face_weights()
    torch.save(tensors, tmp_path / "biggan-deep-16-pytorch_model.bin")
    settings["eps"] = 1e-3
    path = tmp_path / "biggan-deep-16-config.json"  # as Hugging Face's bucket names the two
    path.write_text(json.dumps(settings))
    assert biggan.load(tmp_path).config.bn_eps == 1e-3
    for contents, message in (
        ("{", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ("[" * 100_000, "is not a JSON object"),
        (json.dumps(settings | {"num_classes": 7}), "num_classes 7"),
    ):
        path.write_text(contents)
        assert message in refusal(biggan.load, tmp_path)


LOAD = "biggan.load(sys.argv[1])"
LOAD_AND_SAVE = """
import biggan.weights.files as files
gan = biggan.load(sys.argv[1])
files.save_network(pathlib.Path(sys.argv[1] + ".new"), gan.generator, gan.description)
"""
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts as Linux does")


@linux
@pytest.mark.slow
def test_the_memory_of_loading_a_file_of_ours(tmp_path):
    path = tmp_path / "x.safetensors"
    config = get_preset("biggan-deep-512").generator.updated({"channels": 96})
    save_network(path, biggan.build_generator(config), Description("x"))
    assert peak_memory(LOAD, path) < 2.5 * path.stat().st_size


@linux
@pytest.mark.slow
def test_the_memory_of_loading_and_converting_a_foreign_file(tmp_path):
    widths = [64 * width for width in (16, 16, 8, 4, 2, 1)]
    tensors, *_ = random_generator(widths, 64, 120, IVCLAB | {"dim": 128})
    path = tmp_path / "biggan128-release.pt"
    torch.save(tensors, path)
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
    command = [sys.executable, "-c", whole, path]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
