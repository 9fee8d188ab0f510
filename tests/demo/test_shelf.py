"""Which models a server has in memory, and what their visitors may call them."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING

import pytest

from biggan import Gan, InputError
from biggan.demo import shelf as shelves
from biggan.demo.shelf import ModelShelf, ModelUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Loader:
    """Loads tiny models, and notes which."""

    def __init__(self, make_gan: Callable[..., Gan]) -> None:
        self._make_gan = make_gan
        self.loaded: list[str] = []
        self.alive: list[weakref.ref[Gan]] = []

    def __call__(self, source: str | Path) -> Gan:
        self.loaded.append(str(source))
        gan = self._make_gan()
        self.alive.append(weakref.ref(gan))
        return gan


@pytest.fixture
def load(make_gan: Callable[..., Gan]) -> Loader:
    return Loader(make_gan)


@pytest.fixture
def size(make_gan: Callable[..., Gan]) -> int:
    """What the shelf thinks that one tiny model takes."""
    return shelves._size(make_gan())


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["digits"], ("digits",)),
        (["biggan-deep-256", "runs/faces"], ("biggan-deep-256", "faces")),
        (["a/run", "b/run", "other"], ("a/run", "b/run", "other")),
        (["x/a/run/", "./y/a/run", "z/b/run"], ("x/a/run", "y/a/run", "b/run")),
        (["hf://owner/repo", "https://host/x/g.bin?download=1"], ("repo", "g.bin")),
        ([r"C:\models\g.bin", "g.bin"], ("models/g.bin", "g.bin")),
        (["/"], ("/",)),
    ],
)
def test_names_are_the_shortest_ends_that_differ(
    sources: list[str], names: tuple[str, ...], load: Loader
) -> None:
    assert ModelShelf(sources, load).names == names
    assert load.loaded == []


@pytest.mark.parametrize("sources", [["a", "a"], ["runs/a", "x", "runs/a/"]])
def test_the_same_model_twice_is_refused(sources: list[str], load: Loader) -> None:
    with pytest.raises(InputError, match="the model .*a is given twice"):
        ModelShelf(sources, load)


def test_nothing_else_is_loaded_whatever_is_asked_for(load: Loader, tiny_file: Path) -> None:
    shelf = ModelShelf(["first", "folder/second"], load)

    for name in ("third", str(tiny_file), "folder/second", "", "../first", "hf://owner/repo"):
        with pytest.raises(InputError, match="is called .* here; there is first, second"):
            shelf.get(name)
    with pytest.raises(InputError) as caught:
        shelf.get("x" * 10_000_000)
    assert len(str(caught.value)) < 200
    assert load.loaded == []


def test_a_model_is_loaded_at_its_first_use_and_once(load: Loader) -> None:
    shelf = ModelShelf(["a", "b"], load)

    assert shelf.default == "a"
    assert shelf.get("b") is shelf.get("b")
    assert load.loaded == ["b"]


def test_many_threads_load_a_model_once(make_gan: Callable[..., Gan]) -> None:
    loaded = []

    def load(source: str | Path) -> Gan:
        loaded.append(source)
        time.sleep(0.1)  # all others come meanwhile
        return make_gan()

    shelf = ModelShelf(["a", "b"], load)
    got: list[tuple[str, Gan]] = []
    threads = [
        threading.Thread(target=lambda n=name: got.append((n, shelf.get(n))))
        for name in ["a", "b"] * 8
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(loaded) == ["a", "b"]
    assert len({id(gan) for name, gan in got if name == "a"}) == 1
    assert len(got) == 16


def test_the_least_recently_used_leave_when_memory_is_short(load: Loader, size: int) -> None:
    shelf = ModelShelf(["a", "b", "c"], load, memory=2 * size)
    for name in ("a", "b", "a", "c"):  # b was not asked for the longest
        shelf.get(name)
    gc.collect()

    assert [alive() is not None for alive in load.alive] == [True, False, True]
    shelf.get("a")
    shelf.get("c")
    assert load.loaded == ["a", "b", "c"]
    shelf.get("b")
    assert load.loaded == ["a", "b", "c", "b"]


def test_one_model_stays_however_large_it_is(load: Loader) -> None:
    shelf = ModelShelf(["a", "b"], load, memory=1)

    assert shelf.get("a") is shelf.get("a")
    assert shelf.get("b") is shelf.get("b")
    assert load.loaded == ["a", "b"]


def test_a_quarter_of_what_a_container_may_have(
    load: Loader, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(shelves, "_CGROUP_LIMIT", limit)
    for text, kept in ((str(8 * size), 2), (str(4 * size), 1), ("max\n", 3)):
        limit.write_text(text)
        shelf = ModelShelf(["a", "b", "c"], load)
        for name in shelf.names:
            shelf.get(name)
        assert len(shelf._loaded) == kept


def test_all_can_be_tried_before_anybody_comes(load: Loader) -> None:
    shelf = ModelShelf(["a", "b", "c"], load)
    shelf.load_all()

    assert load.loaded == ["c", "b", "a"]
    shelf.get("a")
    assert load.loaded == ["c", "b", "a"]


def test_visitors_are_not_told_where_files_are(caplog: pytest.LogCaptureFixture) -> None:
    def load(source: str | Path) -> Gan:
        raise InputError(f"no such file: {source}")

    shelf = ModelShelf(["/secret/folder/model"], load)
    with caplog.at_level(logging.ERROR), pytest.raises(ModelUnavailableError) as caught:
        shelf.get("model")
    assert "secret" not in str(caught.value)
    assert "model cannot be loaded: no such file: /secret/folder/model" in caplog.text
    with pytest.raises(InputError, match="no such file: /secret"):
        shelf.load_all()  # whoever starts the server is


def test_what_a_shell_calls_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["digits", "biggan-deep-128", "hf://owner/repo", "runs/a run", "/srv/digits"]
    shelf = ModelShelf(names)

    shown = [shelf.in_shell(name, with_paths=True) for name in shelf.names]
    assert shown == [*names[:3], str(tmp_path / "runs" / "a run"), "/srv/digits"]
    hidden = [shelf.in_shell(name, with_paths=False) for name in shelf.names]
    assert hidden == [*names[:3], None, None]
