"""Models and a running server, once for all tests of a file or more."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

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
def address(gan: Gan) -> Iterator[str]:
    """A server that offers one model as "tiny" and "other"."""
    pytest.importorskip("gradio")
    with running(gan) as address:
        yield address
