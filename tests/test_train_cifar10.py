"""scripts/train_cifar10.py: segments resume to the bit, also from what was carried along."""

import itertools
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import biggan
from biggan.training import TrainConfig
from biggan.weights.files import FORMAT, load_tensors, save_tensors

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import train_cifar10
from model_card import draw_curves

TINY = [
    "precision=float32",
    "batch_size=8",
    "d_steps=1",
    "log_every=1",
    "statistics_images=8",
    "generator.channels=8",
    "generator.widths=[2, 2, 2, 2]",
    "generator.z_dim=8",
    "generator.class_dim=8",
    "discriminator.channels=8",
]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def call(images, tmp_path, monkeypatch):
    """Calls the script. Every look at the clock takes a second, the first at the start.

    The looks are: at the start of the call, at that of its training, after every step, at the end.
    """

    def call(run, out, seconds, *options, killed_at=None):
        looks = itertools.count()

        def clock():
            if (now := next(looks)) == killed_at:
                raise Killed
            return now

        monkeypatch.setattr(train_cifar10, "clock", clock)
        monkeypatch.setattr(train_cifar10, "NOTE_EVERY", 1)
        changes = itertools.chain.from_iterable(("--set", change) for change in TINY)
        arguments = ["--data", images, "--run", tmp_path / run, "--out", tmp_path / out]
        limits = ["--seconds", seconds, "--reserve", 0, "--device", "cpu"]
        train_cifar10.main([str(part) for part in [*arguments, *limits, *changes, *options]])

    return call


class Killed(BaseException):
    """As Python's own interrupts, caught by nobody."""


def weights(run):
    (path,) = sorted((run / "checkpoints").glob("*.safetensors"))[-1:]
    return load_file(path)


def test_two_segments_resume_to_the_bit_from_what_was_carried_along(call, tmp_path, capsys):
    call("here", "carried", 3)
    assert capsys.readouterr().out == "step 2: the same call goes on\n"
    assert not (tmp_path / "carried" / "facts.json").exists()
    call("elsewhere", "later", 100, "--from", tmp_path / "carried", "--budget", 4)
    assert capsys.readouterr().out == "step 3: finished\n"

    call("whole", "whole-out", 100, "--set", "total_steps=3")
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "elsewhere")
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())

    train_cifar10.unpack(tmp_path / "later", tmp_path / "joined")
    gan = biggan.load(tmp_path / "joined")
    assert gan.sha256 == biggan.load(tmp_path / "whole").sha256
    assert len(gan.generator.head.bn.grid) == 50

    facts = json.loads((tmp_path / "later" / "facts.json").read_text())
    assert (facts["steps"], facts["real_images_shown"], facts["images_in_the_data"]) == (3, 24, 12)
    assert [(s["from_step"], s["to_step"]) for s in facts["segments"]] == [(0, 2), (2, 3)]
    assert facts["seconds_of_training"] == sum(s["seconds"] for s in facts["segments"])
    assert facts["last_metrics"]["step"] == 3
    with Image.open(tmp_path / "later" / "real-and-generated.png") as grid:
        assert grid.size == (2 * (10 * 33 - 1) + 8, 2 * 33 - 1)  # two grids of 10 x 2
    with Image.open(tmp_path / "later" / "curves.png") as curves:
        assert curves.size == (900, 660)


def test_a_call_that_was_killed_is_charged_and_the_next_goes_on_from_a_checkpoint(call, tmp_path):
    with pytest.raises(Killed):
        call("here", "out", 100, "--set", "checkpoint_every=2", killed_at=6)  # in the fifth step
    (killed,) = train_cifar10.read_segments(tmp_path / "out")
    assert (killed["from_step"], killed["to_step"]) == (0, 4)
    assert (killed["seconds"], killed["completed"]) == (4, False)
    assert train_cifar10.newest_step(tmp_path / "here") == 4

    # The run's folder is lost: what was kept is of the checkpoint before. A second is left.
    call("elsewhere", "later", 100, "--from", tmp_path / "out", "--budget", 5)
    segments = train_cifar10.read_segments(tmp_path / "later")
    assert segments[0] == killed
    assert (segments[1]["from_step"], segments[1]["to_step"]) == (2, 3)
    facts = json.loads((tmp_path / "later" / "facts.json").read_text())
    assert (facts["steps"], facts["seconds_of_training"]) == (
        3,
        sum(s["seconds"] for s in segments),
    )

    # It is still there.
    call("here", "out", 100, "--set", "total_steps=5", "--budget", 6)
    segments = train_cifar10.read_segments(tmp_path / "out")
    assert [(s["from_step"], s["to_step"]) for s in segments] == [(0, 4), (4, 5)]
    assert segments[1]["completed"]


