"""The engines' names, apart from the engines: the shell's help needs no torch."""

from __future__ import annotations

from typing import Literal, get_args

EngineName = Literal["auto", "pytorch", "openvino", "compile"]
"""What runs a network; `auto` for the fastest that was measured."""

Precision = Literal["float32", "bfloat16", "float16"]
"""Of convolutions and attention; noise, conditions and images are float32."""

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
