"""What a `Gan` returns: PIL images that know their provenance, and lists that show them."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

from PIL import Image

from biggan.atomic_write import make_folder
from biggan.errors import InputError, quoted
from biggan.images import make_grid, provenance_parameters, save_png, to_png
from biggan.provenance import (
    LatentProvenance,
    MorphProvenance,
    PngProvenance,
    Provenance,
    as_grid,
    file_stem,
)

_SMALL = 64  # up to this many pixels a side a notebook shows pictures enlarged


class Picture(Image.Image):
    """A PIL image whose provenance goes with it into PNG, JPEG, WebP and GIF files.

    `.copy()` and changed pictures are plain PIL images, without provenance. Pickles and deep copies
    keep it.
    """

    provenance: PngProvenance | None = None

    @classmethod
    def of(cls, image: Image.Image, provenance: PngProvenance) -> Picture:
        """The same picture with provenance."""
        picture = cls()
        picture.__setstate__([*Image.Image.__getstate__(image), provenance])
        return picture

    def __getstate__(self) -> list[Any]:
        return [*super().__getstate__(), self.provenance]

    def __setstate__(self, state: list[Any]) -> None:
        *image, self.provenance = state
        super().__setstate__(image)

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002
        """As of PIL; a PNG, JPEG, WebP or GIF also gets the provenance, for `read_provenance`.

        Other formats have no place for it. `biggan sample --like` makes the picture again.

        Raises:
            InputError: The provenance exceeds the 64 KiB of a JPEG's comment.
        """
        name = fp if isinstance(fp, str | os.PathLike) else getattr(fp, "name", "")
        ending = Image.registered_extensions().get(Path(str(name)).suffix.lower(), "")
        stored = provenance_parameters((format or ending).upper(), self.provenance)
        super().save(fp, format, **{**stored, **params})


class Pictures(list[Image.Image]):
    """The list of PIL images that `Gan.sample` returns; a notebook shows the pictures.

    `Gan.interpolate` returns one for each path.
    """

    def grid(self, columns: int = 5) -> Image.Image:
        """All pictures in one, row by row; its files have the provenance of all."""
        columns = min(columns, len(self))
        grid = make_grid(self, columns)
        found = [getattr(picture, "provenance", None) for picture in self]
        for kind in (Provenance, LatentProvenance):
            made = [provenance for provenance in found if isinstance(provenance, kind)]
            if len(made) == len(self):
                return Picture.of(grid, as_grid(columns, made))
        return grid

    def save(self, folder: str | Path) -> list[Path]:
        """Write a PNG for each picture, called by its class and settings; returns the paths.

        Raises:
            InputError: The folder cannot be written, or the name is that of a picture.
        """
        ending = Path(folder).suffix.lower()
        if ending == ".mp4" or ending in Image.registered_extensions():
            name = quoted(str(folder))
            remedy = f".grid().save({name}) writes one file"
            if ending in (".mp4", ".gif"):
                remedy = "biggan.video.save_video writes videos"
            raise InputError(f"pictures are saved to a folder, not {name}: {remedy}")
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


class Morph(list[Pictures]):
    """The list of rows that `Gan.interpolate` returns, a path each; a notebook shows them.

    Args:
        provenance: That of all paths.
        drawn: Their pictures, one path after the other.
        planned: The provenance of each picture.
    """

    def __init__(
        self,
        provenance: MorphProvenance,
        drawn: Iterable[Image.Image],
        planned: Iterable[LatentProvenance],
    ) -> None:
        pictures = map(Picture.of, drawn, planned)
        rows = (Pictures(islice(pictures, provenance.steps)) for _ in range(provenance.num))
        super().__init__(rows)
        self._provenance, self._drawn = provenance, self._pictures()

    def _pictures(self) -> Pictures:
        return Pictures(chain.from_iterable(self))

    def grid(self) -> Image.Image:
        """All pictures in one, a row for each path, as `biggan interpolate` writes it.

        Its files have the provenance of all paths, as long as the rows are as they were made.
        """
        pictures = self._pictures()
        if pictures != self._drawn:
            return pictures.grid(len(self[0]))
        return Picture.of(make_grid(pictures, self._provenance.steps), self._provenance)

    def save(self, folder: str | Path) -> list[Path]:
        """Write a PNG for each picture; see `Pictures.save`."""
        return self._pictures().save(folder)

    def _repr_html_(self) -> str:
        return "".join(f"<div>{row._repr_html_()}</div>" for row in self)
