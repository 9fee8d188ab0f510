"""What the tests of downloads share: a local server, and an empty cache."""

import functools
import os
import shutil
import socket
import ssl
from pathlib import Path

import pytest

from biggan import DiscriminatorConfig, build_discriminator
from biggan.weights import download
from biggan.weights.containers.archives import unpacked
from biggan.weights.files import Description, save_network
from file_server import HubServer
from tiny import TINY_DISCRIMINATOR

_create_context = ssl.create_default_context


@functools.cache
def _cached_context(places, _certificates):
    return _create_context(**dict(places))


def _context(**places):
    return _cached_context(tuple(places.items()), os.environ.get("SSL_CERT_FILE"))


@pytest.fixture
def server():
    with HubServer() as server:
        yield server


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache; no proxy, no waiting; certificates are read once."""
    monkeypatch.setattr(ssl, "create_default_context", _context)
    monkeypatch.setattr(download, "_WAITS", (0, 0, 0))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BIGGAN_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch, tmp_path, server, cache):
    """A local server in place of the Hub, whose library reads its settings when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server.url(""))
    template = server.url("/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "a-token")
    return server


@pytest.fixture
def close_network(monkeypatch):
    """Call this, and whatever opens a socket fails."""

    def refuse(*_, **__):
        raise AssertionError("a socket is opened")

    def close():
        for name in ("socket", "create_connection", "getaddrinfo"):
            monkeypatch.setattr(socket, name, refuse)

    return close


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """The folders of the two modules that TensorFlow wrote."""
    folder = tmp_path_factory.mktemp("modules")
    for name in ("tfhub-biggan", "tfhub-biggan-deep"):
        path = Path(__file__).with_name("fixtures") / f"{name}.tar.gz"
        with path.open("rb") as file, unpacked(file, path) as found:
            shutil.copytree(found, folder / name)
    return folder


@pytest.fixture(scope="session")
def discriminator_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("discriminator") / "d.safetensors"
    config = DiscriminatorConfig.from_dict(TINY_DISCRIMINATOR)
    save_network(path, build_discriminator(config), Description(name="judge"))
    return path
