"""`biggan directions`: directions of a model's noise that change one thing at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from biggan.cli import options
from biggan.errors import InputError

if TYPE_CHECKING:
    from biggan.directions import Method


@click.command
@click.argument("model", metavar="[MODEL]", required=False)
@options.offline
@click.option(
    "--method",
    type=click.Choice(["sefa", "pca"]),
    default="pca",
    help="sefa: eigenvectors of the layers' weights, at once. pca: principal components of what a "
    "layer makes.",
)
@click.option(
    "--layers",
    metavar="FIRST-LAST",
    help="The layers whose noise is moved, 0 for the linear one; all if left out. For sefa also "
    "those whose weights are taken.",
)
@click.option("-n", "--num", default=20, help="Number of directions.")
@click.option(
    "--activation",
    metavar="LAYER",
    default="linear",
    help="For pca: linear, blocks.0, blocks.1, ..., attention.",
)
@click.option("--samples", default=4000, help="For pca: noises that are drawn.")
@click.option(
    "--class",
    "class_",
    metavar="NAME|INDEX",
    help="For pca and the sheet: the class; the mean of all for pca if left out.",
)
@click.option("--truncation", type=options.TRUNCATION, default=0.5, help="Of the sheet's noise.")
@click.option("--seed", default=0, help="Of the noise.")
@click.option(
    "--name",
    "names",
    metavar="NUMBER=WORD",
    multiple=True,
    help="Name a direction; may be given several times.",
)
@click.option(
    "--out", type=options.FILE, default=Path("directions.safetensors"), help="The file to write."
)
@click.option(
    "--sheet",
    metavar="PNG",
    type=options.FILE,
    help="Draw a row of pictures for each direction, from -3 to 3.",
)
@options.device
@options.as_json
def command(
    model: str | None,
    offline: bool,
    method: Method,
    layers: str | None,
    num: int,
    activation: str,
    samples: int,
    class_: str | None,
    truncation: float | None,
    seed: int,
    names: tuple[str, ...],
    out: Path,
    sheet: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Find directions of a model's noise.

    MODEL is what --model is in biggan sample; the bundled fruits if left out.

    \b
    Examples:
      biggan directions --activation blocks.1 --class "red apple" --num 8 --sheet sheet.png
      biggan directions --method sefa --layers 0-1 --num 8 --sheet sheet.png
      biggan directions runs/pets --name 0=rotation --out pets-directions.safetensors
    """
    options.set_environment()
    for file in (out, *([sheet] if sheet else [])):
        options.check_writable(file.parent)
    if out.suffix.lower() != ".safetensors":
        raise InputError(f"{out} must end in .safetensors")
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise InputError(f"{sheet} must end in .png")
    if method == "sefa" and (option := options.given_option(("activation", "samples"))):
        raise InputError(f"--method sefa draws no samples: omit {option}")
    unused = ("class_", "seed", "truncation") if method == "sefa" else ("truncation",)
    if sheet is None and (option := options.given_option(unused)):
        raise InputError(f"{option} is for the sheet: give --sheet, or omit it")
    chosen, named = _range(layers), dict(_named(name) for name in names)
    from biggan.atomic_write import make_folder
    from biggan.directions import (
        draw_sheet,
        find_directions,
        load_directions,
        save_directions,
        with_names,
    )
    from biggan.images import save_png

    options.check_replaceable(out, load_directions)
    gan = options.load_gan(model, device=device, offline=offline, engine="pytorch")
    found = find_directions(
        gan,
        method,
        num,
        layers=chosen,
        activation=activation,
        samples=samples,
        class_=class_,
        seed=seed,
    )
    found = with_names(found, named)
    drawn = None if sheet is None else draw_sheet(gan, found, class_, truncation, seed)
    make_folder(out.parent)
    save_directions(found, out)
    if drawn is not None and sheet is not None:
        make_folder(sheet.parent)
        save_png(drawn, sheet)
    if as_json:
        rows = zip(found.names, found.strengths.tolist(), strict=True)
        click.echo(
            json.dumps(
                {
                    "file": str(out),
                    "sheet": None if sheet is None else str(sheet),
                    "layers": found.layers,
                    "directions": [{"name": name, "strength": value} for name, value in rows],
                },
                indent=2,
            )
        )
        return
    click.echo("\n".join(map(str, [out, *([sheet] if sheet else [])])))
    shown = () if class_ is None else ("--class", class_)
    options.name_next("biggan", "sample", *shown, "--direction", f"{out}:0=2", model=model)


def _range(text: str | None) -> range | None:
    """Layers written as "2" or "0-3"."""
    if text is None:
        return None
    first, _, last = text.partition("-")
    try:
        return range(int(first), int(last or first) + 1)
    except ValueError:
        raise InputError(f"--layers is a number or a range such as 0-3, not {text!r}") from None


def _named(text: str) -> tuple[int, str]:
    """A direction's number and its name."""
    number, _, name = text.partition("=")
    if not number.isdecimal() or not name:
        raise InputError(f"--name is a number, = and a word, such as 0=rotation, not {text!r}")
    return int(number), name
