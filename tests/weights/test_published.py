"""Published weights by name: the places tried, what is made of what they have, what is said."""

import dataclasses
import hashlib
import json
import runpy
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from biggan import DiscriminatorConfig, GeneratorConfig
from biggan.models import PRESETS, set_statistics_grid
from biggan.weights import download
from biggan.weights.files import Description, save_network
from biggan.weights.load import empty_network, load_network, locate, read_network
from biggan.weights.published import (
    PUBLISHED,
    PublishedModel,
    RemoteFile,
    downloads_folder,
    host_of,
    verify_cached,
)
from command_line import fails, succeeds
from file_server import Served
from tiny import TINY, TINY_DISCRIMINATOR, refusal, tiny_generator

NAME = "biggan-128"
BIN = "pytorch_model.bin"
BY_HAND = (
    "If you have first.safetensors, or second.safetensors, use --model FILE, biggan.load(FILE) or "
    "biggan convert FILE OUT.safetensors"
)


@pytest.fixture(autouse=True)
def _try_once(monkeypatch, cache):
    monkeypatch.setattr(download, "_WAITS", ())


@pytest.fixture
def publish(monkeypatch):
    """Make a name that of the tiny model, to be found at these places."""

    def publish(*places):
        shape = vars(GeneratorConfig.from_dict(TINY))
        model = dataclasses.replace(PUBLISHED[NAME], changes=shape, places=places)
        monkeypatch.setitem(PUBLISHED, NAME, model)

    return publish


@pytest.fixture
def two_places(server, publish, tiny_file):
    """Two hosts of the tiny model, under /first and /second."""
    names = ("first", "second")
    for name in names:
        server.files[f"/{name}"] = Served(tiny_file.read_bytes(), etag='"1"')
    publish(*((RemoteFile(server.url(f"/{n}"), f"{n}.safetensors"),) for n in names))


def contents(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix != ".lock")


DEEPMIND = [name for name in PUBLISHED if PUBLISHED[name].rows]


def test_deepminds_models_are_what_their_names_say():
    assert list(PRESETS)[:6] == DEEPMIND
    for name in DEEPMIND:
        model, config = PUBLISHED[name], PRESETS[name].generator
        assert (model.name, model.config.family) == (name, config.family)
        assert (model.config.resolution, model.config.num_classes) == (config.resolution, 1000)
        assert model.rows == (51 if "deep" in name else 50)
    assert [PUBLISHED[f"biggan-{r}"].config.z_dim for r in (128, 256, 512)] == [120, 140, 128]
    assert {PUBLISHED[f"biggan-deep-{r}"].config.z_dim for r in (128, 256, 512)} == {128}


def test_studiogans_models_have_the_sizes_of_their_files():
    """In MB: a generator's file, and a discriminator's, which holds Adam's state too."""
    sizes = {
        "studiogan-imagenet-128": (282, 1060),
        "studiogan-afhqv2-256": (328, 1170),
        "studiogan-imagenet-64": (69.6, None),
        "studiogan-cifar10-32": (37.9, None),
    }
    assert list(PUBLISHED)[:4] == [name for name in PUBLISHED if PUBLISHED[name].is_open]
    for name, (generator_size, discriminator_size) in sizes.items():
        model = PUBLISHED[name]
        state = empty_network(model.config).state_dict().items()
        values = sum(tensor.numel() for key, tensor in state if ".table_" not in key)
        assert 4 * values / 1e6 == pytest.approx(generator_size, rel=0.005)
        assert (model.discriminator is None) == (discriminator_size is None)
        if discriminator_size:
            config = model.discriminator_config
            assert config.relu_before_shortcut
            values = 3 * sum(t.numel() for t in empty_network(config).state_dict().values())
            assert 4 * values / 1e6 == pytest.approx(discriminator_size, rel=0.005)
        names = model.class_names
        assert names is None or len(names) == model.config.num_classes


