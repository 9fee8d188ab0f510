"""Devices by the names that users give, and what to say when their memory does not suffice."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from biggan.errors import InputError, quoted

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

_REQUEST = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMGTP]iB)", re.IGNORECASE)
_UNITS = ("bytes", "kib", "mib", "gib", "tib", "pib")

# What a RuntimeError says where PyTorch has no exception of its own: CPU, MPS, CUDA's libraries.
_OUT_OF_MEMORY = ("can't allocate memory", "MPS backend out of memory", "STATUS_ALLOC_FAILED")


def find_device(name: str | int | torch.device | None) -> torch.device:
    """The device of a name such as "cpu", "cuda", "cuda:1" or "mps"; None for the best one.

    Nothing is allocated on it: it may be the device of another process.

    Raises:
        InputError: It is not on this machine.
    """
    if name is None:
        return best_device()
    accelerator = torch.accelerator.current_accelerator()  # the one that this build is for
    is_there = accelerator is not None and torch.accelerator.is_available()
    count = torch.accelerator.device_count() if is_there else 0
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        fault = "the name is unknown"
    else:
        if device.type == "cpu":
            return device
        if accelerator is None or device.type != accelerator.type:
            fault = f"PyTorch {torch.__version__} is not built for {device.type}"
        elif count == 0:
            fault = "there is no such hardware, or its driver is missing"
        elif (device.index or 0) < count:
            return device
        else:
            fault = f"this machine has {count}"
    available = ", ".join(["cpu", *(f"{accelerator}:{index}" for index in range(count))])
    raise InputError(f"there is no device {quoted(name)}: {fault}; available: {available}")


def best_device() -> torch.device:
    """The first accelerator, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices, by AMX or by AVX-512 faster than float32.

    Without either, PyTorch emulates it.
    """
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def total_memory(device: torch.device) -> int | None:
    """Bytes of a GPU, or those that this machine or its container has; None if it does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None  # Windows has no sysconf
    with suppress(OSError, ValueError):  # no such file, or "max"
        total = min(total, int(_CGROUP_LIMIT.read_text(encoding="ascii")))
    return total


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an allocation failed, in an exception or in the one during which it was raised."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY):
            return True
        error = error.__context__
    return False


def describe_out_of_memory(error: BaseException, device: torch.device) -> str:
    """Where memory ran out, how much was asked for and how much is free, as far as is known."""
    words = f"out of memory on {device}"
    asked = _REQUEST.search(str(error))
    if asked is not None:
        size = float(asked[1]) * 1024 ** _UNITS.index(asked[2].lower())
        words += f": {size / 2**30:.2f} GiB more is needed"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        words += f", {free / 2**30:.2f} of {total / 2**30:.2f} GiB are free"
    return words


def move(network: torch.nn.Module, device: torch.device, name: str) -> None:
    """Move a network, or raise InputError and leave it where it was."""
    tensors = [*network.parameters(), *network.buffers()]
    size = sum(tensor.nbytes for tensor in tensors) / 2**30
    before = tensors[0].device
    try:
        with naming_out_of_memory(
            device,
            f"the weights of {name} take {size:.2f} GiB: close other programs on the device, or "
            "choose another",
        ):
            network.to(device)
    except (InputError, RuntimeError) as error:
        network.to(before)
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"the device {str(device)!r} cannot be used: {reason}") from error


@contextmanager
def naming_out_of_memory(device: torch.device, advice: str) -> Iterator[None]:
    """Turn a failed allocation on a device within this block into one line with some advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"{describe_out_of_memory(error, device)}; {advice}") from error


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; the copy to a GPU waits for nothing and nothing waits for it."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    # From pageable memory it would wait until the GPU has done all that it was given before.
    return tensor.pin_memory().to(device, non_blocking=True)


def keep_freed_memory() -> None:
    """Let the C library keep what large tensors free, instead of handing it back to the system.

    Handed back, it is asked for again a moment later, and the system clears it page by page: at
    biggan-128 on two cores that is a tenth to a fifth of a training step. It holds for the whole
    process, so a program calls it and a library does not. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; Windows
        return
    mallopt(-4, 0)  # M_MMAP_MAX
    mallopt(-1, -1)  # M_TRIM_THRESHOLD: never
