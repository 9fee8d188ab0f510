import contextlib
import warnings
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from biggan.data.dataset import fit_square, to_array
from biggan.data.decoding import CorruptImageError, decode_image, image_endings, strict_pillow
from data_forms import encode


def decode(data, channels):
    return decode_image(data, channels)[0]


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def drawn(mode, *pixels, palette=None):
    """An image of one row."""
    image = Image.new(mode, (len(pixels), 1))
    if palette is not None:
        image.putpalette(palette)
    for place, pixel in enumerate(pixels):
        image.putpixel((place, 0), pixel)
    return image


def orientation(turned):
    """EXIF data with the side that is up: 6 means to rotate by 90 degrees to the right."""
    exif = Image.Exif()
    exif[0x0112] = turned
    return exif


def png_info(xmp):
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    return info


PIXELS = noise(5, 7, 3)
COLOUR, GREY = Image.fromarray(PIXELS), Image.fromarray(noise(5, 7))
RED, BLUE = (Image.new("RGB", (1, 1), name) for name in ("red", "blue"))
RGBA = drawn("RGBA", (255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128))
PALETTE = drawn("P", 0, 1, palette=[10, 20, 30, 40, 50, 60])
KEYED = drawn("RGB", (1, 2, 3), (4, 5, 6))
LEVELS = Image.fromarray(np.array([[0, 129, 128 * 257, 65535]], np.uint16))
XMP = '<x tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    ("image", "options", "pixels"),
    [
        (COLOUR, {}, PIXELS),
        (GREY, {}, noise(5, 7)),
        (COLOUR, {"channels": 1}, np.asarray(COLOUR.convert("L"))),
        (GREY, {"channels": 3}, np.asarray(GREY.convert("RGB"))),
        # Transparency is laid on white.
        (RGBA, {}, [[[255, 0, 0], [255] * 3, [127] * 3]]),
        (RGBA.convert("LA"), {"channels": 1}, [[76, 255, 127]]),
        (PALETTE, {}, [[[10, 20, 30], [40, 50, 60]]]),
        (PALETTE, {"transparency": 0}, [[[255] * 3, [40, 50, 60]]]),
        (PALETTE, {"transparency": b"\x00\xff"}, [[[255] * 3, [40, 50, 60]]]),
        (KEYED, {"transparency": (1, 2, 3)}, [[[255] * 3, [4, 5, 6]]]),
        # 16 bits are scaled and not clipped.
        *[
            (LEVELS, {"kind": kind, "channels": 1}, [[0, 1, 128, 255]])
            for kind in ("PNG", "TIFF", "PPM")
        ],
        (Image.new("1", (1, 1), 1), {"channels": 3}, [[[255] * 3]]),
        # A photo on its side is put upright.
        (COLOUR, {"exif": orientation(6)}, np.rot90(PIXELS, -1)),
        (COLOUR, {"pnginfo": png_info(XMP)}, np.rot90(PIXELS, -1)),
        # The first frame of an animation is the image.
        (RED, {"kind": "GIF", "save_all": True, "append_images": [BLUE]}, [[[255, 0, 0]]]),
    ],
)
def test_pixels_of_every_kind_become_8_bits(image, options, pixels):
    options = {"channels": 1 if image.mode == "L" else 3, "kind": "PNG"} | options
    channels, kind = options.pop("channels"), options.pop("kind")
    decoded = decode(encode(image, kind, **options), channels)
    assert decoded.mode == ("L" if channels == 1 else "RGB")
    np.testing.assert_array_equal(np.asarray(decoded), pixels)


@pytest.mark.parametrize(
    ("image", "kind", "channels", "pixel"),
    [
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", 3, (255, 0, 0)),
        (Image.new("LAB", (1, 1), (255, 128, 128)), "TIFF", 3, (255, 255, 255)),
        (Image.new("LAB", (1, 1), (255, 128, 128)), "TIFF", 1, (255,)),
    ],
)
def test_other_colours_become_screen_colours(image, kind, channels, pixel):
    found = np.asarray(decode(encode(image, kind), channels)).reshape(-1, channels)
    assert abs(found[-1].astype(int) - pixel).max() < 16


