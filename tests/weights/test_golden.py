"""Checkpoints in the published formats beside what the software that wrote them computes.

They stay out of the repository: the tests skip where they are not beside it.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import biggan

SHARED = Path(os.environ.get("BIGGAN_SHARED", Path(__file__).parents[2].parent / "shared"))
GOLDEN = SHARED / "golden"
CASES = ["brock-128-ch8", "huggingface-deep-128-ch16", "ivclab-128-ch8"]

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no reference cases at {GOLDEN}")


@pytest.mark.parametrize("case", CASES)
def test_pictures_agree(case):
    gan = biggan.load(GOLDEN / case)
    expected = np.load(GOLDEN / case / "expected.npz")
    compared = 0
    for name in expected.files:
        if not name.startswith("images"):
            continue
        truncation = float(name.removeprefix("images_")) if "_" in name else None
        z = expected["z"] * (1 if truncation is None else truncation)
        found = gan.generate(z, expected["labels"], truncation)
        np.testing.assert_allclose(found.numpy(), expected[name], rtol=0, atol=1e-5)
        compared += 1
    assert compared >= 1
    assert gan.class_names[207] == "golden retriever"


def test_logits_agree():
    folder = GOLDEN / "brock-128-ch8"
    expected = np.load(folder / "expected.npz")
    for path in (folder, folder / "D.pth"):
        discriminator = biggan.load_discriminator(path)
        with torch.no_grad():
            found = discriminator(
                torch.tensor(expected["images"]), torch.tensor(expected["labels"])
            )
        np.testing.assert_allclose(found.numpy(), expected["logits"], rtol=1e-5)
