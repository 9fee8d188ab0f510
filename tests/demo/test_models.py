"""Which models a server has in memory, and what its visitors may call them."""

import gc
import shutil
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from biggan import Gan, InputError
from biggan.demo import models as models_module
from biggan.demo.models import ModelCache, UnavailableError, UnknownModelError
from biggan.models import count_parameters
from biggan.weights.files import BUNDLED
from biggan.weights.published import PUBLISHED, downloads_folder
from demo_app import make_gan
from file_server import FileServer

NAME = "biggan-deep-128"


class Loader:
    """Loads tiny models, and notes which."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.alive: list[weakref.ref[Gan]] = []

    def __call__(self, source: str | Path) -> Gan:
        self.loaded.append(str(source))
        time.sleep(0.05)  # all others come meanwhile
        gan = make_gan()
        self.alive.append(weakref.ref(gan))
        return gan


@pytest.fixture
def load() -> Loader:
    return Loader()


@pytest.fixture(scope="module")
def size() -> int:
    """The bytes that one tiny model is counted for."""
    return models_module._size(make_gan())


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["digits"], ("digits",)),
        (["biggan-deep-256", "runs/faces"], ("biggan-deep-256", "faces")),
        (["a/run", "b/run", "other"], ("a/run", "b/run", "other")),
        (["x/a/run/", "./y/a/run", "z/b/run"], ("x/a/run", "y/a/run", "z/b/run")),
        (["hf://owner/repo", "https://host/x/g.bin?download=1"], ("repo", "g.bin")),
        ([r"C:\models\g.bin", "g.bin"], ("models/g.bin", "g.bin")),
        (["/"], ("/",)),
    ],
)
def test_names_are_the_shortest_ends_that_differ(
    sources: list[str], names: tuple[str, ...], load: Loader
) -> None:
    assert ModelCache(sources, load).names == names
    assert load.loaded == []


@pytest.mark.parametrize("sources", [["a", "a"], ["runs/a", "x", "runs/a/"]])
def test_the_same_model_twice_is_refused(sources: list[str], load: Loader) -> None:
    with pytest.raises(InputError, match="the model .*a is given twice"):
        ModelCache(sources, load)


def test_nothing_else_is_loaded_whatever_is_asked_for(load: Loader, tiny_file: Path) -> None:
    models = ModelCache(["first", "folder/second"], load)
    for name in ("third", str(tiny_file), "folder/second", "", "../first", "hf://o/r", None, ["a"]):
        with pytest.raises(
            UnknownModelError, match="is named .* here; available are first, second"
        ):
            models.get(name)
    with pytest.raises(InputError) as caught:
        models.get("x" * 10_000_000)
    assert len(str(caught.value)) < 200
    assert load.loaded == []


def test_a_model_is_loaded_once_when_it_is_first_asked_for_or_at_the_start(load: Loader) -> None:
    models = ModelCache(["a", "b"], load)
    assert models.default == "a"
    with ThreadPoolExecutor(16) as threads:
        got = list(threads.map(models.get, ["a", "b"] * 8))
    assert sorted(load.loaded) == ["a", "b"]
    assert len({id(gan) for gan in got}) == 2
    models = ModelCache(["c", "d"], load)
    models.load_all()
    models.get("c")
    assert load.loaded[2:] == ["d", "c"]


def test_the_least_recently_used_is_dropped_when_memory_is_short(load: Loader, size: int) -> None:
    models = ModelCache(["a", "b", "c"], load, memory=2 * size)
    for name in ("a", "b", "a", "c"):
        models.get(name)
    gc.collect()
    assert [alive() is not None for alive in load.alive] == [True, False, True]
    for name in ("a", "c", "b"):
        models.get(name)
    assert load.loaded == ["a", "b", "c", "b"]
    models = ModelCache(["d", "e"], load, memory=1)
    for name in ("d", "d", "e", "e"):  # the most recent one stays however large it is
        models.get(name)
    assert load.loaded[4:] == ["d", "e"]


def test_a_quarter_of_a_containers_memory(
    load: Loader, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("biggan.devices._CGROUP_LIMIT", limit)
    for text, kept in ((str(8 * size), 2), (str(4 * size), 1), ("max\n", 3)):
        limit.write_text(text)
        models = ModelCache(["a", "b", "c"], load)
        models.load_all()
        assert len(models._loaded) == kept


def test_visitors_do_not_see_where_files_are(caplog: Any) -> None:
    def load(source: str | Path) -> Gan:
        raise InputError(f"no such file: {source}")

    models = ModelCache(["/secret/folder/model"], load)
    with pytest.raises(UnavailableError) as caught:
        models.get("model")
    assert "secret" not in str(caught.value)
    assert "model cannot be loaded: no such file: /secret/folder/model" in caplog.text
    with pytest.raises(InputError, match="no such file: /secret"):
        models.load_all()  # at the start


def test_what_a_shell_calls_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["digits", "biggan-deep-128", "hf://owner/repo", "runs/a run", "/srv/digits"]
    models = ModelCache(names)
    shown = [models.source(name, with_paths=True) for name in models.names]
    assert shown == [*names[:3], str(tmp_path / "runs" / "a run"), "/srv/digits"]
    hidden = [models.source(name, with_paths=False) for name in models.names]
    assert hidden == [*names[:3], None, None]


def test_published_models_are_offered_and_downloaded_when_a_visitor_chooses_one(
    host: FileServer, caplog: Any
) -> None:
    models = ModelCache(BUNDLED, downloads=True)
    models.load_all()
    assert models.names == (*BUNDLED, *PUBLISHED)
    assert models.ready == BUNDLED
    assert models.label("fruits") == "fruits (64 px, 36 classes)"
    about = "(128 px, {} MB, {}; licence not established)"
    megabytes = round(4 * count_parameters(PUBLISHED[NAME].config) / 1e6)
    assert models.label(NAME) == f"{NAME} {about.format(megabytes, 'not downloaded yet')}"
    with pytest.raises(UnavailableError, match="is not downloaded yet: choose it in the page"):
        models.get(NAME)
    assert host.asked == []

    parts: list[tuple[int, int | None]] = []
    models.download(NAME, lambda *part: parts.append(part))
    size = len(host.files["/weights"].body)
    assert parts[-1] == (size, size)
    assert models.get(NAME).config.resolution == 128
    assert "downloaded; licence" in models.label(NAME)


def test_a_published_model_that_cannot_be_had_leaves_the_bundled_one(host: FileServer) -> None:
    host.files.clear()
    models = ModelCache([NAME], offline=True)
    models.load_all()
    assert (models.default, models.ready) == ("fruits", ("fruits",))
    assert "HTTP 404 Not Found" in models.failures[NAME]

    # Files that somebody has put where the page says are enough.
    folder = downloads_folder(PUBLISHED[NAME], PUBLISHED[NAME].places[0])
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder.parents[3] / "weights.safetensors", folder)
    models.download(NAME, lambda *_: None)
    assert models.get(NAME).name == NAME
    assert models.failures == {}


def test_weights_that_a_visitor_brings_are_checked_and_offered(
    tmp_path: Path, tiny_file: Path
) -> None:
    with pytest.raises(InputError, match="takes no weights"):
        ModelCache(["digits"]).add([tiny_file])
    (tmp_path / "uploads").mkdir()
    models = ModelCache(["digits"], uploads=tmp_path / "uploads")
    text = tmp_path / "notes.bin"
    text.write_text("no weights")
    with pytest.raises(InputError, match=r"^notes\.bin ") as caught:
        models.add([text])
    assert str(tmp_path) not in str(caught.value)
    assert list((tmp_path / "uploads").iterdir()) == []
    assert [models.add([tiny_file]) for _ in range(2)] == ["tiny", "tiny-2"]
    assert models.get("tiny-2").class_names[0] == "tabby, tabby cat"
    for _ in range(2):
        models.add([tiny_file])
    with pytest.raises(InputError, match="4 models were brought already"):
        models.add([tiny_file])
