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
    # Their common parent imports torch once, and has no threads that a fork would cut off.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["biggan.training", "torch._dynamo"])
    port = free_port()
    started, ends = [], []
    for rank in range(processes):
        end, other_end = context.Pipe(duplex=False)
        arguments_of_member = (function, rank, processes, port, arguments, joined, other_end)
        process = context.Process(target=_member, args=arguments_of_member, daemon=True)
        process.start()
        other_end.close()  # so that the end of the process is the end of the pipe
        started.append(process)
        ends.append(end)
    try:
        return [_receive(end, rank) for rank, end in enumerate(ends)]
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


def _member(function, rank, processes, port, arguments, joined, end):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        with process_group(torch.device("cpu")) if joined else nullcontext():
            result = function(*arguments)
    except SystemExit as stop:
        result = stop.code
    end.send_bytes(
        pickle.dumps(result)
    )  # plain: torch's own way shares memory with a process that ends
