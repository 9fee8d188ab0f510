"""Models given by address: what they lead to, and what is kept of it."""

import hashlib
import json
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from biggan import InputError
from biggan.weights import download
from biggan.weights.addresses import is_address, obtain_address
from file_server import FileServer, Served

BODY = b"weights" * 1000


@pytest.fixture
def server():
    with FileServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path, server):
    monkeypatch.setattr(download, "_WAITS", ())
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", server.url("/"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nobody"))
    for name in ("BIGGAN_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket is opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def refusal(address, **options):
    with pytest.raises(InputError) as raised:
        obtain_address(address, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def names(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_what_an_address_is():
    for text in ("https://host/a", "HTTP://host", "hf://owner/repo", "file:///a", "s3://bucket/a"):
        assert is_address(text), text
    for text in ("biggan-128", "runs/a", "C:\\a", "/a//b", "://a", "a b://c"):
        assert not is_address(text), text


# --- files on the web and here ---


def test_a_file_of_the_web_is_fetched_once(server, no_network_after):
    server.files["/some/generator.pth?x=1"] = Served(BODY)
    address = server.url("/some/generator.pth?x=1")
    path = obtain_address(address)
    assert path.read_bytes() == BODY
    assert path.name == "generator.pth"
    no_network_after()
    assert obtain_address(address) == path
    assert obtain_address(address, offline=True) == path


@pytest.fixture
def no_network_after(request):
    return lambda: request.getfixturevalue("no_network")


def test_addresses_do_not_meet_in_the_cache(server):
    for place in ("/a/g.pth", "/b/g.pth", "/a/g.pth?version=2"):
        server.files[place] = Served(place.encode())
        assert obtain_address(server.url(place)).read_bytes() == place.encode()


@pytest.mark.parametrize("path", ["/", "", "/..", "/a/%2e%2e", "/%2F%00", f"/{'x' * 300}"])
def test_names_that_cannot_be_those_of_files(server, tmp_path, path):
    server.files[path or "/"] = Served(BODY)
    found = obtain_address(server.url(path))
    assert found.read_bytes() == BODY
    assert (tmp_path / "cache" / "addresses") in found.parents


def test_a_file_here_is_read_where_it_is(tmp_path, server):
    path = tmp_path / "a ü.pth"
    assert obtain_address(path.as_uri()) == path
    assert obtain_address(path.as_uri().replace("file://", "file://localhost")) == path
    assert "three slashes" in refusal("file://a.pth")
    assert server.asked == []


def test_other_schemes():
    for address in ("ftp://host/a", "s3://bucket/a", "gs://bucket/a"):
        assert "only https://, http://, hf:// and file://" in refusal(address)


@pytest.mark.parametrize("address", ["https://host/a.pth", "hf://owner/repo"])
def test_offline_opens_no_socket(address, no_network, monkeypatch):
    assert f"{address} is not in the cache" in refusal(address, offline=True)
    monkeypatch.setenv("BIGGAN_OFFLINE", "1")
    assert "nothing is fetched offline" in refusal(address)


# --- repositories ---


def test_a_repository(server, no_network_after):
    server.serve_repository("owner/repo", {"README.md": b"#", "generator.safetensors": BODY})
    path = obtain_address("hf://owner/repo")
    assert path.read_bytes() == BODY
    assert path.name == "generator.safetensors"
    assert len(server.asked) == 2
    no_network_after()
    assert obtain_address("hf://owner/repo", offline=True) == path


def test_a_revision_and_a_file(server):
    server.serve_repository("owner/repo", {"a.pth": b"new", "b/c.pth": b"new c"})
    server.serve_repository("owner/repo", {"a.pth": b"old"}, revision="v1")
    server.serve_repository("owner/repo", {"a.pth": b"asked"}, revision="refs%2Fpr%2F1")
    assert obtain_address("hf://owner/repo/a.pth").read_bytes() == b"new"
    assert obtain_address("hf://owner/repo/b/c.pth").read_bytes() == b"new c"
    assert obtain_address("hf://owner/repo@v1").read_bytes() == b"old"
    assert obtain_address("hf://owner/repo@refs%2Fpr%2F1/a.pth").read_bytes() == b"asked"
    assert "HTTP 404" in refusal("hf://owner/repo@v2")
    assert "no such file; there are a.pth, b/c.pth" in refusal("hf://owner/repo/d.pth")


@pytest.mark.parametrize(
    ("listed", "chosen"),
    [
        (["generator.safetensors", "discriminator.safetensors", "model.safetensors"], "generator"),
        (["model.safetensors", "ema.safetensors", "pytorch_model.bin", "config.json"], "model"),
        (["inner/ema.safetensors", "a.pth", "b.pth"], "ema"),
        (["G_ema.pth", "config.json", "state.json"], "G_ema"),
        (["pytorch_model.bin", "README.md"], "pytorch_model"),
        (["release.pt"], "release"),
    ],
)
def test_the_file_of_a_repository(server, listed, chosen):
    server.serve_repository("owner/repo", {name: name.encode() for name in listed})
    path = obtain_address("hf://owner/repo")
    assert path.stem == chosen
    assert path.read_bytes().decode().endswith(path.name)


@pytest.mark.parametrize("address", ["hf://owner/repo", "hf://owner/repo/pytorch_model.bin"])
def test_weights_with_their_settings(server, address):
    contents = {"pytorch_model.bin": b"1", "config.json": b"2", "a.pth": b"3", "README.md": b"4"}
    server.serve_repository("owner/repo", contents)
    assert names(obtain_address(address)) == ["config.json", "pytorch_model.bin"]


@pytest.mark.parametrize("folder", ["", "v1/deep/"])
def test_a_tf_hub_module(server, folder):
    module = ["saved_model.pb", "tfhub_module.pb", "variables/variables.index", "assets/a/b"]
    contents = dict.fromkeys([folder + name for name in module], b"1") | {"README.md": b"2"}
    server.serve_repository("owner/repo", contents)
    found = names(obtain_address("hf://owner/repo"))
    assert found == sorted(module)


def test_a_repository_in_doubt(server):
    files = dict.fromkeys(["a.safetensors", "b.safetensors", "c.pth", "d.bin"], b"1")
    server.serve_repository("owner/repo", files)
    assert refusal("hf://owner/repo") == (
        "hf://owner/repo holds several weights files: a.safetensors, b.safetensors, c.pth, d.bin; "
        "name one, as hf://owner/repo/a.safetensors"
    )
    server.serve_repository("owner/repo", {"README.md": b"1"})
    assert "holds no weights file; there are README.md" in refusal("hf://owner/repo")
    server.serve_repository("owner/repo", {f"{i:02}.txt": b"1" for i in range(20)})
    assert refusal("hf://owner/repo").endswith("11.txt and 8 more")


def test_a_wrong_sha256(server):
    server.serve_repository("owner/repo", {"a.pth": BODY}, wrong_sha256=True)
    wrong = hashlib.sha256(BODY + b"!").hexdigest()
    assert f"its sha256 is {hashlib.sha256(BODY).hexdigest()}, not {wrong}" in refusal(
        "hf://owner/repo"
    )
    server.serve_repository("owner/repo", {"a.pth": BODY})
    assert obtain_address("hf://owner/repo").read_bytes() == BODY


def test_a_private_repository(server, monkeypatch):
    listing = "/api/models/owner/repo/revision/main?blobs=true"
    server.files[listing] = Served(b"who?", status=401)
    assert "a private one, which needs a login" in refusal("hf://owner/repo")
    server.serve_repository("owner/repo", {"a.pth": BODY})
    elsewhere = server.url("/store/a", host="localhost")
    server.files["/owner/repo/resolve/main/a.pth"] = Served(status=302, location=elsewhere)
    server.files["/store/a"] = Served(BODY)
    monkeypatch.setenv("HF_TOKEN", "secret\n")
    assert obtain_address("hf://owner/repo").read_bytes() == BODY
    sent = [asked.headers.get("Authorization") for asked in server.asked[1:]]
    assert sent == ["Bearer secret", "Bearer secret", None]


def test_the_token_of_a_login(server, monkeypatch, tmp_path):
    def sent():
        with suppress(InputError):
            obtain_address("hf://owner/private")
        return server.asked[-1].headers.get("Authorization")

    assert sent() is None
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "token").write_text("by-default\n")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert sent() == "Bearer by-default"
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert sent() is None
    (tmp_path / "token").write_text("of-the-home")
    assert sent() == "Bearer of-the-home"
    (tmp_path / "other").write_text("of-the-path")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "other"))
    assert sent() == "Bearer of-the-path"
    monkeypatch.setenv("HF_TOKEN", "of-the-environment")
    assert sent() == "Bearer of-the-environment"
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "other").write_bytes(b"\xff\xfe")
    assert sent() is None


