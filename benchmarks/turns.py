"""Contenders in processes of their own, which take turns: each runs as its users run it.

In one process they would share the environment, the settings of malloc and the heap.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

Functions = dict[str, Callable[..., Any]]
_functions: Functions = {}


class Plan(NamedTuple):
    build: Callable[[], Functions]
    """A top-level function or a partial of one, called in the process. It may raise ImportError."""
    set_environment: Callable[[], object] = dict
    """Changes `os.environ` of the process, before torch is imported there."""


class Times(NamedTuple):
    """Seconds of a call, by the clock and of all cores."""

    wall: float
    processor: float


class Contender:
    """The functions of a plan, in a process that ends with this one."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name = name.strip()
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, context, _end_with_parent)
        with patch.dict(os.environ):
            plan.set_environment()
            self._run(_build, plan.build)

    def times(self, function: str, calls: int = 1) -> list[Times]:
        """Of each of several calls in a row, without arguments."""
        return self._run(_time, function, calls)

    def result(self, function: str, *arguments: Any) -> Tensor:
        """The tensor that a function returns."""
        return torch.from_numpy(self._run(_result, function, *arguments))

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self.pool.submit(function, *arguments).result()
        except Exception as error:
            error.add_note(f"in the process of {self.name}")
            raise


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent
    parent = multiprocessing.parent_process()
    Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _build(build: Callable[[], Functions]) -> None:
    _functions.update(build())


def _time(function: str, calls: int) -> list[Times]:
    times = []
    for _ in range(calls):
        start, used = time.perf_counter(), time.process_time()
        _functions[function]()
        times.append(Times(time.perf_counter() - start, time.process_time() - used))
    return times


def _result(function: str, *arguments: Any) -> Any:
    return _functions[function](*arguments).numpy()


@contextmanager
def running(plans: Mapping[str, Plan]) -> Iterator[dict[str, Contender]]:
    """The contenders by name; prints which are left out, for what they need is not installed."""
    contenders: dict[str, Contender] = {}
    with ExitStack() as pools:
        for name, plan in plans.items():
            try:
                contenders[name] = Contender(name, plan)
                pools.enter_context(contenders[name].pool)
            except ImportError as error:
                print(f"{name.strip()}: left out, {error}")
        yield contenders


def take_turns(
    contenders: Mapping[str, Contender], function: str, rounds: int, calls: int
) -> dict[str, list[float]]:
    """Wall seconds by contender: for each round the median of some calls in a row."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            taken = contender.times(function, calls)
            times[name].append(statistics.median(call.wall for call in taken))
    return times


def ratio(reference: list[float], taken: list[float]) -> float:
    """How many times faster, as the median of the rounds' ratios."""
    return statistics.median(r / t for r, t in zip(reference, taken, strict=True))
