"""Folders to classes: what is taken for classes, what is refused, and with which advice."""

import re
from pathlib import Path

import pytest

from biggan.classes import normal_name
from biggan.data.layout import WITHOUT_CLASSES, number_folders, number_labels
from data_forms import refusal

DATA, ZIP = Path("data"), Path("data.zip")


def arrange(members, *, folders=(), in_zip=False):
    """The images with a class in the order of a dataset, their labels, and the class names."""
    path = ZIP if in_zip else DATA
    labels, names = number_folders(members, path, folders=folders, in_zip=in_zip)
    pairs = [(n, normal_name(m), m) for m, n in zip(members, labels, strict=True) if n is not None]
    pairs.sort()
    return [m for *_, m in pairs], [n for n, *_ in pairs], names


def refused(members, *, in_zip=False, **options):
    return refusal(arrange, members, in_zip=in_zip, **options)


def images(*folders, count=2):
    return [f"{folder}/{index}.jpg".lstrip("/") for folder in folders for index in range(count)]


@pytest.mark.parametrize("in_zip", [False, True])
def test_class_folders_are_the_classes_in_order_of_names(in_zip):
    members = ["dog/b.jpg", "cat/z.jpg", "Emu/1.jpg", "dog/a.jpg", "cat/a.jpg"]
    assert arrange(members, in_zip=in_zip) == (
        ["Emu/1.jpg", "cat/a.jpg", "cat/z.jpg", "dog/a.jpg", "dog/b.jpg"],
        [0, 1, 1, 2, 2],
        ("Emu", "cat", "dog"),
    )


def test_order_is_by_class_first_and_nested_images_count_for_the_topmost_folder():
    # "cat-2/..." sorts before "cat/..." as a path, but the class "cat" before "cat-2".
    expected = (["cat/0.jpg", "cat-2/0.jpg"], [0, 1], ("cat", "cat-2"))
    assert arrange(["cat-2/0.jpg", "cat/0.jpg"]) == expected
    nested = ["cat/2019/a.jpg", "cat/2020/b.jpg", "dog/c.jpg", "dog/2020/d.jpg"]
    assert arrange(nested)[1:] == ([0, 0, 1, 1], ("cat", "dog"))


@pytest.mark.parametrize(
    "folders",
    [
        ("cat/2019", "cat/2020", "dog/2019", "dog/2020"),  # all classes share folder names
        ("cat/train", "cat/test", "dog", "emu"),  # one class keeps its parts apart
        ("bus", "car", "train"),  # vehicles
        ("bus/a", "bus/b", "train/a", "train/b"),
        ("bus", "test", "train"),
        ("a-test", "b-test"),
        ("bullet-train/a", "bullet-train/b", "steam-train/a", "steam-train/b"),
        ("A/A_ann", "B/B_ann"),  # letters
        ("A/A1", "B/B1"),
        ("A/me", "B/me"),
        ("test_tube", "train_station"),  # names that resemble parts
        ("mask", "no_mask"),
        ("image_editor", "train_driver", "test_pilot"),
        ("valid", "invalid"),
        ("photo", "sketch"),
        ("gif", "jpg", "png"),
        ("devil", "evaluator", "trainee"),
        ("level1", "level2"),
    ],
)
def test_these_are_classes(folders):
    assert arrange(images(*folders))[2] == tuple(sorted({f.split("/")[0] for f in folders}))


@pytest.mark.parametrize(
    "members",
    [
        ["00000/00000_00000.ppm", "00000/00000_00001.ppm", "00001/00000_00000.ppm"],  # GTSRB
        ["0/1.png", "0/21.png", "1/3.png", "7/0.png"],  # MNIST
        ["0000045/001.jpg", "0000099/001.jpg"],  # a face of each person
        ["00000/a.png", "00001/b.png"],
        ["00000/x/1.png", "00001/x/2.png"],
    ],
)
def test_classes_may_be_called_by_numbers(members):
    assert arrange(members)[2] == tuple(sorted({member.split("/")[0] for member in members}))


