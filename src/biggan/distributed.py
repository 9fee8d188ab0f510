"""Several processes, one result: what training and sampling need to know of PyTorch's engine.

    torchrun --nproc-per-node 8 -m biggan train RECIPE --data DATA --out RUN
    torchrun --nproc-per-node 8 -m biggan sample -n 50000 --out FOLDER

The result does not depend on how many there are, but for rounding. In training every process draws
the random numbers of the whole global batch and takes its own share of every micro-batch;
BatchNorm's statistics are those of the micro-batch (`nn.synchronization`); gradients are averaged
by DistributedDataParallel while the backward pass still runs. The first process writes all files.
In sampling every process makes a run of the images (`own_range`) and writes them itself.

All processes must come by every function here that communicates, in the same order. What one of
them fails at, all fail at, and one of them says so (`raising_together`, `process_group`).

Without torchrun, or with one process, nothing here communicates or costs anything.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from biggan.errors import InputError
from biggan.nn import StandingBatchNorm2d

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_T = TypeVar("_T")
_Batch = TypeVar("_Batch", Tensor, NDArray[np.int64], NDArray[np.bool_])

_PATIENCE = timedelta(minutes=30)  # the first process may write files while the others wait

# The argument's name since torch 2.13, and the one before.
_NO_BROADCAST = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}

_LAST_QUESTIONS = 2.0  # seconds

_GONE = (  # how gloo says that the other end of a connection is no more
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "connection refused",
    "timed out",
)


@contextmanager
def process_group(device: torch.device, patience: timedelta = _PATIENCE) -> Iterator[torch.device]:
    """Join the other processes that torchrun started, if it did; leave them at the end.

    GPUs are joined for training; for results that meet on the CPU alone, join on the CPU and ask
    for `own_device` within. Processes wait for `patience` for one that is slower; one that dies is
    noticed at once. Of several that fail, one raises and the others exit quietly. Yields this
    process's device.

    Raises:
        InputError: There is no such device for every process, they cannot be reached, or one of
            them is gone.
    """
    if asked_processes() == 1:
        yield device
        return
    from torch.distributed.rendezvous import rendezvous  # not every build of torch has it

    device = own_device(device)
    # GPUs exchange over NCCL. Decisions about the run are on the CPU, where they wait for no GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    except (dist.DistError, ValueError) as error:  # ValueError: torchrun did not set all it sets
        raise InputError(
            f"the processes of this run cannot connect to each other: {error}; start them with "
            "torchrun, or unset WORLD_SIZE"
        ) from None
    logger = logging.getLogger("biggan")
    level = logger.level
    if not is_first():
        logger.setLevel(logging.ERROR)  # the first process says the same
    try:
        with _speaking_once(store):
            yield device
    finally:
        logger.setLevel(level)
        # What DistributedDataParallel wrapped holds the group, in cycles. Its threads must have
        # ended before the interpreter does: one that then asks for its lock ends the process.
        gc.collect()
        dist.destroy_process_group()


def asked_processes() -> int:
    """Processes that torchrun says it started by WORLD_SIZE, 1 without it."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"WORLD_SIZE in the environment is not a number of processes: {text!r}")
    return int(text)


def num_processes() -> int:
    """Processes that share this run."""
    return dist.get_world_size() if _is_distributed() else 1


def is_first() -> bool:
    """Whether this is the process that writes files and speaks to people."""
    return not _is_distributed() or dist.get_rank() == 0


def own_device(device: torch.device) -> torch.device:
    """This process's device: a GPU without a number means its own among those of the machine.

    There must be one for every process.
    """
    if device.type == "cpu" or asked_processes() == 1:
        return device
    if device.type != "cuda":
        raise InputError(
            f"several processes need CPUs or CUDA devices, not {device.type}: give --device cpu"
        )
    if ":" in str(device):
        raise InputError("each process uses its own GPU: give --device cuda without a number")
    index, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= there:
        raise InputError(
            f"there are more processes than GPUs: start {there} per machine, or give --device cpu"
        )
    own = torch.device("cuda", index)
    torch.cuda.set_device(own)
    return own


def check_shares(batch_size: int, accumulation: int) -> None:
    """Raise InputError unless every process gets as many images of a micro-batch as the others."""
    processes, images = num_processes(), batch_size // accumulation
    if images % processes:
        micro = f" in {accumulation} micro-batches of {images}" if accumulation > 1 else ""
        raise InputError(
            f"batch_size {batch_size}{micro} is not divisible by {processes} processes: choose a "
            f"number of processes that divides {images}, or another batch_size or accumulation"
        )


