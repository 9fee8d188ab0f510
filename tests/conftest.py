"""What many tests share: a small model with random weights, in a file like a real one."""

import signal

import pytest
import torch

import biggan
from biggan.weights.files import Description, save_network
from chromium import CHROMIUM, FLAGS
from tiny import TINY_CLASSES, tiny_generator


def pytest_configure() -> None:
    """Heed signals that the caller ignores, as `nohup` and jobs in the background do.

    The tests' own processes would inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _same_random_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without drawing, which is what takes the time."""
    monkeypatch.setattr("biggan.reporting.report.as_svg", lambda chart, number: "<svg></svg>")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory):
    """A weights file of a tiny model with three classes."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_network(path, tiny_generator(), Description(name="tiny", class_names=TINY_CLASSES))
    return path


@pytest.fixture
def tiny(tiny_file):
    """The tiny model, loaded."""
    return biggan.load(tiny_file)