@pytest.mark.parametrize("wrap", ["train", "data/ImageNet/train"])
def test_folders_above_the_classes_are_passed_over_in_a_zip_and_named_in_a_folder(wrap):
    members = images(f"{wrap}/cat", f"{wrap}/dog", count=1)
    assert arrange(members, in_zip=True) == (members, [0, 1], ("cat", "dog"))
    message = refused(members)
    assert f"data has one folder with images, {wrap.split('/')[0]!r}" in message
    assert f"did you mean data/{wrap}?" in message
    assert message.endswith(WITHOUT_CLASSES)
    # Stray images above do not hide the right folder.
    stray = [*members, *images(f"{wrap}/cat", count=4), "preview.png", f"{wrap}/preview.png"]
    assert f"did you mean data/{wrap}?" in refused(stray)
    assert f"did you mean data.zip::{wrap}?" in refused(stray, in_zip=True)


@pytest.mark.parametrize("above", ["", "ImageNet/"])
@pytest.mark.parametrize(
    "parts",
    [
        ("train", "val"),
        ("Training", "Validation"),
        ("train", "test", "val"),
        ("val2017", "train2017"),
        ("c10-test", "c10-train"),
        ("trainA", "trainB", "testA", "testB"),
        ("train", "unlabeled"),
        ("images", "masks"),
        ("JPEGImages", "SegmentationClass"),
        ("jpg", "segmim"),
        ("bounding_box_train", "bounding_box_test", "gt_bbox", "query"),
    ],
)
def test_the_parts_of_a_dataset_are_not_classes(above, parts):
    listed = f"contains the splits of a dataset ({', '.join(sorted(parts))}), not class folders"
    assert refused(images(*parts)).startswith(f"data {listed}")
    train = next((part for part in parts if "train" in part.lower()), parts[0])
    members = images(*(f"{above}{part}/{name}" for part in parts for name in ("cat", "dog")))
    message = refused(members)
    assert f"did you mean data/{above}{train}?" in message
    assert above or message.startswith(f"data {listed}")
    advice = f"did you mean data.zip::{above}{train}?, or {WITHOUT_CLASSES}"
    assert refused(members, in_zip=True) == f"data.zip {listed}: {advice}"


OWN_FOLDERS = f"make one folder of images per class, or {WITHOUT_CLASSES}"


@pytest.mark.parametrize(
    ("folders", "fault"),
    [
        (("train", "test"), f"(test, train), not class folders: {OWN_FOLDERS}"),
        (("train/cat", "test/cat"), f"(test, train), not class folders: {OWN_FOLDERS}"),
        (("train/cat", "test/cat", "test/dog"), "did you mean data/test?"),  # the nested one
        (("train/cat", "train/dog", "test"), "(test, train), not class folders: did you mean data/"
         "train?"),
        (("train/cat", "train/dog", "val/cat", "val/dog", "figures"),
         "(train, val), not class folders: did you mean data/train?"),
        (("",), f"data holds images but no class folders: {OWN_FOLDERS}"),
        (("a/abbey", "a/alley", "b/bakery/shop", "z/zoo"), "not class folders such as a/abbey"),
        (("color/apple", "color/grape", "color/peach", "gray/apple", "gray/grape", "gray/peach"),
         "the same folders (apple, grape, peach) in each of color, gray: did you mean data/color?"),
        (("plants/train/fig", "plants/train/oak", "plants/valid/fig", "plants/valid/oak",
          "test/test"), "did you mean data/plants/train?"),
        (("plants/train/fig", "plants/train/oak", "plants/valid/fig", "plants/valid/oak",
          "512px/fig", "512px/oak"), "did you mean data/plants/train?"),
    ],
)  # fmt: skip
def test_folders_that_are_no_classes_are_refused(folders, fault):
    assert fault in refused(images(*folders))


@pytest.mark.parametrize("in_zip", [False, True])
def test_one_class_is_refused(in_zip):
    path = ZIP if in_zip else DATA
    message = f"{path} has one folder with images, 'cat', but several are needed: {OWN_FOLDERS}"
    assert refused(images("cat"), in_zip=in_zip) == message
    # Folders inside one class are not taken for classes.
    below = [*images("cat", count=9), *images("cat/good", "cat/blurred")]
    assert "has one folder with images, 'cat'" in refused(below, in_zip=in_zip)


