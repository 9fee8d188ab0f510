"""The classifier trained on the data at hand: its training, its file, its features."""

import json
from dataclasses import replace

import filelock
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from biggan.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierFeatures,
    ClassifierTraining,
    default_steps,
    default_width,
    fit_classifier,
    network,
    predict,
    train_classifier,
    training,
)
from biggan.classifier.training import Checkpoint, augment, split_held_out
from biggan.data import ImageDataset, flips, load_dataset, pack_dataset
from biggan.errors import InputError
from biggan.images import from_uint8
from biggan.weights.files import load_tensors, save_tensors
from data_forms import pictures, write_folder
from peer_resizes import resized_as_pillow
from tiny import refusal

STEPS = 30
NAMES = ("red", "green", "blue")


def tinted(per_class=40, side=8):
    """Noise of any brightness, in each class with one channel brighter than the others."""
    labels = torch.arange(3).repeat_interleave(per_class)
    images = torch.randint(0, 100, (len(labels), 3, side, side), dtype=torch.uint8)
    images += torch.randint(0, 100, (len(labels), 1, 1, 1), dtype=torch.uint8)
    images[torch.arange(len(labels)), labels] += 50
    return images, labels


@pytest.fixture(scope="module")
def dataset():
    torch.manual_seed(1)
    return ImageDataset(*tinted(), NAMES, "tints")


def train(dataset, out, **changes):
    options = {"steps": STEPS, "width": 4} | changes
    return train_classifier(dataset, out, **options)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "tints.safetensors"
    return path, train(dataset, path)


def test_file_says_what_it_is(trained, dataset):
    path, classifier = trained
    assert classifier.name == f"classifier of tints ({classifier.sha256[:8]})"
    assert classifier.class_names == NAMES
    assert (classifier.dim, classifier.num_classes, classifier.channels) == (16, 3, 3)
    about = classifier.training
    assert about["accuracy"] > 0.9
    assert (about["images"], about["held_out"]) == (120, 12)
    assert (about["steps"], about["seed"], about["flip"]) == (STEPS, 0, True)
    assert about["data_fingerprint"] == dataset.fingerprint
    assert [file.name for file in path.parent.iterdir() if ".lock" not in file.name] == [path.name]


def test_accuracy_is_of_images_that_were_not_trained_on(trained, dataset, tmp_path):
    _, held_out = split_held_out(dataset.labels, 3, seed=0)
    images, labels = dataset.images.clone(), dataset.labels.clone()
    images[held_out] = images[held_out].flip(1)  # red is blue now
    changed = train(ImageDataset(images, labels, NAMES, "changed"), tmp_path / "a.safetensors")
    before = trained[1].network.state_dict()
    for name, value in changed.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert changed.training["accuracy"] < 0.5
    guesses = predict(changed.network, images, held_out, progress=False)
    assert changed.training["accuracy"] == (guesses == labels[held_out]).double().mean()


def test_the_same_call_gives_the_same_bytes_and_another_seed_others(trained, dataset, tmp_path):
    path, classifier = trained
    train(dataset, tmp_path / "same.safetensors")
    assert (tmp_path / "same.safetensors").read_bytes() == path.read_bytes()
    other = train(dataset, tmp_path / "other.safetensors", seed=1)
    assert other.sha256 != classifier.sha256


def test_low_precision_is_of_the_training_alone(trained, dataset, tmp_path):
    out = tmp_path / "low.safetensors"
    low = train(dataset, out, precision="bfloat16")
    assert low.training["precision"] == "bfloat16"
    assert low.training["accuracy"] > 0.9
    weight = low.network.linear.weight
    assert weight.dtype == torch.float32
    assert not torch.equal(weight, trained[1].network.linear.weight)
    assert "precision bfloat16, not float32" in refusal(train, dataset, out)


def test_files_of_version_0_2_keep_their_features(trained, dataset, tmp_path):
    metadata, tensors, _ = load_tensors(trained[0])
    header = json.loads(metadata["header"])
    del header["recipe"]["precision"], header["config"]["mirrored"]
    metadata["header"] = json.dumps(header)
    save_tensors(tmp_path / "old.safetensors", metadata, tensors)
    old = train(dataset, tmp_path / "old.safetensors")  # nothing is trained
    assert torch.equal(old.network.linear.weight, trained[1].network.linear.weight)
    images, _ = tinted(1)
    alone = old.extract(images).features
    average = (alone + old.extract(images.flip(3)).features) / 2
    torch.testing.assert_close(trained[1].extract(images).features, average)
    assert not torch.allclose(alone, average)


