"""Models in repositories of the Hub: what is published is what comes back."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import biggan
from biggan import DiscriminatorConfig, Gan, InputError, build_discriminator
from biggan.provenance_files import read_provenance
from biggan.publishing import model_card
from biggan.training.config import load_recipe
from biggan.weights.files import Description
from biggan.weights.load import load_network
from command_line import biggan as biggan_command
from command_line import fails, succeeds, write_images, write_recipe
from file_server import Served
from tiny import TINY_CLASSES, TINY_DISCRIMINATOR, refusal, tiny_generator

pytestmark = pytest.mark.usefixtures("hub")


def same_pictures(gan, other):
    for a, b in zip(gan.sample(1, 2, 0.5), other.sample(1, 2, 0.5), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert (gan.sha256, gan.description) == (other.sha256, other.description)


@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # of huggingface_hub itself
@pytest.mark.parametrize("large", [(), ("model.safetensors", "discriminator.safetensors")])
def test_what_is_pushed_comes_back_to_the_bit(hub, tiny, large):
    hub.large = large
    judge = build_discriminator(DiscriminatorConfig.from_dict(TINY_DISCRIMINATOR), seed=1)
    assert tiny.push_to_hub("me/pets", discriminator=judge) == hub.url("/me/pets")
    same_pictures(Gan.from_pretrained("me/pets"), tiny)
    same_pictures(biggan.load("hf://me/pets"), tiny)
    written = [
        asked for asked in hub.asked if asked.path.startswith("/api/") and "commit" in asked.path
    ]
    assert [asked.headers.get("authorization") for asked in written] == ["Bearer a-token"]
    # The Hub counts downloads by those of config.json.
    assert any(path.endswith("/config.json") for path in hub.paths())
    found = biggan.load_discriminator("hf://me/pets").state_dict()
    for name, value in judge.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_a_folder_is_what_is_pushed(hub, tiny, tmp_path):
    out = tiny.save_pretrained(tmp_path / "out")
    same_pictures(Gan.from_pretrained(out), tiny)
    same_pictures(Gan.from_pretrained(str(out)), tiny)
    names = {"model.safetensors", "config.json", "README.md", "samples.png"}
    assert {file.name for file in out.iterdir()} == names
    config = json.loads((out / "config.json").read_text())
    assert config["library_name"] == "biggan"
    assert config["class_names"] == list(TINY_CLASSES)
    assert config["sha256"] == tiny.sha256
    with Image.open(out / "samples.png") as picture:
        assert picture.size == (4 * 16 + 3, 3 * 16 + 2)
    assert read_provenance(out / "samples.png").pictures[4].class_index == 1
    tiny.save_pretrained(out, repo="me/pets")
    tiny.push_to_hub("me/pets")
    assert hub.repositories["me/pets"] == {name: (out / name).read_bytes() for name in names}


@pytest.mark.parametrize("name", ["discriminator.safetensors", "recipe.toml"])
def test_what_another_model_left_in_the_folder_is_refused(tiny, tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"has the {name} of another model: remove it, or give"):
        tiny.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_folder_with_a_typing_mistake_is_named(hub):
    with pytest.raises(InputError, match="hf://runs/typo: .*; and there is no folder runs/typo$"):
        Gan.from_pretrained("runs/typo")


def test_a_card_that_is_there_stays(hub, tiny):
    tiny.push_to_hub("me/pets")
    files = hub.repositories["me/pets"]
    files["README.md"] = b"# My own words"
    files["samples.png"] = b""
    tiny.push_to_hub("me/pets")
    assert files["README.md"] == b"# My own words"
    assert files["samples.png"]


def test_a_run_is_pushed_with_its_recipe_and_discriminator(hub, tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / "data" / name)
    recipe = write_recipe(tmp_path / "recipe.toml", total_steps=2, licence="MIT", name="pets")
    succeeds("train", recipe, "--data", tmp_path / "data", "--out", tmp_path / "run")
    pushed = biggan_command("push", tmp_path / "run", "me/pets")
    assert (pushed.stdout.strip(), pushed.stderr) == (hub.url("/me/pets"), "")
    files = hub.repositories["me/pets"]
    (tmp_path / "again.toml").write_bytes(files["recipe.toml"])
    assert load_recipe(tmp_path / "again.toml").total_steps == 2
    assert 'from_pretrained("me/pets")' in files["README.md"].decode()
    same_pictures(biggan.load(tmp_path / "run"), Gan.from_pretrained("me/pets"))
    assert load_network("hf://me/pets", "discriminator").kind == "discriminator"
    card = files["README.md"].decode()
    head = card.split("---\n")[1]
    assert '\nlicense: "mit"\n' in head
    assert "| Training | 2 steps |" in card
    assert "| Training data | data, 6 images |" in card
    # A discriminator alone, and a folder alone.
    succeeds("push", tmp_path / "run" / "discriminator.safetensors", "me/judge")
    assert load_network("hf://me/judge", "discriminator").kind == "discriminator"
    assert "load_discriminator" in hub.repositories["me/judge"]["README.md"].decode()
    out = tmp_path / "out"
    succeeds("push", tmp_path / "run", "me/pets", "--folder", out)
    same_pictures(Gan.from_pretrained("me/pets"), Gan.from_pretrained(out))
    assert load_network(out, "discriminator").kind == "discriminator"
    asked = len(hub.asked)
    out = tmp_path / "without"
    succeeds("push", tmp_path / "run", "me/pets", "--no-discriminator", "--folder", out)
    assert not (out / "discriminator.safetensors").exists()
    assert "discriminator" not in (out / "README.md").read_text()
    assert len(hub.asked) == asked
    (tmp_path / "run" / "discriminator.safetensors").write_bytes(b"damaged")
    assert "discriminator.safetensors is not a weights file" in fails(
        "push", tmp_path / "run", "me/pets", "--folder", out
    )


def test_the_card_says_what_is_known():
    training = {
        "step": 12000,
        "data": "hf://datasets/owner/pets@v1/default/train",
        "images": 7000,
        "evaluation": {
            "scores": {"fid": 12.345, "is": 8, "other": 1},
            "num": 10000,
            "reference": {"name": "pets"},
            "extractor": {"name": "inception"},
        },
    }
    names = tuple(f"class {number}" for number in range(30))
    description = Description("pets <b>", names, "here | there", "my own\nwords", training)
    about = {"kind": "generator", "model_type": "biggan", "resolution": 64, "parameters": 1234567}
    about |= {"sha256": "0a", "discriminator": False, "recipe": False}
    card = model_card(description, about, "me/pets")
    assert 'metrics:\n- "fid"\n- "is"\n' in card
    assert 'Gan.from_pretrained("me/pets")' in card
    head = card.split("---\n")[1]
    assert 'library_name: "biggan"\nlicense: "other"\nlicense_name: "my-own-words"\n' in head
    assert 'datasets:\n- "owner/pets"\n' in head
    assert "# pets &lt;b>" in card
    assert "here \\| there" in card
    assert "10,000 untruncated images, against pets, features of inception:" in card
    assert re.findall(r"\| (FID|Inception Score) \| (\S+) \|", card) == [
        ("FID", "12.35"),
        ("Inception Score", "8"),
    ]
    assert "class 19 and 10 more (`config.json`)" in card
    assert 'gan.sample("class 0", num=4' in card
    plain = model_card(Description("x"), about, "me/x")
    assert "license" not in plain.split("---\n")[1]
    assert "Not measured" in plain
    assert "no classes" in plain


def test_the_card_of_an_unconditional_model(tmp_path):
    gan = Gan(tiny_generator(num_classes=0), Description("noise"), "0")
    out = gan.save_pretrained(tmp_path)
    with Image.open(out / "samples.png") as picture:
        assert picture.size == (4 * 16 + 3, 16)
    assert "gan.sample(num=4" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("path", "answer", "message"),
    [
        ("/api/repos/create", Served(b"{}", status=401), "nobody is logged in: `hf auth login`"),
        ("/api/repos/create", Served(b"{}", status=403), "no permission: log in with a token that"),
        ("/api/models/me/pets/commit/main", Served(b"{}", status=403), "no permission"),
        ("/api/models/me/pets/preupload/main", Served(b"{}", status=500), "Server error"),
    ],
)
def test_what_the_hub_refuses(hub, tiny, monkeypatch, path, answer, message):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    receive, refused = hub.receive, (answer.status, answer.body)
    monkeypatch.setattr(
        hub, "receive", lambda at, body: refused if at.startswith(path) else receive(at, body)
    )
    said = refusal(tiny.push_to_hub, "me/pets")
    assert "cannot push to me/pets: " in said
    assert message in said


def test_mistakes(hub, tiny, tmp_path, monkeypatch):
    answer = Served(b"", status=401, error="RepoNotFound")
    hub.files["/api/models/me/none/revision/main"] = answer
    hub.serve_repository("me/empty", {"README.md": b""})
    assert "no such repository, or a private one" in refusal(Gan.from_pretrained, "me/none")
    assert "holds no weights file; there are README.md" in refusal(Gan.from_pretrained, "me/empty")
    assert "no model 'nothing'" in fails("push nothing me/pets")
    for repo in ("pets", "a/b/c", "me/pets@v1", "me/"):
        assert "a repository is owner/name" in refusal(tiny.push_to_hub, repo)
        assert "a repository is owner/name" in fails(f"push nothing {repo}")  # before it loads
        assert "a repository is owner/name" in fails(f"push nothing {repo} --folder {tmp_path}")
    monkeypatch.setenv("BIGGAN_OFFLINE", "0")
    tiny.push_to_hub("me/pets")
    monkeypatch.setenv("BIGGAN_OFFLINE", "1")
    assert "cannot push to me/pets offline" in refusal(tiny.push_to_hub, "me/pets")
    assert "cannot push to me/pets offline" in fails("push nothing me/pets")
