"""`hf://` addresses: what is fetched of a repository, and found again without a network."""

import sys
from functools import partial
from pathlib import Path

import pytest

from biggan.data import load_dataset
from biggan.hub import hub_address, obtain_from_hub
from biggan.weights.download import obtain_address
from biggan.weights.load import load_network
from data_forms import pictures, write_parquet
from file_server import Served
from tiny import refusal

BODY = b"weights" * 1000


pytestmark = pytest.mark.usefixtures("hub")


refused = partial(refusal, obtain_from_hub)


def test_a_repository_is_fetched_once_and_found_without_a_network(hub, close_network, monkeypatch):
    from huggingface_hub import constants

    files = {"README.md": b"#", "generator.safetensors": BODY, "inner/a.pth": b"other"}
    hub.serve_repository("owner/repo", files)
    path = obtain_address("HF://owner/repo")
    assert (path.name, path.read_bytes()) == ("generator.safetensors", BODY)
    assert not (path.parent / "README.md").exists()
    assert {asked.headers.get("authorization") for asked in hub.asked[1:]} == {"Bearer a-token"}
    asked = len(hub.asked)
    obtain_from_hub("hf://owner/repo")
    assert all("/resolve/" not in again.path for again in hub.asked[asked:])
    close_network()
    assert obtain_from_hub("hf://owner/repo", offline=True) == path
    monkeypatch.setenv("BIGGAN_OFFLINE", "1")
    assert obtain_address("hf://owner/repo") == path
    assert "nothing is downloaded offline" in refused("hf://owner/other", offline=True)
    assert "no such file" in refused("hf://owner/repo/inner/a.pth", offline=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert obtain_from_hub("hf://owner/repo") == path


def test_a_hub_that_cannot_be_reached(hub, monkeypatch, caplog):
    from huggingface_hub import constants

    hub.serve_repository("owner/repo", {"a.pth": BODY})
    path = obtain_from_hub("hf://owner/repo")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert obtain_from_hub("hf://owner/repo") == path
    assert "no connection to the Hub" in caplog.text
    assert "not in the Hub's cache" in refused("hf://owner/other")


def test_a_revision_and_a_file(hub):
    hub.serve_repository("owner/repo", {"a.pth": b"old"}, revision="v1")
    hub.serve_repository("owner/repo", {"a.pth": b"asked"}, revision="refs%2Fpr%2F1")
    hub.serve_repository("owner/repo", {"a.pth": b"new", "b/c [1].pth": b"new c"})
    assert obtain_from_hub("hf://owner/repo/a.pth").read_bytes() == b"new"
    assert obtain_from_hub("hf://owner/repo/b/c [1].pth").read_bytes() == b"new c"
    assert obtain_from_hub("hf://owner/repo@v1").read_bytes() == b"old"
    assert obtain_from_hub("hf://owner/repo@refs%2Fpr%2F1/a.pth").read_bytes() == b"asked"
    assert "no such file; there are a.pth, b/c [1].pth" in refused("hf://owner/repo/d.pth")
    assert "404" in refused("hf://owner/repo@v2")


@pytest.mark.parametrize(
    ("listed", "chosen"),
    [
        (["generator.safetensors", "discriminator.safetensors", "model.safetensors"], "generator"),
        (["model.safetensors", "ema.safetensors", "pytorch_model.bin", "config.json"], "model"),
        (["inner/ema.safetensors", "a.pth", "b.pth"], "ema"),
        (["G_ema.pth", "config.json", "state.json"], "G_ema"),
        (["pytorch_model.bin", "README.md"], "pytorch_model"),
        (["release.pt"], "release"),
    ],
)
def test_the_file_of_a_repository(hub, listed, chosen):
    hub.serve_repository("owner/repo", {name: name.encode() for name in listed})
    path = obtain_from_hub("hf://owner/repo")
    assert path.stem == chosen
    assert path.read_bytes().decode().endswith(path.name)


@pytest.mark.parametrize("folder", ["", "v1/deep/"])
def test_what_belongs_to_a_file_is_fetched_with_it(hub, folder):
    contents = {"pytorch_model.bin": b"1", "config.json": b"2", "a.pth": b"3", "README.md": b"4"}
    hub.serve_repository("owner/bin", {folder + name: body for name, body in contents.items()})
    path = obtain_from_hub(f"hf://owner/bin/{folder}pytorch_model.bin")
    assert {file.name for file in path.parent.iterdir()} == {"config.json", "pytorch_model.bin"}
    module = ["saved_model.pb", "tfhub_module.pb", "variables/variables.index"]
    hub.serve_repository("owner/hub", dict.fromkeys([folder + name for name in module], b"1"))
    path = obtain_from_hub("hf://owner/hub")
    assert (path / "saved_model.pb").exists()
    assert (path / "variables" / "variables.index").exists()


def test_a_repository_in_doubt(hub):
    files = dict.fromkeys(["a.safetensors", "b.safetensors", "c.pth", "d.bin"], b"1")
    hub.serve_repository("owner/repo", files)
    assert refused("hf://owner/repo") == (
        "hf://owner/repo holds several weights files: a.safetensors, b.safetensors, c.pth, d.bin; "
        "give one of them, such as hf://owner/repo/a.safetensors"
    )
    hub.serve_repository("owner/repo", {f"{i:02}.txt": b"1" for i in range(20)})
    assert "holds no weights file; there are 00.txt" in refused("hf://owner/repo")
    assert refused("hf://owner/repo").endswith("11.txt and 8 more")
    hub.serve_repository("owner/repo", {})
    assert refused("hf://owner/repo").endswith("there are no files")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "RepoNotFound", "a private one: log in (`hf auth login`)"),
        (404, "RepoNotFound", "no such repository"),
        (403, "GatedRepo", "accept its terms"),
        (404, "RevisionNotFound", "no such revision"),
        (500, "", "the Hub cannot be used (Server error"),
    ],
)
def test_what_the_hub_refuses(hub, status, code, message):
    hub.files["/api/models/owner/repo/revision/main"] = Served(b"no", status=status, error=code)
    assert message in refused("hf://owner/repo")


