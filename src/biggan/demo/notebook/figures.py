"""Pictures, videos and messages in a notebook, as HTML that needs no file beside it."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from PIL import Image

from biggan.classes import class_choices
from biggan.demo.captions import column_heads, in_words
from biggan.demo.drawing import SheetRecipe
from biggan.gan import Gan
from biggan.images import to_png
from biggan.provenance import GridProvenance

_SMALL = 64  # up to this many pixels a side pictures are enlarged,
_WATCHABLE = 128  # by a whole number, to at most this many

_HEADS = (
    "display:grid; grid-auto-flow:column; grid-auto-columns:minmax(0,1fr); text-align:center; "
    "font-variant-numeric:tabular-nums; white-space:nowrap;"
)


def grid_width(gan: Gan) -> int:
    """Pixels of the screen across which most grids are shown: five pictures."""
    side = gan.config.resolution
    return 5 * side * _enlargement(side)


def shown_width(gan: Gan, picture: Image.Image) -> int:
    """Pixels of the screen across which a grid is shown, if there is room."""
    return picture.width * _enlargement(gan.config.resolution)


def figure(gan: Gan, recipe: SheetRecipe, picture: Image.Image) -> str:
    """A picture with the heads of its columns above and how to make it again below.

    The picture is a PNG with its recipe inside, also when it is saved from the browser.

    Args:
        gan: Its model.
        recipe: Of the picture.
        picture: A grid, complete or not.
    """
    width = f"width:100%; max-width:{shown_width(gan, picture)}px;"
    pixels = "image-rendering:pixelated;" if gan.config.resolution <= _SMALL else ""
    return (
        f'<div style="{_HEADS} {width}">{column_heads(recipe)}</div>'
        f'<img alt="{html.escape(in_words(recipe))}" style="{width} height:auto; {pixels}" '
        f'src="{_data(to_png(picture, recipe), "image/png")}">'
        f"<div>In Python: <code>{html.escape(python_call(gan, recipe))}</code></div>"
    )


def python_call(gan: Gan, recipe: SheetRecipe) -> str:
    """The expression that makes a picture again, for a `gan` that is the model."""
    entries = class_choices(gan.class_names)

    def entry(index: int | None) -> str:
        return repr(None if index is None else entries[index])

    if not isinstance(recipe, GridProvenance):
        return (
            f"gan.interpolate({entry(recipe.class_a)}, {entry(recipe.class_b)}, "
            f"steps={recipe.steps}, num={recipe.num}, truncation={recipe.truncation}, "
            f"seed_a={recipe.seed_a}, seed_b={recipe.seed_b})"
        )
    first = recipe.pictures[0]
    truncations = list(dict.fromkeys(picture.truncation for picture in recipe.pictures))
    call = f"gan.sample({entry(first.class_index)}, num={recipe.pictures[-1].index + 1}, "
    if len(truncations) == 1:
        return f"{call}truncation={first.truncation}, seed={first.seed})"
    return f"[{call}truncation=t, seed={first.seed}, noise={first.noise!r}) for t in {truncations}]"


def video_figure(file: Path) -> str:
    """A video that repeats for ever, an MP4 or a WebP."""
    about = "A looping video of the same paths, there and back"
    source = _data(file.read_bytes(), "video/mp4" if file.suffix == ".mp4" else "image/webp")
    style = "max-width:100%; height:auto;"
    if file.suffix == ".mp4":
        return (
            f'<video autoplay loop muted playsinline controls aria-label="{about}" '
            f'style="{style}" src="{source}"></video>'
        )
    return f'<img alt="{about}" style="{style}" src="{source}">'


def alert(text: str) -> str:
    """What went wrong."""
    return f'<p role="alert" style="color:var(--jp-error-color1,#c62828)">{html.escape(text)}</p>'


def note(text: str) -> str:
    """What went well."""
    return f'<p role="status">{html.escape(text)}</p>'


def _enlargement(side: int) -> int:
    return _WATCHABLE // side if side <= _SMALL else 1


def _data(contents: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(contents).decode()}"
