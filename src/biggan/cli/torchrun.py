"""`biggan sample` in several processes of torchrun."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from biggan.cli import options
from biggan.cli.sample import write_pictures
from biggan.devices import find_device
from biggan.distributed import (
    gather,
    is_first,
    num_processes,
    own_device,
    own_range,
    process_group,
    raising_together,
)
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.cli.sample import Picture, Plan

_PATIENCE = timedelta(days=1)  # the fastest process waits for the slowest


def sample_together(
    plan: Callable[[str | None], Plan], device: str | None
) -> tuple[list[Picture], list[Path]]:
    """Make this process's part of the pictures, beside the other processes of torchrun.

    Returns:
        What was planned, and the files of all processes, once all are there; no files on the other
        processes than the first.
    """
    # Joined on the CPU even if the networks are on GPUs: pictures meet there, if they meet at all.
    with process_group(torch.device("cpu"), _PATIENCE):
        signal.signal(signal.SIGTERM, _on_sigterm)
        with raising_together():
            gan, planned, output = plan(str(own_device(find_device(device))))
        part = own_range(len(planned))
        own_planned = planned[part.start : part.stop]
        bar = {"desc": f"process 1 of {num_processes()}", "disable": None if is_first() else True}
        pictures = options.progress(gan.draw(own_planned), len(part), "picture", **bar)
        if output.columns is None:
            written = gather(write_pictures(pictures, own_planned, output))
            return planned, [file for files in written for file in files]
        everything = [picture for part in gather(list(pictures)) for picture in part]
        return planned, write_pictures(everything, planned, output) if is_first() else []


def _on_sigterm(_number: int, _frame: object) -> None:
    """What torchrun sends to the other processes when one has died, and to all when it is ended."""
    raise InputError(
        "torchrun stopped all processes because one failed or the run was stopped; run the same "
        "command again"
    )
