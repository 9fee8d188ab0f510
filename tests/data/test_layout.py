import logging
from pathlib import Path
from typing import NamedTuple

import pytest

from biggan.classes import normal_name
from biggan.data.layout import WITHOUT_CLASSES, number_folders
from biggan.errors import InputError

DATA = Path("data")
ZIP = Path("data.zip")


class Layout(NamedTuple):
    members: tuple
    labels: tuple
    class_names: tuple


def arrange(members, path, *, folders=(), in_zip=False):
    """The images with a class in the order of a dataset."""
    labels, names = number_folders(members, path, folders=folders, in_zip=in_zip)
    pairs = [(n, normal_name(m), m) for m, n in zip(members, labels, strict=True) if n is not None]
    pairs.sort()
    return Layout(tuple(m for *_, m in pairs), tuple(n for n, *_ in pairs), names)


def images(*folders, count=2):
    return [f"{folder}/{index}.jpg".lstrip("/") for folder in folders for index in range(count)]


def refusal(members, *, in_zip=False):
    with pytest.raises(InputError) as caught:
        arrange(members, ZIP if in_zip else DATA, in_zip=in_zip)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("in_zip", [False, True])
def test_class_folders_are_the_classes_in_order_of_names(in_zip):
    members = ["dog/b.jpg", "cat/z.jpg", "Emu/1.jpg", "dog/a.jpg", "cat/a.jpg"]
    assert arrange(members, DATA, in_zip=in_zip) == Layout(
        members=("Emu/1.jpg", "cat/a.jpg", "cat/z.jpg", "dog/a.jpg", "dog/b.jpg"),
        labels=(0, 1, 1, 2, 2),
        class_names=("Emu", "cat", "dog"),
    )


def test_images_are_sorted_by_class_first():
    # "cat-2/..." sorts before "cat/..." as a path, but the class "cat" before "cat-2".
    layout = arrange(["cat-2/0.jpg", "cat/0.jpg"], DATA)
    assert layout == Layout(("cat/0.jpg", "cat-2/0.jpg"), (0, 1), ("cat", "cat-2"))


def test_nested_images_count_for_the_topmost_folder():
    layout = arrange(["cat/2019/a.jpg", "cat/2020/b.jpg", "dog/c.jpg", "dog/2020/d.jpg"], DATA)
    assert layout.class_names == ("cat", "dog")
    assert layout.labels == (0, 0, 1, 1)


def test_classes_that_share_folder_names_are_still_classes():
    members = images("cat/2019", "cat/2020", "dog/2019", "dog/2020")
    assert arrange(members, DATA).class_names == ("cat", "dog")


def test_one_class_may_be_called_train():
    assert arrange(images("bus", "car", "train"), DATA).class_names == ("bus", "car", "train")
    nested = images("bus/a", "bus/b", "train/a", "train/b")
    assert arrange(nested, DATA).class_names == ("bus", "train")


@pytest.mark.parametrize("wrap", ["train", "data/ImageNet/train"])
def test_folders_that_wrap_a_zip_are_passed_over(wrap):
    members = images(f"{wrap}/cat", f"{wrap}/dog", count=1)
    layout = arrange(members, ZIP, in_zip=True)
    assert layout == Layout((f"{wrap}/cat/0.jpg", f"{wrap}/dog/0.jpg"), (0, 1), ("cat", "dog"))


@pytest.mark.parametrize("wrap", ["train", "ImageNet/train", "a/b/c"])
def test_a_folder_above_the_classes_is_refused_with_the_right_one(wrap):
    message = refusal(images(f"{wrap}/cat", f"{wrap}/dog"))
    assert f"data has one folder with images, {wrap.split('/')[0]!r}" in message
    assert f"did you mean {DATA / wrap}?" in message
    assert message.endswith(WITHOUT_CLASSES)


def test_a_stray_image_above_does_not_hide_the_right_folder():
    message = refusal([*images("train/cat", "train/dog"), "preview.png", "train/preview.png"])
    assert "did you mean data/train?" in message


@pytest.mark.parametrize("above", ["", "ImageNet/"])
@pytest.mark.parametrize(
    "parts",
    [
        ("train", "val"),
        ("Training", "Validation"),
        ("train", "test", "val"),
        ("val2017", "train2017"),
        ("c10-test", "c10-train"),
    ],
)
def test_the_parts_of_a_dataset_are_not_classes(above, parts):
    train = next(part for part in parts if "train" in part.lower())
    members = [
        member for part in parts for member in images(f"{above}{part}/cat", f"{above}{part}/dog")
    ]
    message = refusal(members)
    assert f"did you mean data/{above}{train}?" in message
    if not above:
        assert message.startswith(f"data holds the parts of a dataset ({', '.join(sorted(parts))})")


