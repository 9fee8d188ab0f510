"""The dataset.json of StyleGAN's tools: labels of image files in numbered folders."""

import json

import pytest

from biggan.data import load_dataset
from biggan.errors import InputError
from data_forms import png, write_folder, write_zip

NAMES = [f"{number // 2:05}/img{number:08}.png" for number in range(6)]
LABELS = [1, 0, 1, 1, 0, 1]
PAIRS = [list(pair) for pair in zip(NAMES, LABELS, strict=True)]


def source(tmp_path, labels=PAIRS, *, form="folder", prefix="", text=None):
    about = json.dumps({"labels": labels, "more": []}) if text is None else text
    files = {f"{prefix}{name}": png(number)[0] for number, name in enumerate(NAMES)}
    files[f"{prefix}dataset.json"] = about.encode()
    write = write_folder if form == "folder" else write_zip
    return write(tmp_path / f"data.{form}", files)


def refusal(path):
    with pytest.raises(InputError) as caught:
        load_dataset(path, 8, 3)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("form", "prefix"),
    [
        ("folder", ""),
        ("folder", "cifar10/"),
        ("zip", ""),
        ("zip", "cifar10/"),
        ("zip", "a/cifar10/"),
    ],
)
def test_labels_are_those_of_dataset_json(tmp_path, form, prefix):
    data = load_dataset(source(tmp_path, form=form, prefix=prefix), 8, 3)
    assert data.class_names == ("0", "1")
    assert data.labels.tolist() == sorted(LABELS)
    order = [1, 4, 0, 2, 3, 5]
    assert [image.numpy().tobytes() for image in data.images] == [
        png(number)[1].tobytes() for number in order
    ]


def test_labels_may_be_an_object_and_names_of_windows(tmp_path):
    labels = {f".\\{name}".replace("/", "\\"): label for name, label in PAIRS}
    data = load_dataset(source(tmp_path, labels), 8, 3)
    assert data.labels.tolist() == sorted(LABELS)


def test_labels_may_be_names(tmp_path):
    labels = [[name, ["cat", "dog"][label]] for name, label in PAIRS]
    assert load_dataset(source(tmp_path, labels), 8, 3).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        (None, "has no labels [file, number]: go without classes (--unconditional"),
        (PAIRS[:4], f"gives no number or name to 2 of 6 images, such as {NAMES[4]}"),
        (
            [*PAIRS[:5], [NAMES[5], None]],
            f"gives no number or name to 1 of 6 images, such as {NAMES[5]}",
        ),
        ([[name, [label, 0.5]] for name, label in PAIRS], f"{NAMES[0]} ([1, 0.5])"),
        ([[name, label / 2] for name, label in PAIRS], f"{NAMES[0]} (0.5)"),
        ([*PAIRS[:5], [NAMES[5], -1]], f"{NAMES[5]} has no label"),
        ([[name, 3 * label] for name, label in PAIRS], "2 of 4 classes have no image, such as '1'"),
        ([[name, 10**12 * label] for name, label in PAIRS], "classes have no image, such as '1'"),
        ([[name, "cat" if label else 0] for name, label in PAIRS], "some labels are numbers and"),
        ([[name, "cat" if label else "d\n"] for name, label in PAIRS], "has control characters"),
        ([*PAIRS, ["00003/img00000006.png", 2]], "no image of the class 2 that dataset.json names"),
        (LABELS, "has no labels [file, number]"),
        ("labels", "has no labels [file, number]"),
        ([[1, 2]], "has no labels [file, number]"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, labels, fault):
    path = source(tmp_path, labels)
    message = refusal(path)
    assert message.startswith(str(path))
    assert fault in message
    assert len(load_dataset(path, 8, 3, unconditional=True)) == 6


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\0"])
def test_a_damaged_file_is_named(tmp_path, text):
    assert "dataset.json is damaged" in refusal(source(tmp_path, text=text))


@pytest.mark.parametrize("text", ["[]", '{"version": 1}'])
def test_the_file_of_another_program_says_nothing(tmp_path, text):
    assert "holds shards (00000, 00001, 00002)" in refusal(source(tmp_path, text=text))
    for name in ("cat", "dog"):
        write_folder(tmp_path / "pets", {f"{name}/0.png": png(0)[0]})
    write_folder(tmp_path / "pets", {"dataset.json": text.encode()})
    assert load_dataset(tmp_path / "pets", 8, 3).class_names == ("cat", "dog")
