"""Weight files: everything comes back, and no damage goes unseen."""

import json
import random
import re

import pytest
import torch
from safetensors.torch import load_file

import biggan
from biggan.weights.files import Description, load_tensors, save_network, save_tensors
from biggan.weights.load import load_network
from tiny import TINY_CLASSES, TINY_DISCRIMINATOR, refusal, tiny_generator

DESCRIPTION = Description(
    name="tiny", class_names=TINY_CLASSES, source="a test", licence="none", training={"step": 3}
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_network(path, tiny_generator(), DESCRIPTION)
    return path


def test_a_generator_comes_back_whole(path):
    original, loaded = tiny_generator(), load_network(path)
    assert loaded.description == DESCRIPTION
    assert loaded.network.config == original.config
    assert not loaded.network.training
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name
    z, labels = torch.randn(2, 12), torch.tensor([0, 2])
    assert torch.equal(loaded.network(z, labels, 0.31), original(z, labels, 0.31))


def test_a_discriminator_comes_back_whole(tmp_path):
    original = biggan.build_discriminator(biggan.DiscriminatorConfig.from_dict(TINY_DISCRIMINATOR))
    path = tmp_path / "d.safetensors"
    save_network(path, original, DESCRIPTION)
    images, labels = torch.randn(2, 3, 16, 16), torch.tensor([0, 2])
    found = biggan.load_discriminator(path)(images, labels)
    assert found.shape == (2, 1)
    assert torch.equal(found, original.eval()(images, labels))
    assert load_network(path, "discriminator").description == DESCRIPTION


def test_the_same_contents_have_the_same_digest(path, tmp_path):
    first = load_network(path).sha256
    assert save_network(tmp_path / "again", tiny_generator(), DESCRIPTION) == first
    assert save_network(tmp_path / "other", tiny_generator(), Description("other")) != first


def test_no_flipped_bit_goes_unseen(path):
    whole = path.read_bytes()
    header_end = 8 + int.from_bytes(whole[:8], "little")
    picker = random.Random(0)
    places = list(range(8)) + picker.sample(range(8, header_end), 150)
    places += picker.sample(range(header_end, len(whole)), 30)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << picker.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(biggan.InputError):
            load_network(path)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.999])
def test_a_file_cut_short(path, fraction):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * fraction)])
    assert "not a whole safetensors file" in refusal(load_network, path)
    path.write_bytes(b"\xff\xd8\xff\xe0 a JPEG, whatever its name is")
    assert refusal(load_tensors, path) == f"{path} is not a safetensors file"


def test_classes_that_were_never_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_network(path, tiny_generator(), Description("x"))
    assert load_network(path).description.class_names == ("class 0", "class 1", "class 2")
    save_network(path, tiny_generator(num_classes=1000), Description("x"))
    assert load_network(path).description.class_names[8] == "hen"
    save_network(path, tiny_generator(num_classes=0), Description("x"))
    assert load_network(path).description.class_names == ()


def test_half_precision_parameters_are_stored_and_loaded_as_float32(path, tmp_path):
    small = tmp_path / "small.safetensors"
    original = tiny_generator()
    sha256 = save_network(small, original, DESCRIPTION, torch.float16)
    loaded = load_network(small)
    assert loaded.sha256 == sha256 != load_network(path).sha256
    assert loaded.description == DESCRIPTION
    stored = load_file(small)
    parameters = dict(original.named_parameters())
    for name, value in original.state_dict().items():
        expected = value.half() if name in parameters else value
        assert torch.equal(stored[name], expected)
        assert torch.equal(loaded.network.state_dict()[name], expected.float())


def test_parameters_beyond_half_precision_are_refused(tmp_path):
    generator = tiny_generator()
    with torch.no_grad():
        generator.head.bn.bias[0] = 7e4
    small = tmp_path / "small.safetensors"
    with pytest.raises(biggan.InputError, match="head.bn.bias is not finite as torch.float16"):
        save_network(small, generator, DESCRIPTION, torch.float16)
    assert not small.exists()


def changed_header(path, **changes):
    metadata, tensors, _ = load_tensors(path)
    header = json.loads(metadata["header"])
    for key, value in changes.items():
        target = header if key in header else header["description"]
        target[key] = value
    save_tensors(path, metadata | {"header": json.dumps(header)}, tensors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": None}, "contains no network"),
        ({"grid": ["a"]}, "contains no network"),
        ({"grid": [0.5, 0.2]}, "do not ascend"),
        ({"grid": [float("nan")]}, "do not ascend from 0"),
        ({"grid": [-0.5, 0.2]}, "do not ascend from 0"),
        ({"config": 5}, "contains no network"),
        ({"config": {"x" * 999: 1}}, r"unknown GeneratorConfig field 'x{1,100}\.\.\."),
        ({"kind": "poem"}, "holds a 'poem'"),
        ({"kind": "x" * 999}, r"holds a 'x{1,100}\.\.\."),
        ({"kind": ["generator"]}, "holds a \\['generator'\\]"),
        ({"description": []}, "contains no network"),
        ({"name": 7}, "contains no network"),
        ({"name": None}, "contains no network"),
        ({"source": ["a"]}, "contains no network"),
        ({"licence": {}}, "contains no network"),
        ({"training": "long"}, "contains no network"),
        ({"training": None}, "contains no network"),
        ({"class_names": "abc"}, "contains no network"),
        ({"class_names": [1, 2, 3]}, "contains no network"),
        ({"class_names": {"a": 1, "b": 2, "c": 3}}, "contains no network"),
        ({"class_names": ["one"]}, "names 1 classes, but its network has 3"),
        ({"class_names": 7}, "contains no network"),
    ],
)
def test_headers_that_make_no_sense(path, changes, message):
    changed_header(path, **changes)
    assert re.search(message, refusal(load_network, path))