@pytest.mark.parametrize(
    "name", ["../a.pth", "/tmp/a.pth", "//tmp/a.pth", "b/../../a.pth", "a\n\x1b.pth"]
)
def test_names_that_lead_outside_or_command_a_terminal(hub, tmp_path, name):
    hub.serve_repository("owner/repo", {name: BODY})
    message = refused("hf://owner/repo")
    assert message.endswith("there are no files")
    assert not (tmp_path / "a.pth").exists()


@pytest.mark.parametrize("address", ["hf://", "hf://owner", "hf://owner/", "hf://a b/c", "hf:///a"])
def test_malformed_addresses(hub, address):
    assert "a repository is hf://owner/repo" in refused(address)
    assert hub.asked == []


def test_paths_that_look_like_repositories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/pets").mkdir(parents=True)
    for path in ("runs/pets", "runs/pets@best", "runs/pets@20", "./pets", "../pets"):
        assert hub_address(path) == path
    assert hub_address("me/pets@best") == "hf://me/pets@best"


def test_a_repository_that_was_renamed(hub, caplog):
    hub.serve_repository("new/name", {"model.safetensors": BODY})
    for path in [path for path in hub.files if "new/name" in path]:
        old = path.replace("new/name", "old/name")
        hub.files[old] = Served(status=307, location=path)
    assert obtain_from_hub("hf://old/name").read_bytes() == BODY
    assert caplog.messages == ["old/name has moved to new/name"]


def test_the_hubs_library_is_needed_for_its_addresses_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'biggan[hub]'" in refused("hf://owner/repo")


def test_networks_of_a_repository(hub, tiny_file, discriminator_file):
    contents = {
        "generator.safetensors": tiny_file.read_bytes(),
        "discriminator.safetensors": discriminator_file.read_bytes(),
        "damaged.safetensors": tiny_file.read_bytes()[:-1],
    }
    hub.serve_repository("owner/repo", contents)
    assert load_network("hf://owner/repo").description.name == "tiny"
    for address in ("hf://owner/repo", "hf://owner/repo/discriminator.safetensors"):
        assert load_network(address, "discriminator").description.name == "judge"
    address = "hf://owner/repo/damaged.safetensors"
    for _ in range(2):  # it is fetched again
        assert "the copy in the cache is deleted: try again" in refusal(load_network, address)


