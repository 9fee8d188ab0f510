"""`biggan report`: a training run on one page."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from biggan.cli import options
from biggan.errors import InputError

_LOG = logging.getLogger("biggan.report")


@click.command
@click.argument("run", metavar="RUN", type=options.PATH)
@click.option("--out", type=options.FILE, help="The HTML file.  [default: RUN/report.html]")
@click.option(
    "--compare",
    "others",
    metavar="RUN",
    multiple=True,
    type=options.PATH,
    help="Another run to compare with; repeatable.",
)
@click.option(
    "--figures", metavar="FOLDER", type=options.FOLDER, help="Also write the figures as PNG files."
)
@click.option(
    "--measure/--no-measure",
    default=True,
    help="Measure the effect of truncation on the generators' images: a second for digits, "
    "minutes for large networks, once per generator.",
)
def command(
    run: Path, out: Path | None, others: tuple[Path, ...], figures: Path | None, measure: bool
) -> None:
    """Write a report of a training run as one HTML page.

    It has curves and samples over time, evaluations, singular values, collapses, and the effect of
    truncation.

    \b
    Examples:
      biggan report runs/digits
      biggan report runs/digits --out digits.html --figures figures
      biggan report runs/ortho --compare runs/plain

    Works at any time, also during the run.
    """
    from biggan.atomic_write import make_folder
    from biggan.reporting import measure_truncation, read_run, write_figures, write_report

    page = out or run / "report.html"
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{page} must end in .html")
    for place in filter(None, (page.parent, figures)):
        options.check_writable(place)
    folders = [run, *others]
    records = []
    for folder in folders:
        _LOG.info("reading the logs of %s", folder)
        records.append(read_run(folder))
    make_folder(page.parent)
    for record in records if measure else ():
        _LOG.info("measuring the effect of truncation on the generator of %s", record.folder)
        try:
            record.sweep = measure_truncation(record.folder)
        except InputError as error:  # the rest of the page is there all the same
            record.missing.append(f"the generator ({error})")
    _LOG.info("drawing the page")
    write_report(records[0], page, records[1:])
    click.echo(page)
    if figures is not None:
        _LOG.info("drawing the figures")
        for path in write_figures(records[0], figures, records[1:]):
            click.echo(path)
    options.name_next("biggan", "demo", model=records[0].folder)
