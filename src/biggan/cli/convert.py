"""`biggan convert`: weights of any known format, as one file of ours."""

from __future__ import annotations

from pathlib import Path

import click

from biggan.cli import options
from biggan.errors import InputError


@click.command
@click.argument("source", metavar="SOURCE")
@click.argument("out", metavar="OUT.safetensors", type=options.FILE)
@click.option(
    "--bn-eps",
    type=float,
    help="Epsilon of BatchNorm for ajbrock's files, which do not contain it.  [default: 1e-5]",
)
@click.option(
    "--sn-eps", type=float, help="Epsilon of spectral normalization, likewise.  [default: 1e-6]"
)
@click.option(
    "--off-grid",
    type=click.Choice(["linear", "hub"]),
    help="BatchNorm statistics between two recorded truncations: linear, or hub: as in the ports "
    "of DeepMind's modules.  [default: linear]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    help="Data type of the stored weights; float16 halves the file.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it contains another network.")
@options.offline
def command(
    source: str,
    out: Path,
    bn_eps: float | None,
    sn_eps: float | None,
    off_grid: str | None,
    precision: str,
    force: bool,
    offline: bool,
) -> None:
    """Convert weights of other software to one file.

    SOURCE is a generator or discriminator: a file or folder in any supported format, an address, or
    a published name. Formats are Hugging Face's pytorch_model.bin, ajbrock's G_ema.pth and D.pth,
    StudioGAN's and mmgeneration's .pth files, ivclab's biggan128-release.pt, and TF Hub modules or
    their .tar.gz. The format is detected from the contents. The converted model generates the same
    images.

    \b
    Examples:
      biggan convert biggan-deep-256/ biggan-deep-256.safetensors
      biggan convert biggan-128_2.tar.gz biggan-128.safetensors
      biggan convert D.pth discriminator.safetensors --sn-eps 1e-8
      biggan convert runs/pets pets.safetensors --precision float16
    """
    if out.suffix != ".safetensors":
        raise InputError(f"{out} must end in .safetensors")
    options.check_writable(out.parent)
    if options.is_same_file(out, source):
        raise InputError(f"{out} is the source: choose another name")

    import torch

    from biggan.atomic_write import make_folder
    from biggan.weights.files import save_network
    from biggan.weights.load import load_network, with_off_grid

    loaded = load_network(source, None, offline=offline, bn_eps=bn_eps, sn_eps=sn_eps)
    if off_grid is not None:
        if loaded.kind != "generator":
            raise InputError(f"--off-grid applies to generators, but {source} is a discriminator")
        loaded = with_off_grid(loaded, off_grid)  # type: ignore[arg-type]
    if out.exists() and not force and not _holds(out, loaded.sha256):
        raise InputError(f"{out} exists: choose another name, or replace it with --force")
    make_folder(out.parent)
    dtype = getattr(torch, precision)
    sha256 = save_network(out, loaded.network, loaded.description, dtype)
    size, source = loaded.network.config.resolution, loaded.description.source
    click.echo(f"{loaded.kind}, {size} px, {source}; sha256 {sha256}", err=True)
    click.echo(out)
    if loaded.kind == "generator":
        options.name_next("biggan", "sample", model=out)


def _holds(file: Path, sha256: str) -> bool:
    """Whether a file holds the network of this digest."""
    from biggan.weights.files import load_tensors

    try:
        return load_tensors(file)[2] == sha256
    except InputError:
        return False
