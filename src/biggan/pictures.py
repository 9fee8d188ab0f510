"""What `Gan.sample` returns: PIL images that know their provenance, and a list that shows them."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

from PIL import Image

from biggan.atomic_write import make_folder
from biggan.errors import InputError, quoted
from biggan.images import make_grid, png_chunks, save_png, to_png
from biggan.provenance import GridProvenance, PngProvenance, Provenance, file_stem

_SMALL = 64  # up to this many pixels a side a notebook shows pictures enlarged


class Picture(Image.Image):
    """A PIL image whose provenance goes with it into PNG files.

    Copies and changed pictures are plain PIL images, without provenance.
    """

    provenance: PngProvenance | None = None

    @classmethod
    def of(cls, image: Image.Image, provenance: PngProvenance) -> Picture:
        """The same picture with provenance."""
        picture = cls()
        picture.__setstate__(image.__getstate__())
        picture.provenance = provenance
        return picture

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002
        """As of PIL; a PNG also gets the provenance, for `biggan sample --like`."""
        if self.provenance is not None:
            params.setdefault("pnginfo", png_chunks(self.provenance))  # of other formats, ignored
        super().save(fp, format, **params)


class Pictures(list[Image.Image]):
    """The list of PIL images that `Gan.sample` returns; a notebook shows the pictures."""

    def grid(self, columns: int = 5) -> Image.Image:
        """All pictures in one, row by row; its PNG files have the provenance of all."""
        grid = make_grid(self, min(columns, len(self)))
        found = (getattr(picture, "provenance", None) for picture in self)
        made = [provenance for provenance in found if isinstance(provenance, Provenance)]
        if len(made) < len(self):
            return grid
        return Picture.of(grid, GridProvenance(min(columns, len(self)), tuple(made)))

    def save(self, folder: str | Path) -> list[Path]:
        """Write a PNG for each picture, called by its class and settings; returns the paths.

        Raises:
            InputError: The folder cannot be written, or the name is that of a picture.
        """
        if Path(folder).suffix.lower() in Image.registered_extensions():
            name = quoted(str(folder))
            raise InputError(
                f"pictures are saved to a folder, not {name}: .grid().save({name}) writes one file"
            )
        paths = []
        make_folder(Path(folder))
        for number, picture in enumerate(self):
            made = getattr(picture, "provenance", None)
            name = file_stem(made) if made else f"picture-{number:04d}"
            paths.append(Path(folder, f"{name}.png"))
            save_png(picture, paths[-1], made)
        return paths

    def _repr_html_(self) -> str:
        shown = []
        for picture in self:
            contents = base64.b64encode(to_png(picture)).decode()
            side = 2 * picture.width if picture.width <= _SMALL else picture.width
            title = getattr(getattr(picture, "provenance", None), "class_name", None) or ""
            shown.append(
                f'<img src="data:image/png;base64,{contents}" title="{html.escape(title)}" '
                f'width="{side}" style="display:inline-block; margin:1px; '
                'image-rendering:pixelated">'
            )
        return "".join(shown)
