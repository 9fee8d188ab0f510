"""What runs a finished generator: one name, several engines, the same pictures.

    pytorch    always there: packed convolutions on a CPU, CUDA graphs on a GPU (`pytorch.py`)
    compile    the same network through `torch.compile`, where a compiler is at hand
    openvino   the same network through OpenVINO on a CPU (the extra `biggan[openvino]`)

Every engine runs the folded generator (`models/folded.py`); `auto` takes what was measured to be
the fastest on this machine, and PyTorch where nothing was measured (`choice.py`).
"""

from biggan.engines.choice import build_engine, measure_engines
from biggan.engines.engine import Engine
from biggan.engines.pytorch import PyTorchEngine

__all__ = [
    "Engine",
    "PyTorchEngine",
    "build_engine",
    "measure_engines",
]