def test_the_places():
    def addresses(name):
        return [file.url for place in PUBLISHED[name].places for file in place]

    s3 = "https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep-128-"
    hub = "https://huggingface.co/"
    mirror = f"{hub}osanseviero/BigGAN-deep-128/resolve/main/"
    modules = (
        "https://www.kaggle.com/api/v1/models/deepmind/biggan/tensorFlow1/{}",
        "https://tfhub.dev/deepmind/biggan-{}/{}?tf-hub-format=compressed",
        "https://storage.googleapis.com/tfhub-modules/deepmind/biggan-{}/{}.tar.gz",
    )
    assert addresses("biggan-deep-128") == [
        *(f"{place}{file}" for place in (s3, mirror) for file in ("config.json", BIN)),
        *(address.format("deep-128", 1) for address in modules),
    ]
    assert addresses("biggan-512") == [
        "https://github.com/ivclab/BigGAN-Generator-Pretrained-Pytorch/releases/download/v0.0.0/"
        "biggan512-release.pt",
        *(address.format("512", 2) for address in modules),
    ]
    assert addresses("studiogan-cifar10-32") == [
        f"{hub}Mingguksky/PyTorch-StudioGAN/resolve/main/studiogan_official_ckpt/CIFAR10_tailored/"
        "CIFAR10-BigGAN-CR-train-2022_03_10_14_20_11/model%3DG_ema-best-weights-step%3D98000.pth"
    ]
    assert addresses("mmgeneration-biggan-128") == [
        "https://download.openmmlab.com/mmgen/biggan/"
        "biggan_imagenet1k_128x128_cvt_BigGAN-PyTorch_rgb_20210730_125223-3e353fef.pth"
    ]
    config, weights = PUBLISHED["biggan-deep-256"].places[0]
    assert (config.sha256[:8], weights.sha256[:8]) == ("edd106f6", "5900ef40")
    assert PUBLISHED["mmgeneration-biggan-deep-128"].places[0][0].sha256 == "099e96f9"


EVERY_PLACE = [
    pytest.param(name, kind, place, id=f"{name}-{kind}-{host_of(place)}")
    for name, model in PUBLISHED.items()
    for kind, places in (
        ("generator", model.places),
        ("discriminator", (model.discriminator,) if model.discriminator else ()),
    )
    for place in places
]


@pytest.fixture
def stand_in(server, monkeypatch, tiny_file, discriminator_file):
    """Serve tiny networks where a place's files are; the paths that end in the weights."""
    tiny_discriminator = DiscriminatorConfig.from_dict(TINY_DISCRIMINATOR)
    shape = property(lambda _: tiny_discriminator)
    monkeypatch.setattr(PublishedModel, "discriminator_config", shape)

    def stand_in(name, kind, place):
        body = (tiny_file if kind == "generator" else discriminator_file).read_bytes()
        files = []
        for file in place:
            path = "/" + file.url.partition("://")[2].replace("?", "/")
            contents = b"{}" if file.name == "config.json" else body
            sha256 = hashlib.sha256(contents).hexdigest()[: len(file.sha256 or "")] or None
            files.append(dataclasses.replace(file, url=server.url(path), sha256=sha256))
            if file.is_kaggle_model:
                server.files[f"{path}/get"] = Served(b'{"versionNumber": 3}')
                path += "/3/download"
            server.files[path] = Served(contents)
        model = dataclasses.replace(
            PUBLISHED[name],
            changes=vars(GeneratorConfig.from_dict(TINY)),
            rows=50,
            places=(tuple(files),),
            discriminator=tuple(files),
        )
        monkeypatch.setitem(PUBLISHED, name, model)
        return path

    return stand_in