def test_a_budget_that_is_used_up_before_the_first_checkpoint(call, tmp_path):
    with pytest.raises(Killed):
        call("run", "out", 100, killed_at=3)
    with pytest.raises(biggan.InputError, match="no call came to a checkpoint: raise --budget"):
        call("run", "out", 100, "--budget", 1)


@pytest.fixture
def run_dir(tmp_path):
    """A run's folder, its files of random bytes and known sizes; random numbers in checkpoints."""
    folder = tmp_path / "run"
    sizes = {
        "config.toml": 100,
        "generator.safetensors": 40_000,
        "discriminator.safetensors": 30_000,
        "previews/step-00000001.png": 1000,
        "previews/step-00000002.png": 1000,
    }
    random = np.random.default_rng(0)
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(random.bytes(size))
    (folder / "checkpoints").mkdir()
    for step in (1, 2):
        write_checkpoint(folder / "checkpoints" / f"step-{step:08}.safetensors", beta1=0.0)
    return folder


def write_checkpoint(path, beta1):
    """Of 90,000 bytes, a third of them Adam's first moments."""
    recipe = TrainConfig.from_dict({"optimizer": {"beta1": beta1}}).to_dict()
    header = {"kind": "checkpoint", "step": 2, "recipe": recipe, "data_fingerprint": ""}
    random = torch.Generator().manual_seed(0)
    names = ("generator.a", "g_optimizer.a.exp_avg", "g_optimizer.a.exp_avg_sq")
    tensors = {name: torch.randn(7500, generator=random) for name in names}
    save_tensors(path, {"format": FORMAT, "header": json.dumps(header)}, tensors)


@pytest.mark.parametrize("beta1", [0.0, 0.5])
def test_a_squeezed_checkpoint_is_the_same_but_for_moments_that_nobody_reads(tmp_path, beta1):
    path, again = tmp_path / "step-00000002.safetensors", tmp_path / "again.safetensors"
    write_checkpoint(path, beta1)
    squeezed = train_cifar10.squeeze(path)
    again.write_bytes(train_cifar10.unsqueeze(squeezed))
    (metadata, tensors, _), (_, found, _) = load_tensors(path), load_tensors(again)
    if beta1 == 0:
        tensors["g_optimizer.a.exp_avg"].zero_()
    assert load_tensors(again)[0] == metadata
    torch.testing.assert_close(found, tensors, rtol=0, atol=0)
    assert len(squeezed) < (0.62 if beta1 == 0 else 0.9) * path.stat().st_size


def test_a_run_is_split_into_parts_and_joined_again(run_dir, tmp_path):
    out, joined = tmp_path / "out", tmp_path / "joined"
    assert train_cifar10.pack(run_dir, out, None, part=40_000)
    sizes = [path.stat().st_size for path in sorted(out.glob("run-*.tar.*"))]
    assert len(sizes) == 4
    assert max(sizes) == 40_000
    assert json.loads((out / "run.json").read_text())["step"] == 2
    train_cifar10.write_segments([{"seconds": 7}], out)
    train_cifar10.unpack(out, joined)
    names = {path.relative_to(joined) for path in joined.rglob("*.*")}
    checkpoint = Path("checkpoints/step-00000002.safetensors")
    assert len(names) == 6  # of previews and checkpoints only the newest
    for name in names - {Path("segments.jsonl"), checkpoint}:
        assert (joined / name).read_bytes() == (run_dir / name).read_bytes()
    squeezed = train_cifar10.squeeze(run_dir / checkpoint)
    assert (joined / checkpoint).read_bytes() == train_cifar10.unsqueeze(squeezed)
    assert train_cifar10.read_segments(joined) == [{"seconds": 7}]


