"""`biggan directions`."""

import json

from biggan.directions import load_directions
from command_line import fails, pixels, succeeds


def test_both_methods_write_a_file_and_a_sheet(tiny_file, tmp_path):
    out, sheet = tmp_path / "new" / "d.safetensors", tmp_path / "sheets" / "sheet.png"
    where = f"--out {out} --sheet {sheet}"
    printed = succeeds(f"directions {tiny_file} --num 3 --samples 60 --class tabby {where}")
    assert printed.split() == [str(out), str(sheet)]
    assert load_directions(out).method == "pca"
    assert pixels(sheet).shape == (3 * (16 + 13) + 2, 7 * 16 + 6, 3)

    sefa = f"directions {tiny_file} --method sefa --layers 1-2 --num 2 --name 1=size {where} --json"
    about = json.loads(succeeds(sefa))
    assert about["layers"] == [1, 2]
    assert [direction["name"] for direction in about["directions"]] == ["", "size"]
    assert load_directions(out).names == ("", "size")


def test_mistakes(tiny_file, tmp_path):
    base = f"directions {tiny_file} --out {tmp_path}/d.safetensors"
    assert "a range such as 0-3, not 'all'" in fails(f"{base} --layers all")
    assert "0 (the linear one) to 2, not 3" in fails(f"{base} --num 2 --layers 2-{10**12}")
    assert "0 (the linear one) to 2: give at least one" in fails(f"{base} --num 2 --layers 2-1")
    assert "must end in .safetensors" in fails(f"directions {tiny_file} --out {tmp_path}/d.png")
    assert "such as 0=rotation, not 'size'" in fails(f"{base} --name size")
    assert "there are 0 to 1" in fails(f"{base} --num 2 --method sefa --name 7=size")
    assert "must end in .png" in fails(f"{base} --sheet sheet.jpg")
    assert "no layer 'blocks.9'" in fails(f"{base} --num 2 --samples 9 --activation blocks.9")
    assert "no class is named 'dog'" in fails(f"{base} --num 2 --samples 9 --class dog")
    sefa = f"{base} --num 2 --method sefa"
    assert "draws no samples: omit --activation" in fails(f"{sefa} --activation blocks.1")
    for option in ("--class 1", "--seed 3", "--truncation 0.4"):
        assert f"{option.split()[0]} is for the sheet" in fails(f"{sefa} {option}")
    assert "--truncation is for the sheet" in fails(f"{base} --truncation 0.4")
    assert "no class is named 'dog'" in fails(f"{sefa} --class dog --sheet {tmp_path}/s.png")
    for name in ("1=0", "1=a:b", "1=turn --name 0=turn"):
        assert "cannot be a name" in fails(f"{sefa} --name {name}")
    assert not list(tmp_path.iterdir())
