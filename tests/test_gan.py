"""Sampling and interpolation through the object that users hold."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import biggan
from biggan import InputError
from biggan.devices import best_device
from biggan.directions import find_directions
from biggan.images import to_uint8
from biggan.inversion import Inverter
from biggan.latents import make_noise, statistics_truncation
from biggan.pictures import Pictures
from biggan.provenance import GridProvenance, LatentGridProvenance
from biggan.provenance_files import provenance_from_json, read_provenance
from biggan.weights.files import Description, save_network
from tiny import TINY_CLASSES, tiny_generator


def pixels(pictures):
    return np.stack([np.asarray(picture) for picture in pictures])


def test_picture_k_does_not_depend_on_num(tiny):
    np.testing.assert_array_equal(pixels(tiny.sample(0, 5))[:2], pixels(tiny.sample(0, 2)))


def test_generate_uses_z_as_given_and_truncation_for_statistics_alone(tiny):
    z, labels = np.random.default_rng(0).normal(size=(2, 12)), np.array([0, 2])
    direct = tiny.generator(torch.tensor(z).float(), torch.tensor(labels), 0.3)
    torch.testing.assert_close(tiny.generate(z, labels, 0.3), direct)
    assert not torch.allclose(tiny.generate(z, labels, 0.3), tiny.generate(z, labels, 0.9))
    assert tiny.generate(z, labels).dtype == torch.float32


def test_sample_is_generate_of_the_noise_of_its_meaning(tiny):
    different = set()
    for noise in ("hub", "paper", "scale"):
        z, statistics = make_noise(3, 12, 0.5, 7, kind=noise), statistics_truncation(0.5, noise)
        images = (tiny.generate(z, torch.tensor([1, 1, 1]), statistics) + 1) / 2 * 256
        expected = images.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        found = pixels(tiny.sample("siamese cat", 3, 0.5, 7, noise=noise))
        np.testing.assert_array_equal(found, expected)
        different.add(found.tobytes())
    assert len(different) == 3


def test_labels_and_noise_of_every_form(tiny):
    z = np.random.default_rng(0).normal(size=(1, 12))
    expected = tiny.generate(z, np.array([1]))
    for noise, labels in (
        (torch.tensor(z), np.array([1], np.int32)),
        (z.astype(np.float32), np.array([[0.0, 1, 0]])),
        (z, torch.tensor([[0.0, 1, 0]])),
        (z, ["siamese cat"]),
    ):
        assert torch.equal(tiny.generate(noise, labels), expected)
    mixed = tiny.generate(z, torch.tensor([[0.5, 0.5, 0]]))
    assert not torch.allclose(mixed, expected, atol=1e-4)


@pytest.mark.parametrize("path", ["linear", "slerp"])
def test_interpolations_ends_are_direct_samples(tiny, path):
    rows = tiny.interpolate(0, 2, steps=4, num=3, truncation=0.3, seed_a=1, seed_b=2, path=path)
    assert [len(row) for row in rows] == [4, 4, 4]
    np.testing.assert_array_equal(pixels([r[0] for r in rows]), pixels(tiny.sample(0, 3, 0.3, 1)))
    np.testing.assert_array_equal(pixels([r[-1] for r in rows]), pixels(tiny.sample(2, 3, 0.3, 2)))
    assert (pixels(rows[0])[1] != pixels(rows[0])[0]).any()


def test_pictures_of_many_seeds_take_no_more_noise_than_one_call(tiny):
    (recipe,) = tiny.plan([0], 1, 0.4, 0)
    many = [dataclasses.replace(recipe, seed=seed, index=99_999) for seed in range(11)]
    with pytest.raises(biggan.InputError, match="more than 1000000 rows of noise"):
        list(tiny.draw(many))
    mixed = [dataclasses.replace(recipe, seed=seed, index=1 + seed) for seed in (3, 0, 3)]
    alone = [next(tiny.draw([recipe])) for recipe in mixed]
    np.testing.assert_array_equal(pixels(tiny.draw(mixed)), pixels(alone))


def test_drawing_a_recipe_again_gives_the_same_pixels(tiny):
    recipes = tiny.plan(["tabby"], 4, 0.6, 11, noise="paper")
    pictures = list(tiny.draw(recipes))
    again = list(tiny.draw([recipes[2]]))
    np.testing.assert_array_equal(pixels(again)[0], pixels(pictures)[2])


def test_without_a_class_the_classes_come_in_turn(tiny):
    recipes = tiny.plan([None], 5, 0.4, 0)
    assert [recipe.class_index for recipe in recipes] == [0, 1, 2, 0, 1]
    assert recipes[1].class_name == TINY_CLASSES[1]
    np.testing.assert_array_equal(pixels(tiny.sample(num=5))[4], pixels(tiny.sample(1, 5))[4])


def test_an_unconditional_model(tmp_path):
    path = tmp_path / "plain.safetensors"
    save_network(path, tiny_generator(num_classes=0), Description(name="plain"))
    gan = biggan.load(path)
    assert len(gan.sample(num=2)) == 2
    rows = gan.interpolate(None, None, steps=3, num=1, seed_a=0, seed_b=1)
    np.testing.assert_array_equal(pixels(gan.draw([rows[0][1].provenance])), pixels(rows[0][1:2]))
    np.testing.assert_array_equal(
        pixels(rows[0])[2], pixels(gan.sample(num=1, truncation=0.2, seed=1))[0]
    )
    with pytest.raises(biggan.InputError, match="unconditional"):
        gan.sample("cat")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda gan: gan.sample("dog"), "dog"),
        (lambda gan: gan.sample(3), "3"),
        (lambda gan: gan.sample("cat"), "siamese cat"),
        (lambda gan: gan.sample(0, truncation=1.5), "at most 1, not 1.5"),
        (lambda gan: gan.sample(0, num=0), "at least 1.*not 0"),
        (lambda gan: gan.interpolate(0, None), "class to end at"),
        (lambda gan: gan.interpolate(0, 1, num=0), "at least 1.*not 0"),
        (lambda gan: gan.generate(torch.zeros(2, 11), torch.tensor([0, 1])), r"\(N, 12\)"),
        (
            lambda gan: gan.generate(torch.zeros(2, 12), torch.tensor([0])),
            "a label for each row of noise: 2, not 1",
        ),
        (lambda gan: gan.generate(torch.zeros(1, 12), torch.tensor([3])), "between 0 and 2, not 3"),
        (lambda gan: gan.embed([1, -1]), "between 0 and 2, not -1"),
        (lambda gan: gan.generate(torch.zeros(1, 12), torch.zeros(1, 4)), r"\(N, 3\)"),
        (lambda gan: gan.generate(torch.zeros(1, 12), torch.tensor([0]), 0.0), "above 0"),
        (lambda gan: gan.sample(1.5), "whole number, not 1.5"),
        (lambda gan: gan.sample([["tabby"]]), r"whole number, not \['tabby'\]"),
        (lambda gan: gan.sample(["tabby", "dog"]), "no class is named 'dog'"),
        (lambda gan: gan.sample("x" * 5000), r"'x{1,99}\.\.\.x{1,99}'; "),
        (lambda gan: gan.sample(0, num=2.5), "images must be a whole number, not 2.5"),
        (lambda gan: gan.sample(0, num="2"), "images must be a whole number, not '2'"),
        (lambda gan: gan.sample(0, truncation="0.4"), "truncation must be a number, not '0.4'"),
        (lambda gan: gan.sample(0, seed=-1), "seed must be between 0 and"),
        (lambda gan: gan.sample(0, seed="1"), "seed must be a whole number, not '1'"),
        (lambda gan: gan.sample(0, seed=None), "seed must be a whole number, not None"),
        (lambda gan: gan.interpolate(0, 1, steps=2.5), "steps must be a whole number"),
        (lambda gan: gan.interpolate(0, 1, num="2"), "paths must be a whole number"),
        (lambda gan: gan.interpolate(0, 1, seed_b=0.5), "seed must be a whole number"),
        (lambda gan: gan.interpolate(0, 1, truncation=[0.5]), "truncation must be a number"),
        (lambda gan: gan.interpolate(0, 1, path=7), "path must be one of"),
        (lambda gan: gan.plan_video(["tabby", "siamese"], 9), "a keyframe is a class and a seed"),
        (lambda gan: gan.plan_video([(0, 1), (1, 1)], 9.5), "frames must be a whole number"),
        (lambda gan: gan.plan_video([(0, 1), (1, 1)], 9, fps="20"), "rate must be a number"),
        (lambda gan: gan.generate("z", [0]), "noise must be an array of numbers, not 'z'"),
        (lambda gan: gan.generate(torch.zeros(12), [0]), r"\(N, 12\), or .* not \(12,\)"),
        (lambda gan: gan.generate(torch.zeros(1, 12, dtype=torch.cfloat), [0]), "not complex"),
        (lambda gan: gan.generate([["a"] * 12], [0]), "noise must be an array of numbers"),
        (lambda gan: gan.generate(torch.zeros(1, 12), "dog"), "no class is named 'dog'"),
        (lambda gan: gan.generate(torch.zeros(1, 12), ["dog"]), "no class is named 'dog'"),
        (lambda gan: gan.generate(torch.zeros(1, 12), [None]), "labels must be an array of num"),
        (
            lambda gan: gan.generate(torch.zeros(2, 12), 0),
            "a label for each row of noise: 2, not 1",
        ),
        (lambda gan: gan.generate(torch.zeros(1, 12), [0], "0.4"), "truncation must be a number"),
        (lambda gan: gan.generate(torch.zeros(1, 12), [0], batch_size="8"), "a whole number"),
        (lambda gan: gan.sample(3.0), "the index of a class must be a whole number, not 3.0"),
        (
            lambda gan: gan.sample(0).save("a.PNG"),
            r"a folder, not 'a.PNG': .grid\(\).save\('a.PNG'",
        ),
        (lambda gan: biggan.load(engine="tensorrt"), "there is no engine 'tensorrt'; there are"),
        (lambda gan: biggan.load(precision="fp16"), "there is no precision 'fp16'; there are"),
        (lambda gan: biggan.load(123), "a model is a name, a path or an address, not 123"),
        (lambda gan: biggan.load_discriminator(7), "a model is a name, a path or an"),
        (lambda gan: biggan.load("BigGAN_deep 256"), "did you mean 'biggan-deep-256'?"),
        (lambda gan: biggan.load("digit"), "did you mean 'digits'?"),
        (lambda gan: biggan.truncated_noise(2.5, 12, 0.4, 0), "rows must be a whole number"),
        (lambda gan: biggan.truncated_noise(2, -1, 0.4, 0), "cannot have 2 rows and -1"),
    ],
)
def test_mistakes_are_named(tiny, call, message):
    with pytest.raises(biggan.InputError, match=message):
        call(tiny)


def test_several_classes_in_a_list(tiny):
    pictures = tiny.sample(["siamese cat", 2], num=2, seed=3)
    one_by_one = tiny.sample(1, 2, seed=3) + tiny.sample(2, 2, seed=3)
    np.testing.assert_array_equal(pixels(pictures), pixels(one_by_one))


def test_torchs_defaults_do_not_matter(tiny, tiny_file):
    """As float64 or "cuda" would be; a tensor that is made on "meta" has no values."""

    def results(gan):
        noise = torch.from_numpy(biggan.truncated_noise(2, 12, 0.4, seed=0)).float()
        vectors = gan.embed(["tabby", "golden retriever"])
        images = gan.generate(noise, [0, 1], 0.4)
        return (
            images,
            gan.generate(noise, class_vectors=vectors, truncation=0.41),
            gan.differentiable().synthesize(noise, vectors, 0.4),
            gan.features(noise, [0, 1], 0.4, layers="linear")["linear"],
            find_directions(gan, "sefa", 2).vectors,
            find_directions(gan, "pca", 2, samples=20, progress=False).vectors,
            Inverter(gan, steps=3, starts=2).invert(to_uint8(images)[0]).z,
            torch.from_numpy(pixels(gan.sample("tabby", num=2))),
            torch.from_numpy(np.array(gan.interpolate(0, 1, 3, 1).grid())),
        )

    expected = results(tiny)
    for dtype, device in ((torch.float64, None), (torch.float32, "meta")):
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)
        try:
            found = results(biggan.load(tiny_file))
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
        for ours, right in zip(found, expected, strict=True):
            assert ours.dtype == right.dtype
            assert torch.equal(ours, right)


def test_numbers_and_arrays_of_other_libraries_are_taken_as_pythons(tiny):
    (recipe,) = tiny.plan([np.int64(1)], np.int32(1), np.float32(0.5), np.uint8(3))
    assert [recipe] == tiny.plan([1], 1, 0.5, 3)
    assert provenance_from_json(recipe.to_json()) == recipe
    for classes in (np.array([2, 0]), torch.tensor([2, 0])):
        assert tiny.plan(classes, 2, 0.4, 0) == tiny.plan([2, 0], 2, 0.4, 0)
        assert tiny.plan(classes[0], 2, 0.4, 0) == tiny.plan(2, 2, 0.4, 0)


def test_a_generator_in_training_mode_is_refused(tiny):
    tiny.generator.train()
    with pytest.raises(ValueError, match="training mode"):
        tiny.sample(0)


def test_samples_are_pil_images_that_take_their_provenance_into_files(tiny, tmp_path):
    pictures = tiny.sample(["siamese cat", 0], 3, 0.4, 7)
    assert isinstance(pictures, list)
    assert len(pictures) == 6
    assert isinstance(pictures[4], Image.Image)
    plan = tiny.plan(["siamese cat", 0], 3, 0.4, 7)
    for name in ("x.png", "x.JPG", "x.webp", "x.gif"):
        pictures[4].save(tmp_path / name)
        assert read_provenance(tmp_path / name) == plan[4]
    with (tmp_path / "stream.jpeg").open("wb") as file:
        pictures[4].save(file)
    assert read_provenance(tmp_path / "stream.jpeg") == plan[4]
    pictures[4].save(tmp_path / "x", "webp", lossless=True)
    assert read_provenance(str(tmp_path / "x")) == plan[4]
    pictures[4].save(tmp_path / "x.bmp")  # has no place for it
    np.testing.assert_array_equal(pixels([Image.open(tmp_path / "x.png")]), pixels(pictures[4:5]))

    files = pictures.save(tmp_path / "folder")
    assert [read_provenance(file) for file in files] == plan
    pictures.grid(3).save(tmp_path / "grid.png")
    assert read_provenance(tmp_path / "grid.png") == GridProvenance(3, tuple(plan))
    assert pictures.grid().size == (5 * 17 - 1, 2 * 17 - 1)
    many = Pictures(pictures * 50).grid(20)
    with pytest.raises(InputError, match="exceeds the 64 KiB of a JPEG's comment: write a PNG"):
        many.save(tmp_path / "grid.jpg")
    for name in ("x.mp4", "x.gif"):
        with pytest.raises(InputError, match="biggan.video.save_video writes videos"):
            tiny.interpolate(0, 1, 2).save(tmp_path / name)
    changed = Pictures([pictures[0].resize((8, 8)), pictures[1].resize((8, 8))])
    changed.grid().save(tmp_path / "changed.png")
    with pytest.raises(InputError, match="contains no provenance"):
        read_provenance(tmp_path / "changed.png")
    assert [file.name for file in changed.save(tmp_path)] == [
        "picture-0000.png",
        "picture-0001.png",
    ]


@pytest.mark.parametrize("noise", ["hub", "paper"])
def test_each_picture_of_an_interpolation_can_be_drawn_again(tiny, tmp_path, noise):
    rows = tiny.interpolate(0, 2, 3, 2, 0.5, 1, 2, path="slerp", noise=noise)
    files = rows.save(tmp_path / "folder")
    assert files[5].name == f"tiny-tabby-to-golden-retriever-{noise}0.5-seeds1-2-2x3-0001-0002.png"
    again = tiny.draw(map(read_provenance, files))
    np.testing.assert_array_equal(pixels(again), pixels([*rows[0], *rows[1]]))
    rows[1].grid().save(tmp_path / "row.png")
    row = read_provenance(tmp_path / "row.png")
    assert isinstance(row, LatentGridProvenance)
    np.testing.assert_array_equal(pixels(tiny.draw(row.latents)), pixels(rows[1]))


def test_the_grid_of_an_interpolation_is_the_file_of_the_command(tiny, tmp_path):
    rows = tiny.interpolate("tabby", 2, 4, 3)
    grid = rows.grid()
    assert grid.size == (4 * 17 - 1, 3 * 17 - 1)
    grid.save(tmp_path / "grid.webp", lossless=True)
    assert read_provenance(tmp_path / "grid.webp") == tiny.plan_morph("tabby", 2, 4, 3, 0.2, 0, 0)
    rows[0].reverse()
    rows.grid().save(tmp_path / "changed.png")
    assert isinstance(read_provenance(tmp_path / "changed.png"), LatentGridProvenance)


def test_copies_of_a_model_make_the_same_pictures_and_have_weights_of_their_own(tiny):
    before = tiny.sample(1)
    for copied in (copy.deepcopy(tiny), pickle.loads(pickle.dumps(tiny))):
        assert (copied.name, copied.sha256, copied.device) == ("tiny", tiny.sha256, tiny.device)
        np.testing.assert_array_equal(pixels(copied.sample(1)), pixels(before))
        copied.generator.head.bn.bias.data.add_(1)
        copied.build_engine()
        assert (pixels(copied.sample(1)) != pixels(before)).any()
        np.testing.assert_array_equal(pixels(tiny.sample(1)), pixels(before))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_copies_of_pictures_keep_their_provenance(tiny, tmp_path, copied):
    pictures = tiny.sample(1, 2)
    same = copied(pictures)
    assert same == pictures
    same[1].save(tmp_path / "x.png")
    assert [read_provenance(tmp_path / "x.png")] == tiny.plan(1, 2, 0.4, 0)[1:]
    rows = tiny.interpolate(0, 1, 3, 2)
    copied(rows).grid().save(tmp_path / "rows.png")
    assert read_provenance(tmp_path / "rows.png") == tiny.plan_morph(0, 1, 3, 2, 0.2, 0, 0)


def test_a_notebook_shows_a_model_and_its_pictures(tiny):
    assert tiny.sample(0, 2)._repr_html_().count('<img src="data:image/png;base64,') == 2
    rows = tiny.interpolate(0, 1, 3, 2)._repr_html_().split("</div>")
    assert [row.count('<img src="data:image/png;base64,') for row in rows] == [3, 3, 0]
    shown = tiny._repr_html_()
    assert "3 classes" in shown
    assert "<p>gan.sample(&#x27;tabby&#x27;, num=10)</p>" in shown


def test_the_device_is_the_best_there_is(tiny_file):
    assert biggan.load(tiny_file).device == best_device()


def test_a_class_of_another_model_names_that_model(tiny):
    for query, models in (("seven", "digits"), ("hen", "studiogan-imagenet-128, .*")):
        with pytest.raises(InputError, match=f"is named '{query}'.*; {models} have such a class$"):
            tiny.sample(query)
    with pytest.raises(InputError, match="lists them all$"):
        tiny.sample("no such thing")
    with pytest.raises(InputError, match="give the number or the whole entry$"):
        biggan.load("fruits").class_index("apple")  # in ImageNet a custard apple
