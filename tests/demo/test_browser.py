"""What a visitor does, in a real browser: every form, its downloads, its address."""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")
pytest.importorskip("playwright")

import torch
from playwright import sync_api

import biggan
from biggan import Gan, build_generator
from biggan.demo.drawing import (
    draw_grid,
    interpolation_recipe,
    sample_recipe,
    sweep_recipe,
    video_recipe,
)
from biggan.images import save_png
from biggan.provenance import read_provenance
from biggan.video import make_frame, save_video
from biggan.weights.files import save_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def gans(make_gan: Callable[..., Gan], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Gan]:
    """Models as files, by the names that the page gives them, each under its path."""
    folder = tmp_path_factory.mktemp("models")
    made = {"tiny": make_gan(), "small": make_gan(resolution=8), "plain": make_gan(class_names=())}
    made["slow"] = _slow(made["tiny"])
    made["a run"] = make_gan(("zero", "one"))
    for name, gan in made.items():
        save_generator(folder / name, gan.generator, replace(gan.description, name=name))
    return {name: biggan.load(folder / name, engine="pytorch") for name in made}


def _slow(gan: Gan) -> Gan:
    """A generator that takes about a sixth of a second for a picture, as a published one does."""
    config = replace(gan.config, resolution=128, channels=48, widths=(8, 8, 8, 4, 2, 1), z_dim=12)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Gan(build_generator(config).eval(), gan.description, "0" * 64)


