"""What the package computed before a change of its code, it computes after it.

    python tests/test_identity.py --against REF [PART ...]   # this code and a commit's, bit for bit
    python tests/test_identity.py --record         # write tests/identity.json anew, on purpose only

Bits depend on the processor and the libraries, so the first command runs both versions here. The
test compares a part of it with recorded figures, to rounding. Only commands and public names are
used, so that the same file runs on both versions of the code.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

import command_line

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "identity.json"
FILES = HERE / "files_of_0_1"
"""A run's folder, a packed set and pictures that version 0.1.0 wrote."""

NARROW = ["generator.channels=8", "discriminator.channels=8", "statistics_images=16"]
RUN = [*NARROW, "total_steps=60", "batch_size=16", "checkpoint_every=30", "watch.every=5"]
REMEDIES = [
    "flip=true", "d_steps=2", "accumulation=2", "augmentation.kind=diffaugment", "r1.gamma=1",
    "lecam.strength=0.3", "lecam.start=10", "instance_noise.std=0.1", "dropout.keep=0.8",
    "loss.margin=2", "watch.held_out=0.1",
    "spectrum.generator=regularize", "spectrum.discriminator=clamp", "spectrum.bound=2",
    "interventions=[{step = 20, g_lr = 1e-4}, {step = 40, d_steps = 1}]",
]  # fmt: skip
COLLAPSE = ["optimizer.g_lr=0.05", "optimizer.d_lr=0.1", "checkpoint_every=10", "watch.every=2"]
ROLLBACK = ["collapse.action=rollback", "collapse.rollbacks=2", "collapse.g_lr=0.5"]

Figures = dict[str, Any]
"""For one thing: "sha256" of its bytes, "about" some numbers of it, or either alone."""


def biggan(*arguments: object, status: int = 0) -> str:
    done = command_line.biggan("", *arguments)
    assert done.returncode == status, done.stderr
    return done.stdout


def changes(*lists: list[str]) -> list[str]:
    return [word for entry in lists for change in entry for word in ("--set", change)]


def of_pixels(pictures: list[Image.Image]) -> Figures:
    pixels = [np.asarray(picture.convert("RGB")) for picture in pictures]
    digest = hashlib.sha256(b"".join(p.tobytes() for p in pixels)).hexdigest()
    means = [float(p[::2].mean()) for p in pixels] + [float(p[:, ::2].std()) for p in pixels]
    return {"sha256": digest, "about": means}


def of_tensors(path: Path) -> Figures:
    """Every tensor of a safetensors file; not its header, which names versions."""
    from safetensors.numpy import load_file

    tensors = sorted(load_file(path).items())
    digest = hashlib.sha256()
    for name, value in tensors:
        digest.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
    total = sum(float(np.abs(value).astype(np.float64).sum()) for _, value in tensors)
    return {"sha256": digest.hexdigest(), "about": [total]}


def of_frames(path: Path) -> Figures:
    with Image.open(path) as image:
        return of_pixels([frame.convert("RGB") for frame in ImageSequence.Iterator(image)])


# --- what is compared ---


def bundled_pictures(_: Path) -> Iterator[tuple[str, Figures]]:
    import biggan as package

    gan = package.load("digits")
    for truncation in (0.02, 0.4, 0.57, 1.0, None):
        name = f"digits, truncation {truncation}"
        yield name, of_pixels(gan.sample("seven", num=3, truncation=truncation, seed=5))
    rows = gan.interpolate("three", "eight", steps=5, num=2, truncation=0.4, seed_a=0, seed_b=3)
    yield "digits, interpolation", of_pixels([picture for row in rows for picture in row])


def presets(folder: Path) -> Iterator[tuple[str, Figures]]:
    import biggan as package
    from biggan.models import PRESETS, get_preset
    from biggan.weights.files import Description, save_network

    for name in PRESETS:
        config = get_preset(name).generator.updated({"channels": 8})
        path = folder / f"{name}.safetensors"
        save_network(path, package.build_generator(config, seed=3), Description(name=name))
        gan = package.load(path)
        for noise in ("hub", "paper", "scale"):
            pictures = gan.sample(1, num=1, truncation=0.5, seed=2, noise=noise)
            yield f"{name}, {noise}", of_pixels(pictures)


def shell(folder: Path) -> Iterator[tuple[str, Figures]]:
    options = ["--model", "digits", "--truncation", 0.4, "--seed", 1]
    biggan("sample", *options, "--class", "two", "--num", 2, "--out", folder / "samples")
    files = sorted((folder / "samples").glob("*.png"))
    yield "sample", {"about": [len(files)], **of_pixels([Image.open(file) for file in files])}
    for end in ("gif", "webp"):
        out = folder / f"morph.{end}"
        biggan("interpolate", "--model", "digits", "--from", "one", "--to", "two", "--out", out)
        yield f"interpolate {end}", of_frames(out)


def old_files(folder: Path) -> Iterator[tuple[str, Figures]]:
    import biggan as package

    gan = package.load(FILES / "run")
    yield "an old run", of_pixels(gan.sample("dog", num=2, truncation=0.4, seed=0))
    assert gan.class_names == ("cat", "dog")
    judge = package.load_discriminator(FILES / "run")
    total = sum(p.detach().abs().sum().item() for p in judge.parameters())
    yield "an old discriminator", {"about": [total]}
    for name in ("picture.png", "grid.png", "path.png", "path.webp"):
        out = folder / name.replace(".", "-")
        out.mkdir()
        verb, target = ("interpolate", out / name) if "path" in name else ("sample", out)
        biggan(verb, "--like", FILES / name, "--model", FILES / "run", "--out", target)
        [again] = out.iterdir()
        yield f"an old {name} again", of_frames(again)
    shutil.copytree(FILES, folder / "old")
    os.chdir(folder / "old")  # where the run's data lie
    more = changes(["total_steps=6"])
    biggan("train", "run/config.toml", "--data", "packed", "--out", "run", *more)
    yield "an old run goes on", of_tensors(Path("run/generator.safetensors"))
    os.chdir(HERE)


