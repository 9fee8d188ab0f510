"""The forms in Jupyter: DeepMind's Colab notebook of 2018, with the page's words and pictures.

    from biggan.demo.notebook import explore

    form = explore(gan)
    form                    # as the last line of a cell: controls, and a picture that follows them
    form.save("ten.png")    # with its recipe inside

Needs ipywidgets: `pip install 'biggan[notebook]'`. No Gradio here.
"""

from __future__ import annotations

from biggan.demo.forms import EXPLORE, SWEEP
from biggan.gan import Gan

try:
    from biggan.demo.notebook.live_form import LiveForm
    from biggan.demo.notebook.paths_form import PathsForm
except ModuleNotFoundError as error:
    if error.name != "ipywidgets":
        raise
    raise ModuleNotFoundError(
        "the forms need ipywidgets: pip install 'biggan[notebook]'", name=error.name
    ) from None

__all__ = ["LiveForm", "PathsForm", "explore", "interpolate", "sweep"]


def explore(gan: Gan) -> LiveForm:
    """Samples of one category, at most five a row.

    Args:
        gan: What makes them.
    """
    return LiveForm(gan, EXPLORE)


def interpolate(gan: Gan) -> PathsForm:
    """Paths from one category and seed to another, one a row, and a looping video of them.

    Args:
        gan: What makes them.
    """
    return PathsForm(gan)


def sweep(gan: Gan) -> LiveForm:
    """The same samples over falling truncations, as the paper's Figure 2.

    Args:
        gan: What makes them.
    """
    return LiveForm(gan, SWEEP)
