"""`biggan --version --verbose`: what a bug report needs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re

from biggan._version import __version__


def describe() -> str:
    """One line per fact: versions of Python, the system and the dependencies; devices."""
    import torch

    lines = [
        f"biggan {__version__}",
        f"Python {platform.python_version()} on {platform.platform()}",
        f"CPU: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        *_devices(),
    ]
    for name in _dependencies():
        try:
            found = importlib.metadata.version(name)
            # torch itself names its build, such as +cu130.
            lines.append(f"{name} {torch.__version__ if name == 'torch' else found}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name} is not installed")
    return "\n".join(lines)


def _devices() -> list[str]:
    import torch

    cuda = [
        f"GPU: {torch.cuda.get_device_name(index)}, CUDA {torch.version.cuda}"
        for index in range(torch.cuda.device_count())
    ]
    mps = ["GPU: Apple (mps)"] if torch.backends.mps.is_available() else []
    return cuda or mps or ["GPU: none"]


def _dependencies() -> list[str]:
    """Names of all dependencies, the required ones first."""
    listed = importlib.metadata.requires("biggan") or []
    named = {re.match(r"[\w.-]+", line): "extra ==" in line for line in listed}
    names = [(extra, match[0]) for match, extra in named.items() if match]
    return list(dict.fromkeys(name for _, name in sorted(names)))
