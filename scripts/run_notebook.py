"""Run a notebook from top to bottom and keep its small outputs in it.

    python scripts/run_notebook.py examples/biggan_demo.ipynb

What is kept is what a web site shows that runs nothing: pictures and text, without the widgets'
state, and without outputs over 150 kB. It is to be run again when the pictures have changed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

LARGEST = 150_000  # bytes of an output that is kept

_DROPPED = ("application/vnd.jupyter.widget-view+json", "image/jpeg")  # a PNG is beside each


def run(notebook: NotebookNode, seconds: int = 300) -> None:
    """Run a notebook in a folder of its own, into which it writes its files.

    Args:
        notebook: Gets the outputs.
        seconds: That a cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    with TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=seconds, resources=resources).execute()


def tidy(notebook: NotebookNode) -> None:
    """Remove from a notebook what differs from run to run, and what is large."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [kept for output in cell.outputs if (kept := _tidied(output))]


def _tidied(output: NotebookNode) -> NotebookNode | None:
    if "data" not in output:
        return None  # what was printed to a stream
    for kind in _DROPPED:
        output.data.pop(kind, None)
    if "execution_count" in output:
        output.execution_count = None
    return output if len(str(output.data)) <= LARGEST else None


def main() -> None:
    """Run the notebooks that are named."""
    for path in map(Path, sys.argv[1:]):
        notebook = nbformat.read(path, as_version=4)
        run(notebook)
        tidy(notebook)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