@pytest.mark.parametrize("below", ["", "/cat"])
def test_parts_without_several_classes_are_not_classes_either(below):
    message = refusal(images(f"train{below}", f"test{below}"))
    assert message == (
        "data holds the parts of a dataset (test, train), not class folders: put the images of "
        f"each class in a folder of its own, or {WITHOUT_CLASSES}"
    )


def test_only_the_nested_part_is_worth_naming():
    assert "did you mean data/test?" in refusal(images("train/cat", "test/cat", "test/dog"))


def test_vehicles_are_classes():
    assert arrange(images("a-test", "b-test"), DATA).class_names == ("a-test", "b-test")
    members = images("bullet-train/a", "bullet-train/b", "steam-train/a", "steam-train/b")
    assert arrange(members, DATA).class_names == ("bullet-train", "steam-train")
    assert arrange(images("test", "train", "bus"), DATA).class_names == ("bus", "test", "train")


def test_a_stray_image_in_a_zip_stops_the_way_down():
    message = refusal([*images("train/cat", "train/dog"), "preview.png"], in_zip=True)
    assert "make a zip of train alone" in message


def test_a_part_without_class_folders_is_still_a_part():
    message = refusal(images("train/cat", "train/dog", "test"))
    assert "(test, train), not class folders: did you mean data/train?" in message


def test_other_folders_beside_the_parts_do_not_hide_them():
    message = refusal(images("train/cat", "train/dog", "val/cat", "val/dog", "figures"))
    assert "(train, val), not class folders: did you mean data/train?" in message


@pytest.mark.parametrize("above", ["", "ImageNet/"])
def test_the_parts_in_a_zip_are_refused_too(above):
    members = images(*(f"{above}{part}/{name}" for part in ("val", "train") for name in "ab"))
    message = refusal(members, in_zip=True)
    assert message == (
        "data.zip holds the parts of a dataset (train, val), not class folders: "
        f"make a zip of {above}train alone, or {WITHOUT_CLASSES}"
    )


def test_images_without_class_folders_are_refused():
    assert refusal(images("")) == (
        "data holds images but no class folders: put the images of each class in a folder of its "
        f"own, or {WITHOUT_CLASSES}"
    )


@pytest.mark.parametrize("in_zip", [False, True])
def test_one_class_is_refused(in_zip):
    message = refusal(images("cat"), in_zip=in_zip)
    assert message == (
        f"{ZIP if in_zip else DATA} has one folder with images, 'cat', and several are needed: "
        f"put the images of each class in a folder of its own, or {WITHOUT_CLASSES}"
    )


@pytest.mark.parametrize("in_zip", [False, True])
def test_the_folders_inside_one_class_are_not_taken_for_classes(in_zip):
    members = [*images("cat", count=9), *images("cat/good", "cat/blurred")]
    assert "has one folder with images, 'cat'" in refusal(members, in_zip=in_zip)


def test_images_beside_the_class_folders_are_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "biggan.data"):
        layout = arrange([*images("cat", "dog"), "b.png", "a.png"], DATA)
    assert layout.members == tuple(images("cat", "dog"))
    assert [record.getMessage() for record in caplog.records] == [
        "ignored 2 images outside the class folders, such as b.png"
    ]


@pytest.mark.parametrize("in_zip", [False, True])
def test_a_class_without_images_is_named(in_zip):
    members, path = images("cat", "dog"), ZIP if in_zip else DATA
    with pytest.raises(InputError, match="has no images of birds: add"):
        arrange(members, path, folders=["birds", "cat", "dog"], in_zip=in_zip)
    with pytest.raises(InputError, match="has no images of ants, birds"):
        arrange(members, path, folders=["birds", "ants"], in_zip=in_zip)
    assert arrange(members, path, folders=["cat", "dog", "cat/old"], in_zip=in_zip).members


def test_a_class_without_images_is_found_inside_wrapping_folders():
    members = [f"pets/{member}" for member in images("cat", "dog")]
    folders = ["pets", "pets/birds", "pets/cat", "pets/cat/old", "pets/dog", "other"]
    with pytest.raises(InputError, match="no images of birds"):
        arrange(members, ZIP, folders=folders, in_zip=True)


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
    assert f"did you mean data/{right}?" in refusal(members)
    assert f"make a zip of {right} alone" in refusal(members, in_zip=True)
    layout = arrange(
        [member.removeprefix(f"{right}/") for member in members if member.startswith(right)], DATA
    )
    assert len(layout.class_names) == 2