@pytest.mark.parametrize(
    "config",
    [
        *({"widths": [10**30] * 3}, {"bn_eps": float("inf")}, {"channels": 1 << 20}),
        *({"widths": [1] * 20_000}, {"widths": [[1]]}, {"family": ["biggan"]}),
    ],
)
def test_configurations_that_no_network_has(path, config):
    changed_header(path, config=tiny_generator().config.to_dict() | config)
    assert re.search("cannot (be|have)", refusal(load_network, path))


def test_hub_on_another_grid_than_the_published(path):
    config = tiny_generator().config.to_dict() | {"off_grid": "hub"}
    changed_header(path, config=config)
    assert load_network(path).network.config.off_grid == "hub"
    changed_header(path, grid=[i / 50 for i in range(2, 52)])
    assert "off_grid 'hub' is for" in refusal(load_network, path)


@pytest.mark.parametrize("header", [None, "{", "[]", '{"kind": "generator"}'])
def test_a_file_of_ours_without_a_network(path, header):
    metadata, tensors, _ = load_tensors(path)
    metadata.pop("header")
    save_tensors(path, metadata | ({"header": header} if header else {}), tensors)
    assert "contains no network" in refusal(load_network, path)


def test_equal_models_are_equal_files(tmp_path):
    """The library that writes them has its own order of the metadata each time."""
    files = [tmp_path / f"{i}.safetensors" for i in range(6)]
    for file in files:
        description = Description("tiny", TINY_CLASSES, source='häßlich "\n\\ \x01')
        save_network(file, tiny_generator(), description)
    assert len({file.read_bytes() for file in files}) == 1
    assert load_network(files[0]).description.source == r'häßlich "\n\ \x01'


def test_no_text_of_a_file_commands_a_terminal(tmp_path):
    path, escape = tmp_path / "x.safetensors", "a\x1b[2J\x07\u202eb\ud800"
    description = Description(escape, (escape,) * 3, escape, escape, {"data": escape})
    save_network(path, tiny_generator(), description)
    found = load_network(path).description
    shown = r"a\x1b[2J\x07\u202eb\ud800"
    assert (found.name, found.source, found.licence) == (shown,) * 3
    assert found.class_names == (shown,) * 3


def test_a_name_twice_in_a_header(path):
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + size].rstrip()
    (entry,) = re.findall(rb'"head.bn.bias":{[^}]*}', header)
    longer = header[:-1] + b"," + entry + b"}"
    path.write_bytes(len(longer).to_bytes(8, "little") + longer + whole[8 + size :])
    assert "its header has 'head.bn.bias' twice" in refusal(load_network, path)


@pytest.mark.parametrize("axis", [1 << 40, 1 << 63])
def test_a_file_that_claims_more_than_memory_can_map(tmp_path, axis):
    path = tmp_path / "x.safetensors"
    shape, size = ([axis], 4 * axis) if axis < 1 << 60 else ([axis, 0], 0)
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}
    header = json.dumps({"a": entry}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # a hole: it takes no disk
    with pytest.raises(biggan.InputError, match="does not fit into memory|not a whole safetensors"):
        load_tensors(path)


def test_all_that_is_wrong_with_tensors_is_named(path):
    def refused(changes):
        metadata, tensors, _ = load_tensors(path)
        changed = {n: t for n, t in {**tensors, **changes}.items() if t is not None}
        copy = path.with_name("changed.safetensors")
        save_tensors(copy, metadata, changed)
        return refusal(load_network, copy)

    tensors = load_tensors(path)[1]
    message = refused(
        {
            "head.bn.gain": None,
            "extra": torch.zeros(1),
            "head.bn.bias": torch.zeros(9),
            "head.conv.bias": tensors["head.conv.bias"].int(),
            "blocks.0.conv1.bias": torch.full_like(tensors["blocks.0.conv1.bias"], float("nan")),
            "blocks.0.conv2.bias": torch.full_like(tensors["blocks.0.conv2.bias"], float("inf")),
        }
    )
    for fault in (
        "missing head.bn.gain",
        "unexpected extra",
        "head.bn.bias is (9,), not (8,)",
        "head.conv.bias is int32, not float32",
        "blocks.0.conv1.bias has values that are not finite numbers",
        "blocks.0.conv2.bias has values that are not finite numbers",
    ):
        assert fault in message
    negative = tensors["blocks.1.bn2.table_var"].clone()
    negative[7, 1] = -1
    assert "a variance of blocks.1.bn2 is neg" in refused({"blocks.1.bn2.table_var": negative})
    odd = {f"{i}" + "\x1b" * 500: torch.zeros(1) for i in range(1000)}
    message = refused({**odd, "head.bn.bias": torch.zeros([0] * 1000)})  # names twenty
    assert message.endswith("; and 981 more")
    assert len(message) < 4000
    assert "\x1b" not in message
