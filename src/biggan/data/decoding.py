"""From the bytes of an image file to 8-bit grey or colour pixels, or to a clear refusal.

Datasets from the wild hold half-downloaded files, palettes, transparency, 16-bit greys and photos
that lie on their side. All of that ends here: what leaves is a Pillow image in mode L or RGB.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFile, ImageOps

MODES = {1: "L", 3: "RGB"}  # by number of channels


class CorruptImageError(Exception):
    """An image file that cannot be read or decoded; the message says why."""


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Make Pillow refuse truncated files, and keep its warnings off the terminal.

    Both settings belong to the whole process, so this is entered once around a whole loading, by
    the thread that starts the workers, and not by the workers.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def decode_image(data: bytes, channels: int) -> Image.Image:
    """Decode a file: the first frame, upright, on white where it is transparent.

    Args:
        data: The whole file, in any format that Pillow reads.
        channels: 1 for grey, 3 for colour.

    Returns:
        A Pillow image in mode L or RGB.

    Raises:
        CorruptImageError: The file is damaged, no image, too large, or has floating-point pixels.
    """
    image = _load(data)
    # A photo with damaged EXIF data is still a photo, only of unknown orientation.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return _to_mode(image, MODES[channels])


def _load(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        limit = Image.MAX_IMAGE_PIXELS
        # Pillow only warns from here to twice the limit.
        if limit is not None and image.width * image.height > limit:
            raise CorruptImageError(f"{image.width}x{image.height} pixels are too many")
        image.load()
    except CorruptImageError:
        raise
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise CorruptImageError(str(error)) from error
    return image


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise CorruptImageError("floating-point pixels have no agreed range")
    if image.mode.startswith("I"):
        image = _from_16_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode == "LAB":
        image = image.convert("RGB")  # Pillow knows no direct way to grey
    return image if image.mode == mode else image.convert(mode)


def _from_16_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion to L clips at 255, which turns a 16-bit picture white. Mode I is
    # 32 bits wide, but the formats that give it to us (PNG, PGM) hold 16.
    levels = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
