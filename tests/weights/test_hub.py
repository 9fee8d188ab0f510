"""`hf://` addresses: what is fetched of a repository, and found again without a network."""

import sys

import pytest

from biggan import InputError
from biggan.weights.download import obtain_address
from biggan.weights.hub import obtain_from_hub
from biggan.weights.load import load_discriminator, load_generator
from file_server import Served

BODY = b"weights" * 1000


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path, server, cache):
    """A local server in place of the Hub, whose library reads its settings when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server.url(""))
    template = server.url("/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "a-token")
    return server


def refusal(address, **options):
    with pytest.raises(InputError) as raised:
        obtain_from_hub(address, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


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
    assert "nothing is downloaded offline" in refusal("hf://owner/other", offline=True)
    assert "no such file" in refusal("hf://owner/repo/inner/a.pth", offline=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert obtain_from_hub("hf://owner/repo") == path


def test_a_hub_that_cannot_be_reached(hub, monkeypatch, caplog):
    from huggingface_hub import constants

    hub.serve_repository("owner/repo", {"a.pth": BODY})
    path = obtain_from_hub("hf://owner/repo")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert obtain_from_hub("hf://owner/repo") == path
    assert "no connection to the Hub" in caplog.text
    assert "not in the Hub's cache" in refusal("hf://owner/other")


def test_a_revision_and_a_file(hub):
    hub.serve_repository("owner/repo", {"a.pth": b"old"}, revision="v1")
    hub.serve_repository("owner/repo", {"a.pth": b"asked"}, revision="refs%2Fpr%2F1")
    hub.serve_repository("owner/repo", {"a.pth": b"new", "b/c [1].pth": b"new c"})
    assert obtain_from_hub("hf://owner/repo/a.pth").read_bytes() == b"new"
    assert obtain_from_hub("hf://owner/repo/b/c [1].pth").read_bytes() == b"new c"
    assert obtain_from_hub("hf://owner/repo@v1").read_bytes() == b"old"
    assert obtain_from_hub("hf://owner/repo@refs%2Fpr%2F1/a.pth").read_bytes() == b"asked"
    assert "no such file; there are a.pth, b/c [1].pth" in refusal("hf://owner/repo/d.pth")
    assert "404" in refusal("hf://owner/repo@v2")


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
    assert refusal("hf://owner/repo") == (
        "hf://owner/repo holds several weights files: a.safetensors, b.safetensors, c.pth, d.bin; "
        "give one of them, such as hf://owner/repo/a.safetensors"
    )
    hub.serve_repository("owner/repo", {f"{i:02}.txt": b"1" for i in range(20)})
    assert "holds no weights file; there are 00.txt" in refusal("hf://owner/repo")
    assert refusal("hf://owner/repo").endswith("11.txt and 8 more")
    hub.serve_repository("owner/repo", {})
    assert refusal("hf://owner/repo").endswith("there are no files")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "RepoNotFound", "a private one: log in (`hf auth login`)"),
        (404, "RepoNotFound", "no such repository"),
        (403, "GatedRepo", "accept its terms"),
        (404, "RevisionNotFound", "no such revision"),
        (500, "", "cannot be downloaded (Server error"),
    ],
)
def test_what_the_hub_refuses(hub, status, code, message):
    hub.files["/api/models/owner/repo/revision/main"] = Served(b"no", status=status, error=code)
    assert message in refusal("hf://owner/repo")


@pytest.mark.parametrize("name", ["../a.pth", "/tmp/a.pth", "b/../../a.pth", "a\n\x1b.pth"])
def test_names_that_lead_outside_or_command_a_terminal(hub, tmp_path, name):
    hub.serve_repository("owner/repo", {name: BODY})
    message = refusal("hf://owner/repo")
    assert "\x1b" not in message
    assert not (tmp_path / "a.pth").exists()


@pytest.mark.parametrize("address", ["hf://", "hf://owner", "hf://owner/", "hf://a b/c", "hf:///a"])
def test_malformed_addresses(hub, address):
    assert "a repository is hf://owner/repo" in refusal(address)
    assert hub.asked == []


def test_the_hubs_library_is_needed_for_its_addresses_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'biggan[hub]'" in refusal("hf://owner/repo")


def test_networks_of_a_repository(hub, tiny_file, discriminator_file):
    contents = {
        "generator.safetensors": tiny_file.read_bytes(),
        "discriminator.safetensors": discriminator_file.read_bytes(),
        "damaged.safetensors": tiny_file.read_bytes()[:-1],
    }
    hub.serve_repository("owner/repo", contents)
    assert load_generator("hf://owner/repo").description.name == "tiny"
    found = load_discriminator("hf://owner/repo/discriminator.safetensors")
    assert found.description.name == "judge"
    address = "hf://owner/repo/damaged.safetensors"
    for _ in range(2):  # it is fetched again
        with pytest.raises(InputError, match="the copy in the cache is deleted: try again"):
            load_generator(address)
