"""The report of a run: one HTML page that needs nothing else, made of what the run's folder holds.

It works at any time, also while the run goes on or after it was killed: what is missing is named
and left out.
"""

from biggan.reporting.report import write_figures, write_report
from biggan.reporting.run import read_run
from biggan.reporting.truncation import measure_truncation

__all__ = ["measure_truncation", "read_run", "write_figures", "write_report"]
