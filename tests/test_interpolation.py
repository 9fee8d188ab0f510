import itertools

import numpy as np
import pytest
import torch

import biggan
from biggan.interpolation import (
    LOOPS,
    frame_positions,
    frames_of_seconds,
    frames_of_steps,
    interpolate_labels,
    interpolate_noise,
    parse_keyframes,
    path_inputs,
)
from biggan.weights.files import Description, save_network
from tiny import tiny_generator


@pytest.fixture
def ends():
    random = np.random.default_rng(0)
    return random.normal(size=(3, 20)), random.normal(size=(3, 20))


@pytest.mark.parametrize("path", ["linear", "slerp"])
def test_ends_are_exact(ends, path):
    points = interpolate_noise(*ends, 7, path)
    assert points.shape == (3, 7, 20)
    np.testing.assert_array_equal(points[:, 0], ends[0])
    np.testing.assert_array_equal(points[:, -1], ends[1])


def test_slerp_turns_by_equal_angles_on_the_sphere(ends):
    a, b = (end / np.linalg.norm(end, axis=1, keepdims=True) for end in ends)
    points = interpolate_noise(a, b, 9, "slerp")
    np.testing.assert_allclose(np.linalg.norm(points, axis=2), 1)
    cosines = np.sum(points[:, 1:] * points[:, :-1], axis=2)
    whole = np.arccos(np.sum(a * b, axis=1))
    np.testing.assert_allclose(np.arccos(cosines), np.repeat(whole[:, None] / 8, 8, axis=1))


def test_slerp_between_equal_and_opposite_points_is_straight():
    a = np.ones((1, 4))
    np.testing.assert_allclose(interpolate_noise(a, a, 4, "slerp"), np.ones((1, 4, 4)))
    opposite = interpolate_noise(a, -a, 3, "slerp")
    np.testing.assert_allclose(opposite[0, 1], 0, atol=1e-12)


def test_a_path_needs_two_steps(ends):
    with pytest.raises(biggan.InputError, match="at least 2 steps, not 1"):
        interpolate_noise(*ends, 1)


def one_way(frames, loop):
    return frames // 2 + 1 if loop == "there-and-back" else frames


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("num_keyframes", [2, 3, 5])
def test_frames_are_even_and_hit_each_keyframe(loop, num_keyframes):
    least = frames_of_steps(num_keyframes, 2, loop)
    for frames in {least, 20, 82, 100}:
        positions = frame_positions(num_keyframes, frames, loop)
        assert len(positions) == one_way(frames, loop)
        hits = np.flatnonzero(positions == np.floor(positions))
        assert positions[hits].tolist() == list(range(num_keyframes))
        # From a keyframe to the next frames are equally far apart, and as many as elsewhere.
        closed = [*hits, frames] if loop == "around" else hits
        assert max(np.diff(closed)) - min(np.diff(closed)) <= 1
        for start, end in itertools.pairwise(closed):
            steps = np.diff([*positions, float(num_keyframes)])[start:end]
            np.testing.assert_allclose(steps, 1 / (end - start))


def test_positions_by_hand():
    assert frame_positions(2, 6, "there-and-back").tolist() == [0, 1 / 3, 2 / 3, 1]
    assert frame_positions(2, 4, "around").tolist() == [0, 0.5, 1, 1.5]
    assert frame_positions(3, 5, "none").tolist() == [0, 0.5, 1, 1.5, 2]
    assert frame_positions(3, 6, "none").tolist() == [0, 1 / 3, 2 / 3, 1, 1.5, 2]


