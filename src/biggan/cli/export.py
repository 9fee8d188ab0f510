"""`biggan export`: a generator as a file that other software runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from biggan.atomic_write import make_folder
from biggan.cli.options import (
    check_writable,
    model_option,
    offline_option,
    share_processor,
)
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.export import Batch, Exported, Format, Truncation
    from biggan.gan import Gan


class _WordOr(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2
    """A number, or one of a few words that stand for what no number says.

    Args:
        number: The type of the number.
        words: The words, with what they are read as.
    """

    def __init__(self, number: type[int] | type[float], words: dict[str, str | None]) -> None:
        self.name = "|".join(["number", *words])
        self._number = number
        self._words = words

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str | None:
        """Read the option's text; its range is checked later."""
        if isinstance(value, str) and value.lower() in self._words:
            return self._words[value.lower()]
        try:
            return self._number(value)
        except ValueError:
            words = " or ".join(repr(word) for word in self._words)
            kind = "whole number" if self._number is int else "number"
            self.fail(f"{value!r} is neither a {kind} nor {words}", param, ctx)


@click.command
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@model_option
@offline_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "openvino"]),
    default="onnx",
    show_default=True,
    help="onnx writes the file OUT; openvino writes OUT.xml and OUT.bin.",
)
@click.option(
    "--truncation",
    type=_WordOr(float, {"none": None, "dynamic": "dynamic"}),
    default=0.4,
    show_default=True,
    help="Whose BatchNorm statistics the file holds: in (0, 1]; none for those of untruncated "
    "noise; dynamic to make the truncation an input.",
)
@click.option(
    "--batch",
    type=_WordOr(int, {"dynamic": "dynamic"}),
    default="dynamic",
    show_default=True,
    help="Images at once: so many, at most 1024, or dynamic for any number.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    out: Path,
    model: str | None,
    offline: bool,
    form: Format,
    truncation: Truncation,
    batch: Batch,
    force: bool,
    as_json: bool,
) -> None:
    """Write a model to the file OUT, for ONNX Runtime, OpenVINO and whatever else reads ONNX.

    The inputs are z (N, z_dim), noise truncated at the same truncation; class_weights
    (N, num_classes), a row for each image, 1 for its class and 0 for the others; and with
    --truncation dynamic the number truncation. The output images (N, C, R, R) is in [-1, 1]. The
    file is run and compared with PyTorch before it is put in its place. Needs
    biggan[export], or biggan[openvino] for openvino.

    \b
    Examples:
      biggan export fruits.onnx
      biggan export --model biggan-deep-256 --format onnx --truncation dynamic biggan.onnx
      biggan export --model runs/digits --format openvino --batch 1 digits.xml
    """
    share_processor()
    from biggan.export import check_request, export_onnx, export_openvino
    from biggan.gan import load

    if out.is_dir() or not out.name.strip("."):
        raise InputError(f"{out} is a folder: name the file to write in it")
    if form == "openvino" and out.suffix.lower() not in (".xml", ".onnx"):
        out = out.with_name(f"{out.name}.xml")
    check_request(form, out, truncation=truncation, batch=batch, force=force)
    check_writable(out.parent)
    if model is not None and _is_same_file(out, model):
        raise InputError(f"{out} is the model itself: choose another name")
    gan = load(model, offline=offline)
    make_folder(out.parent)
    export = export_onnx if form == "onnx" else export_openvino
    exported = export(gan, out, truncation=truncation, batch=batch, force=force, report=_report)
    if as_json:
        click.echo(json.dumps(_entry(exported, gan, truncation, batch), indent=2))
        return
    differs = f"images differ from PyTorch's by at most {exported.difference:.1g}"
    click.echo(f"{gan.name}, {gan.config.resolution} px, {form}; {differs}", err=True)
    click.echo(out)


def _entry(exported: Exported, gan: Gan, truncation: Truncation, batch: Batch) -> dict[str, Any]:
    return {
        "file": str(exported.path),
        "format": exported.format,
        "model": gan.name,
        "sha256": gan.sha256,
        "truncation": truncation,
        "batch": batch,
        "inputs": {name: list(shape) for name, shape in exported.inputs.items()},
        "difference": exported.difference,
    }


def _report(words: str) -> None:
    """Print what is being done, on a terminal."""
    if sys.stderr.isatty():
        click.echo(f"{words} ...", err=True)


def _is_same_file(out: Path, model: str) -> bool:
    try:
        return out.samefile(model)
    except (OSError, ValueError):  # one of them is not there, or the model is no path
        return False
