"""Trackers: what they get, offline, across a resumed run and a rollback, and what goes wrong."""

import importlib.util
import json
import sys
import types

import pytest

from biggan.supervision.trackers import open_tracker
from command_line import biggan, fails, succeeds, write_images, write_recipe
from runs import assert_same_run, recipe, run, until
from tiny import refusal

KINDS = ("trackio", "wandb", "mlflow")


class Recorder(types.ModuleType):
    """The functions of the three libraries that are used; notes what they are called with."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            if name in ("init", "Artifact"):
                return self
            if name == "start_run":
                chosen = options.get("run_id", "chosen")
                return types.SimpleNamespace(info=types.SimpleNamespace(run_id=chosen))
            return arguments[0] if arguments else None

        return call

    def called(self, name):
        return [(arguments, options) for n, arguments, options in self.calls if n == name]


@pytest.fixture(params=KINDS)
def tracker(request, monkeypatch):
    module = Recorder(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def steps_of(tracker):
    if tracker.__name__ == "wandb":
        logged = [arguments[0] for arguments, _ in tracker.called("log")]
        return [line["step"] for line in logged if "preview" not in line]
    name = "log_metrics" if tracker.__name__ == "mlflow" else "log"
    logged = tracker.called(name)
    return [options["step"] for (values, *_), options in logged if "preview" not in values]


@pytest.fixture(scope="module")
def untracked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untracked")
    run(recipe(total_steps=4, watch={"every": 2}), folder)
    return folder


def test_a_tracker_gets_curves_previews_and_the_same_run_again(tracker, tmp_path, untracked):
    config = recipe(track=tracker.__name__, total_steps=4, watch={"every": 2})
    run(config, tmp_path, should_stop=until(2))
    first = json.loads((tmp_path / "tracker.json").read_text())
    run(config, tmp_path)
    assert json.loads((tmp_path / "tracker.json").read_text()) == first
    assert first["tracker"] == tracker.__name__
    assert sorted(set(steps_of(tracker))) == [1, 2, 3, 4]
    values = {
        key for _, arguments, _ in tracker.calls if arguments and isinstance(arguments[0], dict)
        for key in arguments[0]
    }  # fmt: skip
    assert {"logits/real", "diversity"} <= values
    images = [str(a[0]) for a, _ in tracker.called("Image") + tracker.called("log_artifact")]
    assert {image[-12:] for image in images} >= {"00000002.png", "00000004.png"}
    starts = tracker.called("start_run" if tracker.__name__ == "mlflow" else "init")
    assert len(starts) == 2
    given = {str(options.get("id") or options.get("name") or "") for _, options in starts}
    assert given <= {first["id"], ""}
    assert len(tracker.called("end_run" if tracker.__name__ == "mlflow" else "finish")) == 2
    assert_same_run(tmp_path, untracked)


def test_the_report_of_a_finished_run_is_an_artifact(tracker, data, tmp_path, undrawn):
    toml = write_recipe(tmp_path / "r.toml", total_steps=1, track=tracker.__name__)
    succeeds("train", toml, "--data", data, "--out", tmp_path / "run")
    name = "add_file" if tracker.__name__ == "wandb" else "log_artifact"
    page = str(tmp_path / "run" / "report.html")
    assert page in [arguments[0] for arguments, _ in tracker.called(name)]


def test_a_tracker_that_is_gone_at_the_end_leaves_a_finished_run(tracker, data, tmp_path, undrawn):
    name = "start_run" if tracker.__name__ == "mlflow" else "init"
    start, starts = getattr(tracker, name), []

    def start_once(*arguments, **options):
        starts.append(options)
        if len(starts) > 1:
            raise ConnectionError("no route to host")
        return start(*arguments, **options)

    setattr(tracker, name, start_once)
    toml = write_recipe(tmp_path / "r.toml", total_steps=1, track=tracker.__name__)
    done = biggan("train", toml, "--data", data, "--out", tmp_path / "run")
    assert (done.returncode, len(starts)) == (0, 2)
    assert "the report is not tracked: track" in done.stderr


def test_a_tracker_that_fails_on_the_way_ends_the_tracking_alone(tracker, tmp_path, caplog):
    def fail(*_, **__):
        raise ConnectionError("no route to host\nmore")

    for name in ("log", "log_metrics"):
        setattr(tracker, name, fail)
    state = run(recipe(track=tracker.__name__, total_steps=2), tmp_path)
    assert state.step == 2
    said = [message for message in caplog.messages if "tracked" in message]
    assert said == ["the run is no longer tracked: no route to host"]


def test_a_tracker_that_cannot_start_is_one_line(tracker, tmp_path):
    def fail(*_, **__):
        raise ValueError("api_key not configured\nmore")

    tracker.init = tracker.start_run = fail
    about = recipe(track=tracker.__name__).to_dict()
    assert "cannot start (api_key not configured): see its" in refusal(
        open_tracker, about, tmp_path
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_library_is_one_line(kind, tmp_path, monkeypatch, data):
    monkeypatch.setitem(sys.modules, kind, None)
    toml = write_recipe(tmp_path / "r.toml", total_steps=2, track=kind)
    message = fails("train", toml, "--data", data, "--out", tmp_path / "run")
    assert message == f'error: track = "{kind}" needs {kind}: pip install {kind}'
    assert "track must be one of trackio, wandb, mlflow, not 'x'" in fails(
        "train digits --set track=x --dry-run"
    )


@pytest.fixture
def data(tmp_path):
    for name in ("cat", "dog"):
        write_images(tmp_path / "data" / name)
    return tmp_path / "data"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_an_installed_tracker_works_offline(kind, tmp_path, monkeypatch):
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    folder = tmp_path / "run"
    run(recipe(track=kind, total_steps=2), folder)
    about = recipe(track=kind).to_dict()
    (folder / "report.html").write_text("<p>a report</p>")
    tracker = open_tracker(about, folder)
    tracker.log_file(folder / "report.html")
    tracker.close()
    assert tracker._works
    kept = [
        path for path in tmp_path.rglob("*") if path.is_file() and "checkpoints" not in str(path)
    ]
    assert any("wandb" in str(p) or "mlflow" in str(p) or "trackio" in str(p) for p in kept)