def test_variants_of_a_dataset_are_refused():
    names = ("apple", "grape", "peach")
    folders = [f"{variant}/{name}" for variant in ("color", "segmented") for name in names]
    message = refusal(images(*folders))
    assert "the same folders (apple, grape, peach) in each of color, segmented:" in message
    assert "did you mean data/color?" in message


def test_a_dataset_beside_other_folders_is_refused_with_its_part():
    classes = [f"plants/{part}/{name}" for part in ("train", "valid") for name in ("fig", "oak")]
    assert "did you mean data/plants/train?" in refusal(images(*classes, "test/test"))
    assert "did you mean data/plants/train?" in refusal(images(*classes, "512px/fig", "512px/oak"))


def test_one_class_may_keep_its_parts_apart():
    members = images("cat/train", "cat/test", "dog", "emu")
    assert arrange(members, DATA).class_names == ("cat", "dog", "emu")


def test_folders_by_first_letter_are_not_classes():
    members = images("a/abbey", "a/alley", "b/bakery/shop", "z/zoo")
    assert "not class folders such as a/abbey" in refusal(members)


@pytest.mark.parametrize("below", ["A_ann", "A1", "me"])
def test_letters_may_be_classes(below):
    members = images(f"A/{below}", f"B/{below.replace('A', 'B')}")
    assert arrange(members, DATA).class_names == ("A", "B")


@pytest.mark.parametrize(
    "parts",
    [
        ("trainA", "trainB", "testA", "testB"),
        ("images", "masks"),
        ("train", "unlabeled"),
        ("JPEGImages", "SegmentationClass"),
        ("jpg", "segmim"),
        ("bounding_box_train", "bounding_box_test", "gt_bbox", "query"),
    ],
)
def test_parts_of_images_alone_are_refused(parts):
    assert refusal(images(*parts)).startswith(
        f"data holds the parts of a dataset ({', '.join(sorted(parts))}), not class folders"
    )


@pytest.mark.parametrize(
    "classes",
    [
        ("test_tube", "train_station"),
        ("mask", "no_mask"),
        ("image_editor", "train_driver", "test_pilot"),
        ("valid", "invalid"),
        ("photo", "sketch"),
        ("gif", "jpg", "png"),
        ("devil", "evaluator", "trainee"),
    ],
)
def test_names_that_resemble_parts_are_classes(classes):
    assert arrange(images(*classes), DATA).class_names == tuple(sorted(classes))


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
    message = refusal(members)
    assert message.startswith(f"data holds shards ({members[0].split('/')[0]}, ")
    assert "dataset.json" in message


@pytest.mark.parametrize(
    "members",
    [
        ["00000/00000_00000.ppm", "00000/00000_00001.ppm", "00001/00000_00000.ppm"],  # GTSRB
        ["0/1.png", "0/21.png", "1/3.png", "7/0.png"],  # MNIST
        ["0000045/001.jpg", "0000099/001.jpg"],  # a face of each person
        ["00000/a.png", "00001/b.png"],
        ["00000/x/1.png", "00001/x/2.png"],
        images("level1", "level2"),
    ],
)
def test_classes_may_be_called_by_numbers(members):
    assert arrange(members, DATA).class_names == tuple(sorted({m.split("/")[0] for m in members}))


def test_folders_that_all_classes_share_are_named_in_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "biggan.data"):
        layout = arrange(images("photo/cat", "photo/dog", "sketch/cat", "sketch/dog"), DATA)
    assert layout.class_names == ("photo", "sketch")
    assert "each of the classes photo, sketch has the folders cat, dog" in caplog.text


def test_both_spellings_of_an_accent_are_one_class():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    members = [f"{decomposed}/1.jpg", f"{composed}/2.jpg", "tea/1.jpg"]
    layout = arrange(members, DATA, folders=[composed, decomposed, "tea"])
    assert layout == Layout(tuple(members), (0, 0, 1), (composed, "tea"))
    assert refusal(members[:2]).startswith("data has one folder with images, ")
    # Order by name does not depend on the spelling.
    names = ["a/cafe\u0301.jpg", "a/cafz.jpg", "b/1.jpg"]
    assert arrange(names, DATA).members == ("a/cafz.jpg", "a/cafe\u0301.jpg", "b/1.jpg")


def test_bytes_that_the_locale_does_not_know_are_utf8():
    name = "caf\u00e9".encode().decode("ascii", "surrogateescape")
    layout = arrange(images("dog", name), DATA)
    assert layout.class_names == ("caf\u00e9", "dog")
    assert layout.members[0] == f"{name}/0.jpg"


@pytest.mark.parametrize("name", ["caf\udce9", "cat\n"])
def test_a_class_folder_whose_name_is_no_text_is_refused(name):
    assert "rename the class" in refusal(images("dog", name))
