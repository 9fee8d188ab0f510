"""ADA: each change against its formula, the chain against Appendix B's, p against its rule."""

import math

import pytest
import torch

from biggan.training.adaptive_augmentation import COLUMNS, AdaptiveAugmentation

CHANGES = COLUMNS[:13]
VALUES = COLUMNS[13:]


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def augmentation(probability=0.5, resolution=16, **config):
    module = AdaptiveAugmentation(resolution, **config)
    module.probability.fill_(probability)
    return module


def noise(num=1, channels=3, resolution=16, dtype=torch.float64):
    images = torch.rand(num, channels, resolution, resolution, generator=random(), dtype=dtype)
    return images * 2 - 1


def only(**values):
    """One row of numbers that draws the named changes and no others.

    Args:
        values: A change, or a value of one; True draws a change.
    """
    numbers = torch.tensor([[1.0] * len(CHANGES) + [0.0] * len(VALUES)], dtype=torch.float64)
    for name, value in values.items():
        numbers[0, COLUMNS.index(name)] = 0.0 if value is True else value
    return numbers


def pattern(x, y):
    """Three smooth colours at (x, y) in [-1, 1], which a mirror at the border continues."""
    u, v = math.pi * (x + 1) / 2, math.pi * (y + 1) / 2
    return torch.stack([u.cos(), v.cos() * 0.7, (2 * u).cos() * v.cos() * 0.5])


def positions(resolution):
    """x and y of pixels, (R, R) each."""
    along = (2 * torch.arange(resolution, dtype=torch.float64) + 1) / resolution - 1
    y, x = torch.meshgrid(along, along, indexing="ij")
    return x, y


def moved_pattern(matrix, resolution):
    """The pattern under a change of positions, (3, 3), that moves it forwards."""
    x, y = positions(resolution)
    places = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    sources = (torch.linalg.inv(matrix) @ places).view(3, resolution, resolution)
    return pattern(sources[0], sources[1])[None]


def scaling(x, y):
    return torch.diag(torch.tensor([x, y, 1.0], dtype=torch.float64))


def rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)


def moving(x, y):
    return torch.tensor([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_probability_0_images_come_back_to_the_bit(channels, dtype):
    augment = augmentation(probability=0)
    images = noise(20, channels, dtype=torch.float32).to(dtype).requires_grad_()
    result = augment(images, augment.draw(20, random(1)))
    assert torch.equal(result, images)
    upstream = torch.randn(images.shape, generator=random(2)).to(dtype)
    result.backward(upstream)
    assert torch.equal(images.grad, upstream)


def test_at_probability_1_every_change_is_drawn():
    augment, images = augmentation(probability=1), noise(20)
    numbers = augment.draw(20, random(1))
    always = numbers.clone()
    always[:, : len(CHANGES)] = 0
    assert torch.equal(augment(images, numbers), augment(images, always))


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_drawn_for_its_share_of_images(change):
    probability, num = 0.3, 4000
    augment = augmentation(probability, resolution=8)
    numbers = augment.draw(num, random(5))
    for other in CHANGES:
        if other != change:
            numbers[:, COLUMNS.index(other)] = 1
    images = noise(resolution=8, dtype=torch.float32).expand(num, -1, -1, -1)
    changed = (augment(images, numbers) != images).any(dim=(1, 2, 3)).double().mean().item()
    share = {
        "flip": probability / 2,
        "turn": probability * 3 / 4,
        "shift": probability * 3 / 4,  # by at most a pixel, by none in half of the draws, both ways
        "luma": probability / 2,
        "rotation_before": 1 - math.sqrt(1 - probability),
        "rotation_after": 1 - math.sqrt(1 - probability),
    }.get(change, probability)
    assert changed == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / num))


def test_the_numbers_are_distributed_as_the_paper_says():
    numbers = AdaptiveAugmentation.draw(20_000, random(1)).double()
    uniform, normal = numbers[:, :21], numbers[:, 21:]
    assert uniform.min() >= 0
    assert uniform.max() < 1
    torch.testing.assert_close(uniform.mean(0), torch.full((21,), 0.5).double(), rtol=0, atol=0.01)
    torch.testing.assert_close(normal.mean(0), torch.zeros(7).double(), rtol=0, atol=0.03)
    torch.testing.assert_close(normal.std(0), torch.ones(7).double(), rtol=0, atol=0.03)
    # independent of each other
    assert (numbers.T.corrcoef() - torch.eye(len(COLUMNS)).double()).abs().max() < 0.03


def test_a_flip_mirrors_left_and_right():
    images = noise()
    augment = augmentation()
    assert torch.equal(augment(images, only(flip=True, flip_by=0.2)), images.flip(-1))
    assert torch.equal(augment(images, only(flip=True, flip_by=0.7)), images)


