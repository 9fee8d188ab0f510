"""A finished generator as it is run: folded once, then called for any noise, class and truncation.

    engine.py         what runs it, by name; on a CPU in PyTorch, with packed convolutions
    pytorch.py        PyTorch's other ways: CUDA graphs on a GPU, `torch.compile`
    openvino.py       OpenVINO on a CPU (the extra `biggan[openvino]`)
    measurements.py   which engine `biggan bench` found to be the fastest on this machine
    folded.py         the generator with all algebra done beforehand
    convolution.py    its convolutions, in the form that suits their size

The names are here, for the command line's help needs no torch.
"""

from __future__ import annotations

from typing import Literal, get_args

EngineName = Literal["auto", "pytorch", "openvino", "compile"]
"""What runs a network; `auto` for the fastest that was measured."""

Precision = Literal["float32", "bfloat16", "float16"]
"""Of convolutions and attention; noise, conditions and images are float32."""

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
