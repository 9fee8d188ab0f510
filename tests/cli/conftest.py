"""What the tests of commands share: a recipe, data, and an empty cache without a network."""

import socket
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from command_line import write_images, write_recipe
from runs import short_exports


@pytest.fixture(scope="module", autouse=True)
def _less_to_export() -> Iterator[None]:
    with short_exports():
        yield


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.toml", total_steps=2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        write_images(tmp_path / "data" / name)
    return tmp_path / "data"


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and an error for whoever asks a host."""
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    asked = mock.Mock(side_effect=AssertionError("a host is asked"))
    monkeypatch.setattr(socket, "create_connection", asked)
