"""Mutated weight files of every format: read, or refused in one line; no code in them is run."""

import json
import os
import subprocess
import tarfile
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import biggan
from biggan.models import DiscriminatorConfig
from biggan.weights import files
from biggan.weights.files import Description, save_network
from biggan.weights.load import read_network
from foreign_networks import (
    BROCK,
    IVCLAB,
    hugging_face_weights,
    random_discriminator,
    random_generator,
)
from mutations import MUTATIONS, VALUES, limited_memory, mutated_bytes, mutated_value
from tensorflow_formats import DTYPES, floats, saved_model, write_bundle
from tiny import TINY_CLASSES, tiny_generator

LABEL = torch.tensor([0])
NOT_STORED = (torch.complex64, torch.float8_e4m3fn)  # in files of ours


class Payload:
    """What runs code where a pickle is trusted."""

    def __init__(self, marker, random):
        self._calls = random.choice(
            (
                (os.system, (f"touch {marker}",)),
                (Path.touch, (marker,)),
                (exec, (f"open({str(marker)!r}, 'w')",)),
                (subprocess.call, (["touch", str(marker)],)),
                (torch.load, (str(marker),)),
                (getattr, (marker, "touch")),
            )
        )

    def __reduce__(self):
        return self._calls


def mutated_tensors(tensors, random, plain=False):
    """A state dict of which one tensor is another one, missing, or called otherwise.

    Args:
        tensors: By name.
        random: A `random.Random`.
        plain: Whether only what safetensors can hold is wanted.
    """
    tensors = dict(tensors)
    name = random.choice(list(tensors))
    tensor = tensors.pop(name)
    change = random.randrange(6 if plain else 9)
    if change == 0:
        name = random.choice(
            ("", "x" * 3000, "\x1b[2J", f"{name}.a", name[:-1], "blocks.999.0.bn1")
        )
    elif change == 1:
        return tensors
    elif change == 2:
        shape = [random.choice((0, 1, 3, 50, 100)) for _ in range(random.choice((0, 1, 2, 3)))]
        tensor = torch.zeros([1] * random.choice((0, 0, 1, 70)) + shape)
    elif change == 3:
        dtypes = torch.float16, torch.float64, torch.int64, torch.bool, torch.complex64, torch.uint8
        tensor = tensor.to(random.choice((*dtypes, torch.float8_e4m3fn, torch.bfloat16)))
    elif change == 4:
        tensor = tensor.float()
        values = float("nan"), float("inf"), -1e38, 1e-45, -1.0
        tensor.view(-1)[random.randrange(tensor.numel())] = random.choice(values)
    elif change == 5:
        tensor = tensor.mT.contiguous() if tensor.ndim > 1 else tensor.reshape(-1)[:-1].clone()
    elif change == 6:
        odd = torch.zeros(1).expand(10**9, 6), torch.zeros(2, device="meta"), tensor.to_sparse()
        tensor = random.choice((*odd, torch.nn.Parameter(tensor.float()), tensor[..., None]))
    elif change == 7:
        name = random.choice((None, 5, ("a", 1), 1.5, b"a"))
    else:
        tensor = random.choice(VALUES)
    return {**tensors, name: tensor}


def safetensors_with(contents, change):
    """The bytes of a safetensors file with its header changed."""
    size = int.from_bytes(contents[:8], "little")
    text = json.dumps(change(json.loads(contents[8 : 8 + size]))).encode()
    return len(text).to_bytes(8, "little") + text + contents[8 + size :]


def own_files(network, description, folder, random):
    """A file of ours; then mutants of its bytes, its header, what it says, and its tensors."""
    path = folder / "x.safetensors"
    save_network(path, network, description)
    whole = path.read_bytes()
    metadata, tensors, _ = files.load_tensors(path)
    said = json.loads(metadata["header"])
    yield path
    while True:
        change = random.randrange(4)
        if change == 0:
            path.write_bytes(mutated_bytes(whole, random))
        elif change == 1:
            path.write_bytes(safetensors_with(whole, lambda h: mutated_value(h, random)))
        elif change == 2:
            text = json.dumps(mutated_value(said, random))
            if random.random() < 0.2:
                text = mutated_bytes(text.encode(), random).decode("latin-1")
            files.save_tensors(path, metadata | {"header": text}, tensors)
        else:
            mutant = mutated_tensors(tensors, random, plain=True)
            storable = {n: t.bool() if t.dtype in NOT_STORED else t for n, t in mutant.items()}
            files.save_tensors(path, metadata, storable)
        yield path


def foreign_files(make, folder, random):
    """A state dict; then mutants as both kinds of pickle and as safetensors.

    `make` gives the tensors, or the tensors and the contents of their config.json.
    """
    tensors, settings = made if isinstance(made := make(), tuple) else (made, None)
    path, plain, marker = folder / "G.pth", folder / "G.safetensors", folder / "was-run"
    wholes = []
    for zipped in (True, False):
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
        wholes.append(path.read_bytes())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, plain)
    whole = plain.read_bytes()
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings))
    yield path
    while not marker.exists():
        if settings is not None:
            text = json.dumps(settings)
            if random.random() < 0.3:
                text = json.dumps(mutated_value(settings, random))
            if random.random() < 0.1:
                text = mutated_bytes(text.encode(), random).decode("latin-1")
            (folder / "config.json").write_text(text, encoding="latin-1")
        change, used = random.randrange(6), path
        if change == 0:
            path.write_bytes(mutated_bytes(random.choice(wholes), random))
        elif change in (1, 2):
            mutant = mutated_tensors(tensors, random)
            torch.save(mutant, path, _use_new_zipfile_serialization=random.random() < 0.5)
        elif change == 3:
            name, payload = random.choice(list(tensors)), Payload(marker, random)
            mutant = {**tensors, name: payload} if random.random() < 0.5 else payload
            torch.save(mutant, path, _use_new_zipfile_serialization=random.random() < 0.5)
        elif change == 4:
            used = plain
            plain.write_bytes(safetensors_with(whole, lambda h: mutated_value(h, random)))
        else:
            used = plain
            mutant = mutated_tensors(tensors, random, plain=True)
            save_file({name: tensor.contiguous() for name, tensor in mutant.items()}, plain)
        yield used
    raise AssertionError("code of a pickle was run")


