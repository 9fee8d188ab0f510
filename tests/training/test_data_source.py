"""A recipe's data: what is loaded, streamed, counted once, or refused."""

import dataclasses
import shutil

import pytest
import torch

from biggan.data import ImageDataset, ShardStream
from biggan.data.shards import INDEX
from biggan.training import batches
from biggan.training.batches import UncountedStream, look_at_data, open_data
from biggan.training.randomness import Purpose
from biggan.training.step import draw_latents
from data_forms import pictures, refusal, shuffled, write_shards

CPU = torch.device("cpu")
FILES = shuffled(pictures(8, ("blue", "red"), size=32))


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "shards", FILES, per_shard=4)


@pytest.fixture
def streaming(config, shards):
    return dataclasses.replace(config, data=str(shards), stream=True)


def opened(config, run_dir, strict=False):
    return open_data(config, run_dir, CPU, strict=strict)


def test_shards_are_loaded_or_streamed(streaming, shards, tmp_path):
    loaded = opened(dataclasses.replace(streaming, stream=False), tmp_path / "run")
    assert isinstance(loaded, ImageDataset)
    assert not (shards / INDEX).exists()
    streamed = opened(streaming, tmp_path / "run")
    assert isinstance(streamed, ShardStream)
    assert (len(streamed), streamed.class_names) == (len(loaded), loaded.class_names)
    assert (shards / INDEX).is_file()
    assert not (tmp_path / "run").exists()


def test_both_draw_the_same_empirical_labels(streaming, shards, tmp_path):
    few = {name: data for name, data in FILES.items() if "red" in name or "0000" in name}
    shutil.rmtree(shards)
    write_shards(shards, few, per_shard=3)
    config = dataclasses.replace(streaming, label_sampling="empirical", batch_size=500)
    loaded, streamed = (
        opened(dataclasses.replace(config, stream=stream), tmp_path) for stream in (False, True)
    )
    labels = draw_latents(config, streamed.histogram(), Purpose.GENERATOR_STEP, 0)[1]
    again = draw_latents(config, loaded.histogram(), Purpose.GENERATOR_STEP, 0)[1]
    assert torch.equal(labels, again)
    assert loaded.histogram() == [1, 8]
    assert torch.bincount(labels)[0] / 500 == pytest.approx(1 / 9, abs=0.05)


def test_without_classes_all_labels_are_0(streaming, tmp_path):
    config = dataclasses.replace(streaming, unconditional=True, label_sampling="empirical")
    streamed = opened(config, tmp_path)
    assert streamed.class_names == ()
    config = config.fitted(streamed.num_classes)
    counts = streamed.histogram()
    assert not draw_latents(config, counts, Purpose.GENERATOR_STEP, 0)[1].any()


def test_the_index_of_addresses_lies_in_the_runs_folder(streaming, shards, tmp_path, monkeypatch):
    addresses = f"file:{shards}/train-{{0000..0003}}.tar".replace("file:", "file://")
    config = dataclasses.replace(streaming, data=addresses)
    run = tmp_path / "runs" / "mine"
    assert look_at_data(config, run, strict=False) == UncountedStream(4, None)
    assert not run.exists()
    streamed = opened(config, run)
    assert streamed.class_names == ("0", "1")  # an address has no classes.txt beside it
    assert [path.name for path in run.iterdir()] == [INDEX]
    monkeypatch.setattr("biggan.data.shards.read_stream", None)
    assert opened(config, run).fingerprint == streamed.fingerprint
    assert look_at_data(config, run, strict=False).fingerprint == streamed.fingerprint
    line = refusal(opened, dataclasses.replace(config, stream=False), run)
    assert "is an address" in line
    assert "--set stream=true" in line


def test_class_names_come_from_the_recipe_first(streaming, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("hen\neel\n")
    config = dataclasses.replace(streaming, classes=str(names))
    assert look_at_data(config, None, strict=False) == UncountedStream(4, 2)
    assert opened(config, tmp_path).class_names == ("hen", "eel")
    names.write_text("hen\neel\ndog\n")
    assert "1 of 3 classes have no image" in refusal(opened, config, tmp_path)
    missing = dataclasses.replace(config, classes="none.txt")
    assert "cannot read the class names in none.txt" in refusal(opened, missing, tmp_path)


def test_looking_counts_nothing_and_knows_what_was_counted(streaming, shards, tmp_path):
    assert look_at_data(streaming, None, strict=False) == UncountedStream(4, 2)
    unconditional = dataclasses.replace(streaming, unconditional=True)
    assert look_at_data(unconditional, None, strict=False).num_classes == 0
    (shards / "classes.txt").unlink()
    assert look_at_data(streaming, None, strict=False) == UncountedStream(4, None)
    assert not (shards / INDEX).exists()
    opened(streaming, tmp_path)
    assert len(look_at_data(streaming, None, strict=False)) == 16


def test_a_mistake_is_told_before_anything_is_counted(streaming, shards, tmp_path):
    for changes, message in (
        ({"classes": "none.txt"}, "cannot read the class names"),
        ({"data": str(tmp_path / "none.tar")}, "no such file"),
        ({"data": "digits"}, "no such file: digits"),
    ):
        changed = dataclasses.replace(streaming, **changes)
        assert message in refusal(opened, changed, tmp_path / "run")
        assert message in refusal(look_at_data, changed, None, strict=False)
    assert not (shards / INDEX).exists()
    assert not (tmp_path / "run").exists()


def test_decoding_leaves_the_processors_to_the_step(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    threads = batches._decoding_threads
    assert threads(CPU) == 1
    assert threads(torch.device("cuda")) == 16
    for processes, expected in (("4", 4), ("32", 1), ("x", 16), ("0", 16)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert threads(torch.device("cuda", 0)) == expected


def test_the_first_process_counts_in_turns_and_lets_the_others_know(
    streaming, shards, tmp_path, monkeypatch
):
    """Processes that wait for hours without a word give up."""
    told = []
    assert 60 <= batches._TURN <= 600
    monkeypatch.setattr(batches, "_TURN", 0)  # a shard each time
    monkeypatch.setattr(batches, "on_any_process", lambda flag: told.append(flag) or flag)
    expected = opened(streaming, tmp_path).fingerprint
    assert told == [False, False, False, True]

    answers = iter(told)
    monkeypatch.setattr("biggan.data.shards.read_stream", None)
    monkeypatch.setattr(batches, "is_first", lambda: False)
    monkeypatch.setattr(batches, "on_any_process", lambda flag: next(answers) or flag)
    assert opened(streaming, tmp_path).fingerprint == expected
    assert not list(answers)
