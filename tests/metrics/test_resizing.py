"""Resizes against those of the software that they are called after."""

import pytest
import torch

from biggan.metrics.extractor import resize_like_pillow, resize_like_tensorflow
from peer_resizes import resized_as_pillow, resized_as_tensorflow


def pictures(*shape):
    return torch.randint(256, shape, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("height", "width", "side"), [(7, 5, 11), (23, 46, 29), (600, 33, 299), (1, 3, 4), (299,) * 3]
)
def test_the_resize_is_tensorflows_to_the_last_bit(height, width, side):
    images = pictures(2, 3, height, width)
    resized = resize_like_tensorflow(images, side)
    assert resized.dtype == torch.float32
    expected = resized_as_tensorflow(images.numpy(), side)
    torch.testing.assert_close(resized, expected, atol=0, rtol=0)
    if (height, width) == (side, side):
        torch.testing.assert_close(resized, images.float(), atol=0, rtol=0)


def test_the_resize_of_a_ramp_by_hand():
    row = torch.tensor([0, 30, 60, 90], dtype=torch.uint8).expand(1, 1, 4, 4)
    expected = [0.0, 20.0, 40.0, 60.0, 80.0, 90.0]  # not 0 and 90 at both ends
    assert resize_like_tensorflow(row, 6)[0, 0, 3].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(20, 20), (33, 12), (5, 6), (299, 299), (400, 33)])
@pytest.mark.parametrize("side", [8, 299])
def test_the_resize_is_pillows(size, side):
    images = pictures(2, 3, *size)
    resized = resize_like_pillow(images, side)
    assert resized.dtype == torch.float32
    torch.testing.assert_close(resized, resized_as_pillow(images, side), atol=0.02, rtol=0)
    if size == (side, side):
        assert torch.equal(resized, images.float())
