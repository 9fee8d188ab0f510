"""A server under load: many clients at once against one, and what memory the server takes.

`biggan demo` is started with the bundled model, and asked for 1,000 different pictures and some of
them again, by 64 clients at once: through the HTTP API, then through Gradio's. The comparison is
one client that waits for each answer, in the same run. Every answer is compared, pixel by pixel,
with what this process draws by itself.

    python benchmarks/serving.py [--clients 64] [--requests 1000] [--model NAME|PATH] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import itertools
import json
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

import biggan
from biggan.demo.drawing import draw_grid
from biggan.demo.forms import EXPLORE, INTERPOLATE, Form, to_query

ALONE = 50  # requests of the one client
FIRST = 100  # after which memory is looked at
AGAIN = 20  # every so often a picture is asked for that was asked for before
QUICK = 200  # requests

Settings = tuple[Form, dict[str, Any]]
Ask = Callable[[str, Settings], Image.Image]


@dataclass
class Report:
    """What came of some requests."""

    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.times) / self.seconds


def make_settings(gan: biggan.Gan, num: int, first: int = 0) -> list[Settings]:
    """Settings of the page's two main forms, all different but for some."""
    made: list[Settings] = []
    for k in range(first, first + num):
        category = str(k % max(len(gan.class_names), 1)) if gan.class_names else None
        if made and k % AGAIN == AGAIN - 1:
            made.append(made[len(made) // 2])
        elif k % 5 == 0:
            ends = {"category_a": category, "category_b": "0" if category else None}
            numbers = {"num": 1 + k % 2, "steps": 2 + k % 4, "truncation": 0.5}
            made.append((INTERPOLATE, {**numbers, "seed_a": k, "seed_b": 1, **ends}))
        else:
            numbers = {"num": 1 + k % 6, "truncation": (1 + k % 50) / 50, "seed": k}
            made.append((EXPLORE, {**numbers, "category": category}))
    return made


def ask_http(address: str, settings: Settings) -> Image.Image:
    """Get a picture through the HTTP API."""
    form, values = settings
    query = to_query("", form, values).split("&", 2)[2]  # neither the form nor the model
    status, body = get(address, f"/api/{form.endpoint}?{query}")
    if status != 200:
        raise OSError(f"status {status}: {body[:200]!r}")
    return read(body)


def ask_gradio(address: str, settings: Settings) -> Image.Image:
    """Get a picture through Gradio's API, as its documentation describes it for curl."""
    form, values = settings
    path = f"/gradio_api/call/{form.endpoint}"
    data = [values[control.key] for control in form.controls]
    status, body = get(address, path, json.dumps({"data": data}))
    if status != 200:
        raise OSError(f"status {status}: {body[:200]!r}")
    _, events = get(address, f"{path}/{json.loads(body)['event_id']}")
    event, data = events.decode().strip().split("\n")[-2:]
    if event != "event: complete":
        raise OSError(f"{event}, {data[:200]}")
    picture = json.loads(data.removeprefix("data: "))[0]
    _, body = get(address, urlsplit(picture["url"]).path)
    return read(body)


def get(address: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    """Send one request; with a body by POST."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=300)
    with contextlib.closing(connection):
        method = "GET" if body is None else "POST"
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        reply = connection.getresponse()
        return reply.status, reply.read()


def read(body: bytes) -> Image.Image:
    with Image.open(io.BytesIO(body)) as picture:
        picture.load()
        return picture


def hammer(
    address: str,
    ask: Ask,
    settings: Sequence[Settings],
    expected: Sequence[Image.Image],
    clients: int,
) -> Report:
    """Ask for pictures by many clients, each for the next one as soon as it has its last.

    Args:
        address: Of the server.
        ask: How to get a picture.
        settings: Of the pictures.
        expected: What they are to look like.
        clients: How many.
    """
    report, work = Report(), queue.SimpleQueue[tuple[Settings, Image.Image] | None]()
    for item in itertools.chain(zip(settings, expected, strict=True), [None] * clients):
        work.put(item)

    def client() -> None:
        while (item := work.get()) is not None:
            wanted, picture = item
            start = time.perf_counter()
            try:
                got = ask(address, wanted)
            except (OSError, http.client.HTTPException, ValueError) as error:
                report.faults.append(f"{wanted[1]}: {error!r}")
                continue
            report.times.append(time.perf_counter() - start)
            if got.convert("RGB").tobytes() != picture.convert("RGB").tobytes():
                report.faults.append(f"{wanted[1]}: another picture")

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.seconds = time.perf_counter() - start
    return report


@contextlib.contextmanager
def server(model: str) -> Iterator[tuple[str, int]]:
    """A running `biggan demo`: its address, and the number of its process."""
    command = [sys.executable, "-m", "biggan", "demo", "--port", "0", "--model", model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip() if process.stdout else ""
            if not address:
                raise SystemExit("the server does not start")
            yield address, process.pid
        finally:
            process.terminate()


def peak(process: int) -> float:
    """MiB of a process that were in memory at most."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():  # not on Linux
        return float("nan")
    line = next(x for x in status.read_text(encoding="ascii").splitlines() if x[:6] == "VmHWM:")
    return int(line.split()[1]) / 1024


def measure(gan: biggan.Gan, model: str, requests: int, clients: int, ask: Ask) -> int:
    """Load a fresh server, and print what comes of it; returns the number of faults."""
    settings = make_settings(gan, requests)
    before = make_settings(gan, ALONE, first=requests)  # others: nothing is to be kept from them
    expected, expected_before = (
        [draw_grid(gan, form.plan(gan, **values)) for form, values in x] for x in (settings, before)
    )
    with server(model) as (address, process):
        alone = hammer(address, ask, before, expected_before, 1)
        first = hammer(address, ask, settings[:FIRST], expected[:FIRST], clients)
        at_first = peak(process)
        rest = hammer(address, ask, settings[FIRST:], expected[FIRST:], clients)
        in_the_end = peak(process)
    faults = [*alone.faults, *first.faults, *rest.faults]
    times = [*first.times, *rest.times]
    rate = len(times) / (first.seconds + rest.seconds)
    for name, of, value in (
        ("one client", alone.times, alone.rate),
        (f"{clients} clients", times, rate),
    ):
        print(f"  {name:11} {value:6.1f} answers/s, {in_words(of)}")
    print(f"  that is {rate / alone.rate:.2f} times as many answers")
    print(f"  {len(times)} answers, {len(faults)} faults")
    print(
        f"  peak of the server {at_first:.0f} MiB after {FIRST}, {in_the_end:.0f} MiB after "
        f"{requests}: {in_the_end - at_first:+.0f}",
        flush=True,
    )
    for fault in faults[:5]:
        print(f"    {fault}")
    return len(faults)


def in_words(times: Sequence[float]) -> str:
    slow = statistics.quantiles(times, n=20)[-1]
    return f"median {1e3 * statistics.median(times):.0f} ms, 95% {1e3 * slow:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} requests")
    arguments = parser.parse_args()
    requests = QUICK if arguments.quick else arguments.requests
    gan = biggan.load(arguments.model)
    faults = 0
    for name, ask in (("HTTP API", ask_http), ("Gradio's API", ask_gradio)):
        print(f"{name}, {gan.name}")
        faults += measure(gan, arguments.model, requests, arguments.clients, ask)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
