"""Labels in tables beside the images: labels.csv, metadata.csv, metadata.jsonl, dataset.json."""

import json

import pytest

from biggan.data import load_dataset
from data_forms import png, refusal, write_folder, write_zip

NAMES = [f"{number}.png" for number in range(6)]
LABELS = ["dog", "cat", "dog", "cat", "cat", "dog"]
PICTURES = {name: png(number)[0] for number, name in enumerate(NAMES)}


def csv(labels=LABELS, header="file_name,label", names=NAMES):
    rows = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
    return "\n".join([*([header] if header else []), *rows, ""])


def jsonl(labels=LABELS, key="label"):
    lines = [{"file_name": name, key: label} for name, label in zip(NAMES, labels, strict=True)]
    return "\n".join(map(json.dumps, lines))


PAIRS = [[name, number % 2] for number, name in enumerate(NAMES)]


def pairs(labels):
    """dataset.json of StyleGAN's tools."""
    return json.dumps({"labels": labels, "more": []})


def write(tmp_path, table, text, pictures=PICTURES, form=write_folder):
    content = text.encode() if isinstance(text, str) else text
    return form(tmp_path / "data.zip", {**pictures, table: content})


def load(path, **options):
    data = load_dataset(path, 8, 3, **options)
    pixels = {png(number)[1].tobytes(): number for number in range(6)}
    numbers = [pixels[image.numpy().tobytes()] for image in data.images]
    names = data.class_names
    return {n: names[k] for n, k in sorted(zip(numbers, data.labels.tolist(), strict=True))}


EXPECTED = dict(enumerate(LABELS))


@pytest.mark.parametrize("form", [write_folder, write_zip])
@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("metadata.csv", csv()),
        ("metadata.jsonl", jsonl()),
        ("dataset.json", pairs([*map(list, zip(NAMES, LABELS, strict=True))])),
        ("labels.csv", csv()),
        ("Labels.CSV", csv()),
        ("labels.jsonl", jsonl(key="breed")),
        ("metadata.jsonl", jsonl().replace('{"f', '{"text": "a\u2028b\x85", "f')),
        ("labels.csv", csv().replace("\n", "\r")),
        ("labels.csv", csv(header="id,breed", names=[name[:-4] for name in NAMES])),
        ("labels.csv", csv(header="")),
        ("labels.csv", csv(names=[f"./{name}" for name in NAMES])),
        ("labels.csv", csv(names=[f"images\\{name}" for name in NAMES])),
        ("labels.csv", csv().replace(",", ";")),
        ("labels.tsv", csv().replace(",", "\t")),
        ("labels.csv", ("\ufeff" + csv()).replace("\n", "\r\n")),
        ("labels.csv", csv() + "0.png,dog\n"),
        ("labels.csv", csv(header="image,label", labels=[f'" {name}"' for name in LABELS])),
    ],
)
def test_labels_are_those_of_the_table(tmp_path, form, table, text):
    below = "images/" if "images" in text else ""
    pictures = {f"{below}{name}": data for name, data in PICTURES.items()}
    assert load(write(tmp_path, table, text, pictures, form)) == EXPECTED


@pytest.mark.parametrize("prefix", ["", "cifar10/", "a/cifar10/"])
@pytest.mark.parametrize("form", [write_folder, write_zip])
def test_numbered_folders_may_have_labels(tmp_path, form, prefix):
    names = [f"{number // 2:05}/img{number:08}.png" for number in range(6)]
    pictures = {prefix + name: png(number)[0] for number, name in enumerate(names)}
    labels = [[name, number % 2] for number, name in enumerate(names)]
    of_windows = {f".\\{name}".replace("/", "\\"): label for name, label in labels}
    for content in (labels, of_windows):
        path = write(tmp_path, f"{prefix}dataset.json", pairs(content), pictures, form)
        assert load(path) == {n: str(n % 2) for n in range(6)}


@pytest.mark.parametrize("header", ["label,file", "target,picture"])
def test_the_column_of_the_files_is_not_that_of_numbers(tmp_path, header):
    names = NAMES if "file" in header else range(6)
    rows = "".join(f"{n % 2},{name}\n" for n, name in enumerate(names))
    path = write(tmp_path, "labels.csv", f"{header}\n{rows}")
    assert load(path) == {n: str(n % 2) for n in range(6)}


def test_numbers_that_do_not_count_from_0_are_names(tmp_path):
    text = csv(labels=[5, 7, 5, 7, 7, 5])
    assert load_dataset(write(tmp_path, "labels.csv", text), 8, 3).class_names == ("5", "7")