FILES = pictures(2)


def parquet(tmp_path, names):
    contents = {name: FILES if "train" in name else TEST for name in names}
    made = tmp_path / "made"
    return {name: write_parquet(made / name, contents[name]).read_bytes() for name in names}


TEST = {name: data for name, data in FILES.items() if name.endswith("1.png")}


@pytest.mark.parametrize(
    ("names", "address", "images"),
    [
        (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], "", 4),
        (
            ["data/train-00000-of-00002-0a1b.parquet", "data/train-00001-of-00002-0a1b.parquet"],
            "",
            8,
        ),
        (["data/train-00000-of-00001.parquet", "data/test.parquet"], "/default/test", 2),
        (["plain/train-00000-of-00001.parquet"], "", 4),
        (["a/train-0-of-1.parquet", "b/train-0-of-1.parquet", "b/test-0-of-1.parquet"], "/b", 4),
        (["a/train-0-of-1.parquet", "b/test-0-of-1.parquet"], "/b/test", 2),
        (["default/train/0000.parquet", "default/test/0000.parquet"], "/default/test/", 2),
        (["train.parquet"], "@main", 4),
    ],
)
def test_a_data_set_is_its_training_split_or_the_one_that_is_named(
    hub, tmp_path, names, address, images
):
    hub.serve_repository("owner/pets", parquet(tmp_path, names), kind="datasets")
    source = f"hf://datasets/owner/pets{address}"
    data = load_dataset(source, 8, 3)
    assert (len(data), data.class_names) == (images, ("cat", "dog"))
    assert data.source == source.rstrip("/")
    asked = [path for path in hub.paths() if "/resolve/" in path]
    assert all(images == 2 or "test" not in path for path in asked)
    assert len(load_dataset(Path(source), 8, 3)) == images


def test_a_data_set_offline(hub, tmp_path, monkeypatch):
    hub.serve_repository("owner/pets", parquet(tmp_path, ["train.parquet"]), kind="datasets")
    assert len(load_dataset("hf://datasets/owner/pets", 8, 3)) == 4
    asked = len(hub.asked)
    monkeypatch.setenv("BIGGAN_OFFLINE", "1")
    assert len(load_dataset("hf://datasets/owner/pets", 8, 3)) == 4
    assert "nothing is downloaded offline" in refused_dataset("hf://datasets/owner/other")
    assert len(hub.asked) == asked


def test_a_data_set_that_the_hub_converted_to_parquet(hub, tmp_path):
    hub.serve_repository("owner/pets", {"train.zip": b"", "README.md": b""}, kind="datasets")
    assert refused_dataset("hf://datasets/owner/pets").startswith(
        "hf://datasets/owner/pets holds no parquet files: download it"
    )
    files = parquet(tmp_path, ["default/train/0000.parquet"])
    converted = "refs%2Fconvert%2Fparquet"
    hub.serve_repository("owner/pets", files, revision=converted, kind="datasets")
    assert len(load_dataset("hf://datasets/owner/pets", 8, 3)) == 4


def refused_dataset(source):
    return refusal(load_dataset, source, 8, 3)


def test_a_data_set_in_doubt(hub, tmp_path):
    names = ["a/train-0-of-1.parquet", "b/train-0-of-1.parquet", "b/test-0-of-1.parquet"]
    hub.serve_repository("owner/pets", parquet(tmp_path, names), kind="datasets")
    for address in ("", "/c", "/b/validation"):
        message = refused_dataset(f"hf://datasets/owner/pets{address}")
        assert message.endswith("name one of its parts: a/train, b/test, b/train")
    for address in ("hf://datasets/owner", "hf://datasets/", Path("hf://datasets/owner/")):
        assert "a data set is hf://datasets/owner/name" in refused_dataset(address)
    answer = Served(b"no", status=403, error="GatedRepo")
    hub.files["/api/datasets/owner/pets/revision/main"] = answer
    assert "a gated repository: accept its terms" in refused_dataset("hf://datasets/owner/pets")