@pytest.mark.parametrize(("name", "kind", "place"), EVERY_PLACE)
def test_every_place(server, stand_in, monkeypatch, cache, name, kind, place):
    path = stand_in(name, kind, place)
    right = server.files[path]

    def fetched():
        found = locate(name, kind)
        contents = found.read_bytes()
        found.unlink()
        return contents

    assert read_network(locate(name, kind), kind).kind == kind
    expected = fetched()
    server.files["/moved"] = right
    server.files[path] = Served(status=302, location=server.url("/moved", host="localhost"))
    assert fetched() == expected
    server.files[path] = Served(right.body + b" ")
    message = refusal(locate, name, kind)
    assert "its sha256 is" in message
    assert ("recorded at the first download" in message) == (place[-1].sha256 is None)
    server.files[path] = Served(b"<!DOCTYPE html><title>Sign in</title>")
    assert "the answer is a web page" in refusal(locate, name, kind)
    server.files[path] = Served(right.body, drip="head")
    monkeypatch.setattr(download, "_TIMEOUT", 0.1)
    assert "the connection failed" in refusal(locate, name, kind)
    del server.files[path]
    assert "HTTP 404 Not Found" in refusal(locate, name, kind)
    server.files[path] = right
    assert fetched() == expected


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[]", b"{}", b'{"versionNumber": null}', b"[" * 9999]
)
def test_what_is_no_answer_of_kaggles(server, stand_in, answer):
    place = PUBLISHED["biggan-128"].places[1]
    path = stand_in("biggan-128", "generator", place)
    server.files[path.replace("3/download", "get")] = Served(answer)
    assert "the answer states no version" in refusal(locate, "biggan-128")


def test_the_hub_by_its_variables(server, stand_in, monkeypatch):
    name = "studiogan-afhqv2-256"
    place = PUBLISHED[name].places[0]
    path = stand_in(name, "generator", place)
    served = dataclasses.replace(place[0], sha256=PUBLISHED[name].places[0][0].sha256)
    model = dataclasses.replace(PUBLISHED[name], places=((served,),))
    monkeypatch.setitem(PUBLISHED, name, model)
    server.files[path.removeprefix("/huggingface.co")] = server.files[path]
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refusal(locate, name)
    assert server.asked == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert load_network(name).description.name == "tiny"
    assert server.paths() == [path.removeprefix("/huggingface.co")]


def test_a_proxy_of_the_environment(server, stand_in, monkeypatch):
    """A proxy is asked for the whole address."""
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("http_proxy", server.url(""))
    address = "http://weights.example/x.safetensors"
    path = stand_in("biggan-128", "generator", PUBLISHED["biggan-128"].places[0])
    server.files[address] = server.files[path]
    assert load_network(address).description.name == "tiny"
    assert server.paths() == [address]


def test_the_script_that_tries_every_place(server, two_places, tmp_path, monkeypatch, capsys):
    path = Path(__file__).parents[2] / "scripts" / "check_places.py"
    script = runpy.run_path(str(path))
    digest = hashlib.sha256(server.files["/first"].body).hexdigest()
    server.files["/second"] = Served(b"no", status=404)
    out = tmp_path / "out"
    kept = out / "downloads" / "of mine"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    monkeypatch.setattr(sys, "argv", ["check_places.py", str(out), NAME])
    assert script["main"]() == 1
    assert digest in capsys.readouterr().out
    assert kept.read_bytes() == b"mine"
    assert (out / "sha256.txt").read_text() == f'    "{server.url("/first")}": "{digest}",\n'
    first, second = (out / "places.md").read_text().splitlines()[2:]
    assert digest in first
    assert first.endswith("| right |")
    assert "HTTP 404 Not Found" in second
    (picture,) = out.glob("*.png")
    assert picture.name.startswith(f"{NAME}-127.0.0.1-")
    with Image.open(picture) as opened:
        assert opened.size == (16, 16)


