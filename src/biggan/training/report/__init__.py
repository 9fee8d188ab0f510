"""A run on one page: what became of it and why, its curves, its evaluations, its samples over time.

The page is one HTML file that needs nothing else. It is made of what the run's folder holds, at any
time, also while the run goes on or after it was killed: what is missing is left out and said so.

    logs      JSON lines to curves and events      record    all that a folder tells
    spikes    what a spike is                      history   what happened, in words
    spectra   singular values                      curves    losses, outputs, gradients
    samples   sheets, evaluations, truncation      comparison    several runs
    truncation    measures saturation              charts, drawing, palette, page    how it looks
"""

from biggan.training.report.record import RunRecord, read_run
from biggan.training.report.truncation import Sweep, measure_truncation
from biggan.training.report.writing import write_figures, write_report

__all__ = [
    "RunRecord",
    "Sweep",
    "measure_truncation",
    "read_run",
    "write_figures",
    "write_report",
]
