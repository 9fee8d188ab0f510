"""Make the pictures of README and docs anew.

    make pictures
    .venv/bin/python scripts/make_pictures.py [NAME ...]

Writes docs/images. Without names: all of them. Pages are photographed in Chromium. Only study.png
has a script of its own, study_stability.py: it takes hours.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

import biggan
from biggan.images import make_grid

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"

FRUITS = (
    "red-apple",
    "banana",
    "strawberry",
    "kiwi",
    "orange",
    "pineapple",
    "dragon-fruit",
    "avocado",
    "lemon",
    "plum",
    "pear",
    "raspberry",
)
RESCUED = {  # a run of the digits that collapses and is rolled back, as docs/report.md describes it
    "total_steps": 240,
    "watch.every": 10,
    "watch.held_out": 0.1,
    "generator.channels": 8,
    "discriminator.channels": 8,
    "checkpoint_every": 40,
    "log_every": 10,
    "optimizer.g_lr": 6e-3,
    "optimizer.d_lr": 1.2e-2,
    "collapse.action": "rollback",
    "collapse.g_lr": 0.1,
    "collapse.d_lr": 0.1,
}


def shell(*arguments: object) -> None:
    """Run a command of biggan."""
    subprocess.run([sys.executable, "-m", "biggan", *map(str, arguments)], check=True)


@contextmanager
def pages() -> Iterator[Callable[..., Any]]:
    """Open pages in Chromium: takes an address and Playwright's settings of a page."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def open_page(address: str, width: int = 1280, height: int = 900, **settings: Any) -> Any:
            viewport = {"width": width, "height": height}
            page = browser.new_page(viewport=viewport, **settings)
            page.goto(address)
            return page

        yield open_page
        browser.close()


def samples() -> None:
    """A column for each class: some fruits, and all of CIFAR-10."""
    for model, classes, name in (("fruits", FRUITS, "samples"), ("cifar10", range(10), "cifar10")):
        gan = biggan.load(model)
        columns = [gan.sample(label, num=6, truncation=0.6, seed=0) for label in classes]
        rows = [picture for row in zip(*columns, strict=True) for picture in row]
        make_grid(rows, columns=len(classes)).save(IMAGES / f"{name}.webp", quality=90)


def morph() -> None:
    """Red apples become bananas, there and back."""
    gan = biggan.load("fruits")
    steps = 24
    rows = gan.interpolate("red-apple", "banana", steps=steps, num=5, truncation=0.5, seed_b=1)
    there = [make_grid([row[step] for row in rows], columns=5) for step in range(steps)]
    frames = [there[0]] * 6 + there + [there[-1]] * 6 + there[::-1]
    options: dict[str, Any] = {"save_all": True, "duration": 60, "loop": 0, "quality": 80}
    frames[0].save(IMAGES / "morph.webp", append_images=frames[1:], **options)


def directions() -> None:
    """What six directions change of a red apple, as docs/research.md finds them."""
    with tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder) / "sheet.png"
        options = ["--activation", "blocks.1", "--class", "red apple", "--num", 6]
        files = ["--out", Path(folder) / "found.safetensors", "--sheet", sheet]
        shell("directions", *options, "--name", "1=turn", *files)
        with Image.open(sheet) as image:
            image.save(IMAGES / "directions.webp", quality=90)


def demo() -> None:
    """The page, each tab, and on a telephone."""
    command = [sys.executable, "-m", "biggan", "demo", "--port", "0"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        pages() as open_page,
    ):
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            moved = "&category=red+apple&direction_0=2&direction_1=-2"
            for form in ("explore", "interpolate", "sweep", "directions"):
                settings = moved if form == "directions" else ""
                page = open_page(f"{address}/?form={form}{settings}")
                _wait_for_picture(page, form)
                page.screenshot(path=IMAGES / f"demo-{form}.png")
            for scheme in ("light", "dark"):
                page = open_page(address, 390, 844, color_scheme=scheme, device_scale_factor=2)
                _wait_for_picture(page, "explore")
                page.screenshot(path=IMAGES / f"demo-phone-{scheme}.png")
        finally:
            server.terminate()


def _wait_for_picture(page: Any, form: str) -> None:
    page.locator(f"#{form}-picture img").wait_for()
    page.wait_for_timeout(3000)  # the last pictures, and the fonts


def report() -> None:
    """A part of the report of a run that collapsed and was rolled back."""
    with tempfile.TemporaryDirectory() as folder, pages() as open_page:
        run = Path(folder) / "rescued"
        changes = [word for key, value in RESCUED.items() for word in ("--set", f"{key}={value}")]
        shell("train", "digits", "--out", run, *changes)
        shell("report", run)
        page = open_page(f"file://{run}/report.html", 1000, 1400)
        page.screenshot(path=IMAGES / "report.png")


def evaluation() -> None:
    """Digits beside the nearest real ones, and quality against variety along truncation."""
    with tempfile.TemporaryDirectory() as folder:
        classifier = Path(folder) / "classifier.safetensors"
        shell("classifier", "digits", "--out", classifier)
        model = ["--model", "digits", "--data", "digits", "--extractor", classifier]
        sweep = ["--num", 5000, "--truncations", "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95,1,none"]
        out = Path(folder) / "digits.json"
        shell("evaluate", *model, *sweep, "--neighbors", IMAGES / "neighbors.png", "--out", out)
        shutil.copy(out.with_suffix(".png"), IMAGES / "tradeoff.png")


PICTURES: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (samples, morph, directions, demo, report, evaluation)
}


def main() -> None:
    """Make the pictures that are named."""
    parser = argparse.ArgumentParser(description="Make the pictures of README and docs anew.")
    parser.add_argument("names", nargs="*", choices=[*PICTURES, []], metavar="NAME")
    arguments = parser.parse_args()
    for name in arguments.names or PICTURES:
        PICTURES[name]()


if __name__ == "__main__":
    main()
