import logging
from pathlib import Path

import pytest

from biggan.data.layout import Layout, arrange
from biggan.errors import InputError

DATA = Path("data")
ZIP = Path("data.zip")
UNCONDITIONAL = "train without classes (--set unconditional=true)"


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
    assert message.endswith(UNCONDITIONAL)


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
        "data holds the parts of a dataset (test, train), not class folders; "
        "give the one to train on, with class folders in it"
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
    assert "(test, train), not class folders; did you mean data/train?" in message


def test_other_folders_beside_the_parts_do_not_hide_them():
    message = refusal(images("train/cat", "train/dog", "val/cat", "val/dog", "figures"))
    assert "(train, val), not class folders; did you mean data/train?" in message


@pytest.mark.parametrize("above", ["", "ImageNet/"])
def test_the_parts_in_a_zip_are_refused_too(above):
    members = images(*(f"{above}{part}/{name}" for part in ("val", "train") for name in "ab"))
    message = refusal(members, in_zip=True)
    assert message == (
        "data.zip holds the parts of a dataset (train, val), not class folders; "
        f"make a zip of {above}train alone"
    )


def test_images_without_class_folders_are_refused():
    assert refusal(images("")) == (
        "data holds images but no class folders: put the images of each class in a folder of its "
        f"own, or {UNCONDITIONAL}"
    )


@pytest.mark.parametrize("in_zip", [False, True])
def test_one_class_is_refused(in_zip):
    message = refusal(images("cat"), in_zip=in_zip)
    assert message == (
        f"{ZIP if in_zip else DATA} has one folder with images, 'cat', and a conditional model "
        f"needs several classes; add folders for other classes, or {UNCONDITIONAL}"
    )


@pytest.mark.parametrize("in_zip", [False, True])
def test_the_folders_inside_one_class_are_not_taken_for_classes(in_zip):
    members = [*images("cat", count=9), *images("cat/good", "cat/blurred")]
    assert "add folders for other classes" in refusal(members, in_zip=in_zip)


def test_images_beside_the_class_folders_are_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "biggan.data"):
        layout = arrange([*images("cat", "dog"), "b.png", "a.png"], DATA)
    assert layout.members == tuple(images("cat", "dog"))
    assert [record.getMessage() for record in caplog.records] == [
        "ignored 2 images outside the class folders, such as b.png"
    ]


@pytest.mark.parametrize("in_zip", [False, True])
@pytest.mark.parametrize("members", [images(""), images("cat"), images("b/c", "a", "b/a")])
def test_without_classes_every_layout_will_do(members, in_zip):
    layout = arrange(members, DATA, in_zip=in_zip, unconditional=True)
    assert layout == Layout(tuple(sorted(members)), (0,) * len(members), ())


@pytest.mark.parametrize("in_zip", [False, True])
def test_a_class_without_images_is_named(in_zip):
    members, path = images("cat", "dog"), ZIP if in_zip else DATA
    with pytest.raises(InputError, match="the class 'birds' has no images"):
        arrange(members, path, folders=["birds", "cat", "dog"], in_zip=in_zip)
    with pytest.raises(InputError, match="the class 'ants' and 1 more has no images"):
        arrange(members, path, folders=["birds", "ants"], in_zip=in_zip)
    assert arrange(members, path, folders=["cat", "dog", "cat/old"], in_zip=in_zip).members
    assert arrange(members, path, folders=["birds"], in_zip=in_zip, unconditional=True).members


def test_a_class_without_images_is_found_inside_wrapping_folders():
    members = [f"pets/{member}" for member in images("cat", "dog")]
    folders = ["pets", "pets/birds", "pets/cat", "pets/cat/old", "pets/dog", "other"]
    with pytest.raises(InputError, match="the class 'birds' has"):
        arrange(members, ZIP, folders=folders, in_zip=True)