def test_the_licence_and_classes_of_a_model_that_states_them(server, publish, tmp_path):
    generator = tiny_generator()
    set_statistics_grid(generator, [])
    path = tmp_path / "x.safetensors"
    save_network(path, generator, Description("x", class_names=("a", "b", "c")))
    server.files["/x"] = Served(path.read_bytes())
    publish((RemoteFile(server.url("/x"), "x.safetensors"),))
    names = ("cat", "dog", "wild")
    changes = {"rows": 0, "class_names": names, "licence": "MIT", "source": "s"}
    PUBLISHED[NAME] = dataclasses.replace(PUBLISHED[NAME], **changes)
    found = load_network(NAME).description
    assert (found.class_names, found.licence, found.source) == (names, "MIT", "s")


def test_what_is_in_the_cache_is_verified(two_places, cache):
    assert succeeds("models --verify") == f"no published weights in {cache}\n"
    path = locate(NAME)
    assert path.name in succeeds("models --verify")
    assert json.loads(succeeds("models --verify --json")) == {path.name: "verified"}
    assert "omit the model" in fails(f"models --verify {NAME}")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert f"{path.name} in {cache}: not as downloaded" in fails("models --verify")
    assert verify_cached() == {path.name: "damaged"}
    save_network(path, tiny_generator(), Description("another"))
    assert verify_cached() == {path.name: "changed"}
    path.write_bytes(whole)
    record = cache / "published-lock.json"
    assert set(json.loads(record.read_text())["models"]) == {path.name}
    record.write_text("[]")
    path.unlink()
    assert "records the digests of downloads; restore or delete it" in refusal(locate, NAME)
    path.write_bytes(whole)
    record.unlink()
    assert verify_cached() == {path.name: "not recorded"}


def test_a_model_is_fetched_converted_and_kept(server, two_places, cache, tiny_file):
    path = locate(NAME)
    assert contents(cache) == [f"{NAME}.safetensors", "downloads", "published-lock.json"]
    assert path == cache / f"{NAME}.safetensors"
    found, original = load_network(path), load_network(tiny_file)
    assert found.sha256 == original.sha256
    assert found.description == original.description
    for name, tensor in original.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], tensor), name
    assert locate(NAME) == locate(NAME, offline=True) == path
    assert server.paths() == ["/first"]


def test_two_at_once_fetch_one_thing_once(server, two_places, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(download, "_WAITS", (0,))
    whole, pause = len(server.files["/first"].body), threading.Event()
    server.files["/first"].cuts, server.files["/first"].pause = [whole - 1], pause
    threads = [threading.Thread(target=locate, args=(NAME,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while f"another process is downloading {NAME}" not in caplog.text:
        time.sleep(0.01)
    pause.set()
    for thread in threads:
        thread.join()
    assert server.paths() == ["/first", "/first"]  # the second for the last byte
    assert sum(asked.sent for asked in server.asked) == whole


@pytest.mark.parametrize(
    ("served", "why"),
    [
        (Served(b"no", status=403), "HTTP 403 Forbidden"),
        (Served(b"<!doctype html><title>Sign in</title>"), "the answer is a web page"),
    ],
)
def test_the_next_place_is_tried(server, two_places, caplog, cache, served, why):
    server.files["/first"] = served
    assert load_network(locate(NAME)).description.name == "tiny"
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{NAME} from 127.0.0.1:")
    assert why in warning
    assert "\n" not in warning
    assert server.paths() == ["/first", "/second"]
    assert contents(cache) == [f"{NAME}.safetensors", "downloads", "published-lock.json"]


def test_a_wrong_sha256_is_refused(server, publish, two_places):
    first, second = PUBLISHED[NAME].places
    pinned = dataclasses.replace(first[0], sha256=hashlib.sha256(b"other").hexdigest())
    publish((pinned,), second)
    assert load_network(locate(NAME)).description.name == "tiny"
    assert server.paths() == ["/first", "/second"]


def test_a_file_that_was_put_there_must_have_the_sha256(server, publish, two_places):
    first, _ = PUBLISHED[NAME].places
    pinned = (dataclasses.replace(first[0], sha256="0a"),)
    publish(pinned)
    folder = downloads_folder(PUBLISHED[NAME], pinned)
    folder.mkdir(parents=True)
    (folder / first[0].name).write_bytes(server.files["/first"].body)
    digest = hashlib.sha256(server.files["/first"].body).hexdigest()
    for offline in (False, True):
        message = refusal(locate, NAME, offline=offline)
        assert f"{first[0].name} has the sha256 {digest}, not 0a: delete it" in message
    assert server.asked == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"z_dim": 24}, "its z_dim is 24"),
        ({"resolution": 32}, "resolution is 32"),
        ({"num_classes": 4}, "num_classes is 4"),
        ({"channels": 16}, "channels is 16"),
        ({"family": "biggan-deep", "channels": 16}, "family is biggan-deep"),
        # As of an original module without its tables, which are taken for all truncations.
        ({}, "statistics for 0 truncations, not for the 50"),
    ],
)
def test_another_network_is_refused(server, two_places, tmp_path, cache, caplog, changes, why):
    widths = [4, 2, 1, 1][: 3 + (changes.get("resolution") == 32)]
    generator, other = tiny_generator(**changes, widths=widths), tmp_path / "other.safetensors"
    if not changes:
        set_statistics_grid(generator, [])
    save_network(other, generator, Description(name="other"))
    server.files["/first"] = Served(other.read_bytes())
    assert load_network(locate(NAME)).description.name == "tiny"
    assert why in caplog.text
    assert contents(cache) == [f"{NAME}.safetensors", "downloads", "published-lock.json"]


