"""Fine-tuning: training that starts from loaded weights, with other classes.

The architecture is the source's, the number of classes the data's. A run reads its sources once,
before its first step; from then on its checkpoints hold everything.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biggan.fine_tuning.freezing import FineTuningConfig
    from biggan.fine_tuning.shapes import fitted_to_source
    from biggan.fine_tuning.transfer import initialize

__all__ = ["FineTuningConfig", "fitted_to_source", "initialize"]
_MODULES = {"FineTuningConfig": "freezing", "fitted_to_source": "shapes", "initialize": "transfer"}


def __getattr__(name: str) -> Any:
    # When first used: a run from random weights needs no more than the recipe's table.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
