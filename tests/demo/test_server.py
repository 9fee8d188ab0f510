"""The page in a real browser, served as `biggan demo` serves it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

from biggan.weights.files import save_generator

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from playwright import sync_api

from biggan.demo.drawing import draw_grid, interpolation_recipe, sample_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from biggan import Gan

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@dataclass
class Server:
    """A running `biggan demo`."""

    address: str
    process: subprocess.Popen[str]
    temporary: Path
    """Its folder for temporary files."""
    outside: socket.socket
    """What it takes for a proxy to the internet."""


@pytest.fixture(scope="module")
def gan(make_gan: Callable[..., Gan]) -> Gan:
    return make_gan()


@pytest.fixture(scope="module")
def server(gan: Gan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    save_generator(folder / "tiny.safetensors", gan.generator, gan.description)
    temporary = folder / "temporary"
    temporary.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as outside:
        proxy = f"http://127.0.0.1:{outside.getsockname()[1]}"
        environment = {
            **{name: value for name, value in os.environ.items() if name.lower() != "no_proxy"},
            **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy),
            "TMPDIR": str(temporary),
        }
        model = str(folder / "tiny.safetensors")
        with subprocess.Popen(
            [sys.executable, "-m", "biggan", "demo", "--port", "0", "--model", model],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                address = process.stdout.readline().strip()
                if not address:
                    pytest.fail(process.communicate()[1])
                yield Server(address, process, temporary, outside)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Page:
    """The page in a window, and what it asked of the network."""

    window: Any
    hosts: set[str] = field(default_factory=set)

    def picture(self) -> Image.Image:
        """The picture that is shown, as its file has it."""
        address = self.window.locator(".grid img:visible").get_attribute("src")
        with urllib.request.urlopen(address) as reply:
            picture = Image.open(io.BytesIO(reply.read()))
            picture.load()
        return picture

    def wait_for(self, expected: Image.Image) -> None:
        """Wait until a certain picture is shown; its pixels must be the same, every one."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if self.window.locator(".grid img:visible").count():
                shown = self.picture()
                if np.array_equal(
                    np.asarray(shown.convert("RGB")), np.asarray(expected.convert("RGB"))
                ):
                    assert shown.format == "PNG"
                    return
            time.sleep(0.05)
        pytest.fail("the page does not show the picture of these settings")

    def number(self, label: str) -> Any:
        return self.window.get_by_label(f"number input for {label}").locator("visible=true")

    def slider(self, label: str) -> Any:
        return self.window.get_by_label(f"range slider for {label}").locator("visible=true")

    def choose(self, menu: str, typed: str) -> None:
        """Pick the first entry that fits what is typed into a menu."""
        self.window.get_by_label(menu, exact=True).locator("visible=true").click()
        self.window.keyboard.type(typed)
        self.window.get_by_role("option").first.wait_for()
        self.window.keyboard.press("Enter")


def sampled(gan: Gan, *settings: Any) -> Image.Image:
    return draw_grid(gan, sample_recipe(gan, *settings))


def interpolated(gan: Gan, *settings: Any) -> Image.Image:
    return draw_grid(gan, interpolation_recipe(gan, *settings))


@pytest.fixture
def open_page(server: Server, browser: Any) -> Iterator[Callable[..., Page]]:
    windows = []

    def open_page(width: int = 1280, height: int = 860) -> Page:
        window = browser.new_page(viewport={"width": width, "height": height})
        windows.append(window)
        page = Page(window)
        window.on("request", lambda request: page.hosts.add(urlparse(request.url).hostname or ""))
        window.goto(server.address)
        window.locator(".grid img:visible").wait_for()
        return page

    yield open_page
    for window in windows:
        window.close()


def test_moving_a_control_shows_the_picture_of_the_new_settings(
    open_page: Callable[..., Page], gan: Gan
) -> None:
    page = open_page()
    page.wait_for(sampled(gan, 10, 0.4, 0, "zero"))  # by itself, with the notebook's defaults

    page.slider("Truncation").press("ArrowRight")
    page.wait_for(sampled(gan, 10, 0.42, 0, "zero"))
    page.number("Noise seed").fill("7")
    page.wait_for(sampled(gan, 10, 0.42, 7, "zero"))
    page.choose("Category", "thr")
    page.wait_for(sampled(gan, 10, 0.42, 7, "three"))
    page.slider("Number of samples").press("ArrowLeft")
    page.wait_for(sampled(gan, 9, 0.42, 7, "three"))

    for _ in range(20):  # as fast as keys go: what is shown in the end is where the slider stands
        page.slider("Truncation").press("ArrowRight")
    page.wait_for(sampled(gan, 9, 0.82, 7, "three"))