@pytest.mark.parametrize("flip", [True, False])
def test_a_classifier_trained_with_mirrored_images_sees_no_difference(flip, dataset, tmp_path):
    classifier = train(dataset, tmp_path / "c.safetensors", steps=2, flip=flip)
    assert classifier.config.mirrored == flip
    images, _ = tinted(2)
    seen, mirrored = (classifier.extract(each).logits for each in (images, images.flip(3)))
    assert torch.allclose(seen, mirrored, atol=1e-6) == flip


class Killed(BaseException):
    pass


def train_until(step, dataset, out, monkeypatch, **changes):
    """Save at every step and die right after this one."""
    save = Checkpoint.save_when_due

    def save_and_die(self, network, optimizer, done, *, log):
        save(self, network, optimizer, done, log=log)
        if done == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "_CHECKPOINT_SECONDS", 0)
        patch.setattr(Checkpoint, "save_when_due", save_and_die)
        with pytest.raises(Killed):
            train(dataset, out, **changes)


def test_interruptions_change_no_bit(trained, dataset, tmp_path, monkeypatch, caplog):
    out = tmp_path / "out.safetensors"
    train_until(7, dataset, out, monkeypatch)
    train_until(19, dataset, out, monkeypatch)
    assert not out.exists()
    with caplog.at_level("INFO"):
        train(dataset, out)
    assert f"resuming at step 19 of {STEPS}" in caplog.text
    assert out.read_bytes() == trained[0].read_bytes()
    assert [file.name for file in tmp_path.iterdir() if ".lock" not in file.name] == [out.name]


def test_what_is_complete_is_not_trained_again(trained, dataset, monkeypatch):
    monkeypatch.setattr(training, "fit_classifier", None)
    assert train(dataset, trained[0]).sha256 == trained[1].sha256


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"seed": 5}, "seed 0, not 5"), ({"steps": 9}, "steps 30, not 9"), ({"width": 2}, "width")],
)
def test_another_recipe_is_refused(trained, dataset, tmp_path, monkeypatch, changes, words):
    with pytest.raises(InputError, match=f"belongs to another classifier.*{words}"):
        train(dataset, trained[0], **changes)
    train_until(2, dataset, tmp_path / "c.safetensors", monkeypatch)
    with pytest.raises(InputError, match=f"c.checkpoint.*belongs to another classifier.*{words}"):
        train(dataset, tmp_path / "c.safetensors", **changes)


def test_other_images_are_refused(trained, dataset):
    changed = ImageDataset(dataset.images ^ 1, dataset.labels, NAMES, "tints")
    assert "other images" in refusal(train, changed, trained[0])


def test_a_damaged_checkpoint_is_not_used(trained, dataset, tmp_path, monkeypatch, caplog):
    out = tmp_path / "out.safetensors"
    train_until(7, dataset, out, monkeypatch)
    checkpoint = tmp_path / "out.checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    train(dataset, out)
    assert "training from the start" in caplog.text
    assert out.read_bytes() == trained[0].read_bytes()


def test_one_process_at_a_time(dataset, tmp_path):
    with filelock.FileLock(tmp_path / ".out.safetensors.lock"):
        message = refusal(train, dataset, tmp_path / "out.safetensors")
    assert "another process is training" in message


def test_mapped_images_give_the_same_network(tmp_path):
    folder = write_folder(tmp_path / "noise", pictures(12))
    pack_dataset(folder, tmp_path / "packed", 8, 3, progress=False)
    mapped = train(load_dataset(tmp_path / "packed", 8, 3), tmp_path / "a.safetensors", steps=2)
    loaded = train(load_dataset(folder, 8, 3), tmp_path / "b.safetensors", steps=2)
    assert mapped.sha256 == loaded.sha256


