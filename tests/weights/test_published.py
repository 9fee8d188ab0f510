"""Published weights by name: the places tried, what is made of what they have, what is said."""

import dataclasses
import hashlib
import socket
import threading
import time

import pytest
import torch

from biggan import GeneratorConfig, InputError
from biggan.models import PRESETS, count_parameters
from biggan.weights import download
from biggan.weights.files import Description, save_generator
from biggan.weights.load import load_generator, locate
from biggan.weights.networks import set_statistics_grid
from biggan.weights.published import PUBLISHED, RemoteFile
from file_server import Served
from tiny import TINY, tiny_generator

NAME = "biggan-128"
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


def refusal(**options):
    with pytest.raises(InputError) as raised:
        locate(NAME, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- the table ---


def test_the_published_models_are_what_their_names_say():
    assert list(PUBLISHED) == list(PRESETS)[:6]
    for name, model in PUBLISHED.items():
        config = PRESETS[name].generator
        assert (model.name, model.config.family) == (name, config.family)
        assert (model.config.resolution, model.config.num_classes) == (config.resolution, 1000)
        assert model.rows == (51 if "deep" in name else 50)
    assert [PUBLISHED[f"biggan-{r}"].config.z_dim for r in (128, 256, 512)] == [120, 140, 128]
    for resolution, parameters in ((128, 50.4), (256, 55.9), (512, 56.2)):  # in their files
        config = PUBLISHED[f"biggan-deep-{resolution}"].config
        assert config.z_dim == 128
        assert round(count_parameters(config) / 1e6, 1) == parameters


def test_the_places():
    def addresses(name):
        return [[file.url for file in place] for place in PUBLISHED[name].places]

    s3 = "https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep-128-"
    mirror = "https://huggingface.co/osanseviero/BigGAN-deep-128/resolve/main/"
    assert addresses("biggan-deep-128") == [
        [f"{s3}config.json", f"{s3}pytorch_model.bin"],
        [f"{mirror}config.json", f"{mirror}pytorch_model.bin"],
        ["https://tfhub.dev/deepmind/biggan-deep-128/1?tf-hub-format=compressed"],
    ]
    assert addresses("biggan-512") == [
        [
            "https://github.com/ivclab/BigGAN-Generator-Pretrained-Pytorch/releases/download/"
            "v0.0.0/biggan512-release.pt"
        ],
        ["https://tfhub.dev/deepmind/biggan-512/2?tf-hub-format=compressed"],
    ]


# --- what is made of them ---


def test_a_model_is_fetched_converted_and_kept(server, two_places, cache, tiny_file):
    path = locate(NAME)
    assert contents(cache) == [f"{NAME}.safetensors", "downloads"]
    assert path == cache / f"{NAME}.safetensors"
    found, original = load_generator(path), load_generator(tiny_file)
    assert found.sha256 == original.sha256
    assert found.description == original.description
    for name, tensor in original.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], tensor), name
    assert locate(NAME) == locate(NAME, offline=True) == path
    assert server.paths() == ["/first"]


def test_several_files_are_read_together(server, publish, tiny_file, cache):
    server.files["/config"] = Served(b"{}")
    server.files["/weights"] = Served(tiny_file.read_bytes())
    config = RemoteFile(server.url("/config"), "config.json")
    weights = RemoteFile(server.url("/weights"), "generator.safetensors")
    publish((config, weights))
    assert load_generator(NAME).description.name == "tiny"
    assert server.paths() == ["/config", "/weights"]
    assert contents(cache / "downloads") == []


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


# --- places that fail ---


@pytest.mark.parametrize(
    ("served", "why"),
    [
        (Served(b"no", status=403), "HTTP 403 Forbidden"),
        (Served(b"no", status=404), "HTTP 404 Not Found"),
        (Served(b"<!doctype html><title>Sign in</title>"), "the answer is a web page"),
        (Served(b""), "the answer is empty"),
    ],
)
def test_the_next_place_is_tried(server, two_places, caplog, cache, served, why):
    server.files["/first"] = served
    assert load_generator(locate(NAME)).description.name == "tiny"
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{NAME} from 127.0.0.1:")
    assert why in warning
    assert "\n" not in warning
    assert server.paths() == ["/first", "/second"]
    assert contents(cache) == [f"{NAME}.safetensors", "downloads"]


