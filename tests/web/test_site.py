"""The site that `make site` builds: its links, and its pages in a real browser."""

import functools
import http.server
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import numpy as np
import pytest

from chromium import CHROMIUM

ROOT = Path(__file__).parents[2]
SITE = ROOT / "site"
AXE = ROOT / "node_modules/axe-core/axe.min.js"
PAGES = ["", "README.html", "docs/gallery.html", "docs/guide.html", "docs/python.html"]
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
READING_ORDER = ("heading-order", "page-has-heading-one", "skip-link", "tabindex")
"""Rules of axe with a moderate impact."""
MODEL = ("live/graph-", "live/weights-", "live/statistics-", ".wasm")
"""What the browser loads to run the model."""

pytestmark = pytest.mark.skipif(
    not (SITE / "live/model.json").is_file(), reason="the site is not there: run `make site`"
)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


class Page(HTMLParser):
    """The links and anchors of a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value and tag != "base":
                self.links.add(value)


def test_every_link_has_a_target() -> None:
    pages = {path: Page(path) for path in SITE.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if urlsplit(link).scheme:
                continue
            file, anchor = urldefrag(link)
            target = (path.parent / unquote(file.partition("?")[0])).resolve() if file else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file() or (target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(SITE)}: {link}")
    assert broken == []
    assert len(pages) > 30


def test_the_python_api_lists_the_fields_of_a_class_once() -> None:
    """As attributes with their docstrings, not as parameters too."""
    html = (SITE / "docs/python.html").read_text(encoding="utf-8")
    for name, field in (
        ("biggan.GeneratorConfig", "family"),
        ("biggan.inversion.Latents", "z"),
        ("biggan.provenance.Provenance", "model"),
    ):
        start, end = (html.index(f'id="{each}"') for each in (name, f"{name}.{field}"))
        assert "Parameters" not in html[start:end]
    assert "Pixels a side of the image: 4 doubled once per stage." in html


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Keep the tests' output clean."""

    handler = functools.partial(Handler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def file_of(url: str) -> Path:
    path = SITE / unquote(urlsplit(url).path).strip("/")
    return path / "index.html" if path.is_dir() else path


def open_window(browser: Any, size: str, scheme: str) -> Any:
    width, height = SIZES[size]
    window = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    window.set_default_timeout(60_000)
    return window


@in_browser
@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES)
def test_the_first_screen_draws_pictures(browser: Any, address: str, size: str) -> None:
    window = open_window(browser, size, "light")
    requests: list[Any] = []
    faults: list[str] = []
    window.context.on("requestfinished", lambda request: requests.append(request))
    window.context.on("requestfailed", lambda request: faults.append(request.url))
    window.on("pageerror", lambda error: faults.append(str(error)))
    window.on("console", lambda message: message.type == "error" and faults.append(message.text))
    window.goto(address)
    live = window.frame_locator("#live")
    live.locator("body[data-complete]").wait_for()
    assert faults == []
    assert all(request.url.startswith((address, "blob:")) for request in requests)

    before = [r for r in requests if not any(part in r.url for part in MODEL)]
    assert len(before) < len(requests)
    assert sum(file_of(request.url).stat().st_size for request in before) < 1_000_000

    picture = live.locator(".tile canvas").first
    box = picture.bounding_box()
    assert box["y"] + box["height"] < SIZES[size][1]
    pixels = np.array(
        picture.evaluate("(c) => [...c.getContext('2d').getImageData(0, 0, 64, 64).data]")
    )
    assert len(np.unique(pixels)) > 50

    frame = window.frames[1]
    scroll = "document.documentElement.scrollHeight - innerHeight"
    live.locator("nav a >> nth=2").click()
    assert live.locator("nav a[aria-current=page]").all_inner_texts() == ["Truncation sweep"]
    live.locator("body[data-complete]").wait_for()
    frame.wait_for_function(f"() => Math.abs({scroll}) <= 1")
    assert window.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    window.close()


@in_browser
@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES)
def test_an_enlarged_picture_is_centred_in_what_is_visible(
    browser: Any, address: str, size: str
) -> None:
    """Its frame is higher than the screen."""
    window = open_window(browser, size, "light")
    window.goto(address)
    live = window.frame_locator("#live")
    live.locator("body[data-complete]").wait_for()
    for scrolled in (0, 100):
        window.evaluate(f"scrollTo(0, {scrolled})")
        live.locator(".tile >> nth=9").click()
        frame = window.locator("#live").bounding_box()
        dialog = live.locator("dialog").bounding_box()
        height = SIZES[size][1]
        top, bottom = max(frame["y"], 0), min(frame["y"] + frame["height"], height)
        assert abs(dialog["y"] + dialog["height"] / 2 - (top + bottom) / 2) <= 1
        assert dialog["y"] + dialog["height"] <= height
        window.keyboard.press("Escape")
    window.close()


@in_browser
@pytest.mark.browser
def test_the_generator_has_the_colours_of_the_page(browser: Any, address: str) -> None:
    window = open_window(browser, "desktop", "light")
    window.goto(address)
    window.frame_locator("#live").locator("body[data-complete]").wait_for()
    frame = window.frames[1]

    def is_dark() -> bool:
        text = frame.evaluate("getComputedStyle(document.body).color")
        return int(text.split("(")[1].split(",")[0]) > 128

    seen = {window.evaluate("document.body.dataset.theme"): is_dark()}
    for _ in range(2):
        window.locator(".theme-toggle:visible").first.click()
        seen[window.evaluate("document.body.dataset.theme")] = is_dark()
    assert seen == {"auto": False, "light": False, "dark": True}
    window.close()


@in_browser
@pytest.mark.browser
@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: run `npm ci`")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_contrast_and_reading_order(browser: Any, address: str, size: str, scheme: str) -> None:
    axe = AXE.read_text(encoding="utf-8")
    window = open_window(browser, size, scheme)
    violations = []
    for page in PAGES:
        window.goto(f"{address}{page}")
        if not page:
            window.frame_locator("#live").locator("body[data-complete]").wait_for()
        for frame in window.frames:
            frame.evaluate(axe)
        result = window.evaluate("axe.run({resultTypes: ['violations']})")
        assert "color-contrast" in {rule["id"] for rule in result["passes"]}
        violations += [
            f"{page}: {rule['impact']} {rule['id']}: {node['target']}"
            for rule in result["violations"]
            if rule["impact"] in ("serious", "critical") or rule["id"] in READING_ORDER
            for node in rule["nodes"]
        ]
    window.close()
    assert violations == []