def test_what_is_odd_about_class_folders_is_a_warning(caplog):
    assert arrange([*images("cat", "dog"), "b.png", "a.png"])[0] == images("cat", "dog")
    shared = images("photo/cat", "photo/dog", "sketch/cat", "sketch/dog")
    assert arrange(shared)[2] == ("photo", "sketch")
    assert caplog.messages == [
        "ignored 2 images outside the class folders, such as b.png",
        "each of the classes photo, sketch has the folders cat, dog, whose images are combined: if "
        "these are the classes, make one folder of each",
    ]


@pytest.mark.parametrize("in_zip", [False, True])
def test_a_class_without_images_is_named(in_zip):
    members = images("cat", "dog")
    message = refused(members, folders=["birds", "cat", "dog"], in_zip=in_zip)
    assert re.search("folders without images in .*: birds; add images", message)
    message = refused(members, folders=["birds", "ants"], in_zip=in_zip)
    assert re.search("folders without images in .*: ants, birds; ", message)
    assert arrange(members, folders=["cat", "dog", "cat/old"], in_zip=in_zip)[0] == members
    folders = ["pets", "pets/birds", "pets/cat", "pets/cat/old", "pets/dog", "other"]
    wrapped = [f"pets/{member}" for member in members]
    assert ": birds; add images" in refused(wrapped, folders=folders, in_zip=True)


@pytest.mark.parametrize(
    ("folders", "right"),
    [
        (("training_set/training_set/cats", "training_set/training_set/dogs",
          "test_set/test_set/cats", "test_set/test_set/dogs", "single_prediction"),
         "training_set/training_set"),
        (("seg_train/seg_train/sea", "seg_train/seg_train/ice", "seg_test/seg_test/sea",
          "seg_test/seg_test/ice", "seg_pred/seg_pred"), "seg_train/seg_train"),
        (("train/cat", "train/dog", "unlabeled"), "train"),
        (("labeled/cat", "labeled/dog", "unlabeled"), "labeled"),
        (("train_images/cat", "train_images/dog", "test_images"), "train_images"),
        (("train-jpg/cat", "train-jpg/dog", "test-jpg"), "train-jpg"),
        (("Training/happy", "Training/sad", "PublicTest/happy", "PublicTest/sad"), "Training"),
        (("TrainingSet/cat", "TrainingSet/dog", "TestSet/cat"), "TrainingSet"),
        (("val/cat", "val/dog", "test/cat", "test/dog"), "val"),
        (("train/cat", "train/dog", "extra/cat", "extra/dog"), "train"),
        (("images_background/Greek", "images_background/Latin", "images_evaluation/Tifinagh"),
         "images_background"),
        (("images/cat", "images/dog", "segmentations/cat", "segmentations/dog"), "images"),
        (("train/cat", "train/dog", "figures"), "train"),
        (("data/cat", "data/dog", "figures"), "data"),
        (("pets/train/a", "pets/train/b", "pets/test/a", "pets/pets/train/a"), "pets/train"),
        (("daisy", "rose", "flowers/daisy", "flowers/rose"), "flowers"),
        (("flowers/daisy", "flowers/rose", "data/flowers/daisy", "data/flowers/rose"), "flowers"),
        (("session1/cat", "session1/dog", "session2/cat", "session2/dog"), "session1"),
        (("setA/cat", "setA/dog", "setB/cat", "setB/dog"), "setA"),
    ],
)  # fmt: skip
def test_parts_and_copies_are_refused_with_the_right_folder(folders, right):
    members = images(*folders)
    assert f"did you mean data/{right}?" in refused(members)
    assert f"did you mean data.zip::{right}?" in refused(members, in_zip=True)
    inside = [member.removeprefix(f"{right}/") for member in members if member.startswith(right)]
    assert len(arrange(inside)[2]) == 2