def module_variables():
    """The variables of a module of DeepMind's with two blocks, and the widths of its BatchNorms."""
    ema, widths, random = "ema_b999900", (16, 8, 8), np.random.default_rng(0)
    variables = {f"linear/w/{ema}": np.float32(random.normal(size=(3, 4)))}

    def layer(name, *shape, bias=True):
        variables[f"{name}/w/{ema}"] = np.float32(random.normal(size=shape))
        variables[f"{name}/u0"] = np.float32(random.normal(size=(1, shape[-1])))
        variables[f"{name}/u1"] = np.float32(random.normal(size=(1, np.prod(shape[:-1]))))
        if bias:
            variables[f"{name}/b/{ema}"] = np.zeros(shape[-1], np.float32)

    layer("Generator/G_Z/G_linear", 2, 16 * widths[0])
    for name, before, after in (("GBlock", 16, 8), ("GBlock_1", 8, 8)):
        for part, size, into in (("conv0", 3, before), ("conv1", 3, after), ("conv_sc", 1, before)):
            layer(f"Generator/{name}/{part}", size, size, into, after)
        for norm, channels in (("HyperBN", before), ("HyperBN_1", after)):
            for part in ("gamma", "beta"):
                layer(f"Generator/{name}/{norm}/{part}", 6, channels, bias=False)
    for part in ("gamma", "beta"):
        name = f"Generator/ScaledCrossReplicaBN/{part}/{ema}"
        variables[name] = np.ones(widths[-1], np.float32)
    layer("Generator/conv_2d", 3, 3, widths[-1], 3)
    return variables, (16, 8, 8, 8, 8)


def storable(tensor):
    """The tensor as an array of a type and shape that a bundle and numpy have."""
    if str(tensor.dtype).removeprefix("torch.") not in DTYPES:
        tensor = torch.zeros(tensor.shape, dtype=torch.uint8)
    return (tensor.flatten() if tensor.ndim > 60 else tensor).numpy()


def tf_hub(folder, random):
    """A module; then mutants of its variables, files and archive, as a folder and as an archive."""
    variables, norms = module_variables()
    tables = [np.full((50, width), value) for width in norms for value in (0, 1)]
    nodes = (floats(f"stack_{i}" if i else "stack", table) for i, table in enumerate(tables))
    prefix, archive = folder / "variables" / "variables", folder.with_name("module.tar.gz")
    (folder / "saved_model.pb").write_bytes(saved_model(*nodes))
    write_bundle(prefix, variables)
    yield folder
    wholes = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    tensors = {name: torch.from_numpy(value) for name, value in variables.items()}
    while True:
        for path, contents in wholes.items():
            path.write_bytes(contents)
        change = random.randrange(4)
        if change < 2:
            mutant = mutated_tensors(tensors, random, plain=True)
            write_bundle(prefix, {name: storable(tensor) for name, tensor in mutant.items()})
        elif change == 2:
            path = random.choice(list(wholes))
            path.write_bytes(mutated_bytes(wholes[path], random))
        if change < 3 and random.random() < 0.5:
            yield folder
            continue
        with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
            packed.add(folder, random.choice((".", "module")))
        if change == 3:
            archive.write_bytes(mutated_bytes(archive.read_bytes(), random))
        yield archive


KINDS = {
    "generator of ours": partial(
        own_files, tiny_generator(), Description("tiny", TINY_CLASSES, training={"step": 3})
    ),
    "discriminator of ours": partial(
        own_files,
        biggan.build_discriminator(DiscriminatorConfig("biggan", 16, 8, (1, 2, 4), 2, 3, 8)),
        Description("judge"),
    ),
    "ajbrock": partial(foreign_files, lambda: random_generator([16, 8, 8], 8, 6, BROCK)[0]),
    "ajbrock, deep": partial(
        foreign_files, lambda: random_generator([16, 8, 8], 8, 6, BROCK | {"deep": True})[0]
    ),
    "ajbrock, discriminator": partial(
        foreign_files, lambda: random_discriminator(32, 16, BROCK)[0]
    ),
    "ivclab": partial(foreign_files, lambda: random_generator([32, 16, 8], 8, 6, IVCLAB)[0]),
    "Hugging Face": partial(foreign_files, hugging_face_weights),
    "TF Hub": tf_hub,
}


@pytest.mark.timeout(120 + MUTATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_mutants_are_read_or_refused_in_one_line(tmp_path, kind):
    folder = tmp_path / "weights"
    folder.mkdir()
    mutants = KINDS[kind](folder, Random(kind))
    read_network(next(mutants))  # the original
    messages = []
    with limited_memory():
        for path in islice(mutants, MUTATIONS):
            try:
                found = read_network(path)
            except biggan.InputError as error:
                messages.append(str(error))
                continue
            if found.kind == "generator":
                found.network(torch.zeros(1, found.network.config.z_dim), LABEL, 0.5)
    assert all(message.isprintable() for message in messages)
    assert max(map(len, messages)) < 4000