def test_divergence_leaves_no_file(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_LEARNING_RATE", 1e30)
    assert "diverged at step 20" in refusal(train, dataset, tmp_path / "out.safetensors")
    assert not list(tmp_path.glob("*.safetensors"))


def test_data_without_classes_are_refused(dataset, tmp_path):
    for names in ((), ("all",)):
        single = ImageDataset(dataset.images, torch.zeros_like(dataset.labels), names, "photos")
        with pytest.raises(InputError, match="photos has (none|1)"):
            train(single, tmp_path / "out.safetensors")


@pytest.mark.parametrize("changes", [{"steps": 0}, {"seed": -1}])
def test_numbers_out_of_range(changes):
    assert str(*changes.values()) in refusal(replace, ClassifierTraining(3), **changes)


def test_shapes_out_of_range():
    for field in ("resolution", "image_channels", "num_classes", "width"):
        values = {"resolution": 8, "image_channels": 3, "num_classes": 3, "width": 4}
        for wrong in (0, -1, 2.0, "3", True):
            assert field in refusal(ClassifierConfig, **values | {field: wrong})
        assert "mirrored is true or false, not 1" in refusal(ClassifierConfig, **values, mirrored=1)


def test_held_out_are_a_tenth_of_each_class():
    labels = torch.tensor([0] * 50 + [1] * 17 + [2] + [4] * 3)[torch.randperm(71)]
    train_on, held_out = split_held_out(labels, 5, seed=3)
    assert sorted([*train_on, *held_out]) == list(range(71))
    assert torch.bincount(labels[held_out], minlength=5).tolist() == [5, 2, 0, 0, 1]
    assert not np.array_equal(held_out, split_held_out(labels, 5, seed=4)[1])
    assert "no class has two images" in refusal(split_held_out, torch.arange(4), 4, seed=0)


def test_augmentation_moves_and_mirrors():
    images, _ = tinted(20, side=16)  # (60, 3, 16, 16)
    still = augment(images, ClassifierTraining(9, seed=2, flip=False), 3)
    mirrored = augment(images, ClassifierTraining(9, seed=2, flip=True), 3)
    padded = F.pad(images.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
    windows = {(y, x): padded[:, :, y : y + 16, x : x + 16] for y in range(5) for x in range(5)}
    flipped = flips(2, 3 * 60, 60)
    seen = set()
    for i in range(60):
        [place] = [place for place, window in windows.items() if torch.equal(window[i], still[i])]
        seen.add(place)
        y, x = place
        # A flip comes before the move, which is the same.
        expected = windows[y, 4 - x][i].flip(-1) if flipped[i] else still[i]
        assert torch.equal(mirrored[i], expected)
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(5))
    assert not torch.equal(still, augment(images, ClassifierTraining(9, 2, flip=False), 4))


def test_learning_rate_rises_and_falls():
    rates = [training._learning_rate(step, 100) for step in range(100)]
    peak = int(np.argmax(rates))
    assert 10 <= peak <= 20
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[0] < 0.01
    assert 0 < rates[-1] < 1e-4
    assert 0.09 < max(rates) <= 0.1


def test_defaults():
    assert default_steps(1618) == 300
    assert default_steps(45_000) == 7032
    assert [default_width(side) for side in (8, 32, 64, 128, 256)] == [16, 16, 32, 64, 64]


@pytest.mark.parametrize(("side", "last"), [(8, 2), (28, 7), (32, 8), (64, 8), (100, 7), (256, 8)])
def test_every_resolution_ends_in_a_small_map(side, last):
    network = Classifier(ClassifierConfig(side, 1, 5, 4), seed=0).eval()
    maps = network.blocks(network.stem(torch.zeros(2, 1, side, side)))
    assert maps.shape == (2, 16, last, last)
    assert network(torch.zeros(2, 1, side, side)).shape == (2, 5)


def test_blocks_add_to_their_input():
    network = Classifier(ClassifierConfig(8, 3, 5, 4), seed=0).eval()
    first, second = network.blocks[0], network.blocks[1]
    for block in (first, second):
        torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(first(x), x)
    active = F.relu(second.norm1(x))
    pooled = active.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5))  # (2, 4, 4, 4)
    expected = torch.einsum("oi,nihw->nohw", second.shortcut.weight[:, :, 0, 0], pooled)
    torch.testing.assert_close(second(x), expected)


