"""torch's layers, but for the random numbers that their constructors draw.

All values are set by `initialization.py` from one explicit generator, or come from a file. A
constructor that drew them too would move torch's global stream, and on the `meta` device, where a
network is laid out before a file fills it, would load a good part of torch's compiler to do so.
"""

from __future__ import annotations

from torch import nn


class Uninitialized:
    """Mixed into a layer: its constructor leaves the parameters as the memory was."""

    def reset_parameters(self) -> None:
        """Leave the values to `initialization.py`."""


class Embedding(Uninitialized, nn.Embedding):
    """`torch.nn.Embedding`, its values not yet set."""


class Linear(Uninitialized, nn.Linear):
    """`torch.nn.Linear`, its values not yet set."""
