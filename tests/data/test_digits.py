import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import datasets

from biggan.data.digits import CLASS_NAMES, load_digits
from biggan.errors import InputError


def test_all_digits_are_there_with_their_labels():
    images, labels = load_digits(resolution=8, channels=1)
    original = datasets.load_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert labels.tolist() == original.target.tolist()
    # At their own size the 17 levels are only stretched to 0..255.
    expected = np.round(original.images * 255 / 16)
    np.testing.assert_array_equal(images[:, 0].numpy(), expected)
    assert (images.min(), images.max()) == (0, 255)


def test_names_fit_the_labels():
    assert CLASS_NAMES[0] == "zero"
    assert CLASS_NAMES[7] == "seven"
    assert len(CLASS_NAMES) == 10


def test_enlarging_is_bicubic_and_colour_repeats_grey():
    small, _ = load_digits(8, 1)
    grey, _ = load_digits(32, 1)
    colour, _ = load_digits(32, 3)
    first = Image.fromarray(small[0, 0].numpy()).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(grey[0, 0].numpy(), np.asarray(first))
    assert torch.equal(colour, grey.expand(-1, 3, -1, -1))


def test_without_scikit_learn_the_way_out_is_named(monkeypatch):
    monkeypatch.delattr("sklearn.datasets")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"pip install 'biggan\[train\]'") as caught:
        load_digits(8, 1)
    assert "\n" not in str(caught.value)
