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
from biggan.data.decoding import (
    CorruptImageError,
    decode_image,
    image_endings,
    strict_pillow,
)
from data_forms import encode


def decode(data, channels):
    return decode_image(data, channels).image


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_pixels_arrive_unchanged(channels):
    pixels = noise(5, 7, 3) if channels == 3 else noise(5, 7)
    image = decode(encode(Image.fromarray(pixels)), channels)
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_colour_becomes_grey_and_grey_becomes_colour():
    colour = Image.fromarray(noise(4, 4, 3))
    assert decode(encode(colour), 1).tobytes() == colour.convert("L").tobytes()
    grey = decode(encode(Image.fromarray(noise(4, 4))), 3)
    assert grey.mode == "RGB"
    assert grey.getpixel((1, 1)) == (int(noise(4, 4)[1, 1]),) * 3


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    decoded = decode(encode(image), 3)
    assert [decoded.getpixel((x, 0)) for x in range(3)] == [
        (255, 0, 0),
        (255, 255, 255),
        (127, 127, 127),
    ]
    assert decode(encode(image.convert("LA")), 1).getpixel((1, 0)) == 255


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    opaque = decode(encode(image), 3)
    assert [opaque.getpixel((x, 0)) for x in range(2)] == [(10, 20, 30), (40, 50, 60)]
    for options in ({"transparency": 0}, {"transparency": b"\x00\xff"}):
        decoded = decode(encode(image, **options), 3)
        assert [decoded.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (40, 50, 60)]


def test_a_transparent_colour_is_white():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (4, 5, 6))
    decoded = decode(encode(image, transparency=(1, 2, 3)), 3)
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (4, 5, 6)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind):
    levels = np.array([[0, 129, 128 * 257, 65535]], np.uint16)
    decoded = decode(encode(Image.fromarray(levels), kind), 1)
    assert np.asarray(decoded).tolist() == [[0, 1, 128, 255]]


def test_one_bit_is_black_and_white():
    decoded = decode(encode(Image.new("1", (1, 1), 1)), 3)
    assert decoded.getpixel((0, 0)) == (255, 255, 255)


def test_printing_colours_become_screen_colours():
    data = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = decode(data, 3).getpixel((4, 4))
    assert red > 240
    assert max(green, blue) < 15


