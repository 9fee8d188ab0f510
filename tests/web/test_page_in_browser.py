"""The exported page in a real browser, with onnxruntime-web."""

import base64
import functools
import hashlib
import http.server
import json
import mimetypes
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("playwright")

from collections.abc import Iterator
from pathlib import Path

import biggan
from biggan import InputError
from biggan.demo.drawing import draw_grid
from biggan.provenance import MorphProvenance, Provenance, VideoProvenance
from biggan.provenance_files import read_provenance
from biggan.web import export_page
from biggan.web.runtime import CDN, copy_runtime
from chromium import CHROMIUM

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'"
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Python's own server with headers; a first folder of the address selects more of them."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix("/isolated"))

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        for name, value in ISOLATION.items() if self.path.startswith("/isolated/") else ():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Keep the tests' output clean."""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runtime") / "files"
    try:
        copy_runtime(folder)
    except InputError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="module")
def gan(tiny_file: Path) -> biggan.Gan:
    return biggan.load(tiny_file)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, gan: biggan.Gan, runtime: Path) -> Path:
    out = tmp_path_factory.mktemp("page") / "site"
    return export_page(gan, out, runtime=runtime).folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Visit:
    """The page in a window with an empty cache."""

    def __init__(self, browser: Any, script: str = "", **settings: Any) -> None:
        self.window = browser.new_page(**settings)
        self.window.set_default_timeout(60_000)
        self.window.add_init_script(script)
        self.hosts: set[str] = set()
        self.faults: list[str] = []
        self.window.context.on("request", lambda request: self.hosts.add(request.url))
        self.window.on("pageerror", lambda error: self.faults.append(str(error)))
        self.window.on(
            "console",
            lambda message: message.type == "error" and self.faults.append(message.text),
        )

    def open(self, address: str) -> "Visit":
        self.window.goto(address)
        return self

    def serve(self, file: str, body: bytes) -> None:
        """Answer with other contents."""
        self.window.context.route(
            f"**/{file}",
            lambda route: route.fulfill(body=body, content_type=mimetypes.guess_type(file)[0]),
        )

    def complete(self) -> None:
        """Wait until all pictures are there."""
        self.window.wait_for_selector("body[data-complete]")

    def type(self, key: str, value: object) -> None:
        self.window.fill(f"input[type=number][name={key}]", str(value))

    def saved(self, button: str, path: Path) -> Path:
        with self.window.expect_download() as download:
            self.window.click(button)
        download.value.save_as(path)
        return path

    def notice(self) -> str:
        self.window.wait_for_selector("#notice:not([hidden])")
        return str(self.window.inner_text("#notice"))


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    visit = Visit(browser)
    yield visit
    visit.window.close()


