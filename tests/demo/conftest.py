"""Models and one running server for all tests."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from biggan import Gan, InputError, build_generator
from biggan.classes import imagenet_classes
from biggan.models import hub_grid, set_statistics_grid
from biggan.weights import download
from biggan.weights.files import Description, save_network
from biggan.weights.published import PUBLISHED, RemoteFile
from demo_app import GatedGan, make_gan, running
from file_server import FileServer, Served


@pytest.fixture(scope="session")
def gan() -> Gan:
    """Ten digits of 16 pixels a side."""
    return make_gan()


@pytest.fixture
def gated() -> GatedGan:
    return GatedGan()


@pytest.fixture(scope="session")
def served(gan: Gan) -> Iterator[tuple[str, Any, GatedGan]]:
    """A server, its renderer, and its model that waits to be let through."""
    pytest.importorskip("gradio")
    from biggan.demo.models import ModelCache

    models: dict[str, Gan] = {"tiny": gan, "plain": make_gan(()), "gated": GatedGan()}

    def load(source: Any) -> Gan:
        if "broken" in str(source):
            raise InputError(f"{source} is damaged")
        return models[source]

    with running(ModelCache([*models, "/secret/broken"], load)) as (address, renderer):
        gated = models["gated"]
        assert isinstance(gated, GatedGan)
        yield address, renderer, gated


@pytest.fixture
def address(served: tuple[str, Any, GatedGan]) -> str:
    return served[0]


@pytest.fixture
def renderer(served: tuple[str, Any, GatedGan]) -> Any:
    return served[1]


@pytest.fixture
def slow(served: tuple[str, Any, GatedGan]) -> Iterator[GatedGan]:
    """The server's model "gated", which has drawn nothing yet."""
    _, renderer, gated = served
    gated.reset()
    yield gated
    gated.let_through(1000)
    for threads in (renderer._pictures, renderer._videos):
        threads.submit(int).result()  # what was abandoned has ended


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    """A stand-in for the host of a biggan-deep-128, which is narrow; the cache is empty."""
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("BIGGAN_OFFLINE", raising=False)
    monkeypatch.setattr(download, "_WAITS", ())
    published = PUBLISHED["biggan-deep-128"]
    published = dataclasses.replace(published, changes={"channels": 16, "rgb_channels": 16})
    generator = build_generator(published.config, seed=1).eval()
    set_statistics_grid(generator, hub_grid(published.rows))
    file = tmp_path / "weights.safetensors"
    about = Description("biggan-deep-128", imagenet_classes(), published.source)
    save_network(file, generator, about)
    with FileServer() as server:
        server.files["/weights"] = Served(file.read_bytes(), etag='"1"')
        place = (RemoteFile(server.url("/weights"), file.name),)
        published = dataclasses.replace(published, places=(place,))
        monkeypatch.setitem(PUBLISHED, published.name, published)
        yield server
