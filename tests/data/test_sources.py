"""Which files a folder or a pattern means."""

import logging

import pytest

from biggan.data import load_dataset
from biggan.data.shards import expand_shards
from biggan.data.sources import containers, expand, open_source
from data_forms import pictures, png, refusal, write_folder, write_parquet, write_shards, write_tar

FILES = pictures(4)


@pytest.mark.parametrize("name", ["dl [1]", "a[bc]", "{1}", "x{y}z", "[!a]"])
def test_brackets_in_a_folder_are_no_pattern(tmp_path, name):
    path = write_parquet(tmp_path / name / "train-0.parquet", FILES)
    assert containers(path) == (path,)
    assert containers(path.parent) == (path,)
    assert containers(path.with_name("train-*.parquet")) == (path,)
    shards = [write_tar(tmp_path / name / f"train-{number}.tar", []) for number in range(2)]
    assert expand(str(path.with_name("train-{0..1}.tar"))) == shards
    assert expand_shards(path.with_name("train-?.tar")) == list(map(str, shards))


def test_tables_beside_shards_are_not_the_data(tmp_path, caplog):
    folder = write_shards(tmp_path / "laion", FILES)
    names = sorted(path.stem for path in folder.glob("*.tar"))
    for name in names:
        (folder / f"{name}.parquet").write_bytes(b"captions")
        (folder / f"{name}_stats.json").write_text("{}")
    with caplog.at_level(logging.WARNING, "biggan.data"), open_source(folder) as source:
        assert len(source.members) == 8
        assert not caplog.records
    (folder / "metadata.parquet").write_bytes(b"captions")
    with caplog.at_level(logging.WARNING, "biggan.data"), open_source(folder):
        assert "using the 2 shards, not the parquet files beside them" in caplog.text
        assert "metadata.parquet" in caplog.text
    assert expand_shards(folder) == [str(folder / f"{name}.tar") for name in names]


@pytest.mark.parametrize("below", ["data", "default/train", "snapshots/0123abcd/data"])
def test_a_repository_of_the_hub_is_its_data(tmp_path, below):
    write_folder(tmp_path, {"README.md": b"", ".gitattributes": b"", "refs/main": b"0123abcd"})
    write_folder(tmp_path, {".cache/huggingface/download/data/train-0.parquet": b""})
    write_parquet(tmp_path / below / "train-00000-of-00001.parquet", FILES)
    assert len(load_dataset(tmp_path, 8, 3)) == 8
    write_folder(tmp_path / below, {"0.png": png(0)[0]})
    assert containers(tmp_path / below) == ()  # a table beside images is not the data


@pytest.mark.parametrize("suffix", [".parquet", ".tar"])
def test_the_parts_in_one_folder_are_refused_with_a_pattern(tmp_path, suffix):
    for stem in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write_folder(tmp_path, {f"hf/data/{stem}{suffix}": b""})
    for stem in ("x-train-000", "x-train-001", "x-validation-000"):
        write_folder(tmp_path, {f"shards/{stem}{suffix}": b""})
    for name in ("train", "test", "readme"):
        write_folder(tmp_path, {f"plain/{name}{suffix}": b""})
    for name, pattern, parts in (
        ("hf", f"data/train-*{suffix}", "test, train"),
        ("shards", f"x-train-*{suffix}", "train, validation"),
        ("plain", f"train{suffix}", "test, train"),
    ):
        message = refusal(containers, tmp_path / name)
        assert f"contains the splits of a dataset ({parts}): name one" in message
        assert message.endswith(f"such as {tmp_path / name / pattern}")
        assert all("train" in path.name for path in containers(tmp_path / name / pattern))
    assert "contains the splits" in refusal(containers, tmp_path / "shards" / f"*{suffix}")
    both = tmp_path / "shards" / f"x-{{train,validation}}-*{suffix}"
    assert len(containers(both)) == 3


@pytest.mark.parametrize("write", [write_tar, write_parquet])
def test_data_in_several_folders_are_refused_with_the_right_one(tmp_path, write):
    suffix = ".tar" if write is write_tar else ".parquet"
    for part in ("test", "train"):
        write(tmp_path / "default" / part / f"0000{suffix}", {} if suffix == ".tar" else FILES)
    message = refusal(load_dataset, tmp_path, 8, 3)
    assert "contains no images, but data in default/train, default/test" in message
    assert message.endswith(f"did you mean {tmp_path / 'default' / 'train'}?")


def test_archives_in_a_folder_are_named(tmp_path):
    for part in ("test", "train"):
        write_folder(tmp_path / "data", {f"{part}.zip": b""})
    message = refusal(load_dataset, tmp_path, 8, 3)
    assert message.endswith(f"did you mean {tmp_path / 'data' / 'train.zip'}?")
    write_folder(tmp_path / "one", {"pets.zip": b""})
    assert refusal(load_dataset, tmp_path / "one", 8, 3).endswith("one/pets.zip?")


def test_files_of_the_system_beside_shards_are_left_out(tmp_path):
    folder = write_shards(tmp_path / "shards", FILES)
    of_system = ("@eaDir/train-0000.tar/x", "._train-0000.tar", "#recycle/x")
    write_folder(folder, dict.fromkeys(of_system, b""))
    assert len(load_dataset(folder, 8, 3)) == 8


@pytest.mark.parametrize(
    "write", [write_shards, lambda path, files: write_parquet(path / "a.parquet", files)]
)
def test_an_empty_folder_beside_shards_changes_nothing(tmp_path, write):
    (tmp_path / "data" / "empty").mkdir(parents=True)
    write(tmp_path / "data", FILES)
    assert len(load_dataset(tmp_path / "data", 8, 3)) == 8


def test_a_broken_link_is_not_suggested_for_itself(tmp_path):
    (tmp_path / "pets").symlink_to("nowhere")
    assert refusal(load_dataset, tmp_path / "pets", 8, 3).endswith("pets")