def test_a_photo_on_its_side_is_put_upright():
    pixels = noise(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to the right
    decoded = decode(encode(Image.fromarray(pixels), exif=exif), 3)
    np.testing.assert_array_equal(np.asarray(decoded), np.rot90(pixels, -1))


def test_damaged_exif_data_do_not_spoil_a_photo():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "the maker"
    # The text now stands where a number should be, on which Pillow's rotation raises.
    damaged = exif.tobytes().replace(b"\x01\x0f", b"\x01\x02")
    with strict_pillow():
        for data in (damaged, b"Exif\x00\x00MM\x00*\x00\x00\xff\xff"):
            decoded = decode(encode(Image.new("RGB", (8, 4)), "JPEG", exif=data), 3)
            assert sorted(decoded.size) == [4, 8]


def test_the_first_frame_of_an_animation_is_the_image():
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, 3).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_a_truncated_file_is_corrupt_whatever_pillow_is_set_to(kind, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(Image.fromarray(noise(64, 64, 3)), kind)
    with strict_pillow(), pytest.raises(CorruptImageError, match=r"."):
        decode(data[: len(data) // 2], 3)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_corrupt(data):
    with pytest.raises(CorruptImageError):
        decode(data, 3)


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


@pytest.mark.parametrize("channels", [1, 3])
def test_cielab_becomes_screen_colours(channels):
    decoded = decode(encode(Image.new("LAB", (1, 1), (255, 128, 128)), "TIFF"), channels)
    assert np.asarray(decoded).min() > 250


def test_pixels_without_a_range_are_corrupt():
    with pytest.raises(CorruptImageError, match="floating-point"):
        decode(encode(Image.new("F", (2, 2)), "TIFF"), 1)


def scaled(levels, kind, white, **options):
    data = encode(Image.fromarray(np.array([levels])), kind, **options)
    image, brightest = decode_image(data, 1, white)
    return np.asarray(image).tolist(), brightest


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_levels_are_scaled_by_the_range_that_is_given(kind):
    levels = np.array([0, 16, 2048, 4095], np.uint16)
    assert scaled(levels, kind, 4095) == ([[0, 1, 128, 255]], 4095)
    assert scaled(levels, kind, 65535) == ([[0, 0, 8, 16]], 4095)


def test_a_range_that_the_file_states_is_kept():
    levels = np.array([0, 65535 // 2], np.uint16)
    assert scaled(levels, "PPM", 4095) == ([[0, 127]], None)
    assert scaled(levels * 2, "JPEG2000", 4095) == ([[0, 255]], None)


def test_32_bit_integers_are_scaled_as_16_bits_or_refused():
    levels = np.array([0, 1000, 65535], np.int32)
    assert scaled(levels, "TIFF", 65535) == ([[0, 4, 255]], 65535)
    for wrong in (levels + 1, -levels):
        with pytest.raises(
            CorruptImageError, match="no standard range: save the image with 8 or 16 bits"
        ):
            scaled(wrong, "TIFF", 65535)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_16_bit_greys_whose_white_is_0_are_not_inverted(compression):
    levels = np.array([0, 65535], np.uint16)
    options = {"tiffinfo": {262: 0}, "compression": compression}  # PhotometricInterpretation
    assert scaled(levels, "TIFF", 65535, **options) == ([[255, 0]], 65535)


def test_a_transparent_16_bit_grey_is_white():
    levels = np.array([0, 300, 30000], np.uint16)
    assert scaled(levels, "PNG", 65535, transparency=300)[0] == [[0, 255, 117]]


def png_chunk(kind, content):
    checksum = zlib.crc32(kind + content).to_bytes(4)
    return len(content).to_bytes(4) + kind + content + checksum


def wide_colour(levels):
    """A PNG of one row with 16 bits a channel, which Pillow does not write; levels (W, 3)."""
    header = len(levels).to_bytes(4) + (1).to_bytes(4) + bytes([16, 2, 0, 0, 0])
    row = b"\0" + np.asarray(levels, ">u2").tobytes()
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def test_16_bit_colours_are_scaled_where_they_use_them_and_else_refused():
    bright, dark = wide_colour([[0, 32768, 65535]]), wide_colour([[0, 100, 4095]])
    image, brightest = decode_image(bright, 3)
    assert image.getpixel((0, 0)) == (0, 128, 255)
    assert brightest == 65535
    assert decode_image(dark, 3).brightest == 4095
    with pytest.raises(CorruptImageError, match="16 bits per channel, of which 12 are used: save"):
        decode_image(dark, 3, white=4095)


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


def test_which_side_is_up_is_read_from_xmp_in_a_png():
    image = Image.fromarray(noise(2, 3, 3))
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    decoded = decode(encode(image, pnginfo=info), 3)
    np.testing.assert_array_equal(np.asarray(decoded), np.rot90(np.asarray(image), -1))


def test_photos_are_known_by_every_ending_that_pillow_reads():
    read = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".jp2", ".tga", ".pgm"}
    if find_spec("PIL._avif"):
        read.add(".avif")
    assert read <= image_endings()
    for other in (".ico", ".psd", ".eps", ".pdf", ".mpg", ".h5", ".txt", ""):
        assert other not in image_endings()


def test_nothing_is_run_to_decode_a_file():
    """Pillow has Ghostscript draw what is in EPS."""
    data = encode(Image.new("RGB", (4, 4)), "EPS")
    with pytest.raises(CorruptImageError, match="not in an image format that Pillow reads"):
        decode(data, 3)


def test_warnings_about_files_stay_off_the_terminal():
    tags = ImageFileDirectory_v2()
    tags[270] = "a description"
    data = encode(Image.new("L", (2, 2)), "TIFF", tiffinfo=tags)
    with warnings.catch_warnings(record=True) as caught, contextlib.suppress(CorruptImageError):
        warnings.simplefilter("always")
        with strict_pillow():
            decode(data[:-3], 1)
    assert caught == []


# --- to a square of one size ---


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_the_right_size_is_left_bit_for_bit(shape):
    pixels = noise(*shape)
    np.testing.assert_array_equal(np.asarray(fit_square(Image.fromarray(pixels), 8)), pixels)


@pytest.mark.parametrize(
    ("shape", "middle"),
    [
        ((8, 12, 3), np.s_[:, 2:10]),
        ((12, 8, 3), np.s_[2:10]),
        ((8, 11, 3), np.s_[:, 1:9]),
    ],
)
def test_the_middle_square_is_cut_out(shape, middle):
    pixels = noise(*shape)
    square = np.asarray(fit_square(Image.fromarray(pixels), 8))
    np.testing.assert_array_equal(square, pixels[middle])


def test_shrinking_does_not_alias():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255  # finer than the result can show: a mean grey, not stripes
    shrunk = np.asarray(fit_square(Image.fromarray(stripes), 12)).astype(int)
    assert abs(shrunk[2:-2, 2:-2] - 127.5).max() < 8


def test_what_is_cut_off_does_not_bleed_in():
    pixels = np.zeros((32, 64), np.uint8)
    pixels[:, :16] = pixels[:, 48:] = 255
    assert np.asarray(fit_square(Image.fromarray(pixels), 8)).max() == 0


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


def test_a_sliver_of_one_pixel_becomes_a_square():
    assert fit_square(Image.new("RGB", (1, 300)), 16).size == (16, 16)


def test_arrays_have_the_channels_first():
    pixels = noise(4, 5, 3)
    np.testing.assert_array_equal(to_array(Image.fromarray(pixels)), pixels.transpose(2, 0, 1))
    grey = to_array(Image.fromarray(pixels[..., 0]))
    assert grey.shape == (1, 4, 5)
    assert grey.dtype == np.uint8
