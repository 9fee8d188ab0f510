"""Foreign pickles: tensors come out, code does not run, damage is named."""

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from biggan.weights.containers import pickles
from biggan.weights.files import open_regular
from mutations import read_damaged
from tiny import refusal

STATE = OrderedDict(
    [("a.weight", torch.arange(12.0).view(3, 4)), ("a.bias", torch.ones(3)), ("n", torch.tensor(2))]
)


@pytest.fixture(params=["zip", "legacy"])
def path(tmp_path, request):
    """A state dict as torch writes it today, and as it did until 2020."""
    path = tmp_path / "G.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=request.param == "zip")
    return path


def load_state_dict(path):
    with open_regular(path) as file:
        return pickles.load_checkpoint(file, path)[0]


def refused(path):
    message = refusal(load_state_dict, path)
    assert str(path) in message
    return message


def test_tensors_come_out_as_they_are(path):
    found = load_state_dict(path)
    assert list(found) == list(STATE)
    for name, tensor in STATE.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


class Payload:
    """What an attacker would put into a file: an order to run a shell command."""

    def __init__(self, marker):
        self._marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self._marker}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, zipped):
    path, marker = tmp_path / "G.pth", tmp_path / "was-run"
    contents = {**STATE, "payload": Payload(marker)}
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    assert "asks for posix.system" in refused(path)
    for protocol in (2, 3, 4, 5):  # bare
        path.write_bytes(pickle.dumps(Payload(marker), protocol))
        refused(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))  # the payload is a real one
    assert marker.exists()


class Call:
    """In a file: the result of a function."""

    def __init__(self, *call):
        self._call = call

    def __reduce__(self):
        return self._call[0], self._call[1:]


def test_what_stands_beside_the_tensors_is_not_made(tmp_path, monkeypatch):
    logging = types.ModuleType("mmengine.logging")
    logging.History = type("History", (), {"__module__": "mmengine.logging"})
    monkeypatch.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
    monkeypatch.setitem(sys.modules, "mmengine.logging", logging)
    history = logging.History()
    history.values = [np.float32(1)]
    path, marker = tmp_path / "x.pth", tmp_path / "was-run"
    beside = {
        "meta": {"config": "model = dict()", "best": np.float64(9.75), "scores": np.arange(3)},
        "message_hub": history,
        "called": Call(np.savetxt, str(marker), [1.0]),
    }
    torch.save({"state_dict": STATE, **beside}, path)
    with open_regular(path) as file:
        tensors, found = pickles.load_checkpoint(file, path)
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in STATE.items())
    assert found["meta"]["config"] == "model = dict()"
    assert not isinstance(found["meta"]["best"], float)
    assert not marker.exists()
    assert np.savetxt(marker, [1.0]) is None  # the call is a real one
    assert marker.exists()


def test_code_beside_numpys_scalars_is_refused_and_not_run(tmp_path):
    path, marker = tmp_path / "x.pth", tmp_path / "was-run"
    for payload in (Payload(marker), Call(eval, "1"), Call(torch.load, "x")):
        torch.save({"best": np.float64(1), "payload": payload, "state_dict": STATE}, path)
        assert "asks for" in refused(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"state": {}, "param_groups": [{"lr": 1e-4}]}, "an optimizer's state"),
        ({"itr": 1000, "epoch": 2, "best_IS": 7.0}, "a run's counters"),
        (torch.zeros(3), "holds a Tensor"),
        ([torch.zeros(3)], "holds a list"),
        ({}, "holds nothing"),
        ({"G": dict(STATE), "w": torch.ones(1)}, "more than tensors: G"),
    ],
)
def test_other_things_than_weights(tmp_path, contents, message):
    path = tmp_path / "x.pth"
    torch.save(contents, path)
    assert message in refused(path)


def test_a_file_cut_short_anywhere(path):
    whole = path.read_bytes()
    for end in range(1, len(whole), 1 if len(whole) < 2000 else 7):
        path.write_bytes(whole[:end])
        message = refused(path)  # a name that is cut looks like another one that is asked for
        assert "not a whole torch file" in message or "is damaged" in message


def spread():
    """A tensor of 24 GB that takes four bytes."""
    return torch.zeros(1).expand(10**9, 6)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (spread(), "claims more values than the file has"),
        (torch.zeros(2, device="meta"), "is not a plain tensor"),
        (torch.eye(2).to_sparse(), "is not a plain tensor"),
    ],
)
def test_tensors_without_values_of_their_own(tmp_path, tensor, message):
    path = tmp_path / "G.pth"
    torch.save({"w": tensor}, path)
    assert message in refused(path)


def test_no_damage_to_a_zip_goes_unseen(tmp_path):
    path = tmp_path / "G.pth"
    torch.save(STATE, path)
    for found in read_damaged(load_state_dict, path, 200):  # a bit of padding between entries
        assert found is None or all(torch.equal(found[name], STATE[name]) for name in STATE)


def rewritten(path, change):
    """A zip like another, with its entries changed."""
    contents = io.BytesIO()
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(contents, "w") as after:
        for entry in before.infolist():
            change(after, entry.filename, before.read(entry))
    path.write_bytes(contents.getvalue())


def test_a_zip_bomb_is_not_inflated(tmp_path):
    path = tmp_path / "G.pth"
    torch.save(STATE, path)

    def compress(archive, name, data):
        if name.endswith("data/0"):
            data = bytes(1 << 28)
        archive.writestr(name, data, zipfile.ZIP_DEFLATED)

    rewritten(path, compress)
    assert path.stat().st_size < 1 << 20
    assert "is compressed" in refused(path)


def test_a_zip_of_other_things(tmp_path):
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil.txt", b"escaped")
    assert "a zip of other files" in refused(path)
    assert not (tmp_path.parent.parent / "evil.txt").exists()


def test_a_storage_larger_than_its_file(tmp_path):
    path = tmp_path / "G.pth"
    torch.save({"w": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    place = whole.index(b"K\x04", whole.index(b"FloatStorage"))  # the count of its elements
    path.write_bytes(whole[:place] + b"\x8a\x06\x00\x00\x00\x00\x00\x10" + whole[place + 2 :])
    refused(path)
