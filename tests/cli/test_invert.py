"""`biggan invert`."""

import json
from pathlib import Path

import torch

from biggan.inversion import load_latents
from biggan.provenance_files import read_provenance
from command_line import fails, pixels, succeeds


def test_latents_and_reconstructions_and_the_same_command_again(tiny_file, tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    succeeds(f"sample --model {tiny_file} -n 2 --truncation 0.6 --out {pictures}")
    first, second = sorted(pictures.iterdir())
    line = f"invert --model {tiny_file} --truncation 0.6 --steps 60 --out {out}"
    printed = succeeds(f"{line} {first}")
    latents = out / f"{first.stem}.safetensors"
    assert printed.startswith(f"{latents}  tabby, tabby cat  ")

    written = latents.read_bytes(), latents.stat().st_mtime_ns
    (out / f"{first.stem}.png").unlink()  # as if it had been killed in between
    entries = json.loads(succeeds(f"{line} {first} {second} --json"))
    assert (latents.read_bytes(), latents.stat().st_mtime_ns) == written
    assert [entry["class_index"] for entry in entries] == [0, 1]
    assert [entry["psnr"] > 25 for entry in entries] == [True, True]
    assert len(list(out.iterdir())) == 4

    found = load_latents(latents)
    made = read_provenance(Path(entries[0]["image"]))
    assert torch.equal(torch.tensor(made.z), found.z[0])
    assert (made.truncation, made.sha256) == (0.6, found.sha256)
    again = succeeds(f"sample --model {tiny_file} --like {entries[0]['image']} --out {tmp_path}/l")
    assert (pixels(again.strip()) == pixels(entries[0]["image"])).all()

    sheet = tmp_path / "new" / "sheet.png"
    printed = succeeds(f"{line} {first} {second} --sheet {sheet}")
    assert printed.splitlines()[-1] == str(sheet)
    images = [pixels(file) for entry in entries for file in (entry["picture"], entry["image"])]
    for place, image in enumerate(images):
        assert (pixels(sheet)[:, 17 * place : 17 * place + 16] == image).all()


def test_other_settings_and_files_of_others_are_kept(tiny_file, tmp_path):
    succeeds(f"sample --model {tiny_file} --truncation 0.6 --out {tmp_path}")
    [picture] = tmp_path.iterdir()
    before = picture.read_bytes()
    line = f"invert --model {tiny_file} --steps 3 --out {tmp_path} {picture} --json"
    stem = picture.stem
    [entry] = json.loads(succeeds(line))
    assert entry["latents"] == str(tmp_path / f"{stem}.safetensors")
    assert entry["image"] == str(tmp_path / f"{stem}-2.png")
    assert picture.read_bytes() == before
    [entry] = json.loads(succeeds(f"{line} --seed 1"))
    assert entry["latents"] == str(tmp_path / f"{stem}-2.safetensors")


def test_mistakes(tiny_file, tmp_path):
    succeeds(f"sample --model {tiny_file} --out {tmp_path}/pictures")
    [picture] = (tmp_path / "pictures").iterdir()
    base = f"invert --model {tiny_file} --out {tmp_path}/out"
    for line, message in {
        f"{base} {tmp_path}/nothing.png": "cannot read",
        f"invert {picture} --out {tmp_path}/out": "16x16 pixels, and fruits makes 64x64",
        f"{base} {picture} --class dog": "no class is named 'dog'",
        f"{base} {picture} --features lpips": "at least 64 pixels",
        f"{base} {picture} --features discriminator": "discriminator",
        f"{base} {picture} --truncation 3": "truncation must be",
        f"{base} {picture} --seconds 0": "above 0 seconds",
        f"{base} {picture} --sheet {tmp_path}/sheet.jpg": "must end in .png",
    }.items():
        assert message in fails(line)
    assert not (tmp_path / "out").exists()