def test_a_wrong_sha256_is_refused(server, publish, two_places):
    first, second = PUBLISHED[NAME].places
    pinned = dataclasses.replace(first[0], sha256=hashlib.sha256(b"other").hexdigest())
    publish((pinned,), second)
    assert load_generator(locate(NAME)).description.name == "tiny"
    assert server.paths() == ["/first", "/second"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"z_dim": 24}, "its z_dim is 24"),
        ({"resolution": 32}, "resolution is 32"),
        ({"num_classes": 4}, "num_classes is 4"),
        ({"channels": 16}, "channels is 16"),
        ({"family": "biggan-deep", "channels": 16}, "family is biggan-deep"),
    ],
)
def test_another_network_is_refused(server, two_places, tmp_path, cache, caplog, changes, why):
    widths = [4, 2, 1, 1][: 3 + (changes.get("resolution") == 32)]
    other = tmp_path / "other.safetensors"
    save_generator(other, tiny_generator(**changes, widths=widths), Description(name="other"))
    server.files["/first"] = Served(other.read_bytes())
    assert load_generator(locate(NAME)).description.name == "tiny"
    assert why in caplog.text
    assert contents(cache) == [f"{NAME}.safetensors", "downloads"]


def test_another_table_of_statistics_is_refused(server, two_places, tmp_path, caplog):
    """As an original module would have without its tables, which are taken for all truncations."""
    generator = tiny_generator()
    set_statistics_grid(generator, [])
    other = tmp_path / "other.safetensors"
    save_generator(other, generator, Description(name="other"))
    server.files["/first"] = Served(other.read_bytes())
    assert load_generator(locate(NAME)).description.name == "tiny"
    assert "statistics for 0 truncations, not for the 50" in caplog.text


def test_all_places_are_gone(server, two_places, cache):
    server.files["/first"] = Served(b"no", status=403)
    del server.files["/second"]
    host = server.url("").removeprefix("http://")
    assert refusal() == (
        f"{NAME} cannot be downloaded ({host}: HTTP 403 Forbidden; {host}: HTTP 404 Not Found). "
        f"{BY_HAND}"
    )
    assert [name for name in contents(cache) if name.endswith((".part", ".safetensors"))] == []


def test_what_cannot_be_read_is_not_kept(server, two_places, cache, tiny_file):
    server.files["/first"] = Served(tiny_file.read_bytes()[:-1])
    del server.files["/second"]
    assert "cut short" in refusal()
    assert [name for name in contents(cache) if name.endswith(".safetensors")] == []
    server.files["/first"] = Served(tiny_file.read_bytes())
    assert load_generator(locate(NAME)).description.name == "tiny"


def test_the_beginning_from_one_place_is_not_gone_on_with_at_another(server, publish, two_places):
    publish(*((RemoteFile(server.url(url), "same"),) for url in ("/first", "/second")))
    server.files["/first"] = Served(bytes(5000), etag='"1"', cuts=[1000])
    assert load_generator(locate(NAME)).description.name == "tiny"
    assert "Range" not in server.asked[-1].headers


def test_what_a_broken_connection_left_is_used_the_next_time(server, two_places):
    server.files["/first"].cuts = [1000]
    del server.files["/second"]
    assert "closed after 1,000 of" in refusal()
    locate(NAME)
    assert server.asked[-1].headers["Range"] == "bytes=1000-"


def test_the_network_of_somebody_offline(two_places, monkeypatch):
    def unreachable(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    assert refusal().count("no connection (Name or service not known)") == 2


def test_a_disk_that_cannot_take_it_is_no_reason_to_try_the_next_place(server, two_places, cache):
    cache.mkdir()
    (cache / "downloads").write_bytes(b"no folder")
    assert refusal().startswith("cannot write ")
    assert server.asked == []


# --- offline ---


def test_offline_opens_no_socket(two_places, monkeypatch, cache, close_network):
    close_network()
    message = f"{NAME} is not in the cache {cache}, and nothing is downloaded offline. {BY_HAND}"
    assert refusal(offline=True) == message
    monkeypatch.setenv("BIGGAN_OFFLINE", "1")
    assert refusal() == message
    assert not cache.exists()


def test_what_is_needed_is_said_for_every_model(cache):
    for name, model in PUBLISHED.items():
        with pytest.raises(InputError) as raised:
            locate(name, offline=True)
        weights = "pytorch_model.bin with config.json" if "deep" in name else "-release.pt"
        assert weights in str(raised.value)
        assert f"or {model.places[-1][0].name}, use" in str(raised.value)
