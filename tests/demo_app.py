"""A model small enough for a page to be quick, and servers of the page in this process."""

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from biggan import Gan, GeneratorConfig, build_generator
from biggan.demo.forms import DIRECTIONS, EXPLORE, INTERPOLATE, MOVES, SWEEP, Form
from biggan.weights.files import Description

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import serving

# Gradio reads it on import; its own folder is shared by all of a machine.
_FOLDER = tempfile.TemporaryDirectory(prefix="biggan-tests-")
os.environ["GRADIO_TEMP_DIR"] = _FOLDER.name

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


SETTINGS: list[tuple[Form, dict[str, Any]]] = [
    (EXPLORE, {"num": 7, "truncation": 0.42, "seed": 12345, "category": "3) three"}),
    (
        INTERPOLATE,
        {"num": 1, "steps": 3, "truncation": 0.5, "seed_a": 4, "seed_b": 5}
        | {"category_a": "1) one", "category_b": "6) six"},
    ),
    (SWEEP, {"num": 3, "seed": 9, "noise": "hub", "category": "2) two"}),
    (
        DIRECTIONS,
        {"truncation": 0.6, "seed": 3, "category": "2) two", **dict.fromkeys(MOVES, 0)}
        | {"direction_0": 2.5, "direction_1": -1},
    ),
    (SWEEP, {"num": 1, "seed": 9, "noise": "paper", "category": "2) two"}),
]
"""All settings of each form, none at its default but the last sweep's and some directions."""


def make_gan(class_names: tuple[str, ...] = DIGITS, resolution: int = 16) -> Gan:
    """A generator with random weights."""
    stages = {8: 1, 16: 2, 128: 5}[resolution]
    config = GeneratorConfig(
        family="biggan",
        resolution=resolution,
        channels=2,
        widths=(1,) * (stages + 1),
        z_dim=2 * (stages + 1),
        num_classes=len(class_names),
        attention_resolution=0,
        class_dim=4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(config).eval()
    digest = hashlib.sha256(repr(config).encode() + repr(class_names).encode()).hexdigest()
    return Gan(generator, Description("tiny", class_names, "a test", "CC0"), digest)


class GatedGan(Gan):
    """Draws a picture, or a frame of a video, for each that is let through; notes the seeds."""

    def __init__(self) -> None:
        gan = make_gan()
        super().__init__(gan.generator, gan.description, gan.sha256)
        self.reset()

    def reset(self) -> None:
        """Be another model, which has drawn nothing."""
        self.sha256 = secrets.token_hex(32)
        self.drawn = 0
        self.seeds: list[int] = []
        self._gate = threading.Semaphore(0)

    def let_through(self, pictures: int) -> None:
        self._gate.release(pictures)

    def draw(self, pictures: Any) -> Iterator[Image.Image]:
        self.seeds.append(pictures[0].seed)
        return self._gated(super().draw(pictures))

    def draw_video(self, video: Any) -> Iterator[list[Image.Image]]:
        return self._gated(super().draw_video(video))

    def _gated(self, pictures: Iterator[Any]) -> Iterator[Any]:
        for picture in pictures:
            self._gate.acquire(timeout=20)
            self.drawn += 1
            yield picture


@contextlib.contextmanager
def running(models: Any, limit: int = 100, **options: Any) -> Iterator[tuple[str, Any]]:
    """A server of some models; yields its address and its renderer."""
    import uvicorn
    from gradio.utils import get_upload_folder

    from biggan.demo.renderer import Renderer
    from biggan.demo.server import build_app, server_config

    folder = tempfile.mkdtemp(dir=get_upload_folder())  # the session's, where Gradio looks
    renderer = Renderer(models, Path(folder), limit)
    listener = socket.create_server(("127.0.0.1", 0))
    proxies = options.pop("proxies", ())
    servers: list[uvicorn.Server] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:  # Gradio makes event loops of its own outside of one, and leaks them
        app = build_app(renderer, **{"users": {}, "per_minute": 0, **options})
        servers.append(uvicorn.Server(server_config(app, proxies)))
        loops.append(asyncio.get_running_loop())
        await servers[0].serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    with listener:
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", renderer
        finally:
            renderer.close()
            servers[0].should_exit = True
            thread.join(60)
            if thread.is_alive():  # a stack of its thread would only show that the loop waits
                pytest.fail(f"the server does not stop: {asyncio.all_tasks(loops[0])}")


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """Get a page, or send JSON; an underscore in a header's name stands for a hyphen."""
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **named})
    try:
        with OPENER.open(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def get(address: str, path: str) -> tuple[int, bytes]:
    return serving.get(address, path)


def post(address: str, path: str, body: Any) -> tuple[int, Any]:
    """Send JSON to one of Gradio's addresses."""
    status, answer = serving.get(address, f"/gradio_api/{path}", json.dumps(body))
    return status, json.loads(answer)


def call(address: str, endpoint: str, *values: Any) -> tuple[str, Any]:
    """Call Gradio's API, as it is documented for curl; returns the last event and its data."""
    status, answer = post(address, f"call/{endpoint}", {"data": values})
    assert status == 200, answer
    _, events = get(address, f"/gradio_api/call/{endpoint}/{answer['event_id']}")
    event, data = events.decode().strip().split("\n")[-2:]
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
