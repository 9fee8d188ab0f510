"""`biggan report`: a training run on one page."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from biggan.cli.options import check_writable
from biggan.errors import InputError

_LOG = logging.getLogger("biggan.report")


@click.command
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page to write; RUN/report.html if left out.",
)
@click.option(
    "--compare",
    "others",
    metavar="RUN",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another run to draw beside it; may be repeated.",
)
@click.option(
    "--figures",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the figures as PNG files too.",
)
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Make pictures with the generators, to see how they take truncation: a second for digits, "
    "minutes for large networks, once for each generator.",
)
def command(
    run: Path, out: Path | None, others: tuple[Path, ...], figures: Path | None, measure: bool
) -> None:
    """Write what became of a training run, and why, as one HTML page.

    Curves and samples over time, evaluations, singular values, when collapse was called, how the
    generator takes truncation.

    \b
    Examples:
      biggan report runs/digits
      biggan report runs/digits --out digits.html --figures figures
      biggan report runs/ortho --compare runs/plain

    Works at any time, also while the run goes on.
    """
    from biggan.atomic_write import make_folder
    from biggan.reporting import measure_truncation, read_run, write_figures, write_report

    folders = [run, *others]
    records = []
    for folder in folders:
        _LOG.info("reading the logs of %s", folder)
        records.append(read_run(folder))
    page = out or run / "report.html"
    check_writable(page.parent)
    make_folder(page.parent)
    sweeps = []
    for folder, record in zip(folders, records, strict=True):
        sweep = None
        if measure:
            _LOG.info("measuring how the generator of %s takes truncation", folder)
            try:
                sweep = measure_truncation(folder)
            except InputError as error:  # the rest of the page is there all the same
                record.missing.append(f"the generator ({error})")
        sweeps.append(sweep)
    _LOG.info("drawing the page")
    write_report(records[0], page, records[1:], sweeps)
    click.echo(page)
    if figures is not None:
        _LOG.info("drawing the figures")
        for path in write_figures(records[0], figures, records[1:], sweeps):
            click.echo(path)
