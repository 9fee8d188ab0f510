"""Runs a function in several processes that are joined as torchrun joins them."""

import multiprocessing
import os
import pickle
import socket
from contextlib import nullcontext

import torch

from biggan.distributed import process_group

TIMEOUT = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(function, processes, *arguments):
    """Begin `function(rank, *arguments)` in so many processes, whose environment is torchrun's."""
    # Their common parent imports torch once, and has no threads that a fork would cut off.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["biggan.training", "torch._dynamo"])
    port, started = free_port(), []
    for rank in range(processes):
        given = (function, rank, processes, port, arguments)
        process = context.Process(target=_as_torchrun, args=given, daemon=True)
        process.start()
        started.append(process)
    return started


def _as_torchrun(function, rank, processes, port, arguments):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    function(rank, *arguments)


def launch(function, processes, *arguments, joined=True):
    """Call `function(*arguments)` in so many processes at once.

    Args:
        function: Of a module's top level, so that another process can find it.
        processes: How many.
        arguments: The same for all.
        joined: Whether they have joined already; if not, the function is to see to it.

    Returns:
        What it returned, process by process; the exit status where it raised SystemExit.
    """
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(processes)]
    started = start(_member, processes, function, arguments, joined, [end for _, end in pipes])
    for _, other_end in pipes:
        other_end.close()  # so that the end of the process is the end of the pipe
    try:
        return [_receive(end, rank) for rank, (end, _) in enumerate(pipes)]
    finally:
        for process in started:
            process.kill()
            process.join()


def _receive(end, rank):
    assert end.poll(TIMEOUT), f"process {rank} gives no answer"
    try:
        return pickle.loads(end.recv_bytes())
    except EOFError:
        raise AssertionError(f"process {rank} died") from None


def _member(rank, function, arguments, joined, ends):
    for other, end in enumerate(ends):
        if other != rank:
            end.close()
    try:
        with process_group(torch.device("cpu")) if joined else nullcontext():
            result = function(*arguments)
    except SystemExit as stop:
        result = stop.code
    # Plain: torch's own way shares memory with a process that ends.
    ends[rank].send_bytes(pickle.dumps(result))