def test_a_hub_that_is_switched_off_is_not_asked(server, monkeypatch):
    server.serve_repository("owner/repo", {"a.pth": BODY})
    for value in ("1", "yes", "ON", "true"):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert "HF_HUB_OFFLINE is set" in refusal("hf://owner/repo")
    assert server.asked == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    path = obtain_address("hf://owner/repo")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert obtain_address("hf://owner/repo") == path


@pytest.mark.parametrize(
    "listing", ["<html>", "[]", "{}", '{"siblings": 1}', '{"siblings": [{"lfs": {}}]}', "[" * 9999]
)
def test_answers_that_are_no_listing(server, listing):
    server.files["/api/models/owner/repo/revision/main?blobs=true"] = Served(listing.encode())
    assert "no listing" in refusal("hf://owner/repo")


@pytest.mark.parametrize(
    "name",
    [
        *("../a.pth", "/tmp/a.pth", "b/../../a.pth", "..\\a.pth", "C:a.pth", ""),
        *(5, None, "a\0.pth", "a\n.pth", "\ud800.pth", "a" * 400 + ".pth"),
    ],
)
def test_names_that_lead_outside(server, name):
    listing = json.dumps({"siblings": [{"rfilename": name}]}).encode()
    server.files["/api/models/owner/repo/revision/main?blobs=true"] = Served(listing)
    assert "no weights file" in refusal("hf://owner/repo")