def test_interpolation_follows_its_controls(open_page: Callable[..., Page], gan: Gan) -> None:
    page = open_page()
    page.window.get_by_role("tab", name="Interpolate").click()
    page.wait_for(interpolated(gan, 2, 5, 0.2, 0, 0, "zero", "nine"))

    page.slider("Number of steps").press("ArrowRight")
    page.wait_for(interpolated(gan, 2, 6, 0.2, 0, 0, "zero", "nine"))
    page.number("Noise seed B").fill("3")
    page.wait_for(interpolated(gan, 2, 6, 0.2, 0, 3, "zero", "nine"))
    page.choose("Category A", "sev")
    page.wait_for(interpolated(gan, 2, 6, 0.2, 0, 3, "seven", "nine"))


def test_a_half_typed_number_is_no_mistake(open_page: Callable[..., Page], gan: Gan) -> None:
    page = open_page()

    for text, truncation in (("", 0.02), ("0", 0.02), ("0.5", 0.5), ("7", 1)):
        page.number("Truncation").fill(text)
        page.wait_for(sampled(gan, 10, truncation, 0, "zero"))
    assert page.window.locator(".toast-body").count() == 0


def test_neither_the_page_nor_the_server_leaves_the_machine(
    open_page: Callable[..., Page], server: Server
) -> None:
    page = open_page()
    page.window.get_by_role("tab", name="Interpolate").click()
    page.window.get_by_text("Use via API").click()
    page.window.get_by_text("API documentation").wait_for()
    page.window.wait_for_timeout(500)

    assert page.hosts <= {"127.0.0.1", ""}  # "" for data: and blob:
    server.outside.setblocking(False)
    with pytest.raises(BlockingIOError):  # nobody has knocked
        server.outside.accept()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_telephone(open_page: Callable[..., Page], theme: str) -> None:
    page = open_page(width=360, height=740)
    page.window.emulate_media(color_scheme=theme)

    for tab in ("Explore a category", "Interpolate"):
        page.window.get_by_role("tab", name=tab).click()
        page.window.locator(".grid img:visible").wait_for()
        assert page.window.evaluate("document.documentElement.scrollWidth") == 360
        widest = "e => Math.max(...e.map((x) => x.getBoundingClientRect().right))"
        shown = page.window.locator("main :is(input, label, img, button, h1, p):visible")
        assert shown.evaluate_all(widest) <= 360


def test_the_endpoints_answer_programs(server: Server, gan: Gan) -> None:
    event, data = call(server, "sample", [3, 0.5, 12345, "three"])
    assert event == "complete"
    with urllib.request.urlopen(data[0]["url"]) as reply:
        picture = Image.open(io.BytesIO(reply.read())).convert("RGB")
    assert picture.tobytes() == sampled(gan, 3, 0.5, 12345, "three").convert("RGB").tobytes()

    event, data = call(server, "interpolate", [1, 2, 0.2, 0, 1, "0) zero", "one"])
    assert event == "complete"

    event, data = call(server, "sample", [3, 1.5, 0, "three"])
    assert event == "error"
    assert data["error"] == "truncation must be above 0 and at most 1, not 1.5"


def call(server: Server, endpoint: str, settings: list[Any]) -> tuple[str, Any]:
    """Call an endpoint as Gradio documents it for curl; returns the event and its data."""
    address = f"{server.address}/gradio_api/call/{endpoint}"
    request = urllib.request.Request(
        address,
        data=json.dumps({"data": settings}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        ticket = json.load(reply)["event_id"]
    with urllib.request.urlopen(f"{address}/{ticket}") as reply:
        event, data = reply.read().decode().strip().split("\n")[-2:]
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
def test_an_open_page_that_is_idle_takes_little_of_a_processor(
    open_page: Callable[..., Page], server: Server
) -> None:
    page = open_page()
    page.window.wait_for_timeout(2000)
    before = processor_time(server.process.pid)
    page.window.wait_for_timeout(10_000)

    assert processor_time(server.process.pid) - before < 0.2  # of ten seconds; it was 0.5


def processor_time(process: int) -> float:
    """Seconds that a process has run."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(
    open_page: Callable[..., Page], server: Server
) -> None:
    open_page()
    assert any(server.temporary.iterdir())
    # What an open page may hold for as long as it is open; it must not hold up the end.
    with urllib.request.urlopen(f"{server.address}/gradio_api/heartbeat/visitor"):
        server.process.send_signal(signal.SIGINT)
        _, complaints = server.process.communicate(timeout=10)

    assert server.process.returncode == 0
    assert complaints == ""
    assert not any(server.temporary.iterdir())