def test_weights_are_a_function_of_the_seed():
    config = ClassifierConfig(32, 3, 10, 16)
    before = torch.get_rng_state()
    one, same, other = (Classifier(config, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    weight = one["blocks.1.conv1.weight"]  # (32, 16, 3, 3); He: 2 / fan-out
    assert weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)
    assert not torch.equal(weight, other["blocks.1.conv1.weight"])


def test_features_separate_classes(trained):
    classifier = trained[1]
    images, labels = tinted(30)
    features = classifier.extract(images).features
    distances = torch.cdist(features, features).fill_diagonal_(float("inf"))
    nearest = labels[distances.argmin(dim=1)]
    assert (nearest == labels).float().mean() > 0.9


def test_logits_are_the_last_layer_of_features(trained):
    path, classifier = trained
    images, labels = tinted(10)
    found = classifier.extract(images)
    assert found.features.shape == (30, 16)
    assert found.features.dtype == found.logits.dtype == torch.float32
    weights = load_file(path)
    expected = found.features @ weights["linear.weight"].T + weights["linear.bias"]
    torch.testing.assert_close(found.logits, expected)
    assert (found.logits.argmax(dim=1) == labels).float().mean() > 0.9
    guesses = predict(classifier.network, images, np.arange(30), progress=False)
    assert torch.equal(guesses, found.logits.argmax(dim=1))


def test_an_image_is_looked_at_alone(trained, monkeypatch):
    classifier = trained[1]
    images, _ = tinted(5, side=12)
    together = classifier.extract(images)
    alone = [classifier.extract(image[None]) for image in images]
    torch.testing.assert_close(together.features, torch.cat([one.features for one in alone]))
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]))
    monkeypatch.setattr(network, "_PIXELS", 4 * 144)
    torch.testing.assert_close(classifier.extract(images).features, together.features)
    assert classifier.extract(images[:0]).features.shape == (0, 16)


@pytest.mark.parametrize("size", [(20, 20), (33, 12), (5, 6), (8, 13)])
def test_images_of_another_size_are_resized_as_pillow_does(trained, size):
    classifier = trained[1]
    images = torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8)
    expected = classifier.network.features(from_uint8(resized_as_pillow(images, 8))).detach()
    found = classifier.extract(images).features
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found.shape == (4, 16)


def test_wrong_images(trained):
    with pytest.raises(InputError, match="with 3 channels, not 1"):
        trained[1].extract(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        trained[1].extract(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="uint8"):
        trained[1].extract(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_wrong_files(trained, tiny_file, tmp_path):
    path = trained[0]
    assert "there is no file" in refusal(ClassifierFeatures, tmp_path / "no.safetensors")
    assert "contains no classifier" in refusal(ClassifierFeatures, tiny_file)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-5])
    assert "cut short" in refusal(ClassifierFeatures, cut)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    cut.write_bytes(content)
    assert "is damaged" in refusal(ClassifierFeatures, cut)
    header = {"kind": "classifier", "config": {"resolution": 8}}
    save_tensors(cut, {"format": "biggan 1", "header": json.dumps(header)}, load_file(path))
    assert "does not describe its classifier" in refusal(ClassifierFeatures, cut)


def test_loading_is_strict(trained, tmp_path):
    metadata, tensors, _ = load_tensors(trained[0])
    renamed = {name.replace("norm1", "normal"): value for name, value in tensors.items()}
    save_tensors(tmp_path / "a.safetensors", metadata, renamed)
    with pytest.raises(
        InputError, match=r"missing blocks.0.norm1.weight.*unexpected blocks.0.normal"
    ):
        ClassifierFeatures(tmp_path / "a.safetensors")


def test_images_not_chosen_are_not_looked_at():
    images, labels = tinted(10)
    config, recipe = ClassifierConfig(8, 3, 3, 2), ClassifierTraining(3)
    chosen = np.arange(0, 30, 2)
    spoiled = images.clone()
    spoiled[1::2] = 0
    one, two = (
        fit_classifier(config, recipe, given, labels, chosen, device="cpu", progress=False)
        for given in (images, spoiled)
    )
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
