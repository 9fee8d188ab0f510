"""DiffAugment, against its formulas written out image by image."""

import pytest
import torch
from torch.nn import functional as F

from biggan.training.augmentation import DiffAugment, change_colors, cut_out, translate

POLICIES = ["color", "translation", "cutout", "cutout,translation,color"]


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(num=6, channels=3, resolution=8, dtype=torch.float64):
    images = torch.rand(num, channels, resolution, resolution, generator=random(), dtype=dtype)
    return images * 2 - 1


def columns(num, **values):
    """Numbers of (num, 7): in the middle, where nothing changes, but for what is named."""
    names = ("brightness", "saturation", "contrast", "down", "right", "row", "column")
    numbers = torch.full((num, 7), 0.5)
    for name, value in values.items():
        numbers[:, names.index(name)] = torch.as_tensor(value)
    return numbers


@pytest.mark.parametrize("policy", ["color", "translation"])
@pytest.mark.parametrize("channels", [1, 3])
def test_numbers_in_the_middle_change_nothing(policy, channels):
    images = noise(channels=channels)
    torch.testing.assert_close(DiffAugment(policy)(images, columns(6)), images)


def test_colors_by_hand():
    images, numbers = noise(), torch.rand(6, 3, generator=random(1))
    expected = []
    for image, (brightness, saturation, contrast) in zip(images, numbers.tolist(), strict=True):
        bright = image + brightness - 0.5
        grey = (bright[0] + bright[1] + bright[2]) / 3
        saturated = grey + 2 * saturation * (bright - grey)
        expected.append((0.5 + contrast) * (saturated - saturated.mean()) + saturated.mean())
    torch.testing.assert_close(change_colors(images, numbers), torch.stack(expected))


def test_grey_images_have_no_saturation():
    images = noise(channels=1)
    numbers = torch.rand(6, 3, generator=random(1))
    other = torch.cat([numbers[:, :1], 1 - numbers[:, 1:2], numbers[:, 2:]], dim=1)
    assert torch.equal(change_colors(images, numbers), change_colors(images, other))


def test_a_translation_is_a_slice_of_the_padded_image():
    images = noise(num=25)
    down, right = torch.cartesian_prod(torch.tensor([-3, -1, 0, 2, 8]), torch.arange(-2, 3)).T
    moved = translate(images, down, right)
    for image, d, r, result in zip(images, down.tolist(), right.tolist(), moved, strict=True):
        padded = F.pad(image, (8, 8, 8, 8))
        assert torch.equal(result, padded[:, 8 - d : 16 - d, 8 - r : 16 - r])


@pytest.mark.parametrize(("resolution", "furthest"), [(32, 4), (28, 4), (8, 1), (4, 1)])
def test_translations_reach_an_eighth_of_the_side_all_alike(resolution, furthest):
    shifts = 2 * furthest + 1
    numbers = columns(shifts * 100, down=torch.arange(shifts * 100) / (shifts * 100))
    images = torch.eye(resolution).expand(len(numbers), 1, -1, -1)
    moved = DiffAugment("translation")(images, numbers)
    found = {}
    for shift in range(-furthest, furthest + 1):
        whole = torch.full((1,), shift)
        expected = translate(images[:1], whole, torch.zeros_like(whole))
        found[shift] = (moved == expected).all(dim=(1, 2, 3)).sum().item()
    assert sum(found.values()) == len(numbers)
    assert all(abs(count - 100) <= 1 for count in found.values())


@pytest.mark.parametrize("resolution", [8, 7, 10])
def test_a_cutout_is_a_square_clipped_at_the_border(resolution):
    side = (resolution + 1) // 2
    row, column = torch.cartesian_prod(torch.arange(resolution), torch.arange(resolution)).T
    images = noise(num=len(row), resolution=resolution)
    result = cut_out(images, row, column)
    for image, r, c, cut in zip(images, row.tolist(), column.tolist(), result, strict=True):
        expected = image.clone()
        top, left = r - side // 2, c - side // 2
        expected[:, max(top, 0) : top + side, max(left, 0) : left + side] = 0
        assert torch.equal(cut, expected)


@pytest.mark.parametrize(("resolution", "smallest"), [(8, 2 * 2), (10, 3 * 3)])
def test_cutouts_centres_are_spread_evenly_and_symmetrically(resolution, smallest):
    """Of an even square on the borders between pixels, of an odd one on pixels."""
    side = resolution // 2
    centres = resolution + 1 - side % 2
    numbers = columns(centres**2)
    numbers[:, 5:] = (torch.cartesian_prod(*[torch.arange(centres)] * 2) + 0.5) / centres
    cut = DiffAugment("cutout")(torch.ones(len(numbers), 1, resolution, resolution), numbers) == 0
    assert cut.sum(dim=(1, 2, 3)).min() == smallest
    total = cut.sum(dim=0)[0]
    assert torch.equal(total, total.flip(0))
    assert torch.equal(total, total.T)
    assert cut.sum(dim=(1, 2, 3)).max() == side**2


@pytest.mark.parametrize("policy", POLICIES)
def test_no_number_leaves_the_image(policy):
    numbers = torch.tensor([[0.0] * 7, [1 - 2**-24] * 7])
    result = DiffAugment(policy)(noise(num=2, dtype=torch.float32), numbers)
    assert result.isfinite().all()


def test_the_policy_is_done_in_its_order():
    images, numbers = noise(), DiffAugment.draw(6, random(1))
    one_by_one = images
    for part in ("cutout", "color", "translation"):
        one_by_one = DiffAugment(part)(one_by_one, numbers)
    assert torch.equal(DiffAugment("cutout,color,translation")(images, numbers), one_by_one)
    assert not torch.allclose(DiffAugment()(images, numbers), one_by_one)


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients(policy):
    images, numbers = noise(num=2, resolution=4), DiffAugment.draw(2, random(1))
    augment = DiffAugment(policy)
    assert torch.autograd.gradcheck(lambda x: augment(x, numbers), images.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_images_keep_their_type(dtype):
    images, numbers = noise().to(dtype), DiffAugment.draw(6, random(1))
    result = DiffAugment()(images, numbers)
    assert result.dtype == dtype
    assert torch.equal(result, DiffAugment()(images.float(), numbers).to(dtype))