def test_damaged_exif_data_do_not_spoil_a_photo():
    exif = orientation(6)
    exif[0x010F] = "the maker"
    # The text now stands where a number should be, on which Pillow's rotation raises.
    damaged = exif.tobytes().replace(b"\x01\x0f", b"\x01\x02")
    with strict_pillow():
        for data in (damaged, b"Exif\x00\x00MM\x00*\x00\x00\xff\xff"):
            decoded = decode(encode(Image.new("RGB", (8, 4)), "JPEG", exif=data), 3)
            assert sorted(decoded.size) == [4, 8]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_a_truncated_file_is_corrupt_whatever_pillow_is_set_to(kind, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(Image.fromarray(noise(64, 64, 3)), kind)
    with strict_pillow(), pytest.raises(CorruptImageError, match=r"."):
        decode(data[: len(data) // 2], 3)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def png_chunk(kind, content):
    checksum = zlib.crc32(kind + content).to_bytes(4)
    return len(content).to_bytes(4) + kind + content + checksum


def wide_colour(levels):
    """A PNG of one row with 16 bits a channel, which Pillow does not write; levels (W, 3)."""
    header = len(levels).to_bytes(4) + (1).to_bytes(4) + bytes([16, 2, 0, 0, 0])
    row = b"\0" + np.asarray(levels, ">u2").tobytes()
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


DARK = wide_colour([[0, 100, 4095]])


@pytest.mark.parametrize(
    ("data", "white", "reason"),
    [
        (b"", 65535, "the file is empty"),
        (b"no picture", 65535, "not in an image format that Pillow reads"),
        (b"\x89PNG\r\n\x1a\n", 65535, "."),
        (b"\xff\xd8\xff\xe0", 65535, "."),
        # Pillow has Ghostscript draw what is in EPS: nothing is run to decode a file.
        (encode(RED, "EPS"), 65535, "not in an image format that Pillow reads"),
        (encode(Image.new("F", (2, 2)), "TIFF"), 65535, "floating-point"),
        (encode(Image.new("I", (1, 1), -1), "TIFF"), 65535, "no standard range: save the image"),
        (encode(Image.new("I", (1, 1), 65536), "TIFF"), 65535, "from 65536 to 65536 have no"),
        (DARK, 4095, "16 bits per channel, of which 12 are used: save"),
    ],
)
def test_what_is_no_image_or_has_no_range_is_corrupt(data, white, reason):
    with pytest.raises(CorruptImageError, match=reason):
        decode_image(data, 3, white)


def test_random_damage_is_corrupt_or_decodes_but_never_escapes():
    rng = np.random.default_rng(0)
    image = Image.fromarray(noise(16, 16, 3))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = np.frombuffer(encode(image, kind), np.uint8)
        for _ in range(30):
            data = whole.copy()
            data[rng.integers(0, len(data), 8)] = rng.integers(0, 256, 8)
            try:
                with strict_pillow():
                    assert decode(data.tobytes(), 3).mode == "RGB"
            except CorruptImageError:
                pass


@pytest.mark.parametrize("limit", [99, 30])
def test_an_image_of_too_many_pixels_is_corrupt_and_silent(limit, monkeypatch):
    data = encode(Image.new("L", (10, 10)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # Pillow warns at 99, raises at 30
    with strict_pillow(), pytest.raises(CorruptImageError, match="pixels.*: reduce the image"):
        decode(data, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(data, 1).size == (10, 10)


def inverted(compression):
    return {"tiffinfo": {262: 0}, "compression": compression}  # PhotometricInterpretation


@pytest.mark.parametrize(
    ("levels", "kind", "options", "white", "scaled", "brightest"),
    [
        (np.uint16([0, 16, 2048, 4095]), "PNG", {}, 4095, [0, 1, 128, 255], 4095),
        (np.uint16([0, 16, 2048, 4095]), "TIFF", {}, 4095, [0, 1, 128, 255], 4095),
        (np.uint16([0, 16, 2048, 4095]), "PNG", {}, 65535, [0, 0, 8, 16], 4095),
        # A range that the file states is kept.
        (np.uint16([0, 32767]), "PPM", {}, 4095, [0, 127], None),
        (np.uint16([0, 65534]), "JPEG2000", {}, 4095, [0, 255], None),
        (np.int32([0, 1000, 65535]), "TIFF", {}, 65535, [0, 4, 255], 65535),
        (np.uint16([0, 65535]), "TIFF", inverted("raw"), 65535, [255, 0], 65535),
        (np.uint16([0, 65535]), "TIFF", inverted("tiff_lzw"), 65535, [255, 0], 65535),
        # A transparent level is white.
        (np.uint16([0, 300, 30000]), "PNG", {"transparency": 300}, 65535, [0, 255, 117], 30000),
    ],
)
def test_levels_are_scaled_by_their_range(levels, kind, options, white, scaled, brightest):
    data = encode(Image.fromarray(levels[np.newaxis]), kind, **options)
    image, found = decode_image(data, 1, white)
    assert (np.asarray(image).tolist(), found) == ([scaled], brightest)


def test_16_bit_colours_are_scaled_where_they_use_them():
    image, brightest = decode_image(wide_colour([[0, 32768, 65535]]), 3)
    assert image.getpixel((0, 0)) == (0, 128, 255)
    assert brightest == 65535
    assert decode_image(DARK, 3)[1] == 4095


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    ("kind", "start"),
    [
        (b"zTXt", b"XML:com.adobe.xmp\0\0"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
        (b"iCCP", b"profile\0\0"),
        (b"tEXt", b"plain\0"),
    ],
)
def test_long_texts_and_profiles_do_not_spoil_a_picture(kind, start, behind):
    image = Image.fromarray(noise(4, 4, 3))
    content = start + zlib.compress(bytes(100 << 20) if kind == b"zTXt" else bytes(2 << 20))
    data = encode(image)
    place = data.index(b"IEND") - 4 if behind else data.index(b"IDAT") - 4
    longer = data[:place] + png_chunk(kind, content) + data[place:]
    assert decode(longer, 3).tobytes() == image.tobytes()


def test_photos_are_known_by_every_ending_that_pillow_reads():
    read = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".jp2", ".tga", ".pgm"}
    if find_spec("PIL._avif"):
        read.add(".avif")
    assert read <= image_endings()
    for other in (".ico", ".psd", ".eps", ".pdf", ".mpg", ".h5", ".txt", ""):
        assert other not in image_endings()


def test_warnings_about_files_stay_off_the_terminal():
    tags = ImageFileDirectory_v2()
    tags[270] = "a description"
    data = encode(Image.new("L", (2, 2)), "TIFF", tiffinfo=tags)
    with warnings.catch_warnings(record=True) as caught, contextlib.suppress(CorruptImageError):
        warnings.simplefilter("always")
        with strict_pillow():
            decode(data[:-3], 1)
    assert caught == []


@pytest.mark.parametrize(
    ("shape", "middle"),
    [
        ((8, 8), np.s_[:]),
        ((8, 8, 3), np.s_[:]),
        ((8, 12, 3), np.s_[:, 2:10]),
        ((12, 8, 3), np.s_[2:10]),
        ((8, 11, 3), np.s_[:, 1:9]),
    ],
)
def test_the_middle_square_is_cut_out(shape, middle):
    pixels = noise(*shape)
    square = np.asarray(fit_square(Image.fromarray(pixels), 8))
    np.testing.assert_array_equal(square, pixels[middle])


def test_shrinking_does_not_alias_nor_use_what_is_cut_off():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255  # finer than the result can show: a mean grey, not stripes
    shrunk = np.asarray(fit_square(Image.fromarray(stripes), 12)).astype(int)
    assert abs(shrunk[2:-2, 2:-2] - 127.5).max() < 8
    sides = np.full((32, 64), 255, np.uint8)
    sides[:, 16:48] = 0
    assert np.asarray(fit_square(Image.fromarray(sides), 8)).max() == 0
    assert fit_square(Image.new("RGB", (1, 300)), 16).size == (16, 16)


@pytest.mark.parametrize(
    ("size", "resampling"), [(4, Image.Resampling.BICUBIC), (32, Image.Resampling.LANCZOS)]
)
def test_enlarging_is_bicubic_and_shrinking_is_lanczos(size, resampling):
    image = Image.fromarray(noise(size, size))
    expected = image.resize((16, 16), resampling)
    assert fit_square(image, 16).tobytes() == expected.tobytes()


def test_a_rectangle_is_padded_or_stretched():
    pixels = np.zeros((16, 48), np.uint8)
    pixels[:, :6], pixels[:, 42:] = 200, 100
    wide = Image.fromarray(pixels)
    padded = np.asarray(fit_square(wide, 48, "pad"))
    np.testing.assert_array_equal(padded[16:32], pixels)
    assert padded[:16].max() == padded[32:].max() == 0
    stretched = np.asarray(fit_square(wide, 16, "stretch"))
    assert (set(stretched[:, 0]), set(stretched[:, -1])) == ({204}, {102})  # Lanczos
    turned = wide.transpose(Image.Transpose.TRANSPOSE)
    upright, lying = (np.asarray(fit_square(i, 12, "pad")).astype(int) for i in (turned, wide))
    np.testing.assert_allclose(upright, lying.T, atol=1)


def test_arrays_have_the_channels_first():
    pixels = noise(4, 5, 3)
    np.testing.assert_array_equal(to_array(Image.fromarray(pixels)), pixels.transpose(2, 0, 1))
    grey = to_array(Image.fromarray(pixels[..., 0]))
    assert grey.shape == (1, 4, 5)
    assert grey.dtype == np.uint8
