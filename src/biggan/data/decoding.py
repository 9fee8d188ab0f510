"""From the bytes of an image file to 8-bit pixels of one size, or to a clear refusal.

Datasets hold half-downloaded files, palettes, transparency, 16-bit greys and rotated photos. All of
that ends here.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from biggan.data.dataset import MODES

WHITE = 2**16 - 1  # the level that becomes white, where pixels have more than 8 bits
MOST_BYTES = 2**30  # of an image file
_NOT_PHOTOS = frozenset({"ICNS", "ICO", "PSD", "XBM", "XPM"})  # icons, and documents with layers
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_XMP = b"iTXtXML:com.adobe.xmp\0\0"  # uncompressed; it may hold the orientation


class CorruptImageError(Exception):
    """An image file that cannot be read or decoded; the message is the reason, in one line."""

    def __init__(self, reason: str | Exception) -> None:
        super().__init__(one_line(reason) or type(reason).__name__)


def one_line(text: object) -> str:
    """The first 100 characters of somebody's text, in one line."""
    return " ".join(str(text).split())[:100]


@functools.cache
def image_formats() -> tuple[str, ...]:
    """The image formats that the installed Pillow reads.

    Pillow has no image/ type for data containers, films, and EPS, which it has Ghostscript run.
    """
    Image.init()
    return tuple(name for name in Image.OPEN if Image.MIME.get(name, "").startswith("image/"))


@functools.cache
def image_endings() -> frozenset[str]:
    """The endings of files that hold a photo or drawing, such as ".jpg"."""
    read = {*image_formats(), "MPO"} - _NOT_PHOTOS  # the reader of JPEG reads MPO
    return frozenset(end for end, name in Image.registered_extensions().items() if name in read)


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Make Pillow refuse truncated files, and keep its warnings off the terminal.

    The settings belong to the whole process: enter this once, before the workers start.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def decode_image(data: bytes, channels: int, white: int = WHITE) -> tuple[Image.Image, int | None]:
    """Decode a whole file: the first frame, upright, on white where it is transparent.

    `white` is the level that becomes white in files with more than 8 bits that do not state it.

    Returns:
        The image, in mode L or RGB; and the highest level in such a file, None for all others.

    Raises:
        CorruptImageError: The file is damaged, no image, too large, or its levels have no range.
    """
    try:
        image = open_image(data)
        limit = Image.MAX_IMAGE_PIXELS
        # Pillow only warns from here to twice the limit.
        if limit is not None and image.width * image.height > limit:
            raise CorruptImageError(
                f"{image.width}x{image.height} pixels are too many: reduce the image"
            )
        raw_mode = str(image.tile[0][3]) if image.tile else ""
        image.load()
        # A photo with damaged EXIF data is still a photo, only of unknown orientation.
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(image, in_place=True)
        scaled, brightest = _to_8_bits(image, raw_mode, white)
        return _to_mode(scaled, MODES[channels]), brightest
    except CorruptImageError:
        raise
    except Image.DecompressionBombError as error:
        raise CorruptImageError("too many pixels: reduce the image") from error
    except UnidentifiedImageError as error:  # its message names an object in memory
        reason = "not in an image format that Pillow reads" if data else "the file is empty"
        raise CorruptImageError(reason) from error
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise CorruptImageError(error) from error


def open_image(data: bytes) -> ImageFile.ImageFile:
    """Open a file with Pillow, which reads no more than its header."""
    return Image.open(io.BytesIO(_without_text(data)), formats=image_formats())


def _without_text(data: bytes) -> bytes | bytearray:
    """A PNG without texts and colour profile: Pillow refuses long ones, and none is needed."""
    if not data.startswith(_PNG):
        return data
    kept = bytearray(_PNG)
    place = len(_PNG)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        is_xmp = data.startswith(_XMP, place + 4) and end - place < ImageFile.SAFEBLOCK
        if is_xmp or data[place + 4 : place + 8] not in _PNG_TEXT:
            kept += data[place:end]
        place = end
    return kept


def _to_8_bits(
    image: ImageFile.ImageFile, raw_mode: str, white: int
) -> tuple[Image.Image, int | None]:
    if image.mode == "F":
        raise CorruptImageError(
            "floating-point pixels have no standard range: save the image with 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        return _grey_to_8_bits(image, raw_mode, white)
    if ";16" not in raw_mode:
        return image, None
    # Pillow has kept the upper 8 bits, too little where only the lower ones are used.
    if white < WHITE:
        raise CorruptImageError(
            f"16 bits per channel, of which {white.bit_length()} are used: save it with 8 bits"
        )
    colours = [band for band in image.getbands() if band not in ("A", "a", "X")]
    highest = max(int(np.asarray(image.getchannel(band)).max()) for band in colours)
    return image, (highest << 8) + 255


def _grey_to_8_bits(
    image: ImageFile.ImageFile, raw_mode: str, white: int
) -> tuple[Image.Image, int | None]:
    levels = image.convert("I")
    lowest, brightest = np.asarray(levels.getextrema()).tolist()
    if lowest < 0 or brightest > WHITE:
        raise CorruptImageError(
            f"levels from {lowest} to {brightest} have no standard range: save the image with 8 "
            "or 16 bits"
        )
    stated = "I;12" in raw_mode or image.format in ("PPM", "JPEG2000")
    if stated:  # Pillow has scaled the levels of the last two to all 16 bits
        white = 2**12 - 1 if "I;12" in raw_mode else WHITE
    # Pillow's own conversion to L clips at 255, which turns a 16-bit image white.
    table = np.minimum((255 * np.arange(WHITE + 1) + white // 2) // white, 255)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0:
        table = 255 - table  # white is 0, which Pillow handles with 8 bits only
    if "transparency" in image.info:
        table[image.info["transparency"]] = 255
    return levels.point(table.tolist(), "L"), None if stated else brightest


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == "LAB":
        image = image.convert("RGB")  # Pillow has no direct conversion to grey
    return image if image.mode == mode else image.convert(mode)
