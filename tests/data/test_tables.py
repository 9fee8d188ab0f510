"""Labels in tables beside the images: labels.csv, metadata.csv and metadata.jsonl."""

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


def test_the_column_of_the_files_is_not_that_of_numbers(tmp_path):
    text = "label,file\n" + "".join(f"{n % 2},{n}.png\n" for n in range(6))
    assert load(write(tmp_path, "labels.csv", text)) == {n: str(n % 2) for n in range(6)}
    text = "target,picture\n" + "".join(f"{n % 2},{n}\n" for n in range(6))
    assert load(write(tmp_path, "labels.csv", text)) == {n: str(n % 2) for n in range(6)}


def test_numbers_that_do_not_count_from_0_are_names(tmp_path):
    text = csv(labels=[5, 7, 5, 7, 7, 5])
    data = load_dataset(write(tmp_path, "labels.csv", text), 8, 3)
    assert data.class_names == ("5", "7")


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


def test_a_table_of_captions_leaves_the_folders_their_classes(tmp_path, caplog):
    pictures = {f"{LABELS[n]}/{n}.png": PICTURES[f"{n}.png"] for n in range(6)}
    text = "file_name,text\n" + "".join(f"{name},a {name}\n" for name in pictures)
    assert load(write(tmp_path, "metadata.csv", text, pictures)) == EXPECTED


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
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, table, text, fault):
    path = write(tmp_path, table, text)
    message = refusal(load, path)
    assert message.startswith(str(path))
    assert fault in message
    assert len(load_dataset(path, 8, 3, unconditional=True)) == 6