def test_all_places_are_gone(server, two_places, cache):
    server.files["/first"] = Served(b"no", status=403)
    del server.files["/second"]
    host = server.url("").removeprefix("http://")
    assert refusal(locate, NAME) == (
        f"{NAME} cannot be downloaded ({host}: HTTP 403 Forbidden; {host}: HTTP 404 Not Found). "
        f"{BY_HAND}"
    )
    assert [name for name in contents(cache) if name.endswith((".part", ".safetensors"))] == []


def test_what_cannot_be_read_is_not_kept(server, two_places, cache, tiny_file):
    server.files["/first"] = Served(tiny_file.read_bytes()[:-1])
    del server.files["/second"]
    assert "cut short" in refusal(locate, NAME)
    assert [name for name in contents(cache) if name.endswith(".safetensors")] == []
    server.files["/first"] = Served(tiny_file.read_bytes())
    assert load_network(locate(NAME)).description.name == "tiny"


def test_the_beginning_from_one_place_is_not_gone_on_with_at_another(server, publish, two_places):
    publish(*((RemoteFile(server.url(url), "same"),) for url in ("/first", "/second")))
    server.files["/first"] = Served(bytes(5000), etag='"1"', cuts=[1000])
    assert load_network(locate(NAME)).description.name == "tiny"
    assert "Range" not in server.asked[-1].headers


def test_what_a_broken_connection_left_is_used_the_next_time(server, two_places):
    server.files["/first"].cuts = [1000]
    del server.files["/second"]
    assert "closed after 1,000 of" in refusal(locate, NAME)
    locate(NAME)
    assert server.asked[-1].headers["Range"] == "bytes=1000-"


def test_a_disk_that_cannot_take_it_is_no_reason_to_try_the_next_place(server, two_places, cache):
    cache.mkdir()
    (cache / "downloads").write_bytes(b"no folder")
    assert refusal(locate, NAME).startswith("cannot write ")
    assert server.asked == []


def test_offline_opens_no_socket(two_places, monkeypatch, cache, close_network):
    close_network()
    message = f"{NAME} is not in the cache {cache}, and nothing is downloaded offline. {BY_HAND}"
    assert refusal(locate, NAME, offline=True) == message
    monkeypatch.setenv("BIGGAN_OFFLINE", "1")
    assert refusal(locate, NAME) == message
    assert not cache.exists()


def test_what_is_needed_is_said_for_every_model(cache):
    for name, model in PUBLISHED.items():
        message = refusal(locate, name, offline=True)
        assert all(place[-1].name in message for place in model.places)