@pytest.fixture(scope="module")
def address(gans: dict[str, Gan], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = tmp_path_factory.getbasetemp() / "models0"
    names = [f"--model={models / name}" for name in gans]
    with subprocess.Popen(
        [sys.executable, "-m", "biggan", "demo", "--port=0", "--engine=pytorch", *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            if not address:
                pytest.fail(process.communicate()[1])
            yield address
        finally:
            process.terminate()  # a kill would leave its temporary pictures


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """The page in a window."""

    def __init__(self, browser: Any, address: str, query: str = "", **settings: Any) -> None:
        settings.setdefault("viewport", {"width": 1280, "height": 900})
        self.window = browser.new_page(**settings)
        self.window.set_default_timeout(15_000)
        self.failures: list[str] = []
        self.window.on("pageerror", lambda error: self.failures.append(str(error)))
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
        deadline = time.monotonic() + 15
        self.image(form).wait_for()
        while time.monotonic() < deadline:
            shown = self.picture(form)
            if shown.mode == expected.mode and shown.tobytes() == expected.tobytes():
                return
            time.sleep(0.05)
        pytest.fail(f"the page does not show the picture of these settings ({self.window.url})")

    def control(self, name: str) -> Any:
        return self.window.locator(f"#{name}")

    def type(self, name: str, value: float) -> None:
        self.control(name).locator("input[type=number]").fill(f"{value:g}")

    def number(self, name: str) -> float:
        return float(self.control(name).locator("input[type=number]").input_value())

    def choose(self, name: str, typed: str) -> None:
        self.control(name).locator("input").click()
        self.window.keyboard.type(typed)
        self.window.get_by_role("option").first.wait_for()
        self.window.keyboard.press("Enter")

    def download(self, button: Any, folder: Path) -> Path:
        with self.window.expect_download() as download:
            button.click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def open(self, tab: str) -> None:
        self.window.get_by_role("tab", name=tab).click()

    def wait_for_address(self, part: str) -> str:
        self.window.wait_for_url(lambda url: part in url)
        return str(urlparse(self.window.url).query)

    def toast(self) -> str:
        body = self.window.locator(".toast-body").first
        body.wait_for()
        return " ".join(body.inner_text().split())


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def visit(query: str = "", **settings: Any) -> Visit:
        visits.append(Visit(browser, address, query, **settings))
        return visits[-1]

    yield visit
    for each in visits:
        each.window.close()
        assert each.failures == []


FORMS = {
    "explore": (
        "Explore a category",
        sample_recipe,
        (10, 0.4, 0, "zero"),
        {"num": 7, "truncation": 0.42, "seed": 12345},
        {"category": "thr"},
        (7, 0.42, 12345, "three"),
    ),
    "interpolate": (
        "Interpolate",
        interpolation_recipe,
        (2, 5, 0.2, 0, 0, "zero", "nine"),
        {"num": 1, "steps": 4, "truncation": 0.6, "seed_a": 8, "seed_b": 4000},
        {"category_a": "six", "category_b": "fo"},
        (1, 4, 0.6, 8, 4000, "six", "four"),
    ),
    "sweep": (
        "Truncation sweep",
        sweep_recipe,
        (2, 0, "paper", "zero"),
        {"num": 3, "seed": 101},
        {"category": "se"},
        (3, 101, "hub", "seven"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_control_changes_the_picture_and_the_address_brings_it_back(
    visit: Callable[..., Visit], gans: dict[str, Gan], form: str, tmp_path: Path
) -> None:
    tab, plan, first, numbers, menus, last = FORMS[form]
    gan, page = gans["tiny"], visit()
    page.open(tab)
    page.wait_for(form, draw_grid(gan, plan(gan, *first)))

    shown = page.image(form).get_attribute("src")

    def changed() -> None:
        nonlocal shown
        page.window.wait_for_function(
            "([form, old]) => (document.querySelector(`#${form}-picture img`)?.src ?? old) != old",
            arg=[form, shown],
        )
        shown = page.image(form).get_attribute("src")

    for key, value in numbers.items():
        page.type(f"{form}-{key}", value)
        changed()
    for key, typed in menus.items():
        page.choose(f"{form}-{key}", typed)
        changed()
    if form == "sweep":
        page.window.get_by_text("TF Hub").click()
        changed()
    recipe = plan(gan, *last)
    page.wait_for(form, draw_grid(gan, recipe))

    file = page.download(page.control(f"{form}-picture").get_by_label("Download"), tmp_path)
    assert read_provenance(file) == recipe
    with Image.open(file) as downloaded:
        assert downloaded.tobytes() == draw_grid(gan, recipe).tobytes()

    query = page.wait_for_address(f"num={last[0]}")
    again = visit(f"?{query}")
    again.wait_for(form, draw_grid(gan, recipe))
    for key, value in numbers.items():
        assert again.number(f"{form}-{key}") == value
    assert again.wait_for_address(f"num={last[0]}") == query


def test_a_typed_seed_stays_when_one_goes_on(
    visit: Callable[..., Visit], gans: dict[str, Gan]
) -> None:
    gan, page = gans["tiny"], visit()
    page.type("explore-seed", 12345)
    page.control("explore-truncation").locator("input[type=range]").press("ArrowRight")
    page.wait_for("explore", draw_grid(gan, sample_recipe(gan, 10, 0.42, 12345, "zero")))

    assert page.control("explore-seed").locator("input[type=number]").input_value() == "12345"


def test_a_video_is_made_shown_and_downloaded(
    visit: Callable[..., Visit], gans: dict[str, Gan], tmp_path: Path
) -> None:
    page = visit("?form=interpolate&num=1&category_a=six&category_b=2&seed_b=4")
    page.image("interpolate").wait_for()
    page.type("interpolate-seconds", 1)
    page.window.get_by_role("button", name="Make the video").click()
    page.window.locator("#video img").wait_for()

    webp = page.download(page.control("webp"), tmp_path)
    with Image.open(webp) as video:
        assert (video.n_frames, video.info["loop"]) == (20, 0)
    recipe = read_provenance(webp)
    assert [(k.class_index, k.seed) for k in recipe.keyframes] == [(6, 0), (2, 4)]
    if page.control("mp4").count():
        assert read_provenance(page.download(page.control("mp4"), tmp_path)) == recipe

    page.type("interpolate-seed_b", 5)  # the video is of other settings now
    page.window.locator("#video").wait_for(state="hidden")


def test_a_dropped_picture_brings_its_settings_back(
    visit: Callable[..., Visit], gans: dict[str, Gan], tmp_path: Path
) -> None:
    gan, page = gans["small"], visit()
    recipe = sweep_recipe(gan, 3, 500, "hub", "six")
    save_png(draw_grid(gan, recipe), tmp_path / "sweep.png", recipe)
    page.image("explore").wait_for()
    page.window.locator("#drop input[type=file]").set_input_files(tmp_path / "sweep.png")

    page.wait_for("sweep", draw_grid(gan, recipe))  # its form, and its model
    assert page.window.get_by_role("heading", name="small").is_visible()
    assert page.window.get_by_label("Model", exact=True).input_value() == "small"

    Image.new("L", (8, 8)).save(tmp_path / "plain.png")
    page.window.locator("#drop input[type=file]").set_input_files(tmp_path / "plain.png")
    assert "plain.png holds no recipe" in page.toast()
    page.wait_for("sweep", draw_grid(gan, recipe))


def test_a_dropped_video_brings_its_settings_back_and_leaves_the_other_tabs_alone(
    visit: Callable[..., Visit], gans: dict[str, Gan], tmp_path: Path
) -> None:
    gan, page = gans["tiny"], visit()
    page.image("explore").wait_for()
    page.choose("explore-category", "thr")
    page.open("Truncation sweep")
    page.type("sweep-seed", 6)
    recipe = video_recipe(gan, 1, 2, 0.6, 8, 4000, "six", "four")
    films = [tmp_path / f"film{ending}" for ending in (".gif", ".webp", ".mp4")]
    for film in films[: 3 if find_spec("av") else 2]:
        frames = (make_frame(pictures) for pictures in gan.draw_video(recipe))
        save_video(frames, film, recipe.fps, provenance=recipe)
        page.window.locator("#drop input[type=file]").set_input_files(film)
        page.wait_for("interpolate", shown(gan, 1, 5, 0.6, 8, 4000, "six", "four"))
        for key, value in (("seconds", 2), ("seed_b", 4000)):
            assert page.number(f"interpolate-{key}") == value
            page.type(f"interpolate-{key}", 3)

    page.open("Explore a category")
    page.wait_for("explore", draw_grid(gan, sample_recipe(gan, 10, 0.4, 0, "three")))
    page.open("Truncation sweep")
    page.wait_for("sweep", draw_grid(gan, sweep_recipe(gan, 2, 6, "paper", "zero")))


def shown(gan: Gan, *settings: Any) -> Image.Image:
    return draw_grid(gan, interpolation_recipe(gan, *settings))


def test_who_comes_back_finds_all_settings(
    visit: Callable[..., Visit], gans: dict[str, Gan], address: str
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

    page.window.goto(f"{address}/api")
    page.window.go_back()
    page.wait_for("interpolate", shown(gan, 2, 5, 0.2, 0, 777, "six", "nine"))
    assert page.number("interpolate-seconds") == 2
    page.open("Explore a category")
    page.wait_for("explore", draw_grid(gan, sample_recipe(gan, 10, 0.4, 500, "three")))
    assert page.number("explore-seed") == 500


def test_the_command_below_a_picture_makes_it(
    visit: Callable[..., Visit], gans: dict[str, Gan], tmp_path: Path
) -> None:
    page = visit("?model=a+run&form=interpolate&num=1&steps=2&category_b=one")
    page.image("interpolate").wait_for()
    command = page.window.locator(".caption:visible code").inner_text()
    words = [sys.executable, "-m", *shlex.split(command)]
    made = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    with Image.open(tmp_path / "interpolation.png") as picture:
        page.wait_for("interpolate", picture)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?num=99", "number of samples must be between 1 and 20, not 99"),
        ("?category=ten", "no class is called 'ten'"),
        ("?model=/etc/passwd", "no model is called '/etc/passwd' here"),
    ],
)
def test_a_link_that_leads_nowhere_says_so(
    visit: Callable[..., Visit], gans: dict[str, Gan], query: str, told: str
) -> None:
    page = visit(query)

    assert told in page.toast()
    gan = gans["tiny"]
    page.wait_for("explore", draw_grid(gan, sample_recipe(gan, 10, 0.4, 0, "zero")))


@pytest.mark.slow
def test_another_model_is_chosen(visit: Callable[..., Visit], gans: dict[str, Gan]) -> None:
    page = visit()
    page.image("explore").wait_for()
    for name, category in (("small", "zero"), ("plain", None)):
        page.window.get_by_label("Model", exact=True).click()
        page.window.get_by_role("option", name=name, exact=True).click()
        picture = draw_grid(gans[name], sample_recipe(gans[name], 10, 0.4, 0, category))
        page.wait_for("explore", picture)
        query = page.wait_for_address(f"model={name}")
        visit(f"?{query}").wait_for("explore", picture)
    assert page.control("explore-category").count() == 0


@pytest.mark.slow
def test_the_first_pictures_come_first_and_what_is_newer_cancels(
    visit: Callable[..., Visit], gans: dict[str, Gan]
) -> None:
    slow, page = gans["slow"], visit("?model=slow&num=20")
    page.image("explore").wait_for()
    coarse = page.picture("explore")
    assert coarse.mode == "RGBA"  # what is not yet drawn is transparent
    started = time.monotonic()
    whole = draw_grid(slow, sample_recipe(slow, 20, 0.4, 0, "zero"))
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
    page.wait_for("explore", draw_grid(slow, sample_recipe(slow, 20, 0.4, 7, "zero")))
    assert page.window.locator(".toast-body").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_telephone(visit: Callable[..., Visit], theme: str) -> None:
    page = visit(viewport={"width": 360, "height": 740}, color_scheme=theme)
    for form, (tab, *_) in FORMS.items():
        page.open(tab)
        page.image(form).wait_for()
        if form == "interpolate":
            page.type("interpolate-seconds", 1)
            page.window.get_by_role("button", name="Make the video").click()
            page.window.locator("#video img").wait_for()
        assert page.window.evaluate("document.documentElement.scrollWidth") == 360
        widest = "e => Math.max(...e.map((x) => x.getBoundingClientRect().right))"
        shown = page.window.locator("main :is(input, label, img, button, h1, p, span):visible")
        assert shown.evaluate_all(widest) <= 360
    assert page.window.locator(".about p").bounding_box()["width"] > 300  # above the models' menu
    page.open("Interpolate")
    page.image("interpolate").wait_for()
    page.control("interpolate-category_b").scroll_into_view_if_needed()
    page.window.wait_for_function("scrollY > 200")
    box = page.image("interpolate").bounding_box()  # stays in sight while one is at the controls
    assert box is not None
    assert 0 <= box["y"] < 120


def test_all_can_be_done_with_keys_and_is_named(visit: Callable[..., Visit]) -> None:
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
    closest = "document.activeElement.closest('[id^=interpolate-], #drop')?.id"
    reached = set()
    for _ in range(60):
        page.window.keyboard.press("Tab")
        reached.add(page.window.evaluate(closest))
    keys = ["num", "steps", "truncation", "seed_a", "seed_b", "category_a", "category_b", "seconds"]
    assert {f"interpolate-{key}" for key in [*keys, "picture"]} | {"drop"} <= reached


def test_a_picture_says_what_it_shows(visit: Callable[..., Visit]) -> None:
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
