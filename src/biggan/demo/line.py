"""The line in which requests of programs wait for their pictures."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from fastapi import HTTPException, Request

_KEPT = 64 * 2**20  # bytes of pictures that are answered again without being drawn
_RETRY = 5  # seconds
_CLIENT_GONE = 499  # nobody reads it


@dataclass(frozen=True)
class Picture:
    """An answer.

    Attributes:
        png: The file.
        name: What to call it, without its ending.
    """

    png: bytes
    name: str


Draw = Callable[[Callable[[], bool]], Picture]
"""Makes a picture; to raise `AbandonedError` once the function that it is given says True."""


class AbandonedError(Exception):
    """Nobody waits for the picture any more."""


class Line:
    """Requests that wait: one is drawn at a time, the first that came.

    The page has a line of its own, Gradio's. Both draw with the same engine, which makes one batch
    at a time: they take turns by the picture, and the memory for making one is needed once.

    What was drawn lately is kept and answered at once. A client that goes away leaves the line, and
    what is being drawn for it ends with the picture at hand.

    Args:
        limit: Most requests that wait or are being drawn.

    Attributes:
        limit: Most requests that wait or are being drawn.
        length: How many do.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.length = 0
        self._turn = asyncio.Lock()  # first come, first served
        self._thread = ThreadPoolExecutor(1, "drawing")
        self._closed = Event()
        self._kept = _Kept()

    async def wait(self, request: Request, settings: Hashable, draw: Draw) -> Picture:
        """Wait for a picture, or for the client to go away.

        Args:
            request: Of the client, its body read.
            settings: All that the picture depends on.
            draw: Makes it, in the line's thread.

        Raises:
            HTTPException: The line is full, or nobody waits for this picture any more.
        """
        kept = self._kept.get(settings)
        if kept is not None:
            return kept
        if self.length >= self.limit:
            told = f"{self.length} requests wait, and no more are taken: try again in {_RETRY} s"
            raise HTTPException(503, told, {"Retry-After": str(_RETRY)})
        self.length += 1
        abandoned = Event()
        picture = asyncio.create_task(self._in_turn(settings, draw, abandoned))
        gone = asyncio.create_task(_until_gone(request))
        try:
            await asyncio.wait((picture, gone), return_when=asyncio.FIRST_COMPLETED)
            if not picture.done():
                raise HTTPException(_CLIENT_GONE)
            return picture.result()
        finally:
            abandoned.set()
            picture.cancel()
            gone.cancel()
            self.length -= 1

    def close(self) -> None:
        """Give up what waits and what is being drawn; returns at once."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _in_turn(self, settings: Hashable, draw: Draw, abandoned: Event) -> Picture:
        def is_over() -> bool:
            return abandoned.is_set() or self._closed.is_set()

        async with self._turn:
            picture = self._kept.get(settings)  # drawn for somebody before in the line
            if picture is None:
                loop = asyncio.get_running_loop()
                picture = await loop.run_in_executor(self._thread, draw, is_over)
                self._kept.put(settings, picture)
            return picture


class _Kept:
    """The pictures that were asked for last, as many as fit."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[Hashable, Picture] = OrderedDict()
        self._bytes = 0

    def get(self, settings: Hashable) -> Picture | None:
        if settings in self._pictures:
            self._pictures.move_to_end(settings)
        return self._pictures.get(settings)

    def put(self, settings: Hashable, picture: Picture) -> None:
        self._pictures[settings] = picture
        self._bytes += len(picture.png)
        while self._bytes > _KEPT:
            _, oldest = self._pictures.popitem(last=False)
            self._bytes -= len(oldest.png)


async def _until_gone(request: Request) -> None:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
