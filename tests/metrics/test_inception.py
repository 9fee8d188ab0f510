"""TF-Inception: its network written out plainly, TensorFlow's resize, its file, its provenance.

The weights are random, and made while the plain network runs: each BatchNorm's statistics are near
those of what reaches it, so that features neither fade nor explode.
"""

import copy
import hashlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from biggan import InputError
from biggan.metrics import inception
from biggan.metrics.inception import (
    FILE,
    Inception,
    InceptionFeatures,
    obtain_weights,
)
from biggan.weights import download
from biggan.weights.formats.conversion import ForeignTensors
from file_server import FileServer, Served
from peer_resizes import resized_as_pillow, resized_as_tensorflow


class PlainNetwork:
    """The network in float64, layer by layer; weights that are not there yet are made up."""

    def __init__(self):
        self.tensors = {}
        self.random = np.random.RandomState(0)  # the same numbers with every version

    def new(self, name, *shape, mean=0.0, deviation=1.0):
        if name not in self.tensors:
            values = mean + deviation * self.random.standard_normal(shape).astype(np.float32)
            self.tensors[name] = torch.from_numpy(np.asarray(values, np.float32))
        return self.tensors[name].double()

    def conv(self, x, name, out, kernel, stride=1, pad=None):
        height, width = kernel
        pad = (height // 2, width // 2) if pad is None else pad
        fan_in = x.shape[1] * height * width
        weight = self.new(
            f"{name}.conv.weight", out, x.shape[1], height, width, deviation=(2 / fan_in) ** 0.5
        )
        y = F.conv2d(x, weight, stride=stride, padding=pad)
        if f"{name}.bn.weight" not in self.tensors:
            var, mean = torch.var_mean(y, dim=(0, 2, 3))
            self.tensors[f"{name}.bn.running_mean"] = (mean + 0.1 * var.sqrt()).float()
            self.tensors[f"{name}.bn.running_var"] = (1.2 * var).float()
            self.tensors[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
        gain = self.new(f"{name}.bn.weight", out, mean=1.0, deviation=0.2)
        shift = self.new(f"{name}.bn.bias", out, deviation=1.0)
        mean = self.tensors[f"{name}.bn.running_mean"].double()
        var = self.tensors[f"{name}.bn.running_var"].double()
        gain, shift, mean, var = (v[:, None, None] for v in (gain, shift, mean, var))
        return ((y - mean) / (var + 0.001) ** 0.5 * gain + shift).clamp(min=0)

    def chain(self, x, block, prefix, *layers):
        for i, (out, *kernel) in enumerate(layers, 1):
            x = self.conv(x, f"{block}.{prefix}_{i}", out, kernel)
        return x

    def __call__(self, x):
        """Features and logits of (N, 3, 299, 299) in [-1, 1]."""
        x = self.conv(x, "Conv2d_1a_3x3", 32, (3, 3), 2, 0)
        x = self.conv(x, "Conv2d_2a_3x3", 32, (3, 3), 1, 0)
        x = largest(self.conv(x, "Conv2d_2b_3x3", 64, (3, 3)), 2)
        x = self.conv(x, "Conv2d_3b_1x1", 80, (1, 1))
        x = largest(self.conv(x, "Conv2d_4a_3x3", 192, (3, 3), 1, 0), 2)
        for letter, pooled in (("b", 32), ("c", 64), ("d", 64)):
            name = f"Mixed_5{letter}"
            one = self.conv(x, f"{name}.branch1x1", 64, (1, 1))
            two = self.chain(x, name, "branch5x5", (48, 1, 1), (64, 5, 5))
            three = self.chain(x, name, "branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3))
            pool = self.conv(average(x), f"{name}.branch_pool", pooled, (1, 1))
            x = torch.cat([one, two, three, pool], 1)
        one = self.conv(x, "Mixed_6a.branch3x3", 384, (3, 3), 2, 0)
        two = self.chain(x, "Mixed_6a", "branch3x3dbl", (64, 1, 1), (96, 3, 3))
        two = self.conv(two, "Mixed_6a.branch3x3dbl_3", 96, (3, 3), 2, 0)
        x = torch.cat([one, two, largest(x, 2)], 1)
        for letter, c in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
            name = f"Mixed_6{letter}"
            one = self.conv(x, f"{name}.branch1x1", 192, (1, 1))
            two = self.chain(x, name, "branch7x7", (c, 1, 1), (c, 1, 7), (192, 7, 1))
            three = self.chain(
                x, name, "branch7x7dbl", (c, 1, 1), (c, 7, 1), (c, 1, 7), (c, 7, 1), (192, 1, 7)
            )
            pool = self.conv(average(x), f"{name}.branch_pool", 192, (1, 1))
            x = torch.cat([one, two, three, pool], 1)
        one = self.chain(x, "Mixed_7a", "branch3x3", (192, 1, 1))
        one = self.conv(one, "Mixed_7a.branch3x3_2", 320, (3, 3), 2, 0)
        two = self.chain(x, "Mixed_7a", "branch7x7x3", (192, 1, 1), (192, 1, 7), (192, 7, 1))
        two = self.conv(two, "Mixed_7a.branch7x7x3_4", 192, (3, 3), 2, 0)
        x = torch.cat([one, two, largest(x, 2)], 1)
        for name in ("Mixed_7b", "Mixed_7c"):
            one = self.conv(x, f"{name}.branch1x1", 320, (1, 1))
            two = self.chain(x, name, "branch3x3", (384, 1, 1))
            row = self.conv(two, f"{name}.branch3x3_2a", 384, (1, 3))
            column = self.conv(two, f"{name}.branch3x3_2b", 384, (3, 1))
            three = self.chain(x, name, "branch3x3dbl", (448, 1, 1), (384, 3, 3))
            row2 = self.conv(three, f"{name}.branch3x3dbl_3a", 384, (1, 3))
            column2 = self.conv(three, f"{name}.branch3x3dbl_3b", 384, (3, 1))
            pool = average(x) if name == "Mixed_7b" else largest(pad(x, -torch.inf), 1)
            pool = self.conv(pool, f"{name}.branch_pool", 192, (1, 1))
            x = torch.cat([one, row, column, row2, column2, pool], 1)
        features = x.flatten(2).mean(2)
        weight = self.new("fc.weight", 1008, 2048, deviation=0.03)
        self.new("fc.bias", 1008)
        return features, features @ weight.T


def pad(x, value):
    return F.pad(x, (1, 1, 1, 1), value=value)


def windows(x, stride):
    return x.unfold(2, 3, stride).unfold(3, 3, stride).flatten(4)


def largest(x, stride):
    return windows(x, stride).amax(4)


def average(x):
    """Over those of 3x3 pixels that are there."""
    there = windows(pad(torch.ones_like(x[:1, :1]), 0.0), 1).sum(4)
    return windows(pad(x, 0.0), 1).sum(4) / there


def pictures(num, height, width):
    """Smooth colours under a little noise, uint8; the same with every version."""
    random = np.random.RandomState(height * 1000 + width)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = random.uniform(1, 12, (num, 3, 4, 1, 1)), random.uniform(0, 6, (num, 3, 4, 1, 1))
    angle = random.uniform(0, 6, (num, 3, 4, 1, 1))
    image = np.sin(waves[0] * (x * np.cos(angle) + y * np.sin(angle)) + waves[1]).mean(2)
    image = 128 + 110 * image + random.normal(0, 8, (num, 3, height, width))
    return torch.from_numpy(image.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def plain():
    """Its tensors, and what it sees in one image."""
    network = PlainNetwork()
    network.seen = (pictures(1, 299, 299).double() - 128) / 128
    with torch.no_grad():
        network.features, network.logits = network(network.seen)
    return network


@pytest.fixture(scope="module")
def weights_file(plain, tmp_path_factory):
    """90 MB, deleted behind the tests."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    # In torch's old format, as pytorch-fid's own file is.
    torch.save(plain.tensors, path, _use_new_zipfile_serialization=False)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def extractor(weights_file):
    return InceptionFeatures(weights_file)


def with_resize(extractor, resize):
    """The same network behind another resize."""
    other = copy.copy(extractor)
    other.resize = resize
    return other


def resized_with_centres(image, side):
    """One channel in float64, with the centres of the outer pixels aligned to the same borders."""
    rows = [
        np.interp((np.arange(side) + 0.5) * image.shape[1] / side - 0.5, np.arange(len(r)), r)
        for r in image.astype(float)
    ]
    columns = [
        np.interp((np.arange(side) + 0.5) * image.shape[0] / side - 0.5, np.arange(len(c)), c)
        for c in np.array(rows).T
    ]
    return np.array(columns).T


@torch.no_grad()
def test_the_folded_network_is_the_plain_one(plain):
    network = Inception(ForeignTensors(plain.tensors, "the file"))
    features, logits = network(plain.seen)
    assert features.std() > 0.2
    torch.testing.assert_close(features, plain.features, atol=1e-10, rtol=0)
    torch.testing.assert_close(logits, plain.logits, atol=1e-10, rtol=0)


def test_features_of_pixels(extractor, plain):
    images = pictures(1, 299, 299)
    features, logits = extractor.extract(images)
    torch.testing.assert_close(features.double(), plain.features, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits.double(), plain.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(extractor(images), features, atol=0, rtol=0)


def test_pixels_of_another_size_are_resized(extractor):
    images = pictures(1, 48, 70)
    resized = resized_as_tensorflow(images.numpy(), 299)
    expected = extractor.network((resized - 128) / 128)
    for found, kind in zip(extractor.extract(images), expected, strict=True):
        torch.testing.assert_close(found, kind, atol=1e-5, rtol=0)


def test_the_resize_of_pytorch_fid_is_that_programs(extractor):
    other = with_resize(extractor, "pytorch-fid")
    images = pictures(1, 33, 64)
    resized = np.stack([resized_with_centres(channel, 299) for channel in images[0].numpy()])
    seen = torch.from_numpy(resized)[None].float() / 127.5 - 1
    expected = extractor.network(seen).features
    torch.testing.assert_close(other(images), expected, atol=1e-4, rtol=0)
    assert (extractor(images) - expected).abs().max() > 0.01


def test_the_resize_of_clean_fid_is_pillows(extractor):
    clean = with_resize(extractor, "pil-bicubic")
    images = pictures(1, 33, 364)
    expected = extractor.network((resized_as_pillow(images, 299) - 128) / 128).features
    torch.testing.assert_close(clean(images), expected, atol=1e-3, rtol=0)
    assert (extractor(images) - expected).abs().max() > 0.01


def test_what_pytorch_fid_and_torch_fidelity_gave(extractor):
    """Recorded from pytorch-fid 0.3.0 and torch-fidelity 0.4.0, in float64, on these weights."""
    blocks = np.random.RandomState(5).randint(100, 156, size=(1, 3, 6, 8))
    images = torch.from_numpy(np.kron(blocks, np.ones((8, 8), int)).astype(np.uint8))
    seen, other = extractor.extract(images), with_resize(extractor, "pytorch-fid")
    picked = slice(100, None, 324)
    for found, expected in (
        (seen.features[0, picked], [0.15454, 0.29926, 2.16721, 0.0152, 1.18841, 0, 0.82952]),
        (seen.logits[0, ::168], [-1.85123, -1.6155, 0.11663, 1.28713, 0.39589, -0.33714]),
        (other(images)[0, picked], [0.0994, 0.2676, 2.35166, 0.01423, 1.39787, 0, 0.59614]),
    ):
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


def test_logits_lack_their_bias(extractor, plain):
    seen = extractor.extract(pictures(1, 16, 16))
    expected = seen.features @ plain.tensors["fc.weight"].T
    torch.testing.assert_close(seen.logits, expected, atol=1e-5, rtol=0)
    assert plain.tensors["fc.bias"].abs().max() > 1


def test_an_image_does_not_depend_on_the_others(extractor, monkeypatch):
    images = pictures(3, 20, 24)
    together = extractor.extract(images)
    monkeypatch.setattr(inception, "_BATCH", 2)  # and then one
    apart = extractor.extract(images)
    for kind, parts in zip(together, apart, strict=True):
        torch.testing.assert_close(parts, kind, atol=5e-5, rtol=0)
    assert (together.features[2] - together.features[1]).abs().max() > 0.01
    assert [tuple(kind.shape) for kind in extractor.extract(images[:0])] == [(0, 2048), (0, 1008)]


def test_batches_shrink_where_images_are_large(extractor, monkeypatch):
    sizes = []
    hook = extractor.network.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0])))
    monkeypatch.setattr(inception, "_PIXELS", 2 * 30 * 20 + 1)
    extractor(pictures(3, 30, 20))
    hook.remove()
    assert sizes == [2, 1]


def test_no_gradients_and_no_autocast(extractor):
    images = pictures(1, 20, 24)
    expected = extractor(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = extractor.extract(images)
    torch.testing.assert_close(seen.features, expected, atol=0, rtol=0)
    assert {kind.dtype for kind in seen} == {torch.float32}
    assert not any(kind.requires_grad or kind.is_inference() for kind in seen)


def test_tf32_is_off_while_it_looks_and_restored(extractor):
    states = []
    hook = extractor.network.register_forward_pre_hook(
        lambda *_: states.append(torch.backends.cudnn.allow_tf32)
    )
    assert torch.backends.cudnn.allow_tf32
    extractor(pictures(1, 8, 8))
    hook.remove()
    assert states == [False]
    assert torch.backends.cudnn.allow_tf32


def test_images_that_it_does_not_take(extractor):
    with pytest.raises(InputError, match="3 channels, not 1: load the images that way"):
        extractor(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    for images in (torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="expected uint8 images"):
            extractor(images)


def test_provenance(extractor, weights_file, monkeypatch):
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert extractor.sha256 == digest
    assert extractor.name == f"TF-Inception 2015-12-05 from another file ({digest[:8]})"
    assert (extractor.channels, extractor.dim, extractor.num_classes) == (3, 2048, 1008)
    monkeypatch.setattr(inception, "SHA256", digest)
    published = InceptionFeatures(str(weights_file), resize="pil-bicubic")
    assert published.name == "TF-Inception 2015-12-05"
    assert (extractor.resize, published.resize) == ("tensorflow", "pil-bicubic")


def test_the_published_digest_is_that_of_the_published_name():
    assert FILE.endswith(f"-{inception.SHA256[:8]}.pth")
    assert inception.URL.endswith(f"/{FILE}")


def test_every_wrong_tensor_is_named(plain):
    tensors = dict(plain.tensors)
    del tensors["Mixed_6c.branch7x7dbl_4.bn.running_var"], tensors["fc.bias"]
    tensors["AuxLogits.fc.weight"] = torch.zeros(1)
    tensors["Mixed_5b.branch_pool.conv.weight"] = torch.zeros(64, 192, 1, 1)
    with pytest.raises(InputError) as raised:
        Inception(ForeignTensors(tensors, "a file"))
    assert str(raised.value) == (
        "a file does not match its network: "
        "Mixed_5b.branch_pool.conv.weight is (64, 192, 1, 1), not (32, 192, 1, 1); "
        "missing Mixed_6c.branch7x7dbl_4.bn.running_var; missing fc.bias; "
        "unexpected AuxLogits.fc.weight"
    )


def test_files_that_are_not_its_own(tmp_path):
    with pytest.raises(InputError, match="there is no file .*nothing.pth"):
        InceptionFeatures(tmp_path / "nothing.pth")
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"PK not a zip")
    with pytest.raises(InputError, match="not a whole torch file"):
        InceptionFeatures(damaged)
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, damaged)
    with pytest.raises(InputError, match=r"missing Conv2d_1a_3x3.conv.weight;.* and \d+ more"):
        InceptionFeatures(damaged)
    with pytest.raises(
        InputError, match="no resize 'bicubic': choose from tensorflow, pytorch-fid"
    ):
        InceptionFeatures(damaged, resize="bicubic")


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A server that publishes some bytes, and an empty cache."""
    monkeypatch.setattr(download, "_WAITS", ())
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BIGGAN_OFFLINE", raising=False)
    with FileServer() as server:
        server.files["/weights"] = Served(b"the weights" * 1000)
        monkeypatch.setattr(inception, "URL", server.url("/weights"))
        digest = hashlib.sha256(server.files["/weights"].body).hexdigest()
        monkeypatch.setattr(inception, "SHA256", digest)
        yield server


def test_the_file_is_downloaded_once(published, tmp_path):
    path = obtain_weights()
    assert path == tmp_path / "cache" / FILE
    assert path.read_bytes() == published.files["/weights"].body
    assert obtain_weights() == obtain_weights(offline=True) == path
    assert len(published.asked) == 1


def test_another_file_than_the_published_one_is_not_kept(published):
    published.files["/weights"].body = b"something else"
    with pytest.raises(InputError, match="not the expected file"):
        obtain_weights()
    published.files["/weights"].body = b"the weights" * 1000
    path = obtain_weights()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="is damaged: delete it to download it again"):
        InceptionFeatures()


def test_without_the_network_the_message_says_what_to_do(published, monkeypatch):
    by_hand = (
        f"If you have it from https://.*/{FILE}, give it as --extractor FILE; or train a "
        "classifier on your data, biggan classifier DATA --out FILE, and give that"
    )
    with pytest.raises(InputError, match=f"not in the cache .* downloaded offline. {by_hand}"):
        InceptionFeatures(offline=True)
    monkeypatch.setenv("BIGGAN_OFFLINE", "1")
    with pytest.raises(InputError, match="nothing is downloaded offline"):
        obtain_weights()
    assert not published.asked
    monkeypatch.delenv("BIGGAN_OFFLINE")
    del published.files["/weights"]
    reason = f"{FILE} cannot be downloaded .HTTP 404 Not Found.. {by_hand}"
    with pytest.raises(InputError, match=reason) as raised:
        InceptionFeatures()
    assert "\n" not in str(raised.value)
