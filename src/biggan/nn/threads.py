"""Chains of small operations on several cores.

Torch's threads meet after every operation. A chain of small ones on separate parts of the data need
not meet until its end: here each thread of Python takes whole parts, on a core of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch

_Part = TypeVar("_Part")


def in_threads(
    worker: Callable[[], Callable[[_Part], None]], parts: Iterable[_Part], *, summed: bool = False
) -> None:
    """Let as many threads as torch computes with take the parts between them, without gradients.

    Args:
        worker: Makes what works on one part after the other in a thread, with the memory for it.
            Called here: memory that other threads allocate is returned to the system each time.
        parts: In any order. Fewer than two for each thread are worked on here, by torch's threads.
        summed: Whether a worker adds up its parts. Then it depends on their number alone which ones
            a thread takes, so that the rounding of the sums is the same each time. Otherwise a
            thread takes the next part when it is done with one.
    """
    parts = list(parts)
    threads = torch.get_num_threads()
    # Fake tensors and counters of operations see their own thread alone.
    is_seen = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack()
    if len(parts) < 2 * threads or is_seen:
        threads = 1
    shared = iter(parts)
    queues = [iter(parts[i::threads]) if summed else shared for i in range(threads)]
    inference = torch.is_inference_mode_enabled()

    def run(work: Callable[[_Part], None], own: Iterator[_Part]) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            for part in own:
                work(part)

    workers = [worker() for _ in range(threads)]
    if threads == 1:
        run(workers[0], queues[0])
        return
    if (end_idle_threads := _openmp_pause()) is not None:
        end_idle_threads(1)
    pool = _pool(threads)
    for future in [pool.submit(run, *own) for own in zip(workers, queues, strict=True)]:
        future.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "biggan", _use_one_core)


def _use_one_core() -> None:
    torch.get_num_threads()  # a thread takes over the number of all at its first question
    torch.set_num_threads(1)


@cache
def _openmp_pause() -> Any:
    """What ends OpenMP's threads until the next operation that needs them; None if it is missing.

    Between operations they keep their cores busy for some milliseconds.
    """
    try:
        return ctypes.CDLL(None).omp_pause_resource_all
    except (AttributeError, OSError, TypeError):  # no OpenMP, or an old one; Windows
        return None
