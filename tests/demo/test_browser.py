"""What a visitor does, in a real browser: every form, its downloads, its address."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlparse

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from collections.abc import Callable, Iterator

import torch
from playwright import sync_api

import biggan
from biggan import Gan, build_generator
from biggan.demo.drawing import draw_grid
from biggan.demo.forms import DIRECTIONS, EXPLORE, FORMS, INTERPOLATE, SWEEP, VIDEO, Form
from biggan.demo.models import ModelCache
from biggan.images import save_png
from biggan.provenance_files import read_provenance
from biggan.video import make_frame, save_video
from biggan.weights.files import BUNDLED, save_network
from chromium import CHROMIUM
from demo_app import make_gan, running
from file_server import FileServer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


Gans = dict[str, Gan]


@dataclass
class Server:
    """A running `biggan demo`."""

    address: str
    process: subprocess.Popen[str]
    gans: Gans
    """Its models, by the names that the page gives them."""
    temporary: Path
    """Its folder for temporary files."""
    outside: socket.socket
    """What it takes for a proxy to the internet."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, temporary = (tmp_path_factory.mktemp(name) for name in ("models", "temporary"))
    made = {"tiny": make_gan(), "small": make_gan(resolution=8), "plain": make_gan(class_names=())}
    made["slow"] = _slow(made["tiny"])
    for name, gan in made.items():
        save_network(folder / name, gan.generator, replace(gan.description, name=name))
    gans = {name: biggan.load(folder / name, engine="pytorch") for name in made}
    names = [f"--model={folder / name}" for name in gans]
    with socket.create_server(("127.0.0.1", 0)) as outside:
        proxy = f"http://127.0.0.1:{outside.getsockname()[1]}"
        environment = {
            **{name: value for name, value in os.environ.items() if name.lower() != "no_proxy"},
            **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy),
            "TMPDIR": str(temporary),
        }
        with subprocess.Popen(
            [sys.executable, "-m", "biggan", "demo", "--port=0", "--engine=pytorch", *names],
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
                yield Server(address, process, gans, temporary, outside)
            finally:
                process.kill()


@pytest.fixture
def gans(server: Server) -> Gans:
    return server.gans


def _slow(gan: Gan) -> Gan:
    """A generator that takes over a tenth of a second for a picture, as a published one does."""
    config = replace(
        gan.config, resolution=256, channels=48, widths=(8, 8, 8, 4, 4, 2, 1), z_dim=14
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Gan(build_generator(config).eval(), gan.description, "0" * 64)


class Visit:
    """The page in a window."""

    def __init__(
        self, browser: Any, address: str, query: str = "", script: str = "", **settings: Any
    ) -> None:
        settings.setdefault("viewport", {"width": 1280, "height": 900})
        self.window = browser.new_page(**settings)
        self.window.add_init_script(script)
        self.window.set_default_timeout(30_000)
        self.failures: list[str] = []
        self.window.on("pageerror", lambda error: self.failures.append(str(error)))
        self.hosts: set[str] = set()
        self.window.on("request", lambda r: self.hosts.add(urlparse(r.url).hostname or ""))
        self.window.goto(f"{address}/{query}")

    def image(self, form: str) -> Any:
        return self.window.locator(f"#{form}-picture img")

    def picture(self, form: str) -> Image.Image:
        with urllib.request.urlopen(self.image(form).get_attribute("src")) as reply:
            picture = Image.open(io.BytesIO(reply.read()))
            picture.load()
        return picture

    def wait_for(self, form: str, expected: Image.Image) -> None:
        """Wait until a picture is shown whose pixels are these, every one."""
        deadline = time.monotonic() + 30
        self.image(form).wait_for()
        while time.monotonic() < deadline:
            shown = self.picture(form)
            if shown.mode == expected.mode and shown.tobytes() == expected.tobytes():
                return
            time.sleep(0.05)
        pytest.fail(f"the page does not show the picture of these settings ({self.window.url})")

    def control(self, name: str) -> Any:
        return self.window.locator(f"#{name}")

    def button(self, name: str) -> Any:
        return self.window.get_by_role("button", name=name)

    def number_box(self, name: str) -> Any:
        return self.control(name).locator("input[type=number]")

    def type(self, name: str, value: float) -> None:
        self.number_box(name).fill(f"{value:g}")

    def number(self, name: str) -> float:
        return float(self.number_box(name).input_value())

    def wait_for_number(self, name: str, expected: float) -> None:
        sync_api.expect(self.number_box(name)).to_have_value(f"{expected:g}")

    def choose(self, name: str, typed: str) -> None:
        self.control(name).get_by_role("combobox").click()
        self.window.keyboard.type(typed)
        self.window.keyboard.press("Enter")

    def download(self, button: Any, folder: Path) -> Path:
        with self.window.expect_download() as download:
            button.click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def drop(self, file: Path) -> None:
        self.window.locator("#drop input[type=file]").set_input_files(file)

    def choose_model(self, name: str) -> None:
        self.window.get_by_label("Model", exact=True).click()
        self.window.get_by_role("option", name=re.compile(rf"^{name} ")).click()

    def open(self, tab: str) -> None:
        self.window.get_by_role("tab", name=tab).click()

    def wait_for_address(self, part: str) -> str:
        self.window.wait_for_url(lambda url: part in url)
        return str(urlparse(self.window.url).query)

    def toast(self) -> str:
        body = self.window.locator(".toast-body").first
        body.wait_for()
        return " ".join(body.inner_text().split())


Visiting = Callable[..., Visit]


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Visiting]:
    visits: list[Visit] = []

    def visit(query: str = "", **settings: Any) -> Visit:
        visits.append(Visit(browser, server.address, query, **settings))
        return visits[-1]

    yield visit
    for each in visits:
        each.window.close()
        assert each.failures == []


def drawn(gan: Gan, form: Form, **values: Any) -> Image.Image:
    return draw_grid(gan, form.plan(gan, **values))


MOVES: list[tuple[Form, dict[str, float], dict[str, tuple[str, str]]]] = [
    (EXPLORE, {"num": 7, "truncation": 0.42, "seed": 12345}, {"category": ("thr", "three")}),
    (
        INTERPOLATE,
        {"num": 1, "steps": 4, "truncation": 0.6, "seed_a": 8, "seed_b": 4000},
        {"category_a": ("six", "six"), "category_b": ("fo", "four")},
    ),
    (SWEEP, {"num": 3, "seed": 101}, {"category": ("se", "seven")}),
    (
        DIRECTIONS,
        {"seed": 101, "direction_0": 2.5, "direction_1": -1.2},
        {"category": ("se", "seven")},
    ),
]


@pytest.mark.parametrize(
    ("form", "numbers", "menus"),
    [MOVES[0], *(pytest.param(*move, marks=pytest.mark.slow) for move in MOVES[1:])],
)
def test_every_control_changes_the_picture_and_the_address_brings_it_back(
    visit: Visiting,
    gans: Gans,
    form: Form,
    numbers: dict[str, float],
    menus: dict[str, tuple[str, str]],
    tmp_path: Path,
) -> None:
    gan, page, name = gans["tiny"], visit(), form.name
    page.open(form.title)
    page.wait_for(name, drawn(gan, form))
    shown = page.image(name).get_attribute("src")

    def changed() -> None:
        nonlocal shown
        page.window.wait_for_function(
            "([form, old]) => (document.querySelector(`#${form}-picture img`)?.src ?? old) != old",
            arg=[name, shown],
        )
        shown = page.image(name).get_attribute("src")

    for key, value in numbers.items():
        page.type(f"{name}-{key}", value)
        changed()
    chosen = {key: category for key, (_, category) in menus.items()}
    for key, (typed, _) in menus.items():
        page.choose(f"{name}-{key}", typed)
        changed()
    if form is SWEEP:
        page.window.get_by_text("TF Hub").click()
        changed()
        chosen["noise"] = "hub"
    sheet = form.plan(gan, **numbers, **chosen)
    page.wait_for(name, draw_grid(gan, sheet))

    shown = page.window.locator(f".picture:has(#{name}-picture)")
    file = page.download(shown.get_by_role("link", name="original"), tmp_path)
    large = page.download(shown.get_by_role("link", name="enlarged 8x"), tmp_path)
    assert read_provenance(file) == read_provenance(large) == sheet
    with Image.open(file) as downloaded, Image.open(large) as enlarged:
        assert downloaded.tobytes() == draw_grid(gan, sheet).tobytes()
        assert enlarged.size == (8 * downloaded.width, 8 * downloaded.height)
        assert enlarged.getpixel((8 * 3 + 7, 8 * 5 + 7)) == downloaded.getpixel((3, 5))

    first = urlencode(dict([*numbers.items()][:1]))
    query = page.wait_for_address(first)
    again = visit(f"?{query}")
    again.wait_for(name, draw_grid(gan, sheet))
    for key, value in numbers.items():
        assert again.number(f"{name}-{key}") == value
    assert again.wait_for_address(first) == query


@pytest.mark.slow
def test_directions_are_reset_and_a_dropped_picture_brings_them_back(
    visit: Visiting, gans: Gans, tmp_path: Path
) -> None:
    gan, page = gans["tiny"], visit("?form=directions&seed=3&direction_0=2.5&direction_1=-1")
    moved = drawn(gan, DIRECTIONS, seed=3, direction_0=2.5, direction_1=-1)
    page.wait_for("directions", moved)
    shown = page.window.locator(".picture:has(#directions-picture)")
    file = page.download(shown.get_by_role("link", name="original"), tmp_path)
    page.button("Reset").click()
    page.wait_for("directions", drawn(gan, DIRECTIONS, seed=3))
    assert [page.number(f"directions-direction_{k}") for k in range(2)] == [0, 0]
    page.open("Explore a category")
    page.image("explore").wait_for()
    page.drop(file)
    page.wait_for("directions", moved)
    page.wait_for_number("directions-direction_0", 2.5)


# The end of each stream of answers arrives a second late.
_LATE_CLOSE = """
const plain = window.fetch;
window.fetch = async (request, options) => {
  const answer = await plain(request, options);
  if (!String(request.url ?? request).includes("/queue/data")) return answer;
  const late = new TransformStream({
    async transform(text, to) {
      const [before, close = ""] = text.split(/(?=data: {[^}]*"close_stream")/);
      to.enqueue(before);
      window.closing = text.includes("close_stream");
      if (window.closing) await new Promise((done) => setTimeout(done, 1000));
      to.enqueue(close);
    },
  });
  const text = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(late);
  return new Response(text.pipeThrough(new TextEncoderStream()), answer);
};
"""


@pytest.mark.slow
def test_requests_that_come_while_the_stream_of_answers_closes_are_answered(
    visit: Visiting, gans: Gans
) -> None:
    page = visit("?form=directions&direction_0=2.5", script=_LATE_CLOSE)
    page.wait_for("directions", drawn(gans["tiny"], DIRECTIONS, direction_0=2.5))
    page.window.wait_for_function("window.closing")
    page.button("Reset").click()
    page.wait_for("directions", drawn(gans["tiny"], DIRECTIONS))
    page.window.wait_for_function("window.closing")
    page.type("directions-direction_0", 2.5)
    page.wait_for("directions", drawn(gans["tiny"], DIRECTIONS, direction_0=2.5))


# A stream of answers ends early, or fails before the server has said that it ends.
_CUT = """
const plain = window.fetch;
window.fetch = async (request, options) => {
  const answer = await plain(request, options);
  if (!String(request.url ?? request).includes("/queue/data")) return answer;
  const cut = new TransformStream({
    async transform(text, to) {
      const [before, close] = text.split(/data: {[^}]*"close_stream"/);
      window.isIdle = close !== undefined;
      to.enqueue(window.isCut && window.isIdle ? before : text);
      if (window.isCut === "early" && text.includes("process_starts")) to.terminate();
      if (window.isCut === "late" && window.isIdle) {
        await new Promise((done) => { window.fail = done; });
        throw new TypeError("network error");
      }
    },
  });
  const text = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(cut);
  return new Response(text.pipeThrough(new TextEncoderStream()), answer);
};
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["early", "late"])
def test_no_request_is_lost_when_a_stream_of_answers_breaks(
    visit: Visiting, gans: Gans, when: str
) -> None:
    gan, page = gans["slow"], visit("?model=slow&num=2", script=_CUT)
    page.wait_for("explore", drawn(gan, EXPLORE, num=2))
    page.window.locator(".gallery img").nth(9).wait_for()
    page.window.wait_for_function("window.isIdle")
    page.window.evaluate("when => { window.isCut = when; }", when)
    page.type("explore-seed", 1)
    page.wait_for("explore", drawn(gan, EXPLORE, num=2, seed=1))
    if when == "late":
        page.window.wait_for_function("Boolean(window.fail)")
        page.window.evaluate("window.fail()")
        page.type("explore-seed", 2)
        page.wait_for("explore", drawn(gan, EXPLORE, num=2, seed=2))


@pytest.mark.slow
def test_a_change_without_a_connection_is_drawn_when_it_is_back(
    visit: Visiting, gans: Gans
) -> None:
    page = visit("?seed=1")
    page.wait_for("explore", drawn(gans["tiny"], EXPLORE, seed=1))
    page.window.locator(".gallery img").nth(9).wait_for()  # the last answer
    page.window.context.set_offline(True)
    page.type("explore-seed", 2)
    assert "Connection to the server was lost" in page.toast()
    page.window.context.set_offline(False)
    page.wait_for("explore", drawn(gans["tiny"], EXPLORE, seed=2))


@pytest.mark.slow
def test_the_page_welcomes_with_classes_to_click_a_surprise_a_link_and_a_way_back(
    visit: Visiting, gans: Gans
) -> None:
    gan, page = gans["tiny"], visit()
    page.window.get_by_role("heading", name="BigGAN").wait_for()
    paper = page.window.get_by_role("link", name="paper")
    assert paper.get_attribute("href") == "https://arxiv.org/abs/1809.11096"
    shown = page.window.locator(".gallery button")
    shown.nth(9).locator("img").wait_for()
    assert shown.count() == 10
    shown.nth(6).click()
    page.wait_for("explore", drawn(gan, EXPLORE, category="six"))

    page.window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.wait_for_address("category=6")
    page.button("Copy link").click()
    page.button("Link copied").wait_for()
    assert page.window.evaluate("navigator.clipboard.readText()") == page.window.url
    before = page.window.url
    page.button("Surprise me").click()
    page.window.wait_for_url(lambda url: url != before)

    page.open("Interpolate")
    page.wait_for_address("form=interpolate&model=tiny&")  # and settings: it is drawn
    page.open("Truncation sweep")
    page.wait_for_address("form=sweep&model=tiny&")
    for form in (INTERPOLATE, EXPLORE):
        page.window.go_back()
        page.wait_for_address(f"form={form.name}&model=tiny&")
        assert page.window.get_by_role("tab", name=form.title, selected=True).count() == 1
    page.window.go_forward()
    page.wait_for_address("form=interpolate&model=tiny&")


@pytest.mark.slow
def test_half_typed_numbers_and_fast_moves_end_where_the_controls_stand(
    visit: Visiting, gans: Gans
) -> None:
    gan, page = gans["tiny"], visit()
    page.wait_for("explore", drawn(gan, EXPLORE))
    box = page.number_box("explore-truncation")
    for text, truncation in (("", 0.02), ("0", 0.02), ("7", 1), ("0.4", 0.4)):
        box.fill(text)
        page.wait_for("explore", drawn(gan, EXPLORE, truncation=truncation))
    for text, words in (
        ("", "This takes numbers from 0.02 to 1: nothing became 0.02."),
        ("7", "This takes numbers from 0.02 to 1: 7 became 1."),
        ("0.4", None),
        ("8", "This takes numbers from 0.02 to 1: 8 became 1."),
    ):
        box.fill(text)
        box.press("Tab")
        shown = page.window.get_by_role("alert")
        sync_api.expect(shown).to_have_text([words] if words else [])
    page.wait_for("explore", drawn(gan, EXPLORE, truncation=1))
    page.type("explore-truncation", 0.4)
    sync_api.expect(shown).to_have_count(0)  # that was a number before
    page.wait_for("explore", drawn(gan, EXPLORE))
    seed = page.number_box("explore-seed")
    for text, nearest in (("4294967296", 4294967295), ("-4", 0)):
        seed.fill(text)
        seed.press("Tab")
        sync_api.expect(shown).to_have_text(
            f"This takes whole numbers from 0 to 4294967295: {text} became {nearest}."
        )
        page.wait_for("explore", drawn(gan, EXPLORE, seed=nearest))
    sync_api.expect(page.control("explore-seed").locator("[type=range]")).to_have_attribute(
        "max", "100"
    )
    page.type("explore-seed", 12345)
    for _ in range(20):
        page.control("explore-truncation").locator("input[type=range]").press("ArrowRight")
    page.wait_for("explore", drawn(gan, EXPLORE, truncation=0.8, seed=12345))
    assert page.number("explore-seed") == 12345
    assert page.window.locator(".toast-body").all_inner_texts() == []


@pytest.mark.slow
def test_a_video_is_made_shown_and_downloaded(visit: Visiting, gans: Gans, tmp_path: Path) -> None:
    page = visit("?form=interpolate&num=1&category_a=six&category_b=2&seed_b=4")
    page.image("interpolate").wait_for()
    page.type("interpolate-seconds", 1)
    page.button("Make the video").click()
    page.window.locator("#video img, #player video").wait_for()

    webp = page.download(page.control("webp"), tmp_path)
    with Image.open(webp) as video:
        assert (video.n_frames, video.info["loop"]) == (20, 0)
    recipe = read_provenance(webp)
    assert [(k.class_index, k.seed) for k in recipe.keyframes] == [(6, 0), (2, 4)]
    if page.control("mp4").count():
        assert read_provenance(page.download(page.control("mp4"), tmp_path)) == recipe
        sync_api.expect(page.control("video")).to_be_hidden()
        bar = page.window.locator("#player .controls")  # Gradio's; its text is white
        color = bar.evaluate("bar => getComputedStyle(bar).backgroundColor")
        assert max(map(int, re.findall(r"\d+", color)[:3])) < 100

    page.open("Truncation sweep")
    page.image("sweep").wait_for()
    page.open("Interpolate")
    page.wait_for_address("form=interpolate&model=tiny&num=1")
    shown = page.window.locator("#video img, #player video")
    sync_api.expect(shown).to_have_count(1)
    page.type("interpolate-seed_b", 5)  # the video is of other settings now
    sync_api.expect(shown).to_have_count(0)


@pytest.mark.slow
def test_dropped_files_bring_their_settings_back_and_leave_the_other_tabs_alone(
    visit: Visiting, gans: Gans, tmp_path: Path
) -> None:
    gan, page = gans["tiny"], visit()
    page.image("explore").wait_for()
    page.choose("explore-category", "thr")
    page.open("Truncation sweep")
    page.type("sweep-seed", 6)
    values = {"num": 1, "truncation": 0.6, "seed_a": 8, "seed_b": 4000}
    values |= {"category_a": "six", "category_b": "four"}
    video = VIDEO.plan(gan, seconds=2, **values)
    films = [tmp_path / f"film{ending}" for ending in (".gif", ".webp", ".mp4")]
    for film in films[: 3 if find_spec("av") else 2]:
        frames = (make_frame(pictures) for pictures in gan.draw_video(video))
        save_video(frames, film, video.fps, provenance=video)
        page.drop(film)
        page.wait_for("interpolate", drawn(gan, INTERPOLATE, **values))
        for key, value in (("seconds", 2), ("seed_b", 4000)):
            page.wait_for_number(f"interpolate-{key}", value)
            page.type(f"interpolate-{key}", 3)
    page.open("Explore a category")
    page.wait_for("explore", drawn(gan, EXPLORE, category="three"))
    page.open("Truncation sweep")
    page.wait_for("sweep", drawn(gan, SWEEP, seed=6))

    sheet = SWEEP.plan(gans["small"], num=3, seed=500, noise="hub", category="six")
    save_png(draw_grid(gans["small"], sheet), tmp_path / "sweep.png", sheet)
    page.drop(tmp_path / "sweep.png")
    page.wait_for("sweep", draw_grid(gans["small"], sheet))
    assert page.window.get_by_role("heading", name="small").is_visible()  # its model
    menu = page.window.get_by_label("Model", exact=True)
    sync_api.expect(menu).to_have_value("small (8 px, 10 classes)")
    Image.new("L", (8, 8)).save(tmp_path / "plain.png")
    page.drop(tmp_path / "plain.png")
    assert "plain.png contains no provenance" in page.toast()
    page.wait_for("sweep", draw_grid(gans["small"], sheet))

    menu.click()
    options = page.window.get_by_role("option", name=re.compile("^tiny "))
    sync_api.expect(options).to_have_count(1)
    menu.press("Escape")
    sync_api.expect(options).to_have_count(0)
    menu.click()
    sync_api.expect(options).to_have_count(1)


@pytest.mark.slow
def test_a_visitor_who_comes_back_finds_all_settings(
    visit: Visiting, gans: Gans, server: Server
) -> None:
    gan, page = gans["tiny"], visit()
    page.image("explore").wait_for()
    page.type("explore-seed", 500)
    page.choose("explore-category", "thr")
    page.wait_for_address("category=3")
    page.open("Interpolate")
    page.image("interpolate").wait_for()
    page.choose("interpolate-category_a", "six")
    page.wait_for_address("category_a=6")
    page.type("interpolate-seconds", 2)
    page.type("interpolate-seed_b", 777)
    page.wait_for_address("seed_b=777")

    page.window.goto(f"{server.address}/api/queue")
    page.window.go_back()
    page.wait_for("interpolate", drawn(gan, INTERPOLATE, seed_b=777, category_a="six"))
    assert page.number("interpolate-seconds") == 2
    page.open("Explore a category")
    page.wait_for("explore", drawn(gan, EXPLORE, seed=500, category="three"))
    assert page.number("explore-seed") == 500


@pytest.mark.slow
def test_what_is_not_drawn_yet_survives_a_reload(visit: Visiting, gans: Gans) -> None:
    gan, page = gans["small"], visit("?model=small")
    page.wait_for("explore", drawn(gan, EXPLORE))
    requests = re.compile("/queue/join")
    page.window.route(requests, lambda _: None)
    page.open("Truncation sweep")
    page.type("sweep-seed", 7)
    page.window.wait_for_function("history.state.settings.includes(7)")
    page.window.unroute(requests)
    page.window.reload()
    page.wait_for("sweep", drawn(gan, SWEEP, seed=7))


@pytest.mark.slow
def test_a_class_is_found_and_nothing_that_is_typed_is_dropped_silently(
    visit: Visiting, gans: Gans
) -> None:
    gan, page = gans["tiny"], visit()
    page.wait_for("explore", drawn(gan, EXPLORE))
    field = page.control("explore-category").get_by_role("combobox")
    options = page.control("explore-category").get_by_role("option")
    field.click()
    sync_api.expect(options).to_have_count(10)
    box, below = field.bounding_box(), options.first.bounding_box()
    assert below["y"] > box["y"] + box["height"]  # the list opens downwards
    field.fill("sevne")
    sync_api.expect(options).to_have_text(["7) seven"])
    field.press("Escape")
    assert field.input_value() == "0) zero"
    for text in ("golden retriever", "golden ret", "n02099601"):
        field.fill(text)
        sync_api.expect(options).to_have_text(
            ["207) golden retriever is a class of biggan-deep-128: choose that model"]
        )
    field.fill("retriever")
    sync_api.expect(options).to_have_text([re.compile("retriever is a class of biggan-deep-")] * 5)
    field.fill("zzz")
    sync_api.expect(options).to_have_text(["No class is called zzz."])
    field.press("Tab")
    said = page.control("explore-category").get_by_role("status")
    sync_api.expect(said).to_have_text(
        "\u201czzz\u201d was not chosen from the list; it is still 0) zero."
    )
    held: list[Any] = []  # the list comes after the keys
    page.window.route(re.compile("search=$"), lambda route: held.append(route))
    with page.window.expect_request(re.compile("search=$")):
        field.click()
    for _ in range(3):
        field.press("ArrowDown")
    field.press("Enter")
    for route in held:
        route.continue_()
    page.wait_for("explore", drawn(gan, EXPLORE, category="three"))
    sync_api.expect(page.control("explore-category").locator("[role=status]")).to_have_text("")


@pytest.mark.slow
def test_a_class_that_is_entered_is_chosen_also_after_the_visitor_has_left_its_tab(
    visit: Visiting, gans: Gans
) -> None:
    gan, page = gans["tiny"], visit("?category=6")
    page.wait_for("explore", drawn(gan, EXPLORE, category="six"))
    for typed, category in (("thr", "three"), ("zzz", "three")):
        held: list[Any] = []
        page.window.route(re.compile(f"search={typed}$"), lambda route: held.append(route))  # noqa: B023
        with page.window.expect_request(re.compile(f"search={typed}$")):
            page.choose("explore-category", typed)
        page.open("Truncation sweep")
        page.image("sweep").wait_for()
        with page.window.expect_response(re.compile(f"search={typed}$")):
            held[0].continue_()
        page.open("Explore a category")
        page.wait_for("explore", drawn(gan, EXPLORE, category=category))
        page.wait_for_address("category=3")
    said = page.control("explore-category").get_by_role("status")
    sync_api.expect(said).to_have_text(
        "\u201czzz\u201d was not chosen from the list; it is still 3) three."
    )


@pytest.mark.slow
def test_both_ends_of_a_path_are_swapped(visit: Visiting, gans: Gans) -> None:
    page = visit("?form=interpolate&num=1&category_a=six&seed_b=4000")
    page.image("interpolate").wait_for()
    page.button("Swap A and B").click()
    swapped = {"category_a": "nine", "category_b": "six", "seed_a": 4000}
    page.wait_for("interpolate", drawn(gans["tiny"], INTERPOLATE, num=1, **swapped))
    bottom = page.button("Make the video").bounding_box()
    assert bottom["y"] + bottom["height"] < 900  # within sight


@pytest.mark.slow
def test_old_pictures_are_dimmed_until_new_ones_are_there(visit: Visiting, gans: Gans) -> None:
    page = visit("?model=slow&num=10")
    page.wait_for("explore", drawn(gans["slow"], EXPLORE, num=10))
    shown = page.window.locator(".picture:has(#explore-picture)")
    sync_api.expect(shown).not_to_have_class(re.compile("pending"))
    page.type("explore-seed", 7)
    sync_api.expect(shown).to_have_class(re.compile("pending"))
    page.control("explore-picture").locator(
        "xpath=self::*[contains(@class, 'unfinished')]"
    ).wait_for()
    assert "--seed 7" in shown.locator(".shell").inner_text()  # of the picture that is drawn
    assert "/gradio_api/file=" in shown.evaluate("e => e.style.getPropertyValue('--old')")
    page.wait_for("explore", drawn(gans["slow"], EXPLORE, num=10, seed=7))
    sync_api.expect(shown).not_to_have_class(re.compile("pending"))


@pytest.mark.slow
def test_a_file_that_is_dropped_before_another_was_answered_is_not_lost(
    visit: Visiting, tiny_file: Path, tmp_path: Path
) -> None:
    page = visit()
    page.image("explore").wait_for()
    (tmp_path / "notes.bin").write_text("no weights")
    requests, held = re.compile("/queue/join"), list[Any]()
    page.window.route(requests, lambda route: held.append(route))
    for file in (tmp_path / "notes.bin", tiny_file):
        page.drop(file)
        page.control("drop").get_by_text("Drop File Here").wait_for()
    for route in held:
        route.continue_()
    page.window.unroute(requests)
    page.wait_for_address("model=tiny-2&num=10&truncation=0.4&seed=0&category=0%29+tabby")
    assert "notes.bin is not a weights file" in page.toast()


@pytest.mark.slow
def test_another_model_is_chosen(visit: Visiting, gans: Gans) -> None:
    page = visit()
    page.image("explore").wait_for()
    for name, category in (("small", "zero"), ("plain", None)):
        page.choose_model(name)
        picture = drawn(gans[name], EXPLORE, category=category)
        page.wait_for("explore", picture)
        query = page.wait_for_address(f"model={name}")
        visit(f"?{query}").wait_for("explore", picture)
    assert page.control("explore-category").count() == 0


@pytest.mark.slow
def test_the_first_pictures_come_first_and_what_is_newer_cancels(
    visit: Visiting, gans: Gans
) -> None:
    slow = gans["slow"]
    for first in range(20, 25):  # the last pictures may have come before the first were read
        page = visit(f"?model=slow&num=10&seed={first}")
        page.image("explore").wait_for()
        coarse = page.picture("explore")
        if coarse.mode == "RGBA":
            break
    assert coarse.mode == "RGBA"  # what is not yet drawn is transparent
    started = time.monotonic()
    whole = drawn(slow, EXPLORE, num=10, seed=first)
    alone = time.monotonic() - started  # or longer: the server draws at the same time
    assert coarse.size == whole.size
    done = np.asarray(coarse)
    assert done[0, 0, 3] == 255
    assert done[-1, -1, 3] == 0
    page.wait_for("explore", whole)

    for seed in range(1, 8):
        page.type("explore-seed", seed)
        page.window.wait_for_timeout(300)
    started = time.monotonic()
    page.wait_for_address("seed=7")
    assert time.monotonic() - started < 3 * alone  # not seven times as long
    page.wait_for("explore", drawn(slow, EXPLORE, num=10, seed=7))
    assert page.window.locator(".toast-body").all_inner_texts() == []


@pytest.mark.slow
def test_it_fits_a_telephone(visit: Visiting) -> None:
    page = visit(viewport={"width": 360, "height": 740}, color_scheme="dark")
    for form in FORMS:
        page.open(form.title)
        page.image(form.name).wait_for()
        if form.video:
            page.type("interpolate-seconds", 1)
            page.button("Make the video").click()
            page.window.locator("#video img, #player video").wait_for()
        assert page.window.evaluate("document.documentElement.scrollWidth") == 360
        widest = "e => Math.max(...e.map((x) => x.getBoundingClientRect().right))"
        parts = ":is(input, label, img, button, h1, p, span):visible"
        shown = page.window.locator(f"main {parts}:not(.gallery *)")  # which scrolls sideways
        assert shown.evaluate_all(widest) <= 360
    assert page.window.locator("#directions-direction_0 .head").bounding_box()["height"] < 45
    tabs = page.window.get_by_role("tab")
    tops = tabs.evaluate_all("all => all.map((tab) => tab.getBoundingClientRect().top)")
    assert len(tops) == 4
    assert len(set(tops)) == 1  # in one row
    assert tabs.evaluate_all("all => all.every((tab) => tab.scrollWidth <= tab.clientWidth)")
    assert page.window.locator(".welcome p").bounding_box()["width"] > 300  # above the models' menu
    page.open("Interpolate")
    page.image("interpolate").wait_for()
    page.control("interpolate-seconds").scroll_into_view_if_needed()
    page.window.wait_for_function("scrollY > 200")
    box = page.image("interpolate").bounding_box()  # stays in sight while one is at the controls
    assert box is not None
    assert 0 <= box["y"] < 120


@pytest.mark.slow
def test_all_can_be_done_with_keys_and_is_named(visit: Visiting) -> None:
    page = visit()
    page.image("explore").wait_for()
    unnamed = page.window.evaluate(
        """() => [...document.querySelectorAll("main :is(input, button, textarea, select)")]
            .filter((e) => e.checkVisibility() && e.type != "file")
            .filter((e) => !(e.ariaLabel || e.labels?.length || e.innerText?.trim() || e.title))
            .filter((e) => !e.querySelector("img[alt]:not([alt=''])"))
            .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []

    page.window.get_by_role("tab", name="Interpolate").focus()
    page.window.keyboard.press("Enter")
    page.image("interpolate").wait_for()
    closest = (
        "document.activeElement.closest('[id^=interpolate-], #drop')?.id.replace('-field', '')"
    )
    reached = set()
    for _ in range(60):
        page.window.keyboard.press("Tab")
        reached.add(page.window.evaluate(closest))
    keys = ["num", "steps", "truncation", "seed_a", "seed_b", "category_a", "category_b", "seconds"]
    assert {f"interpolate-{key}" for key in [*keys, "picture"]} | {"drop"} <= reached


@pytest.mark.slow
def test_a_picture_says_what_it_shows(visit: Visiting) -> None:
    page = visit("?num=3&category=six")
    page.window.get_by_alt_text("3 pictures of six, 3 a row, by tiny").wait_for()
    page.open("Truncation sweep")
    page.image("sweep").wait_for()
    page.window.locator(".columns.sweep span").first.wait_for()
    texts = page.window.locator(".columns.sweep span").all_inner_texts()
    assert texts == ["2", "1.5", "1", "0.5", "0.04"]
    left, right, first, last = page.window.evaluate(
        """() => {
            const shown = document.querySelector("#sweep-picture img").getBoundingClientRect();
            const spans = [...document.querySelectorAll(".columns.sweep span")]
                .map((e) => e.getBoundingClientRect());
            return [shown.left, shown.right, spans[0].left, spans.at(-1).right];
        }"""
    )
    assert abs(left - first) <= 2  # each above its column
    assert abs(right - last) <= 2


@pytest.mark.parametrize(
    ("width", "theme"), [(1280, "dark"), pytest.param(390, "light", marks=pytest.mark.slow)]
)
def test_a_newcomer_gets_from_the_first_picture_to_a_golden_retriever_that_becomes_a_hen(
    browser: Any, host: FileServer, width: int, theme: str
) -> None:
    """With the bundled fruit, and a narrow biggan-deep-128 at a stand-in for its host."""
    models = ModelCache(BUNDLED, partial(biggan.load, engine="pytorch"), downloads=True)
    models.load_all()
    weights = host.files["/weights"]
    weights.cuts, weights.pause = [len(weights.body) // 2], threading.Event()
    with running(models) as (address, _):
        page = Visit(
            browser,
            address,
            viewport={"width": width, "height": 900 if width > 400 else 844},
            color_scheme=theme,
        )
        try:
            page.wait_for("explore", drawn(biggan.load(), EXPLORE))
            assert page.window.locator(".gallery img").count() == 36
            menu = page.window.get_by_label("Model", exact=True)
            page.choose_model("biggan-deep-128")
            page.window.get_by_text("Downloading biggan-deep-128").wait_for()
            page.window.locator(".notice progress[value]").wait_for()
            page.type("explore-seed", 5)  # meanwhile the page works with the model that it has
            page.wait_for("explore", drawn(biggan.load(), EXPLORE, seed=5))
            page.button("Cancel the download").click()
            page.window.get_by_text("The download was cancelled").wait_for()
            weights.pause.set()
            sync_api.expect(menu).to_have_value(re.compile("^fruits"))

            host.files.clear()
            page.choose_model("biggan-deep-128")
            page.window.get_by_text("HTTP 404").wait_for()
            assert page.window.get_by_role("link", name=host.url("/weights")).is_visible()

            host.files["/weights"] = weights
            page.choose_model("biggan-deep-128")
            page.window.get_by_role("heading", name="biggan-deep-128").wait_for()
            gan = biggan.load("biggan-deep-128", offline=True, engine="pytorch")
            page.wait_for("explore", drawn(gan, EXPLORE, seed=5))
            page.open("Interpolate")
            page.wait_for("interpolate", drawn(gan, INTERPOLATE))
            for end, name in (("a", "golden retriever"), ("b", "hen")):
                assert (
                    name
                    in page.control(f"interpolate-category_{end}").locator("input").input_value()
                )
            page.type("interpolate-seconds", 1)
            page.button("Make the video").click()
            page.window.locator("#video img, #player video").wait_for()
            assert page.window.locator(".toast-body").all_inner_texts() == []
            assert page.failures == []
        finally:
            page.window.close()


@pytest.mark.slow
def test_an_open_page_leaves_the_machine_alone(visit: Visiting, server: Server) -> None:
    def used() -> float:
        before = processor_time(server.process.pid)
        time.sleep(6)
        return processor_time(server.process.pid) - before

    measurable = Path("/proc/self/stat").exists()  # Linux
    without_page = used() if measurable else 0  # a loaded machine charges more for the same
    page = visit()
    page.image("explore").wait_for()
    page.open("Interpolate")
    assert page.window.get_by_role("link", name="HTTP API").get_attribute("href") == "api/docs"
    page.window.wait_for_timeout(2000)
    if measurable:
        assert used() - without_page < 0.12  # seconds of six; it was 0.3
    assert page.hosts <= {"127.0.0.1", ""}  # "" for data: and blob:
    server.outside.setblocking(False)
    with pytest.raises(BlockingIOError):  # nobody has connected
        server.outside.accept()


def processor_time(process: int) -> float:
    """Seconds that a process has run."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(visit: Visiting, server: Server) -> None:
    """The last test: the server ends."""
    visit().image("explore").wait_for()
    assert any(server.temporary.iterdir())
    # What an open page may hold for as long as it is open; it must not hold up the end.
    with urllib.request.urlopen(f"{server.address}/gradio_api/heartbeat/visitor"):
        server.process.send_signal(signal.SIGINT)
        _, complaints = server.process.communicate(timeout=30)
    assert server.process.returncode == 0
    assert complaints == ""
    assert not any(server.temporary.iterdir())
