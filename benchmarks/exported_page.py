"""How soon an exported page shows pictures, and the memory that it takes, in a real browser.

`biggan export --format web` writes the bundled model, and a biggan-deep-128 of random weights. Each
page is opened in headless Chromium with an empty cache, from Python's own HTTP server: so
WebAssembly has one thread. The time runs from the address to the first picture and to ten. Beside
it onnxruntime runs the same network in Python, with one thread. Memory is the peak of the browser's
process that holds the page.

    python benchmarks/exported_page.py [--num 10]
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
from cold_start import random_weights
from playwright.sync_api import sync_playwright

import biggan
from biggan.export import write_page_network
from biggan.web import export_page

NUM = 10
FLAGS = ["--no-sandbox", "--disable-gpu"]
MAX_SECONDS = 240


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def page_megabytes() -> float:
    """Peak memory of the largest renderer process so far; the kernel keeps it."""
    peaks = [0]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" in (process / "cmdline").read_bytes():
                status = (process / "status").read_text()
                peaks.append(int(status.partition("VmHWM:")[2].split()[0]))
        except (OSError, IndexError):  # it has ended
            continue
    return max(peaks) / 1e3


def measure(site: Path, num: int) -> tuple[float, float, float]:
    """Seconds to the first picture and to all, and megabytes."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("Chromium is not installed: the page is measured in it")
    handler = functools.partial(QuietHandler, directory=str(site))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        sync_playwright() as playwright,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        window = browser.new_page(viewport={"width": 1280, "height": 900})
        window.set_default_timeout(1000 * MAX_SECONDS)
        start = time.perf_counter()
        window.goto(f"http://127.0.0.1:{server.server_port}/?num={num}")
        window.locator("canvas.drawn").first.wait_for(state="attached")
        first = time.perf_counter() - start
        window.locator("body[data-complete]").wait_for(state="attached")
        last = time.perf_counter() - start
        megabytes = page_megabytes()
        browser.close()
        server.shutdown()
    return first, last, megabytes


def peer_seconds(gan: biggan.Gan, folder: Path, num: int) -> float:
    """Seconds in which onnxruntime makes an image."""
    table, _ = write_page_network(gan, folder / "peer.onnx", "float32")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "peer.onnx", options)
    inputs = {
        "z": np.zeros((1, gan.config.z_dim), np.float32),
        "class_weights": np.eye(1, gan.config.num_classes, dtype=np.float32),
        "statistics": table[-1].numpy(),
    }
    taken = []
    for _ in range(num):
        start = time.perf_counter()
        session.run(["images"], inputs)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=NUM)
    num = parser.parse_args().num
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random_weights(folder / "deep.safetensors")
        models = {
            "the bundled model": biggan.load(),
            "biggan-deep-128, random weights": biggan.load(folder / "deep.safetensors"),
        }
        for number, (title, gan) in enumerate(models.items()):
            page = export_page(gan, folder / f"site{number}")
            first, last, megabytes = measure(page.folder, num)
            each, peer = (last - first) / (num - 1), peer_seconds(gan, folder, num)
            print(
                f"{title:32}  {page.weights / 1e6:5.0f} MB  first picture {first:5.2f} s, "
                f"{num} pictures {last:5.2f} s, {megabytes:5.0f} MB of memory; a picture "
                f"{1000 * each:5.0f} ms, in onnxruntime {1000 * peer:5.0f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