@pytest.mark.parametrize(
    "members",
    [
        [f"{n // 5:05}/img{n:08}.png" for n in range(15)],  # StyleGAN's tools
        ["00000/00000.png", "00000/00999.png", "01000/01000.png", "69000/69999.png"],  # FFHQ
        ["00000/000000000.jpg", "00001/000010000.jpg", "00001/000010003.jpg"],  # img2dataset
        ["0001/1001.jpg", "0001/90001.jpg", "0123/1123.jpg", "top.jpg"],  # Danbooru
        images("images_001", "images_002", "images_010"),
        images("train1", "train2"),
        images("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"),
    ],
)
def test_shards_are_not_classes(members):
    message = refused(members)
    assert message.startswith(f"data holds shards ({members[0].split('/')[0]}, ")
    assert "dataset.json" in message


def test_both_spellings_of_an_accent_are_one_class():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    members = [f"{decomposed}/1.jpg", f"{composed}/2.jpg", "tea/1.jpg"]
    found = arrange(members, folders=[composed, decomposed, "tea"])
    assert found == (members, [0, 0, 1], (composed, "tea"))
    assert refused(members[:2]).startswith("data has one folder with images, ")
    # Order by name does not depend on the spelling.
    names = ["a/cafe\u0301.jpg", "a/cafz.jpg", "b/1.jpg"]
    assert arrange(names)[0] == ["a/cafz.jpg", "a/cafe\u0301.jpg", "b/1.jpg"]
    name = composed.encode().decode("ascii", "surrogateescape")  # the locale is not UTF-8
    members, _, names = arrange(images("dog", name))
    assert (members[0], names) == (f"{name}/0.jpg", (composed, "dog"))
    for name in ("caf\udce9", "cat\n"):
        assert "rename the class" in refused(images("dog", name))


@pytest.mark.parametrize(
    ("labels", "names", "numbers", "table"),
    [
        (("dog", "cat", "dog"), None, [1, 0, 1], ("cat", "dog")),
        ((2, 0, 1), None, [2, 0, 1], ("0", "1", "2")),
        (("dog", 0), ("cat", "dog"), [1, 0], ("cat", "dog")),
        ((0, 1), ("zebra", "ape"), [0, 1], ("zebra", "ape")),
        (("caf\u00e9", "cafe\u0301", "tea"), None, [0, 0, 1], ("caf\u00e9", "tea")),
        (
            ("caf\u00e9", "cafe\u0301", "tea"),
            ("tea", "cafe\u0301"),
            [1, 1, 0],
            ("tea", "caf\u00e9"),
        ),
    ],
)
def test_labels_become_numbers(labels, names, numbers, table):
    found, class_names = number_labels("x", dict.fromkeys(labels, "a place"), names)
    assert ([found[label] for label in labels], class_names) == (numbers, table)


@pytest.mark.parametrize(
    ("labels", "names", "fault"),
    [
        (("cat", None), ("cat", "dog"), f"place 1 has no label; .*{re.escape(WITHOUT_CLASSES)}"),
        ((0, -1), None, "place 1 has no label"),
        (("a", ""), None, "place 1 has no label"),
        (("cat", 2), ("cat", "dog"), "place 1 has the label 2, but there are only 2 class names"),
        (("cat", "hen"), ("cat", "dog"), "place 1 has the label 'hen', but there are only"),
        (("cat",), ("cat", "dog"), "1 of 2 classes have no image, such as 'dog'"),
        ((0, 3), None, "2 of 4 classes have no image, such as '1'"),
        ((0, 10**12), None, "999999999999 of 1000000000001 classes have no image"),
        (("cat",), None, "several classes, and there is one.*unconditional=true"),
        ((3, "cat"), None, "some labels are numbers and some are names, such as 3 and 'cat'"),
        ((0, 1), ("cat", "cat"), "two classes are named 'cat'"),
        (("caf\udce9", "b"), None, r"'caf\\udce9' is not UTF-8"),
        (("d\n", "b"), None, "has control characters"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, names, fault):
    places = {label: f"place {number}" for number, label in enumerate(labels)}
    message = refusal(number_labels, "a.tar", places, names)
    assert re.match(f"a.tar: .*{fault}", message)