def assert_made_by_python(gan: biggan.Gan, path: Path) -> Any:
    """The pixels of a file are those that its provenance makes."""
    made = read_provenance(path)
    assert not isinstance(made, VideoProvenance)
    if isinstance(made, Provenance):
        expected = next(iter(gan.draw([made])))
    else:
        expected = draw_grid(gan, made)
    with Image.open(path) as picture:
        assert (picture.mode, picture.size) == (expected.mode, expected.size)
        difference = np.abs(np.asarray(picture, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.max() <= 2
    assert difference.mean() <= 0.2
    return made


def test_pictures_and_provenance_are_those_of_python(
    visit: Visit, address: str, gan: biggan.Gan, tmp_path: Path
) -> None:
    visit.open(f"{address}?category=siamese-cat&num=7").complete()
    for truncation, seed in ((0.02, 0), (0.47, 3), (1, 2**32 - 1)):
        visit.type("truncation", truncation)
        visit.type("seed", seed)
        visit.complete()
        made = assert_made_by_python(gan, visit.saved("#save", tmp_path / "a.png"))
        assert (made.columns, len(made.pictures)) == (5, 7)
        assert {(p.truncation, p.seed, p.class_index) for p in made.pictures} == {
            (truncation, seed, 1)
        }
    visit.window.click(".tile >> nth=6")
    one = assert_made_by_python(gan, visit.saved("dialog button >> nth=0", tmp_path / "b.png"))
    assert one == made.pictures[6]
    assert "siamese cat · truncation 1 · seed 4294967295" in visit.window.inner_text("dialog p")
    assert visit.hosts
    assert all(url.startswith((address, "blob:")) for url in visit.hosts)
    assert visit.faults == []


def test_every_form_saves_what_python_draws(
    visit: Visit, address: str, gan: biggan.Gan, tmp_path: Path
) -> None:
    visit.open(address).complete()
    everything = assert_made_by_python(gan, visit.saved("#save", tmp_path / "a.png"))
    assert [p.class_index for p in everything.pictures] == [k % 3 for k in range(10)]
    visit.window.keyboard.press("3")
    visit.complete()
    sweep = assert_made_by_python(gan, visit.saved("#save", tmp_path / "b.png"))
    assert [p.truncation for p in sweep.pictures[:6]] == [1, 0.8, 0.6, 0.4, 0.2, 0.02]
    visit.window.click("nav a >> nth=1")
    visit.type("steps", 30)
    visit.complete()
    assert visit.window.locator("nav a[aria-current=page]").all_inner_texts() == ["Interpolate"]
    assert visit.window.locator("#stalled").count() == 0
    path = assert_made_by_python(gan, visit.saved("#save", tmp_path / "c.png"))
    assert isinstance(path, MorphProvenance)
    assert (path.class_a, path.class_b, path.seed_a, path.seed_b) == (0, 2, 0, 1)
    assert path.steps == 30


@pytest.mark.slow
def test_a_path_is_played_there_and_back(visit: Visit, address: str) -> None:
    visit.open(f"{address}?form=interpolate&steps=30").complete()
    frames = [int(visit.window.input_value("#frame"))]
    for _ in range(40):
        visit.window.wait_for_timeout(100)
        frames.append(int(visit.window.input_value("#frame")))
    assert max(frames) > 20
    turns = np.diff(np.sign([d for d in np.diff(frames) if d]))
    assert np.any(turns < 0)
    visit.window.keyboard.press(" ")
    still = visit.window.input_value("#frame")
    visit.window.keyboard.press("ArrowRight")
    assert abs(int(visit.window.input_value("#frame")) - int(still)) <= 1
    assert visit.window.inner_text("#play") == "Play"


@pytest.mark.slow
def test_the_address_shows_the_same_again(visit: Visit, address: str) -> None:
    visit.open(f"{address}?form=sweep&category=tabby&seed=12&num=2").complete()
    visit.window.keyboard.press("ArrowRight")
    visit.complete()
    visit.window.wait_for_url("**/?form=sweep&category=tabby&seed=13&num=2")
    shown = pixels(visit)
    visit.window.reload()
    visit.complete()
    assert pixels(visit) == shown
    visit.window.click("nav a >> nth=0")
    visit.complete()
    visit.window.go_back()
    visit.complete()
    assert pixels(visit) == shown


def pixels(visit: Visit) -> Any:
    return visit.window.evaluate(
        "[...document.querySelectorAll('.tile canvas')].map((canvas) => canvas.toDataURL())"
    )


@pytest.mark.slow
def test_nonsense_in_the_address_or_a_field_is_one_sentence(visit: Visit, address: str) -> None:
    visit.open(f"{address}?seed=banana").complete()
    sentence = 'The address is wrong: "banana" is not a whole number from 0 to 4294967295 (seed), '
    assert visit.notice() == f"{sentence}so the default is shown."
    assert visit.window.input_value("input[name=seed]") == "0"
    for key, value, expected in (
        ("num", "30", "This must be a whole number from 1 to 20 (pictures)."),
        ("truncation", "0.00001", "This must be a number from 0.02 to 1 (truncation)."),
        ("truncation", "0.02", ""),
    ):
        visit.type(key, value)
        box = visit.window.locator(f"input[type=number][name={key}]")
        assert box.evaluate("(box) => box.validationMessage") == expected
    visit.window.wait_for_url("**truncation=0.02*num=10")


@pytest.mark.slow
def test_a_damaged_page_is_one_sentence(browser: Any, address: str, site: Path) -> None:
    weights = next(site.glob("weights-*.bin"))
    for file, message in (
        (weights, f"The file {weights.name} cannot be loaded (status 404)"),
        (site / "model.json", "The page is incomplete: model.json is missing, blocked or damaged"),
        *(
            (script, f"The page is incomplete: {script.name} is missing, blocked or damaged")
            for script in site.glob("*.js")
            if script.name != "load_errors.js"
        ),
    ):
        hidden = file.rename(file.with_suffix(".hidden"))
        try:
            visit = Visit(browser)
            assert message in visit.open(address).notice()
        finally:
            hidden.rename(file)
        visit.window.close()
    contents = weights.read_bytes()
    try:
        weights.write_bytes(contents[:-1])
        visit = Visit(browser)
        notice = visit.open(address).notice()
    finally:
        weights.write_bytes(contents)
    assert f"The file {weights.name} is damaged: it has " in notice
    for name, body in (
        ("model.json", b"{}"),
        ("model.json", b'{"name": "tiny", "fi'),
        ("model.json", b"<!doctype html>"),
        ("forms.js", (site / "forms.js").read_bytes()[:-100]),
    ):
        other = Visit(browser)
        other.serve(name, body)
        assert f": {name} is missing, blocked or damaged;" in other.open(address).notice()
        other.window.close()
    assert visit.window.locator("body.failed").count() == 1
    visit.window.reload()  # repaired: the damaged copy in the cache is not used
    visit.complete()
    visit.window.close()


@pytest.mark.slow
def test_files_with_other_contents_are_one_sentence(browser: Any, address: str, site: Path) -> None:
    """By a digest, or without HTTPS by the browser's own check."""
    names = [path.name for path in site.glob("*.bin")]
    names += ["runtime/ort-wasm-simd-threaded.wasm", "runtime/ort.wasm.bundle.min.mjs"]
    assert len(names) == 5
    for host, message in (
        ("127.0.0.1", "is damaged: its contents have changed; upload it again."),
        ("plain.test", "cannot be loaded (blocked, damaged or no connection); reload the page, "),
    ):
        for name in names:
            visit = Visit(browser)
            contents = bytearray((site / name).read_bytes())
            contents[len(contents) // 2] ^= 1
            visit.serve(name, bytes(contents))
            notice = visit.open(address.replace("127.0.0.1", host)).notice()
            assert notice.startswith(f"The file {name.split('/')[-1]} {message}")
            assert visit.window.evaluate("isSecureContext") == (host == "127.0.0.1")
            visit.window.close()


@pytest.mark.slow
def test_a_page_without_https_draws_with_progress(visit: Visit, address: str) -> None:
    visit.window.add_init_script(
        "addEventListener('DOMContentLoaded', () => new MutationObserver(([{target}]) =>"
        "(window.shown ??= []).push(target.innerText)).observe("
        "document.querySelector('#loading p'), {childList: true}))"
    )
    visit.open(address.replace("127.0.0.1", "plain.test")).complete()
    assert visit.window.evaluate("isSecureContext") is False
    assert "Starting the model" in visit.window.evaluate("window.shown")
    assert visit.faults == []


@pytest.mark.slow
def test_pictures_that_are_no_numbers_are_one_sentence(
    visit: Visit, address: str, site: Path
) -> None:
    """As a faulty driver would compute them; here the weights are such."""
    model = json.loads((site / "model.json").read_text())
    (part,) = model["files"]["weights"]
    weights = b"\xff" * part["bytes"]
    digest = base64.b64encode(hashlib.sha256(weights).digest()).decode()
    part["integrity"] = f"sha256-{digest}"
    visit.serve("model.json", json.dumps(model).encode())
    visit.serve(part["file"], weights)
    assert visit.open(address).notice().startswith("The generator computes no valid pictures on")


@pytest.mark.slow
def test_controls_do_nothing_after_a_failure(visit: Visit, address: str, site: Path) -> None:
    visit.serve("model.json", b"")
    visit.open(address).notice()
    press_everything(visit)
    assert visit.window.url == address
    assert visit.faults == []
    visit.window.context.unroute_all()
    visit.serve(next(site.glob("weights-*.bin")).name, b"")
    visit.open(f"{address}?seed=7")
    assert "is damaged: it has 0 bytes" in visit.notice()
    press_everything(visit)
    assert visit.window.input_value("input[name=seed]") == "7"
    assert visit.window.inner_text("nav a[aria-current]") == "Explore"
    visit.window.evaluate("history.pushState(null, '', '?seed=8'); history.back()")
    visit.window.wait_for_url("**/?*seed=7*")
    assert visit.faults == []


def press_everything(visit: Visit) -> None:
    """Click on all that is there, and press the keys of the page."""
    for selector in ("#random", "#save", "nav a >> nth=1", "input[name=seed] >> nth=1"):
        control = visit.window.locator(selector)
        if control.count():
            box = control.bounding_box()
            visit.window.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for key in ("Tab", "Enter", "r", "s", "2", "ArrowRight", " "):
        visit.window.keyboard.press(key)


@pytest.mark.slow
def test_keys_work_with_shift_and_on_sliders(visit: Visit, address: str) -> None:
    visit.open(f"{address}?seed=20000").complete()
    seed = visit.window.locator("input[name=seed] >> nth=0")
    slider = visit.window.locator("input[name=truncation] >> nth=1")
    visit.window.keyboard.press("Shift+R")
    assert int(seed.input_value()) < 10_000
    slider.focus()
    visit.window.keyboard.press("r")
    chosen = seed.input_value()
    visit.window.keyboard.press("ArrowRight")  # of the slider, which keeps the focus
    assert (slider.input_value(), seed.input_value()) == ("0.42", chosen)
    visit.complete()
    with visit.window.expect_download() as download:
        visit.window.keyboard.press("Shift+S")
    assert download.value.suggested_filename == f"tiny-hub0.42-seed{chosen}-10.png"
    seed.focus()
    visit.window.keyboard.press("ArrowRight")
    assert seed.input_value() == chosen


@pytest.mark.slow
def test_a_page_that_is_opened_as_a_file_is_one_sentence(
    visit: Visit, address: str, site: Path
) -> None:
    assert (
        "is opened as a file: open it from" in visit.open((site / "index.html").as_uri()).notice()
    )
    for script in ("load_errors.js", "page.js"):
        visit.serve(script, b"")
    visit.open(address)
    visit.window.wait_for_selector("#stalled")
    assert "The scripts of this page cannot be loaded" in visit.window.inner_text("#stalled")


@pytest.mark.slow
def test_browsers_that_cannot_run_it_are_told_so(browser: Any, address: str) -> None:
    no_simd = Visit(browser, "WebAssembly.validate = () => false")
    assert "no WebAssembly SIMD" in no_simd.open(address).notice()
    no_simd.window.close()
    # As a device that has no memory left: the runtime asks for it, and is refused.
    visit = Visit(browser)
    visit.window.route(
        "**/worker.js",
        lambda route: route.fulfill(
            content_type="text/javascript",
            body="WebAssembly.Memory = function () { throw new RangeError("
            "'WebAssembly.Memory(): could not allocate memory'); };\n" + route.fetch().text(),
        ),
    )
    assert "This device has too little memory for the model" in visit.open(address).notice()
    visit.window.close()


@pytest.mark.slow
def test_threads_are_used_where_the_host_allows_them(visit: Visit, address: str) -> None:
    visit.open(f"{address}isolated/").complete()
    threads = min(8, int(visit.window.evaluate("navigator.hardwareConcurrency")))
    plural = "1 thread," if threads == 1 else f"{threads} threads,"
    assert f"WebAssembly, {plural}" in visit.window.inner_text("#status")
    assert visit.faults == []


@pytest.mark.slow
def test_a_cdn_serves_the_runtime_or_nothing(
    browser: Any, gan: biggan.Gan, runtime: Path, tmp_path: Path
) -> None:
    """The CDN is an interceptor; its files must have the digests."""
    site = export_page(gan, tmp_path / "site", runtime="cdn").folder
    changed: list[str] = []

    def answer(route: Any) -> None:
        name = route.request.url.removeprefix(CDN)
        body = (runtime / name).read_bytes() + (b"\n" if name in changed else b"")
        route.fulfill(body=body, headers={"Access-Control-Allow-Origin": "*"})

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for changes, expected in ([], None), (["ort.wasm.bundle.min.mjs"], "is damaged"):
            changed[:] = changes
            visit = Visit(browser)
            visit.window.context.route(f"{CDN}**", answer)
            visit.open(f"http://127.0.0.1:{server.server_port}/")
            if expected is None:
                visit.complete()
            else:
                assert expected in visit.notice()
            visit.window.close()
        server.shutdown()