@pytest.mark.parametrize("turns", range(4))
def test_a_turn_is_a_multiple_of_90_degrees(turns):
    images = noise()
    result = augmentation()(images, only(turn=True, turn_by=turns / 4 + 0.1))
    assert torch.equal(result, torch.rot90(images, turns, dims=(-2, -1)))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (8, -16), (-30, 30), (29, 0)])
def test_a_shift_moves_whole_pixels_and_the_mirror_image_moves_in(down, right):
    images = noise(resolution=256)
    numbers = only(shift=True, shift_down=0.5 + down / 64, shift_right=0.5 + right / 64)
    around = torch.cat([images.flip(-1), images, images.flip(-1)], dim=-1)
    around = torch.cat([around.flip(-2), around, around.flip(-2)], dim=-2)
    expected = around[..., 256 - down : 512 - down, 256 - right : 512 - right]
    assert torch.equal(augmentation(resolution=256)(images, numbers), expected)


def test_blits_are_done_in_the_papers_order():
    images = noise(resolution=32)
    numbers = only(
        flip=True, turn=True, turn_by=0.3, shift=True, shift_down=0.5 + 3 / 8, shift_right=0.5
    )
    turned = torch.rot90(images.flip(-1), 1, dims=(-2, -1))
    expected = torch.cat([turned[..., :3, :].flip(-2), turned[..., :-3, :]], dim=-2)
    assert torch.equal(augmentation(resolution=32)(images, numbers), expected)


GEOMETRY = {
    "nothing": (only(scale=True), scaling(1, 1)),
    "scale": (only(scale=True, scale_by=1.5), scaling(2**0.3, 2**0.3)),
    "before": (only(rotation_before=True, rotation_before_by=0.6), rotation(math.pi * 0.2)),
    "stretch": (only(stretch=True, stretch_by=-2.0), scaling(2**-0.4, 2**0.4)),
    "after": (only(rotation_after=True, rotation_after_by=0.1), rotation(math.pi * -0.8)),
    "move": (only(move=True, move_down=0.5, move_right=-1.3), moving(-1.3 / 4, 0.5 / 4)),
    "all": (
        only(
            **dict.fromkeys(CHANGES[3:8], True),
            scale_by=-0.7,
            rotation_before_by=0.3,
            stretch_by=1.4,
            rotation_after_by=0.8,
            move_down=-1.1,
            move_right=0.6,
        ),
        moving(0.6 / 4, -1.1 / 4)
        @ rotation(math.pi * 0.6)
        @ scaling(2**0.28, 2**-0.28)
        @ rotation(math.pi * -0.4)
        @ scaling(2**-0.14, 2**-0.14),
    ),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_moves_a_smooth_pattern_as_its_formula_says(name):
    numbers, matrix = GEOMETRY[name]
    images = pattern(*positions(32))[None]
    result = augmentation(resolution=32)(images, numbers)
    torch.testing.assert_close(result, moved_pattern(matrix, 32), rtol=0, atol=0.005)


def test_resampling_keeps_detail_and_the_mean():
    """At a shift by half a pixel: waves of four pixels keep most of their height."""
    x, _ = positions(32)
    wave = (math.pi / 2 * (16 * x + 0.5)).cos().expand(1, 3, -1, -1) + 0.25
    numbers = only(move=True, move_right=0.5 / (32 / 8))
    result = augmentation(resolution=32)(wave, numbers)[..., 4:-4, 4:-4]
    assert result.mean().item() == pytest.approx(0.25, abs=0.005)
    # linear interpolation keeps cos(pi / 4) = 0.71 of it
    assert (result - 0.25).square().mean().mul(2).sqrt().item() > 0.9


def homogeneous(matrix):
    full = torch.eye(4, dtype=torch.float64)
    full[:3, :3] = matrix
    return full


def shifting(amount):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3] = amount
    return matrix


EYE = torch.eye(3, dtype=torch.float64)
AXIS = torch.full((3, 1), 3**-0.5, dtype=torch.float64)


def hue_rotation(angle):
    """Rodrigues: a turn by the angle about (1, 1, 1), by the matrix exponential."""
    x, y, z = AXIS.flatten().tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return homogeneous(torch.linalg.matrix_exp(angle * cross))


COLORS = {
    "brightness": (only(brightness=True, brightness_by=1.5), shifting(0.3)),
    "contrast": (only(contrast=True, contrast_by=-1.2), homogeneous(2**-0.6 * EYE)),
    "luma": (only(luma=True, luma_by=0.4), homogeneous(EYE - 2 * AXIS @ AXIS.T)),
    "hue": (only(hue=True, hue_by=0.9), hue_rotation(0.8 * math.pi)),
    "saturation": (
        only(saturation=True, saturation_by=-0.5),
        homogeneous(AXIS @ AXIS.T + 2**-0.5 * (EYE - AXIS @ AXIS.T)),
    ),
}


