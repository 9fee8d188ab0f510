"""`biggan export`: a generator as a file that other software runs, or as a web page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from biggan.cli import options
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.export import Batch, Format, Storage, Truncation


@click.command
@click.argument("out", metavar="OUT", type=options.PATH)
@options.model
@options.offline
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "openvino", "web"]),
    default="onnx",
    help="onnx writes the file OUT; openvino writes OUT.xml and OUT.bin; web writes the folder "
    "OUT.",
)
@click.option(
    "--truncation",
    type=options.NumberOr(float, {"none": None, "dynamic": "dynamic"}),
    default=0.4,
    help="Truncation of the BatchNorm statistics, in (0, 1]; none for untruncated noise; dynamic "
    "for an input.",
)
@click.option(
    "--batch",
    type=options.NumberOr(int, {"dynamic": "dynamic"}),
    default="dynamic",
    help="Batch size, at most 1024, or dynamic for any.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    help="web: type of the stored weights; float16 halves the download.",
)
@click.option(
    "--runtime",
    metavar="DIR|cdn",
    type=options.SOURCE,
    help="web: onnxruntime-web's files, or cdn for a page that loads them from a CDN.  [default: "
    "fetched once with npm]",
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON description of the result.")
def command(
    out: Path,
    model: str | None,
    offline: bool,
    form: Format | Literal["web"],
    truncation: Truncation,
    batch: Batch,
    precision: Storage,
    runtime: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Export a model to ONNX or OpenVINO, or as a web page.

    Inputs: z (N, z_dim), noise of the same truncation; class_weights (N, num_classes), one row per
    image with 1 for its class and 0 for the others; with --truncation dynamic also the number
    truncation. Output: images (N, C, R, R) in [-1, 1]. The file is run and compared with PyTorch
    before it is stored. Needs biggan[export], or biggan[openvino] for openvino.

    --format web writes a page for any static host: the visitor's browser runs the generator, at
    any truncation.

    \b
    Examples:
      biggan export fruits.onnx
      biggan export --model biggan-deep-256 --format onnx --truncation dynamic biggan.onnx
      biggan export --model runs/digits --format openvino --batch 1 digits.xml
      biggan export --format web site && python -m http.server --directory site
    """
    options.set_environment()
    if form == "web":
        if given := options.given_option(["truncation", "batch"]):
            raise InputError(f"{given} is not for --format web: the page has all truncations")
        _export_page(out, model, offline, precision, runtime, force, as_json)
        return
    if given := options.given_option(["precision", "runtime"]):
        raise InputError(f"{given} is for --format web")
    from biggan.atomic_write import make_folder
    from biggan.export import check_request, export_generator
    from biggan.gan import load

    if out.is_dir() or not out.name.strip("."):
        raise InputError(f"{out} is a folder: give the path of a file")
    if form == "openvino" and out.suffix.lower() not in (".xml", ".onnx"):
        out = out.with_name(f"{out.name}.xml")
    check_request(form, out, truncation=truncation, batch=batch, force=force)
    options.check_writable(out.parent)
    if model is not None and options.is_same_file(out, model):
        raise InputError(f"{out} is the model: choose another name")
    gan = load(model, offline=offline)
    make_folder(out.parent)
    exported = export_generator(
        gan, out, form, truncation=truncation, batch=batch, force=force, report=options.report
    )
    if as_json:
        entry = {
            "file": str(out),
            "format": form,
            "model": gan.name,
            "sha256": gan.sha256,
            "truncation": truncation,
            "batch": batch,
            "inputs": {name: list(shape) for name, shape in exported.inputs.items()},
            "difference": exported.difference,
        }
        click.echo(json.dumps(entry, indent=2))
        return
    differs = f"images differ from PyTorch's by at most {exported.difference:.1g}"
    click.echo(f"{gan.name}, {gan.config.resolution} px, {form}; {differs}", err=True)
    click.echo(out)


def _export_page(
    out: Path,
    model: str | None,
    offline: bool,
    storage: Storage,
    runtime: str | None,
    force: bool,
    as_json: bool,
) -> None:
    from biggan.gan import load
    from biggan.web import check_page_request, export_page

    check_page_request(out, force=force)
    options.check_writable(out.absolute().parent)
    gan = load(model, offline=offline)
    page = export_page(
        gan,
        out,
        storage=storage,
        runtime=runtime,
        offline=offline,
        force=force,
        report=options.report,
    )
    if as_json:
        entry = {
            "folder": str(out),
            "format": "web",
            "model": gan.name,
            "sha256": gan.sha256,
            "precision": storage,
            "weights": page.weights,
            "runtime": page.runtime,
            "difference": page.difference,
        }
        click.echo(json.dumps(entry, indent=2))
        return
    click.echo(
        f"{gan.name}, {gan.config.resolution} px, {page.weights / 1e6:.1f} MB of weights, "
        f"{page.runtime / 1e6:.1f} MB of onnxruntime-web; images differ from PyTorch's by at most "
        f"{page.difference:.1g}",
        err=True,
    )
    click.echo(out)
    options.name_next("python", "-m", "http.server", "--directory", out)
