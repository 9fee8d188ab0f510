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

    gpus = map(torch.cuda.get_device_name, range(torch.cuda.device_count()))
    cuda = [f"GPU: {name}, CUDA {torch.version.cuda}" for name in gpus]
    mps = ["GPU: Apple (mps)"] if torch.backends.mps.is_available() else []
    lines = [
        f"biggan {__version__}",
        f"Python {platform.python_version()} on {platform.platform()}",
        f"CPU: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        *(cuda or mps or ["GPU: none"]),
    ]
    listed = importlib.metadata.requires("biggan") or []
    names = sorted(("extra ==" in line, re.split(r"[^\w.-]", line)[0]) for line in listed)
    for name in dict.fromkeys(name for _, name in names):  # the required ones first
        try:
            found = importlib.metadata.version(name)
            # torch itself names its build, such as +cu130.
            lines.append(f"{name} {torch.__version__ if name == 'torch' else found}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name} is not installed")
    return "\n".join(lines)