def test_a_column_can_be_chosen(tmp_path):
    rows = [f"{n}.png,{'ab'[n % 2]},{'xyz'[n % 3]}" for n in range(6)]
    path = write(tmp_path, "labels.csv", "\n".join(["file,colour,shape", *rows]))
    assert refusal(load, path) == (
        f"{path}/labels.csv has the columns colour, shape: choose that of the labels with "
        "--label-column"
    )
    assert load(path, label_column="Shape") == {n: "xyz"[n % 3] for n in range(6)}
    message = refusal(load, path, label_column="size")
    assert message == f"{path} has no table with the column 'size'"


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("metadata.csv", "file_name,text\n" + "".join(f"{n}.png,a picture\n" for n in range(6))),
        ("dataset.json", "[]"),
        ("dataset.json", '{"version": 1}'),
    ],
)
def test_a_table_without_labels_leaves_the_folders_their_classes(tmp_path, table, text):
    pictures = {f"{LABELS[n]}/{n}.png": PICTURES[f"{n}.png"] for n in range(6)}
    assert load(write(tmp_path, table, text, pictures)) == EXPECTED


def test_a_table_above_a_part_labels_the_part(tmp_path):
    pictures = {f"train/{name}": data for name, data in PICTURES.items()}
    pictures["test/x.png"] = png(9)[0]
    for form in (write_folder, write_zip):
        path = form(tmp_path / form.__name__, {**pictures, "labels.csv": csv().encode()})
        named = path if form is write_folder else path.rename(path.with_suffix(".zip"))
        assert load(f"{named}::train") == EXPECTED
        assert "no label for 1 of 7 images, such as test/x.png (None)" in refusal(load, named)


@pytest.mark.parametrize(
    ("table", "text", "fault"),
    [
        ("labels.csv", csv() + "9.png,cat\n8.png,cat\n", "names 2 images that do not exist, such"),
        ("labels.csv", csv() + "0.png,cat\n", "has two labels for 0.png, 'dog' and 'cat': keep"),
        ("metadata.jsonl", jsonl() + '\n{"file_name": "0.png", "label": "x"}', "has two labels"),
        ("labels.csv", csv(LABELS[:4], names=NAMES[:4]), "no label for 2 of 6 images, such as 4.p"),
        ("labels.csv", csv([*LABELS[:5], ""]), "no label for 1 of 6 images, such as 5.png ()"),
        ("metadata.jsonl", jsonl([["a", "b"]] * 6), "no label for 6 of 6 images, such as 0.png (["),
        ("metadata.jsonl", jsonl([0.5] * 6), "no label for 6 of 6 images, such as 0.png (0.5)"),
        ("metadata.jsonl", jsonl([*[0, 1] * 2, 1, -1]), "5.png has no label"),
        ("metadata.jsonl", jsonl() + "\n[1]", "is damaged: correct it, or remove it"),
        ("metadata.jsonl", jsonl() + "\n{", "is damaged: correct it, or remove it"),
        ("metadata.jsonl", "[" * 100_000, "is damaged: correct it, or remove it"),
        ("labels.csv", b"file_name,label\n0.png,caf\xe9\n", "is not UTF-8: save it as UTF-8"),
        ("labels.csv", csv() + "a,b,c\n", "row 8 has 3 fields, the first one 2"),
        ("labels.csv", csv() + '"0.png,cat\n', "is damaged: correct it, or remove it"),
        ("labels.csv", csv(["cat"] * 6), "needs several classes, and there is one"),
        ("labels.csv", "a,b\nx,y\n", "holds images but no class folders"),
        ("labels.csv", "", "holds images but no class folders"),
        ("dataset.json", pairs(None), "has no labels [file, number]: train without classes (--unc"),
        ("dataset.json", pairs([0, 1]), "has no labels [file, number]"),
        ("dataset.json", pairs("labels"), "has no labels [file, number]"),
        ("dataset.json", pairs([[1, 2]]), "has no labels [file, number]"),
        ("dataset.json", pairs(PAIRS[:4]), "no label for 2 of 6 images, such as 4.png"),
        ("dataset.json", pairs([*PAIRS[:5], ["5.png", None]]), "no label for 1 of 6 images"),
        ("dataset.json", pairs([[name, [0, 0.5]] for name in NAMES]), "0.png ([0, 0.5])"),
        ("dataset.json", pairs([[name, 0.5] for name in NAMES]), "0.png (0.5)"),
        ("dataset.json", pairs([*PAIRS[:5], ["5.png", -1]]), "5.png has no label"),
        (
            "dataset.json",
            pairs([*PAIRS, ["6.png", 2]]),
            "no image of the class 2 that dataset.json",
        ),
        ("dataset.json", "{", "dataset.json is damaged"),
        ("dataset.json", "[" * 100_000, "dataset.json is damaged"),
        ("dataset.json", "\0", "dataset.json is damaged"),
        ("dataset.json", "[]", "holds images but no class folders"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, table, text, fault):
    path = write(tmp_path, table, text)
    message = refusal(load, path)
    assert message.startswith(str(path))
    assert fault in message
    assert len(load_dataset(path, 8, 3, unconditional=True)) == 6
