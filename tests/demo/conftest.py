"""Models and one running server for all tests."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from biggan import InputError
from demo_app import GatedGan, make_gan, running

# Gradio reads it on import; its own folder is shared by all of a machine.
_FOLDER = tempfile.TemporaryDirectory(prefix="biggan-tests-")
os.environ["GRADIO_TEMP_DIR"] = _FOLDER.name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from biggan import Gan


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
