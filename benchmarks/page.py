"""How live the page is: until it is painted, and from the release of a slider to the picture.

`biggan demo` is started with the bundled model, then with a biggan-deep-128 of random weights. In
headless Chromium the page is opened with an empty cache, again and again; then the noise seed is
moved by one. The browser notes when something is painted, when the first picture is on the screen
and when all of them are. Beside it pytorch-pretrained-biggan makes as many
images, without a page. The figures are medians.

    python benchmarks/page.py [--rounds 9] [--num 10]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from cold_start import random_weights
from playwright.sync_api import sync_playwright
from sampling import LABEL, TRUNCATION, build_peer, peer_config
from serving import server

from biggan.weights.files import BUNDLED

ROUNDS, NUM = 9, 10
FLAGS = ["--no-sandbox", "--disable-gpu"]
NOTE = """() => {
    window.shown = [];
    document.addEventListener("load", (event) => {
        if (event.target.closest?.("#explore-picture")) window.shown.push(performance.now());
    }, true);
    document.addEventListener("input", (event) => {
        if (event.target.type === "range") { window.moved = performance.now(); window.shown = []; }
    }, true);
}"""
PASSED = "() => window.shown.map((time) => (time - window.moved) / 1000)"
MOVED = "(seed) => new URLSearchParams(location.search).get('seed') === seed"


def move_seed(window: Any, seed: int) -> tuple[float, float]:
    """Seconds from a move of the seed to the first picture, and to the whole one."""
    window.locator("#explore-seed input[type=range]").press("ArrowRight")
    # The address follows the whole picture, which is on the screen a moment later.
    window.wait_for_function(MOVED, arg=str(seed), timeout=60_000)
    window.wait_for_timeout(500)
    times = window.evaluate(PASSED)
    return times[0], times[-1]


def first_paint(browser: Any, address: str) -> float:
    """Seconds until a page that is opened for the first time is painted."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    window = context.new_page()
    window.goto(address)
    window.locator("#explore-picture img").wait_for(timeout=60_000)
    paints = window.evaluate("() => performance.getEntriesByType('paint').map((p) => p.startTime)")
    context.close()
    return float(min(paints)) / 1000


def measure(model: str, num: int, rounds: int) -> tuple[float, list[tuple[float, float]]]:
    """Seconds to the first paint, and to the first picture and to all, once a round."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Chromium is not installed: the page is measured in it")
    with server(model) as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        paint = statistics.median(first_paint(browser, address) for _ in range(rounds))
        window = browser.new_page(viewport={"width": 1280, "height": 900})
        window.goto(f"{address}/?form=explore&num={num}&seed=0")
        window.locator("#explore-picture img").wait_for(timeout=60_000)
        window.wait_for_timeout(2000)  # the page is still
        window.evaluate(NOTE)
        move_seed(window, 1)  # the first of all pays for what is set up once
        times = [move_seed(window, 2 + k) for k in range(rounds)]
        browser.close()
    return paint, times


def say(name: str, paint: float, times: list[tuple[float, float]], num: int) -> None:
    first, last = (statistics.median(part) for part in zip(*times, strict=True))
    print(
        f"{name:42}  painted after {paint:5.2f} s; first picture {first:5.2f} s, "
        f"{num:2} pictures {last:5.2f} s",
        flush=True,
    )


@torch.inference_mode()
def peer_seconds(num: int, rounds: int) -> float:
    """Seconds that the peer takes for as many images, in one batch."""
    config = peer_config(128)
    peer = build_peer(config)
    classes = torch.zeros(num, config.num_classes)
    classes[:, LABEL] = 1
    z = torch.randn(num, config.z_dim)
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        peer(z, classes, TRUNCATION)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--num", type=int, default=NUM)
    arguments = parser.parse_args()
    num, rounds = arguments.num, arguments.rounds
    say("the bundled model", *measure(BUNDLED[0], num, rounds), num)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "deep.safetensors"
        random_weights(model)
        paint, times = measure(str(model), num, rounds)
    say("biggan-deep-128, random weights", paint, times, num)
    taken = peer_seconds(num, 3)
    ours = statistics.median(last for _, last in times)
    print(f"{'pytorch-pretrained-biggan, without a page':42}  {num} images {taken:5.2f} s")
    print(f"the page's {num} pictures in {ours / taken:.2f} of the peer's time for its images")


if __name__ == "__main__":
    main()
