"""`biggan report`: a training run on one page."""

from __future__ import annotations

from pathlib import Path

import click

from biggan.atomic_write import make_folder
from biggan.cli.options import check_writable


@click.command
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page to write; RUN/report.html if left out.",
)
def command(run: Path, out: Path | None) -> None:
    """Write a training run's curves, evaluations and samples as one HTML page.

    \b
    Examples:
      biggan report runs/digits
      biggan report runs/digits --out digits.html

    Works at any time, also while the run goes on: it only reads the run's folder.
    """
    from biggan.training.report import read_run, write_report

    record = read_run(run)
    page = out or run / "report.html"
    check_writable(page.parent)
    make_folder(page.parent)
    write_report(record, page)
    click.echo(page)