def trained(
    folder: Path, name: str, *more: list[str], parts: bool = False, status: int = 0
) -> Path:
    run = folder / name
    arguments = ["train", "digits", "--out", run, *changes(RUN, *more)]
    if parts:
        biggan(*arguments, *changes(["total_steps=30"]))
    biggan(*arguments, status=status)
    return run / "generator.safetensors"


def training(folder: Path) -> Iterator[tuple[str, Figures]]:
    yield "60 steps", of_tensors(trained(folder, "whole"))
    yield (
        "60 steps, biggan-deep",
        of_tensors(
            trained(
                folder, "deep", ["generator.family=biggan-deep", "discriminator.family=biggan-deep"]
            )
        ),
    )


def long_training(folder: Path) -> Iterator[tuple[str, Figures]]:
    yield "60 steps in two parts", of_tensors(trained(folder, "parts", parts=True))
    yield "60 steps, every remedy", of_tensors(trained(folder, "remedies", REMEDIES))
    collapsed = trained(folder, "rollback", COLLAPSE, ROLLBACK, status=2)  # two times too often
    yield "rollbacks", of_tensors(collapsed)
    run = folder / "two"
    launch = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "biggan"]
    arguments = ["train", "digits", f"--out={run}", *changes(RUN)]
    subprocess.run([sys.executable, "-m", *launch, *arguments], check=True, capture_output=True)
    yield "60 steps, two processes", of_tensors(run / "generator.safetensors")


def evaluation(folder: Path) -> Iterator[tuple[str, Figures]]:
    extractor = folder / "classifier.safetensors"
    # After more steps the scores would differ between processors by a tenth.
    biggan("classifier", "digits", "--resolution", 16, "--steps", 2, "--out", extractor)
    yield "classifier", of_tensors(extractor)
    out = folder / "evaluation.json"
    options = ["--num", 300, "--truncations", "0.5,none", "--metrics", "fid,is,kid,pr"]
    subject = ["--model", "digits", "--data", "digits", "--extractor", extractor]
    biggan("evaluate", *subject, *options, "--out", out)
    rows = json.loads(out.read_text())["rows"]
    # After so few steps Frechet distances are small: in a unit in which the tolerance is one.
    units = {"frechet_distance": 1e-4}
    scores = [
        value / units.get(name, 1) for row in rows for name, value in sorted(row["scores"].items())
    ]
    text = json.dumps(scores).encode()
    yield "scores", {"sha256": hashlib.sha256(text).hexdigest(), "about": scores}


def recipes(_: Path) -> Iterator[tuple[str, Figures]]:
    for path in sorted((HERE.parent / "recipes").glob("*.toml")):
        recipe = json.loads(biggan("train", path.stem, "--dry-run", "--json"))["recipe"]
        text = json.dumps(recipe, sort_keys=True).encode()
        yield f"recipe {path.stem}", {"sha256": hashlib.sha256(text).hexdigest()}


Part = Callable[[Path], Iterator[tuple[str, Figures]]]
TESTED: list[Part] = [bundled_pictures, shell, old_files, training, evaluation]
"""Recorded in identity.json and compared by the test."""
ALL: list[Part] = [*TESTED, presets, long_training, recipes]


def measure(parts: list[Part]) -> dict[str, Figures]:
    figures: dict[str, Figures] = {}
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["BIGGAN_CACHE"] = str(Path(folder) / "cache")
            figures |= dict(part(Path(folder)))
    return figures


LONG = [pytest.param(part, marks=pytest.mark.slow) for part in TESTED[2:]]


@pytest.mark.parametrize("part", [*TESTED[:2], *LONG])
def test_figures_are_the_recorded_ones(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    recorded = json.loads(RECORDED.read_text())
    for name, figures in part(tmp_path):
        expected = recorded[name]
        # Rounding differs between processors, and training amplifies it.
        assert figures["about"] == pytest.approx(expected, rel=0.02, abs=0.01), name


# --- the commands ---


def compare(ref: str, names: list[str]) -> int:
    """Measure this code and that of a commit, and print what differs."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        run = ["git", "-C", HERE.parent, "worktree"]
        subprocess.run([*run, "add", "--quiet", "--detach", tree, ref], check=True)
        try:
            before, after = (_measured_in(root, names) for root in (tree, HERE.parent))
        finally:
            subprocess.run([*run, "remove", "--force", tree], check=True)
    different = [name for name in before | after if before.get(name) != after.get(name)]
    for name in different:
        print(f"differs: {name}\n  before {before.get(name)}\n  after  {after.get(name)}")
    print(f"{len(after) - len(different)} of {len(after)} are identical")
    return 1 if different else 0


def _measured_in(root: Path, names: list[str]) -> dict[str, Figures]:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, str(Path(__file__).resolve()), "--print", *names]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Figures] = json.loads(done.stdout)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--against", metavar="REF", help="compare with the code of a commit")
    what.add_argument("--record", action="store_true", help="write identity.json")
    what.add_argument("--print", action="store_true", help="print the figures of this code as JSON")
    parts = {part.__name__: part for part in ALL}
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}")
    arguments = parser.parse_args()
    if arguments.against:
        return compare(arguments.against, arguments.parts)
    if arguments.record:
        lines = [f"{json.dumps(n)}: {json.dumps(f['about'])}" for n, f in measure(TESTED).items()]
        RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    else:
        json.dump(measure([parts[name] for name in arguments.parts or parts]), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
