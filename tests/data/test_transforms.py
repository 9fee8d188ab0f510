import numpy as np
import pytest
from PIL import Image

from biggan.data.decoding import fit_square, to_array


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


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


def test_a_sliver_of_one_pixel_becomes_a_square():
    assert fit_square(Image.new("RGB", (1, 300)), 16).size == (16, 16)


def test_arrays_have_the_channels_first():
    pixels = noise(4, 5, 3)
    np.testing.assert_array_equal(to_array(Image.fromarray(pixels)), pixels.transpose(2, 0, 1))
    grey = to_array(Image.fromarray(pixels[..., 0]))
    assert grey.shape == (1, 4, 5)
    assert grey.dtype == np.uint8