def recolored(images, matrix):
    ones = torch.ones_like(images[:, :1])
    return torch.einsum("oc,nchw->nohw", matrix[:3], torch.cat([images, ones], dim=1))


@pytest.mark.parametrize("name", COLORS)
def test_a_colour_change_is_its_matrix(name):
    numbers, matrix = COLORS[name]
    images = noise()
    torch.testing.assert_close(augmentation()(images, numbers), recolored(images, matrix))


def test_colour_changes_are_composed_in_the_papers_order():
    numbers, product = only(), torch.eye(4, dtype=torch.float64)
    for drawn, matrix in COLORS.values():
        numbers = torch.where(drawn != only(), drawn, numbers)
        product = matrix @ product
    images = noise()
    torch.testing.assert_close(augmentation()(images, numbers), recolored(images, product))


def test_grey_images_take_brightness_contrast_and_luma():
    images, augment = noise(channels=1), augmentation()
    numbers = only(
        brightness=True, brightness_by=1.5, contrast=True, contrast_by=1.0, luma=True, luma_by=0.1
    )
    torch.testing.assert_close(augment(images, numbers), -(2**0.5) * (images + 0.3))
    colour = only(hue=True, hue_by=0.9, saturation=True, saturation_by=-0.5)
    assert torch.equal(augment(images, colour), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients(channels):
    augment = augmentation(probability=0.8, resolution=4)
    images, numbers = noise(3, channels, 4), augment.draw(3, random(2))
    assert torch.autograd.gradcheck(lambda x: augment(x, numbers), images.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_images_keep_their_type_and_autocast_changes_nothing(dtype):
    augment = augmentation(0.7)
    images, numbers = noise(8).to(dtype), augment.draw(8, random(1))
    result = augment(images, numbers)
    assert result.dtype == dtype
    expected = augment(images.float(), numbers)
    torch.testing.assert_close(result, expected.to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(images.float(), numbers), expected)


def test_every_fourth_update_moves_the_probability_by_the_images_seen():
    augment = augmentation(0.25, target=0.6, images=1000)
    seen = []
    # Of 8 images: E[sign] of 0.75 is above the target, 0.5 is below.
    for sign_sum in [6.0] * 8 + [4.0] * 4:
        augment.observe(torch.tensor(sign_sum), 8)
        seen.append(augment.probability.item())
    move = 32 / 1000
    expected = [0.25] * 3 + [0.25 + move] * 4 + [0.25 + 2 * move] * 4 + [0.25 + move]
    assert seen == pytest.approx(expected)


def test_all_four_updates_count():
    # 14 of 32 is below the target, without the zeros it would be above; 16 of 32 is the target.
    for last, expected in ((0.0, 0.25 - 32 / 1000), (2.0, 0.25)):
        augment = augmentation(0.25, target=0.5, images=1000)
        for sign_sum in (8.0, 0.0, 6.0, last):
            augment.observe(torch.tensor(sign_sum), 8)
        assert augment.probability.item() == pytest.approx(expected)


@pytest.mark.parametrize(("sign_sum", "bound"), [(8.0, 1), (-8.0, 0)])
def test_the_probability_is_a_probability(sign_sum, bound):
    augment = augmentation(0.5, images=40)
    for _ in range(8):
        augment.observe(torch.tensor(sign_sum), 8)
    assert augment.probability.item() == bound


def test_parts_of_an_update_may_be_summed_by_any_number_of_processes():
    """Sums of signs are exact: what is compared with the target does not depend on the parts."""
    logits = torch.randn(4, 64, 1, generator=random(3)) + 0.7
    whole, parts = augmentation(0.0), augmentation(0.0)
    for batch in logits:
        whole.observe(batch.sign().sum(), 64)
        parts.observe(sum(part.sign().sum() for part in batch.split(16)), 64)
    assert parts.state_dict() == whole.state_dict()


def test_a_constant_image_stays_so_under_geometry():
    numbers = torch.cat([row for row, _ in GEOMETRY.values()])
    images = torch.full((len(numbers), 3, 16, 16), 0.3, dtype=torch.float64)
    torch.testing.assert_close(augmentation()(images, numbers), images, rtol=0, atol=1e-6)


def test_no_number_leaves_the_image():
    numbers = torch.cat([only(**dict.fromkeys(CHANGES, True))] * 2)
    numbers[1, 13:21] = 1 - 2**-24
    numbers[:, 21:] = torch.tensor([[-6.0], [6.0]])
    assert augmentation()(noise(2), numbers).isfinite().all()