@pytest.mark.parametrize(
    ("loop", "steps", "seconds"), [("there-and-back", 12, 18), ("around", 9, 17), ("none", 7, 17)]
)
def test_frames_are_counted_over_the_whole_video(loop, steps, seconds):
    assert frames_of_steps(3, 4, loop) == steps
    assert frames_of_seconds(17 / 30, 30, loop) == (16 if loop == "there-and-back" else seconds)
    assert frames_of_seconds(0.6, 30, loop) == 18
    assert frames_of_steps(3, 10**12, loop) > 10**12  # counted, not laid out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frame_positions(3, 1, "none"), "1 frames are too few for 3 keyframes.*at least 3"),
        (lambda: frame_positions(3, 2, "around"), "at least 3"),
        (lambda: frame_positions(3, 2, "there-and-back"), "at least 4"),
        (lambda: frame_positions(3, 7, "there-and-back"), "even number of frames, not 7"),
        (lambda: frame_positions(1, 7, "around"), "at least 2 keyframes, not 1"),
        (lambda: frame_positions(2, 7, "zigzag"), "one of there-and-back, around, none"),
        (lambda: frames_of_steps(2, 1, "none"), "at least 2 steps, not 1"),
        (lambda: frames_of_seconds(0, 20, "none"), "longer than 0 seconds, not 0"),
        (lambda: frames_of_seconds(float("nan"), 20, "none"), "not nan"),
        (lambda: frames_of_seconds(1, float("nan"), "none"), "rate must be above 0, not nan"),
        (lambda: frames_of_seconds("2", 20, "none"), "the time must be a number, not '2'"),
        (lambda: frames_of_seconds(float("inf"), 20, "none"), "not inf"),
        (
            lambda: frames_of_seconds(1e308, 20, "there-and-back"),
            r"^a video of 1e\+308 seconds at 20 frames per second is too long: .* at most 100000",
        ),
    ],
)
def test_impossible_videos_are_named(call, message):
    with pytest.raises(biggan.InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("text", "keyframes"),
    [
        (
            "tabby cat@3, golden retriever@7, hen@1",
            [("tabby cat", 3), ("golden retriever", 7), ("hen", 1)],
        ),
        ("tabby, tabby cat@3,hen@1", [("tabby, tabby cat", 3), ("hen", 1)]),
        (
            "281@0 , 281) tabby, tabby cat@4294967295",
            [("281", 0), ("281) tabby, tabby cat", 2**32 - 1)],
        ),
        ("user@home@3, @@5, n02099601@6\n", [("user@home", 3), ("@", 5), ("n02099601", 6)]),
        ("@3, @7,", [(None, 3), (None, 7)]),
    ],
)
def test_keyframes_end_with_their_seeds(text, keyframes):
    assert parse_keyframes(text) == keyframes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hen@1, tabby cat", "'tabby cat' is not a keyframe"),
        ("hen@1, tabby cat@x", "'tabby cat@x' is not a keyframe"),
        ("hen@1, tabby cat@-1", "'tabby cat@-1' is not a keyframe"),
        ("hen@1; tabby cat@2; 3", "is not a keyframe"),
        ("hen@1, @99999999999", "'@99999999999' is not a keyframe"),
        ("hen, tabby cat@3", "is not two keyframes"),
        ("", "'' is not two keyframes"),
        ("hen@1, " + "x" * 10**6, "'x{47}[.]{3}x{48}' is not a keyframe"),
        ("@" * 10**6, "is not a keyframe"),
        ("hen@1" + " " * 10**6 + "x", "is not a keyframe"),
    ],
)
def test_what_is_no_keyframe_is_shown(text, message):
    with pytest.raises(biggan.InputError, match=message) as caught:
        parse_keyframes(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("path", ["linear", "slerp"])
def test_inputs_of_frames_are_those_of_the_ways_between_keyframes(path):
    noise = np.random.default_rng(0).normal(size=(3, 2, 20))
    classes = torch.tensor([4, 0, 2])
    positions = frame_positions(3, 1500, "around")  # 3000 pictures, in several pieces
    pieces = list(path_inputs(noise, classes, positions, 5, path))
    assert len(pieces) > 1
    z = np.concatenate([piece[0] for piece in pieces]).reshape(1500, 2, 20)
    labels = torch.cat([piece[1] for piece in pieces]).reshape(1500, 2, 5)
    for start, end in ((0, 1), (1, 2), (2, 0)):
        frames = slice(500 * start, 500 * start + 500)
        expected = interpolate_noise(noise[start], noise[end], 501, path)[:, :-1]
        np.testing.assert_allclose(z[frames], expected.swapaxes(0, 1), atol=1e-12)
        mixed = interpolate_labels(int(classes[start]), int(classes[end]), 5, 501)[:-1]
        torch.testing.assert_close(labels[frames], mixed[:, None].expand(-1, 2, -1))
        np.testing.assert_array_equal(z[500 * start], noise[start])


def pixels(pictures):
    return np.stack([np.asarray(picture) for picture in pictures])


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("path", ["linear", "slerp"])
def test_a_videos_keyframes_are_direct_samples(tiny, loop, path):
    keyframes = [("tabby", 3), (2, 7), ("siamese cat", 7)]
    how = {"noise": "paper", "truncation": 0.7}
    recipe = tiny.plan_video(keyframes, 12, num=2, loop=loop, path=path, **how)
    assert [keyframe.class_index for keyframe in recipe.keyframes] == [0, 2, 1]
    assert recipe.keyframes[0].class_name == "tabby, tabby cat"
    frames = [pixels(pictures) for pictures in tiny.draw_video(recipe)]
    assert len(frames) == 12
    hits = {"there-and-back": [0, 3, 6, 9], "around": [0, 4, 8], "none": [0, 6, 11]}[loop]
    for hit, (class_, seed) in zip(hits, [*keyframes, keyframes[1]], strict=False):
        expected = pixels(tiny.sample(class_, 2, 0.7, seed, noise="paper"))
        np.testing.assert_array_equal(frames[hit], expected)
    assert all((a != b).any() for a, b in itertools.pairwise(frames))
    if loop == "there-and-back":
        for number in range(1, 6):
            np.testing.assert_array_equal(frames[12 - number], frames[number])


def test_a_video_of_two_keyframes_is_the_interpolation(tiny):
    rows = tiny.interpolate(0, 2, 5, 3, 0.5, seed_a=1, seed_b=2, path="slerp")
    recipe = tiny.plan_video([(0, 1), (2, 2)], 5, 20, 3, 0.5, loop="none", path="slerp")
    frames = list(tiny.draw_video(recipe))
    assert [len(pictures) for pictures in frames] == [3] * 5
    for row in range(3):
        np.testing.assert_array_equal(pixels(rows[row]), pixels([frame[row] for frame in frames]))


def test_a_video_is_made_as_it_is_asked_for(tiny, monkeypatch):
    recipe = tiny.plan_video([(0, 1), (2, 2)], 50_000, num=2, loop="around")
    frames = tiny.draw_video(recipe)
    assert len(next(frames)) == 2
    assert len(next(frames)) == 2


def test_a_video_of_an_unconditional_model(tmp_path):
    path = tmp_path / "plain.safetensors"
    save_network(path, tiny_generator(num_classes=0), Description(name="plain"))
    gan = biggan.load(path)
    frames = list(gan.draw_video(gan.plan_video([(None, 4), (None, 5)], 4, loop="around")))
    expected = pixels([gan.sample(seed=seed, truncation=0.2)[0] for seed in (4, 5)])
    np.testing.assert_array_equal(pixels([frames[0][0], frames[2][0]]), expected)
    with pytest.raises(biggan.InputError, match="unconditional"):
        gan.plan_video([("cat", 4), (None, 5)], 4)


@pytest.mark.parametrize(
    ("arguments", "how", "message"),
    [
        (([(0, 0), (None, 1)], 4), {}, "one per keyframe"),
        (([(0, 0), ("dog", 1)], 4), {}, "no class is named 'dog'"),
        (([(0, 0), (1, -1)], 4), {}, "seed must be between"),
        (([(0, 0)], 4), {}, "at least 2 keyframes, not 1"),
        (([(0, 0), (1, 1)], 4, 20, 0), {}, "has 0 images"),
        (([(0, 0), (1, 1)], 10**12), {}, "has 1000000000000 images.* at most 100000"),
        (([(0, 0), (1, 1)], 4, 20, 1, 1.5), {}, "at most 1, not 1.5"),
        (([(0, 0), (1, 1)], 4), {"path": "zigzag"}, "one of linear, slerp"),
        (([(0, 0), (1, 1)], 4), {"loop": "zigzag"}, "one of there-and-back, around, none"),
        (([(0, 0), (1, 1)], 4), {"noise": "pink"}, "noise must be one of"),
    ],
)
def test_a_video_that_cannot_be_is_refused_before_a_frame_is_made(tiny, arguments, how, message):
    with pytest.raises(biggan.InputError, match=message):
        tiny.draw_video(tiny.plan_video(*arguments, **how))


def test_recipes_of_another_model_are_refused(tiny, tmp_path):
    path = tmp_path / "other.safetensors"
    save_network(path, tiny_generator(num_classes=0), Description(name="other"))
    other = biggan.load(path)
    for draw, plan in (
        (other.draw, tiny.plan([0], 1, 0.4, 0)),
        (other.draw_video, tiny.plan_video([(0, 0), (1, 1)], 4)),
        (other.draw_morph, tiny.plan_morph(0, 1, 4, 1, 0.4, 0, 1)),
    ):
        with pytest.raises(biggan.InputError, match="was made by tiny .* not by other"):
            list(draw(plan))
