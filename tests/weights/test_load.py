"""What a model's name, path or address means."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from biggan.weights.files import (
    BUNDLED,
    RUN_DISCRIMINATOR,
    RUN_GENERATOR,
    Description,
    save_network,
)
from biggan.weights.load import load_class_names, load_network
from file_server import Served
from tiny import TINY_CLASSES, refusal, tiny_generator

NAME = "biggan-deep-256"


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch, tmp_path, cache):
    monkeypatch.setenv("BIGGAN_OFFLINE", "1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def name_of(model, **options):
    return load_network(model, **options).description.name


def test_the_bundled_model_by_default_and_by_name(tiny_file):
    assert name_of(None) == name_of("fruits") == "fruits"
    assert name_of("digits") == "digits"
    shutil.copy(tiny_file, "digits")
    assert name_of("digits") == "digits"
    assert name_of("./digits") == "tiny"


def test_a_bundled_file_that_is_missing_or_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr("biggan.weights.load.BUNDLED_FOLDER", tmp_path)
    for contents in (None, b"", b"damaged"):
        if contents is not None:
            (tmp_path / f"{BUNDLED[0]}.safetensors").write_bytes(contents)
        assert "(the file belongs to biggan: install biggan again)" in refusal(load_network, None)


def test_a_bundled_discriminator(tmp_path, monkeypatch, discriminator_file):
    monkeypatch.setattr("biggan.weights.load.BUNDLED_FOLDER", tmp_path)
    shutil.copy(discriminator_file, tmp_path / f"{BUNDLED[0]}-discriminator.safetensors")
    assert load_network(BUNDLED[0], "discriminator").description.name == "judge"


def test_paths(tiny_file, monkeypatch):
    assert name_of(tiny_file) == name_of(str(tiny_file)) == "tiny"
    run = Path("run")
    run.mkdir()
    shutil.copy(tiny_file, run / RUN_GENERATOR)
    assert name_of(run) == name_of("run") == "tiny"
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert name_of("~/run") == "tiny"


def test_a_published_name(cache, tiny_file):
    assert "nothing is downloaded offline" in refusal(load_network, NAME)
    cache.mkdir()
    shutil.copy(tiny_file, cache / f"{NAME}.safetensors")
    assert name_of(NAME) == "tiny"


def test_what_is_there_wins_over_a_published_name(tiny_file):
    shutil.copy(tiny_file, NAME)
    assert name_of(NAME) == "tiny"


def test_offline_is_passed_on(monkeypatch, close_network):
    monkeypatch.delenv("BIGGAN_OFFLINE")
    close_network()
    for arguments in ([NAME], ["https://host/a.pth"], ["https://host/D.pth", "discriminator"]):
        assert "not in the cache" in refusal(load_network, *arguments, offline=True)


def test_class_names(tiny_file, discriminator_file):
    for word in (tiny_file, str(tiny_file), tiny_file.as_uri()):
        assert load_class_names(word) == ("tiny", TINY_CLASSES)
    assert load_class_names(None) == ("fruits", load_network(None).description.class_names)
    unnamed = Path("unnamed.safetensors")
    save_network(unnamed, tiny_generator(), Description("x"))
    assert load_class_names(unnamed) == ("x", ("class 0", "class 1", "class 2"))
    assert "holds a discriminator" in refusal(load_class_names, discriminator_file)
    unnamed.write_bytes(b"")
    assert "is empty" in refusal(load_class_names, unnamed)


def test_class_names_need_no_torch():
    code = "import sys, biggan.weights.load as l; l.load_class_names(None); "
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_damaged_copy_in_the_cache_is_deleted(cache, tiny_file):
    cache.mkdir()
    path = cache / f"{NAME}.safetensors"
    path.write_bytes(tiny_file.read_bytes()[:-1])
    assert refusal(load_network, NAME).endswith("(the copy in the cache is deleted: try again)")
    assert not path.exists()
    for own in (Path("damaged.safetensors"), cache / "damaged.safetensors"):
        own.write_bytes(tiny_file.read_bytes()[:-1])
        assert "deleted" not in refusal(load_network, own)
        assert own.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
        lambda whole: b"no such file",
        lambda whole: b"\x80\x02" + whole[:100],
        lambda whole: b"PK\x03\x04" + whole[:100],
        lambda whole: b"\x1f\x8b\x08" + whole[:100],
    ],
)
def test_an_answer_that_was_cut_or_wrong_does_not_stay(tiny_file, monkeypatch, server, damage):
    """Where the host announces no length, only reading it can tell."""
    monkeypatch.delenv("BIGGAN_OFFLINE")
    whole = tiny_file.read_bytes()
    server.files["/x.safetensors"] = Served(damage(whole), length=-1)
    address = server.url("/x.safetensors")
    assert "(the copy in the cache is deleted: try again)" in refusal(load_network, address)
    server.files["/x.safetensors"] = Served(whole)
    assert name_of(address) == "tiny"


def test_the_way_out_of_another_file_in_the_cache(monkeypatch, server):
    monkeypatch.delenv("BIGGAN_OFFLINE")
    contents = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(1)}, contents)
    server.files["/resnet.pth"] = Served(contents.getvalue())
    message = refusal(load_network, server.url("/resnet.pth"))
    copy = Path(message.partition("delete ")[2].removesuffix(" to download it again)"))
    assert copy.name == "resnet.pth"
    copy.unlink()
    refusal(load_network, server.url("/resnet.pth"))
    assert server.paths() == ["/resnet.pth"] * 2


def test_epsilons_are_passed_on(tiny_file):
    for epsilon in ({"bn_eps": 1e-4}, {"sn_eps": 1e-4}):
        for model in (None, tiny_file):
            message = refusal(load_network, model, **epsilon)
            assert "bn_eps and sn_eps apply only to ajbrock's" in message


def test_what_is_nothing():
    assert refusal(load_network, "nothing") == (
        "no model 'nothing': give a name that `biggan models` lists, a weights file, the folder of "
        "a training run, or an address (https://, hf://owner/repo)"
    )
    for name in ("sagan-128", "biggan-64", "biggan-32"):
        assert f"{name} is an architecture without published weights" in refusal(load_network, name)
    assert "cannot open" in refusal(load_network, "x" * 5000)
    assert "cannot open" in refusal(load_network, "~no-such-user-here/x")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("biggan-deep128", "biggan-deep-128"),
        ("BigGAN-Deep-256", "biggan-deep-256"),
        ("biggan_deep_512", "biggan-deep-512"),
        ("bigan-128", "biggan-128"),
        ("biggan-deep-129", "biggan-deep-128"),
        ("studiogan-afhq-256", "studiogan-afhqv2-256"),
        ("fruit", "fruits"),
    ],
)
def test_a_name_that_is_nearly_right(word, meant):
    assert f"no model {word!r} (did you mean {meant!r}?): give" in refusal(load_network, word)
    if meant.startswith("studiogan"):
        message = refusal(load_network, word, "discriminator")
        assert f"no discriminator {word!r} (did you mean {meant!r}?); give" in message


def test_discriminators(discriminator_file):
    run = Path("run")
    run.mkdir()
    shutil.copy(discriminator_file, run / RUN_DISCRIMINATOR)
    for path in (discriminator_file, str(discriminator_file), run):
        assert load_network(path, "discriminator").description.name == "judge"
    assert "none was published" in refusal(load_network, NAME, "discriminator")
    assert "no discriminator 'nothing'; give" in refusal(load_network, "nothing", "discriminator")
    assert "no discriminator 'digits'" in refusal(load_network, "digits", "discriminator")
    shutil.copy(discriminator_file, NAME)
    assert load_network(NAME, "discriminator").description.name == "judge"