@pytest.mark.parametrize(
    "address", ["https://[bad/x.pth", "file://[x", "file:///x%00y", "http://a\nb/c", "ftp://[a\n"]
)
def test_malformed_addresses(address, no_network):
    refusal(address)
    refusal(address, offline=True)


def test_secrets_in_an_address_are_not_shown(server, caplog):
    caplog.set_level("INFO")
    address = server.url("/gone.pth?signature=SECRET#x").replace("http://", "http://me:PASSWORD@")
    for options in ({}, {"offline": True}):
        message = refusal(address, **options) + caplog.text
        assert "SECRET" not in message
        assert "PASSWORD" not in message
        assert "/gone.pth" in message


def test_leftovers_of_another_listing_do_not_get_in(server):
    server.serve_repository("owner/repo", {"a.pth": BODY, "b.pth": BODY})
    del server.files["/owner/repo/resolve/main/b.pth"]
    server.serve_repository("owner/repo", {"generator.safetensors": BODY})
    server.files["/owner/repo/resolve/main/generator.safetensors"].status = 500
    refusal("hf://owner/repo")
    (unfinished,) = (download_folder() / "addresses").glob("*.unfinished")
    (unfinished / "old.pth").write_bytes(b"of another listing")
    server.files["/owner/repo/resolve/main/generator.safetensors"].status = 200
    assert obtain_address("hf://owner/repo").name == "generator.safetensors"


def download_folder():
    return Path(os.environ["BIGGAN_CACHE"])


@pytest.mark.parametrize("address", ["hf://", "hf://owner", "hf://owner/", "hf://a b/c", "hf:///a"])
def test_malformed_repositories(address, server):
    assert "a repository is hf://owner/repo" in refusal(address)
    assert server.asked == []


def test_a_half_fetched_repository_is_not_taken_for_a_whole_one(server):
    files = {"config.json": b"{}", "pytorch_model.bin": BODY}
    server.serve_repository("owner/repo", files)
    gone = server.files.pop("/owner/repo/resolve/main/pytorch_model.bin")
    assert "HTTP 404" in refusal("hf://owner/repo")
    assert "not in the cache" in refusal("hf://owner/repo", offline=True)
    server.files["/owner/repo/resolve/main/pytorch_model.bin"] = gone
    assert names(obtain_address("hf://owner/repo")) == ["config.json", "pytorch_model.bin"]
    assert server.paths().count("/owner/repo/resolve/main/config.json") == 1