def test_a_kill_while_packing_leaves_the_parts_from_before(run_dir, tmp_path, monkeypatch):
    out = tmp_path / "out"
    train_cifar10.pack(run_dir, out, None, part=50_000)
    before = (run_dir / "generator.safetensors").read_bytes()
    (run_dir / "generator.safetensors").write_bytes(b"new")
    (out / ".half.tmp").touch()
    write = train_cifar10.write_atomically

    def killed_at_the_index(path, contents):
        if path.name == "run.json":
            raise Killed
        write(path, contents)

    monkeypatch.setattr(train_cifar10, "write_atomically", killed_at_the_index)
    with pytest.raises(Killed):
        train_cifar10.pack(run_dir, out, None, part=50_000)
    monkeypatch.undo()
    train_cifar10.unpack(out, tmp_path / "joined")
    assert (tmp_path / "joined" / "generator.safetensors").read_bytes() == before
    train_cifar10.pack(run_dir, out, None)
    assert sorted(path.name.rpartition("-")[0] for path in out.iterdir()) == ["", "run"]


def test_a_kill_while_unpacking_leaves_nothing(run_dir, tmp_path, monkeypatch):
    out, joined = tmp_path / "out", tmp_path / "joined"
    train_cifar10.pack(run_dir, out, None)
    extract = tarfile.TarFile.extractall

    def killed_at_the_end(tar, *arguments, **options):
        extract(tar, *arguments, **options)
        (tmp_path / ".joined.unpacking" / "half").touch()
        raise Killed

    monkeypatch.setattr(tarfile.TarFile, "extractall", killed_at_the_end)
    with pytest.raises(Killed):
        train_cifar10.unpack(out, joined)
    assert not joined.exists()
    monkeypatch.undo()
    train_cifar10.unpack(out, joined)
    assert not (joined / "half").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out", "joined"}


def test_what_does_not_fit_is_left_out_and_the_next_call_says_so(run_dir, tmp_path):
    out = tmp_path / "out"
    assert train_cifar10.pack(run_dir, out, None, part=40_000)
    # A run under way needs its checkpoint above all,
    assert train_cifar10.pack(run_dir, out, 75_000, part=40_000)
    assert sum(path.stat().st_size for path in out.glob("run-*.tar.*")) <= 75_000
    assert len(list(out.glob("run-*.tar.*"))) == 2  # none of the four from before is left
    # and a finished one the networks.
    assert not train_cifar10.pack(run_dir, out, 100_000, finished=True, part=40_000)
    assert sum(path.stat().st_size for path in out.glob("run-*.tar.*")) <= 100_000
    with pytest.raises(biggan.InputError, match="has no checkpoint"):
        train_cifar10.unpack(out, tmp_path / "joined")
    with pytest.raises(biggan.InputError, match="raise --at-most"):
        train_cifar10.pack(run_dir, out, 30_000)


def test_missing_and_mixed_parts_are_refused(run_dir, tmp_path):
    out = tmp_path / "out"
    train_cifar10.pack(run_dir, out, None, part=50_000)
    (part,) = out.glob("run-*.tar.01")
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(biggan.InputError, match="damaged, or of different calls"):
        train_cifar10.unpack(out, tmp_path / "joined")
    part.unlink()
    with pytest.raises(biggan.InputError, match="lacks run-.*.tar.01"):
        train_cifar10.unpack(out, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_curves_of_a_run_that_logged_little():
    line = {"step": 1, "d_loss": 1.0, "g_loss": 0.0, "d_real": 0.0, "d_fake": 0.0}
    for lines in ([], [line], [line, {**line, "step": 2, "d_loss": 2.0}]):
        assert draw_curves(lines).size == (900, 660)
