"""The names of pytorch_pretrained_biggan, one by one, against the package itself."""

import copy
import json
from importlib.metadata import metadata

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import biggan
from biggan.compat import pytorch_pretrained_biggan as ours

port = pytest.importorskip("pytorch_pretrained_biggan")

SHAPE = {
    "output_dim": 64,
    "z_dim": 16,
    "class_embed_dim": 16,
    "channel_width": 4,
    "num_classes": 1000,
    "layers": [
        [up, width, width // 2 if up else width] for width in (16, 8, 4, 2) for up in (False, True)
    ],
    "attention_layer_position": 6,
    "eps": 1e-4,
    "n_stats": 51,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of the package with random weights, as it publishes its own."""
    torch.manual_seed(0)
    model = port.BigGAN(port.BigGANConfig.from_dict(SHAPE))
    for name, buffer in model.named_buffers():
        if name.endswith("running_means"):
            buffer.copy_(0.2 * torch.randn(buffer.shape))
        elif name.endswith("running_vars"):
            buffer.copy_(0.5 + torch.rand(buffer.shape))
    for norm in (m for m in model.modules() if hasattr(m, "running_means") and not m.conditional):
        nn.init.normal_(norm.weight, 1, 0.1)
        nn.init.normal_(norm.bias, 0, 0.1)
    attention = next(m for m in model.modules() if hasattr(m, "gamma"))
    nn.init.constant_(attention.gamma, 0.5)
    model.train()
    with torch.no_grad():
        for _ in range(20):  # spectral norms converge
            model(torch.randn(2, 16), torch.eye(1000)[:2], 1.0)
    path = tmp_path_factory.mktemp("port")
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    (path / "config.json").write_text(json.dumps(SHAPE))
    return path


@pytest.fixture(scope="module")
def theirs(folder):
    return port.BigGAN.from_pretrained(str(folder)).eval()


@pytest.fixture(scope="module")
def model(folder):
    return ours.BigGAN.from_pretrained(str(folder))


def inputs(num=3):
    z = port.truncated_noise_sample(num, 16, 0.5, 1)
    labels = port.one_hot_from_int([5, 207, 8][:num], num)
    return torch.from_numpy(z), torch.from_numpy(labels)


@pytest.mark.parametrize("truncation", [0.02, 0.4, 1.0])
@torch.no_grad()
def test_the_images(model, theirs, truncation):
    z, labels = inputs()
    images = model(z, labels, truncation)
    torch.testing.assert_close(images, theirs(z, labels, truncation), atol=1e-4, rtol=0)


@torch.no_grad()
def test_their_statistics_are_an_option(folder, model, theirs):
    z, labels = inputs()
    same = ours.BigGAN.from_pretrained(folder, port_statistics=True)
    for truncation in (0.14, 0.28, 0.56, 0.58, 0.94, 0.405, 0.999, 0.02, 1.0):
        expected = theirs(z, labels, truncation)
        torch.testing.assert_close(same(z, labels, truncation), expected, atol=1e-4, rtol=0)
        if truncation not in (0.02, 1.0):
            assert (model(z, labels, truncation) - expected).abs().max() > 1e-3


def test_gradients_to_noise_and_class(model, theirs):
    found = []
    for network in (model, theirs):
        z, labels = (x.requires_grad_() for x in inputs())
        network(z, labels, 0.4).square().sum().backward()
        found.append((z.grad, labels.grad))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-3, rtol=1e-2)


def test_weights_that_require_gradients_learn(folder):
    model = ours.BigGAN.from_pretrained(folder).requires_grad_()
    z, labels = inputs()
    with torch.no_grad():
        model(z, labels, 0.4)  # keeps what it folded
    before = model(z, labels, 0.4)
    before.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter -= 1e-3 * parameter.grad.sign()
        assert (model(z, labels, 0.4) - before).abs().max() > 1e-3  # folded anew


@torch.no_grad()
def test_a_wrapper_over_the_layers(model, theirs):
    """As programs in the wild run the generator part by part, and stop and start in the middle."""
    z, labels = inputs()
    images = []
    for network, blocks in ((model, ours.GenBlock), (theirs, port.model.GenBlock)):
        generator = network.generator
        cond = torch.cat((z, network.embeddings(labels)), dim=1)
        assert torch.equal(network.embeddings.weight[:, 207], network.embeddings(labels)[1])
        x = generator.gen_z(cond).view(-1, 4, 4, 16 * generator.config.channel_width)
        x = x.permute(0, 3, 1, 2).contiguous()
        for layer in generator.layers:
            x = layer(x, cond, 0.4) if isinstance(layer, blocks) else layer(x)
        x = generator.relu(generator.bn(x, 0.4))
        images.append(generator.tanh(generator.conv_to_rgb(x)[:, :3]))
        torch.testing.assert_close(generator(cond, 0.4), images[-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(*images, atol=1e-4, rtol=0)


def test_the_packages_own_example(folder, tmp_path, monkeypatch, capsys):
    """Word for word, but for the import and the address of the weights."""
    readme = metadata("pytorch-pretrained-biggan").get_payload()
    example = next(block for block in readme.split("```python\n") if "# Generate" in block)
    example = example.partition("```")[0]
    for old, new in (
        ("from pytorch_pretrained_biggan import", f"from {ours.__name__} import"),
        ("'biggan-deep-256'", repr(str(folder))),
        ("noise_sample(", "noise_sample(dim_z=16, "),  # of the small model
        ("import logging\nlogging.basicConfig(level=logging.INFO)\n", ""),  # of the whole process
    ):
        assert old in example
        example = example.replace(old, new)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"output_{i}.png" for i in range(3)]
    assert capsys.readouterr().out.startswith("\x1b[38;2;")


class LayerWrapper(nn.Module):
    """Noise and class for each layer, as programs run the layers one by one: no convenience."""

    def __init__(self, model, block):
        super().__init__()
        self.model, self.block = model, block
        num = len(model.config.layers) + 1
        random = torch.Generator().manual_seed(1)
        self.normu = nn.Parameter(torch.randn(num, 16, generator=random))
        self.cls = nn.Parameter(torch.randn(num, 1000, generator=random) - 4)

    def forward(self):
        generator = self.model.generator
        embed = self.model.embeddings(torch.sigmoid(self.cls))
        cond = torch.cat((self.normu, embed), dim=1)
        x = generator.gen_z(cond[0].unsqueeze(0))
        x = x.view(-1, 4, 4, 16 * generator.config.channel_width)
        x = x.permute(0, 3, 1, 2).contiguous()
        index = 1
        for layer in generator.layers:
            if isinstance(layer, self.block):
                x = layer(x, cond[index].unsqueeze(0), 1)
                index += 1
            else:
                x = layer(x)
        x = generator.relu(generator.bn(x, 1))
        return generator.tanh(generator.conv_to_rgb(x)[:, :3, ...])


def test_optimizing_the_latents_of_each_layer(model, theirs):
    losses = []
    for network, block in ((model, ours.GenBlock), (theirs, port.model.GenBlock)):
        latents = LayerWrapper(network, block)
        optimizer = torch.optim.Adam([latents.normu, latents.cls], lr=0.05)
        own = []
        for _ in range(4):
            loss = (latents() - 0.3).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            own.append(loss.item())
        losses.append(own)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < losses[0][0]


@torch.no_grad()
def test_a_search_without_gradients(model, theirs):
    """As for neurons: codes of noise and class vector, in batches, to one number each."""
    found = []
    for network in (model, theirs):
        random = np.random.default_rng(0)
        code = np.concatenate([np.zeros(16), network.embeddings.weight[:, 7].numpy()])
        for _ in range(3):
            codes = code + 0.3 * random.standard_normal((6, 32))
            images = [
                network.generator(torch.from_numpy(part).float(), 0.7)
                for part in np.split(codes, 2)
            ]
            scores = torch.cat(images)[:, 0, 20:40, 20:40].mean((1, 2)).numpy()
            code = codes[np.argsort(-scores)[:3]].mean(0)
        found.append(code)
    np.testing.assert_allclose(*found)


@pytest.mark.parametrize("change", ["hook", "method", "module"])
@torch.no_grad()
def test_a_changed_part_changes_the_image(folder, theirs, change):
    z, labels = inputs()
    images = []
    for network in (ours.BigGAN.from_pretrained(folder), copy.deepcopy(theirs)):
        before = network(z, labels, 0.4)
        layers, seen = network.generator.layers, []
        if change == "hook":
            layers[4].register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
            layers[5].register_forward_hook(lambda _m, _i, out: 0.5 * out)
        elif change == "method":
            forward = layers[5].forward
            layers[5].forward = lambda *inputs, forward=forward: 0.5 * forward(*inputs)
        else:
            layers[6] = nn.Identity()  # attention
        images.append(network(z, labels, 0.4))
        assert (images[-1] - before).abs().max() > 1e-3
        assert [tuple(out.shape) for out in seen] == [(3, 16, 16, 16)] * (change == "hook")
    torch.testing.assert_close(*images, atol=1e-4, rtol=0)


@torch.no_grad()
def test_modes_and_copies(model, theirs):
    """Its BatchNorms never take a batch's statistics; a parent's `train` is no reason to."""
    z, labels = inputs()
    nn.Sequential(model).train()
    assert model.training
    expected = theirs(z, labels, 0.4)
    torch.testing.assert_close(model(z, labels, 0.4), expected, atol=1e-4, rtol=0)
    copied = copy.deepcopy(model)
    handle = copied.generator.bn.register_forward_hook(lambda *_: None)  # the parts run one by one
    torch.testing.assert_close(copied(z, labels, 0.4), expected, atol=1e-4, rtol=0)
    handle.remove()
    torch.testing.assert_close(copied(z, labels, 0.4), expected, atol=1e-4, rtol=0)
    copied.generator.conv_to_rgb.bias += 1
    assert (copied(z, labels, 0.4) - expected).abs().max() > 1e-3
    torch.testing.assert_close(model(z, labels, 0.4), expected, atol=1e-4, rtol=0)
    model.eval()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-6), (torch.bfloat16, 0.05)])
@torch.no_grad()
def test_a_converted_model(model, theirs, dtype, atol):
    """All tensors are converted, and moved, together: none stays behind."""
    z, labels = (x.to(dtype) for x in inputs())
    converted = copy.deepcopy(model).to(dtype)
    images = converted(z, labels, 0.4)
    expected = copy.deepcopy(theirs).to(dtype)(z, labels, 0.4)
    torch.testing.assert_close(images, expected, atol=atol, rtol=0, check_dtype=False)
    assert {t.dtype for t in converted.generator._network[0].parameters()} == {dtype}


@torch.no_grad()
def test_the_packages_state_is_loaded(folder, theirs):
    state = torch.load(folder / "pytorch_model.bin")
    model = ours.BigGAN(ours.BigGANConfig.from_json_file(folder / "config.json"))
    model.load_state_dict(state)
    z, labels = inputs()
    torch.testing.assert_close(model(z, labels, 0.4), theirs(z, labels, 0.4), atol=1e-4, rtol=0)
    again = ours.BigGAN(model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(z, labels, 0.4), model(z, labels, 0.4))
    del state["generator.layers.0.conv_1.bias"]
    with pytest.raises(biggan.InputError, match=r"missing generator\.layers\.0\.conv_1\.bias"):
        model.load_state_dict(state)


def test_a_model_of_random_weights(theirs):
    config = ours.BigGANConfig.from_dict(SHAPE)
    model = ours.BigGAN(config)
    z, labels = inputs()
    assert model(z, labels, 0.4).shape == theirs(z, labels, 0.4).shape
    assert [type(layer).__name__ for layer in model.generator.layers].count("GenBlock") == 8
    assert len(model.generator.layers) == len(theirs.generator.layers)
    with pytest.raises(AssertionError):
        model(z, labels, 0)


def test_the_configuration(folder, model, theirs, tmp_path):
    for made in (ours.BigGANConfig(), ours.BigGANConfig.from_json_file(folder / "config.json")):
        other = port.BigGANConfig.from_dict(made.to_dict())
        assert json.loads(made.to_json_string()) == json.loads(other.to_json_string())
    marked = tmp_path / "config.json"
    marked.write_text((folder / "config.json").read_text(), encoding="utf-8-sig")
    assert ours.BigGANConfig.from_json_file(marked).to_dict() == made.to_dict()
    expected = json.loads(json.dumps(port.BigGANConfig().to_dict()))
    assert json.loads(json.dumps(ours.BigGANConfig().to_dict())) == expected
    assert json.loads(repr(model.config)) == json.loads(repr(theirs.config))


@pytest.mark.parametrize("seed", [0, 7, None])
def test_noise(seed):
    drawn = []
    for package in (ours, port):
        np.random.seed(3)
        drawn.append(package.truncated_noise_sample(4, 128, 0.4, seed))
    assert drawn[0].dtype == drawn[1].dtype == np.float32
    np.testing.assert_allclose(*drawn, atol=1e-7)


@pytest.mark.parametrize("arguments", [(7,), (7, 3), ([1, 2], 2), ([4], 2)])
def test_one_hot_vectors_of_numbers(arguments):
    mine, other = (package.one_hot_from_int(*arguments) for package in (ours, port))
    assert mine.dtype == other.dtype
    np.testing.assert_array_equal(mine, other)
    with pytest.raises(AssertionError):
        ours.one_hot_from_int([1, 2, 3], 2)


def test_one_hot_vectors_of_names(caplog):
    vectors = ours.one_hot_from_names(["soap bubble", "tennis_ball", "mushroom"], batch_size=3)
    assert vectors.argmax(1).tolist() == [971, 852, 947]
    assert ours.one_hot_from_names("daisy", 2).argmax(1).tolist() == [985, 985]
    assert caplog.messages == ["'soap bubble' is taken for 'bubble'"]
    assert ours.one_hot_from_names("coffee").argmax() == 504  # a mug
    assert ours.one_hot_from_names("xyzzyxyzzy") is None


def test_pictures_and_files(tmp_path, monkeypatch, capsys):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = port.convert_to_images(images)
    for given in (images, images.numpy()):
        for mine, other in zip(ours.convert_to_images(given), expected, strict=True):
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(other))
    monkeypatch.chdir(tmp_path)
    ours.save_as_images(images, "made")
    for i, other in enumerate(expected):
        np.testing.assert_array_equal(np.asarray(Image.open(f"made_{i}.png")), np.asarray(other))
    ours.display_in_terminal(images)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 8
    assert printed[0].startswith("\x1b[38;2;{};{};{}".format(*np.asarray(expected[0])[0, 0]))


def test_paths(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    assert ours.cached_path(str(file)) == port.cached_path(str(file)) == str(file)
    for package in (ours, port):
        with pytest.raises(OSError, match="not found"):
            package.cached_path(str(tmp_path / "none"))


def test_every_public_name_is_there():
    names = {name for name in vars(port) if not name.startswith("_")}
    modules = {"config", "model", "utils", "file_utils"}
    assert names - modules <= set(vars(ours))


def test_inputs_of_another_shape_or_type_are_refused(model):
    z, labels = inputs(2)
    for wrong, message in (
        ((z[:, :9], labels), r"z must be a tensor \(N, 16\), not \(2, 9\)"),
        ((z.numpy(), labels), r"z must be a tensor \(N, 16\), not ndarray: .* torch.from_numpy"),
        ((z, torch.tensor([5, 207])), r"class_label .* \(N, 1000\), not \(2,\): one_hot_from_int"),
        ((z, labels[:1]), "give a class_label for each row of noise: 2, not 1"),
    ):
        with pytest.raises(biggan.InputError, match=message):
            model(*wrong, 0.4)


def test_other_networks_are_refused(tmp_path):
    with pytest.raises(biggan.InputError, match="no class-conditional BigGAN-deep"):
        ours.BigGAN.from_pretrained("fruits")
    with pytest.raises(biggan.InputError, match=r"biggan-deep-64|nothing"):
        ours.BigGAN.from_pretrained("biggan-deep-64", cache_dir=tmp_path)
