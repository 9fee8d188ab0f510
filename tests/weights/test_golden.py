"""Checkpoints in the published formats beside what the software that wrote them computes.

They stay out of the repository: the tests skip where they are not beside it.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import biggan

SHARED = Path(os.environ.get("BIGGAN_SHARED", Path(__file__).parents[2].parent / "shared"))
GOLDEN = SHARED / "golden"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/expected.npz"))
# Files of a folder that are not the ones which its name means.
OTHERS = {"images_G": "*=G-best-*", "images_current": "*=G_ema-current-*"}

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no reference cases at {GOLDEN}")


def read_expected(case):
    with np.load(GOLDEN / case / "expected.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("case", CASES)
def test_pictures_agree(case):
    folder, expected, compared = GOLDEN / case, read_expected(case), 0
    for name in expected:
        if not name.startswith("images") or name == "images_generator":
            continue
        truncated = re.fullmatch(r"images_([\d.]+)", name)
        truncation = float(truncated[1]) if truncated else None
        z = expected["z"] * (1 if truncation is None else truncation)
        gan = biggan.load(next(folder.glob(OTHERS[name])) if name in OTHERS else folder)
        found = gan.generate(z, expected["labels"], truncation).numpy()
        print(f"{case} {name}: {np.abs(found - expected[name]).max():.1e}")
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-5)
        compared += 1
    assert compared >= 1
    assert gan.config.num_classes != 1000 or gan.class_names[207] == "golden retriever"


@pytest.mark.parametrize("case", CASES)
def test_logits_agree(case):
    expected = read_expected(case)
    if "logits" not in expected:
        pytest.skip("a generator alone")
    discriminator = biggan.load_discriminator(GOLDEN / case)
    with torch.no_grad():
        found = discriminator(torch.tensor(expected["images"]), torch.tensor(expected["labels"]))
    largest = np.abs(expected["logits"]).max()
    difference = np.abs(found.numpy() - expected["logits"]).max() / largest
    print(f"{case} logits: {difference:.1e}")
    assert difference < 1e-5