def own_range(size: int) -> range:
    """This process's part of so many things, numbered from 0.

    The parts are in the order of the processes and differ in size by one at most.
    """
    rank, processes = (dist.get_rank(), dist.get_world_size()) if _is_distributed() else (0, 1)
    return range(size * rank // processes, size * (rank + 1) // processes)


def own_share(batch: _Batch, micro_batches: int = 1) -> _Batch:
    """This process's part (`own_range`) of every micro-batch of a global batch, joined.

    The batch is the same on all processes. Micro-batch i is its i-th part, whatever their number.
    """
    if not _is_distributed():
        return batch
    size = len(batch) // micro_batches
    own = own_range(size)
    parts = batch.reshape(micro_batches, size, *batch.shape[1:])[:, own.start : own.stop]
    return parts.reshape(-1, *batch.shape[1:])


def synchronize_batch_norm(network: nn.Module) -> None:
    """Let every BatchNorm of a network normalize over all processes, and of its later copies."""
    for layer in network.modules():
        if isinstance(layer, StandingBatchNorm2d):
            layer.synchronized = _is_distributed()


def averaging_gradients(network: nn.Module) -> nn.Module:
    """What to call instead of a network, for gradients that are averaged over all processes."""
    if not _is_distributed():
        return network
    # Buffers need no broadcast: power iteration sees the same weights everywhere, and BatchNorm
    # the same statistics.
    return DistributedDataParallel(
        network,
        gradient_as_bucket_view=True,
        **_NO_BROADCAST,  # type: ignore[arg-type]
    )


def hold_gradients(network: nn.Module) -> AbstractContextManager[None]:
    """Within this context, forward and backward passes add to this process's gradients alone.

    For all micro-batches but the last; `network` is what `averaging_gradients` returned.
    """
    if not isinstance(network, DistributedDataParallel):
        return nullcontext()
    return network.no_sync()


def on_any_process(flag: bool) -> bool:
    """Whether a flag is set on any process; the answer is the same on all."""
    if not _is_distributed():
        return flag
    flags = torch.tensor([int(flag)])
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags.item())


def averages(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars on a device, as numbers, averaged over all processes: waits for the device once."""
    values = torch.stack([value.detach().float() for value in metrics.values()])
    if _is_distributed():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return dict(zip(metrics, values.tolist(), strict=True))


def over_all_processes(values: Tensor, *, average: bool = False) -> Tensor:
    """The sum, or the average, of tensors that every process has its own of."""
    if not _is_distributed():
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / dist.get_world_size() if average else values


def gather(own: _T) -> list[_T]:
    """What every process has, process by process, on the first one; an empty list on the others."""
    if not _is_distributed():
        return [own]
    everything: list[Any] | None = [None] * dist.get_world_size() if is_first() else None
    dist.gather_object(own, everything)
    return everything or []


def from_first(value: _T) -> _T:
    """The first process's value, on all."""
    if not _is_distributed():
        return value
    shared: list[_T] = [value]
    dist.broadcast_object_list(shared)
    return shared[0]


@contextmanager
def raising_together() -> Iterator[None]:
    """If one process raises InputError inside this block, every process raises it at the end.

    Otherwise a process that fails alone, such as the first one at a full disk, would leave the
    others waiting.
    """
    message: str | None = None
    try:
        yield
    except InputError as error:
        if not _is_distributed():
            raise
        message = str(error)
    if message := next(filter(None, _of_all_processes(message)), None):
        raise InputError(message)


def check_same(value: object, mistake: str) -> None:
    """Raise InputError(mistake) on all processes if they have different values."""
    if any(other != value for other in _of_all_processes(value)):
        raise InputError(mistake)


def _of_all_processes(value: _T) -> list[_T]:
    if not _is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def _speaking_once(store: Store) -> Iterator[None]:
    """Of all processes that fail, the first raises its error and the others exit quietly."""
    try:
        yield
    except Exception as error:
        signs = _GONE if isinstance(error, RuntimeError) else ()
        is_lost = isinstance(error, dist.DistError) or any(s in str(error).lower() for s in signs)
        speaks = True
        with suppress(RuntimeError):  # the process that kept the store is gone
            speaks = store.add("failures", 1) == 1
        if is_first() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            # Keep the store for those that fail at the same time; torchrun's own outlives them.
            deadline = time.monotonic() + _LAST_QUESTIONS
            while store.add("failures", 0) < num_processes() and time.monotonic() < deadline:
                time.sleep(0.01)
        if not speaks:
            raise SystemExit(2 if is_lost or isinstance(error, InputError) else 1) from None
        if is_lost:
            raise InputError(
                "another process of this run failed, so all stop; run the same command again"
            ) from None
        raise
