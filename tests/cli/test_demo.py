"""What `biggan demo` does before it serves; the page itself is tested in tests/demo."""

import runpy
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from biggan.cli import demo, main
from biggan.errors import InputError


def test_a_port_in_use_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        # There is no such model, and nobody looks for it: the port comes first.
        monkeypatch.setattr(
            sys, "argv", ["biggan", "demo", "--port", str(port), "--model", "no such model"]
        )
        with pytest.raises(SystemExit) as caught:
            main()

    assert caught.value.code == 2
    assert capsys.readouterr() == (
        "",
        f"error: port {port} is in use: stop the other program or choose another with --port\n",
    )


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "..", "a" * 70])
def test_a_foreign_address_is_refused(host: str) -> None:
    with pytest.raises(InputError, match=r"is not an address of this machine; use 127\.0\.0\.1"):
        demo._listen(host, 0)


def test_a_reserved_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(InputError, match=r"^port 80 is reserved"):
        demo._listen("127.0.0.1", 80)


def test_gradio_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)

    result = CliRunner().invoke(demo.command, ["--port", "0"])
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == "the page needs Gradio: pip install 'biggan[demo]'"


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "[::1]"),
        ("::", "[::1]"),
    ],
)
def test_the_address_is_one_that_a_browser_takes(host: str, shown: str) -> None:
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    with closing(demo._listen(host, 0)) as listener:
        port = listener.getsockname()[1]
        assert demo._address(host, listener) == f"http://{shown}:{port}"


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """The renderers and options of what would be served."""
    calls: list[tuple[Any, dict[str, Any]]] = []
    server: Any = ModuleType("biggan.demo.server")
    server.build_app = lambda renderer, **options: calls.append((renderer, options))
    server.share = lambda _: "https://relay.example"
    server.run = lambda app, renderer, listener, proxies: calls[-1][1].update(proxies=proxies)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # to be as it was at the end
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setitem(sys.modules, "biggan.demo.server", server)
    monkeypatch.setattr("biggan.demo.server", server, raising=False)
    return calls


def run(*arguments: str, **settings: Any) -> Result:
    return CliRunner().invoke(demo.command, ["--port", "0", *arguments], **settings)


def test_several_models_the_first_of_them_ready(served: Any, tiny_file: Path) -> None:
    result = run("--model", str(tiny_file), "--model", "digits", "--no-downloads")
    assert result.exit_code == 0, result.output
    renderer, options = served[0]
    models = renderer.models
    assert models.names == ("tiny.safetensors", "digits")
    assert list(models._loaded) == ["digits", "tiny.safetensors"]  # the first was used last
    assert models._loaded["tiny.safetensors"]._engine is not None
    assert options["users"] == {}
    assert (renderer.limit, options["per_minute"], options["show_paths"]) == (100, 0, True)


def test_origins_and_proxies_are_given_on(served: Any) -> None:
    origins = ["--allow-origin", "https://My.Site", "--allow-origin", "http://my.site:80"]
    run(*origins, "--trusted-proxy", "10.0.0.1", "--trusted-proxy", "fd00::/8")
    assert served[0][1]["origins"] == ["https://my.site", "http://my.site:80"]
    assert served[0][1]["proxies"] == ("10.0.0.1", "fd00::/8")


def test_the_example_of_a_space(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Path(__file__).parents[2] / "examples" / "space"
    head = (space / "README.md").read_text().split("---\n")[1]
    assert "app_file: app.py\n" in head
    assert "sdk: gradio\n" in head
    variables = {"LIMIT": "6", "MODELS": "digits", "ROOT_PATH": "/me"}
    for name, value in {"PORT": "0", **{f"BIGGAN_{k}": v for k, v in variables.items()}}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", [""])  # to be as it was at the end
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(space / "app.py"), run_name="__main__")
    assert not end.value.code
    ((renderer, options),) = served
    assert renderer.models.names == ("digits",)
    assert (options["per_minute"], options["root_path"]) == (6, "/me")
    assert options["proxies"] == ("127.0.0.1", "10.0.0.0/8", "172.16.0.0/12")


@pytest.mark.parametrize(
    ("line", "per_minute", "downloads", "uploads"),
    [
        ("", 0, True, True),
        ("--host localhost", 0, True, True),
        ("--no-downloads", 0, False, True),
        ("--no-uploads", 0, True, False),
        ("--limit 7", 7, True, True),
        ("--host 0.0.0.0", 120, False, False),
        ("--host 0.0.0.0 --limit 0", 0, False, False),
        ("--host 0.0.0.0 --downloads", 120, True, False),
        ("--share", 120, False, False),
        ("--share --uploads", 120, False, True),
        ("--trusted-proxy 127.0.0.1", 0, False, False),
        ("--root-path /biggan", 0, False, False),
    ],
)
def test_visitors_of_other_machines_are_limited_and_bring_no_models_unless_it_is_said(
    served: Any, line: str, per_minute: int, downloads: bool, uploads: bool
) -> None:
    run("--model", "digits", "--queue", "3", *line.split())
    ((renderer, options),) = served
    assert renderer.limit == 3
    assert options["per_minute"] == per_minute
    assert ("biggan-deep-128" in renderer.models.names) == downloads
    assert (renderer.models.uploads is not None) == uploads
    is_local = not {"0.0.0.0", "--share", "--trusted-proxy", "--root-path"} & {*line.split()}
    assert options["show_paths"] == is_local
    assert options["origins"] == (["https://relay.example"] if "--share" in line else [])


def test_what_is_given_on_if_nothing_is_named_or_the_root_path_ends_in_a_slash(served: Any) -> None:
    for given, path in (("/a/b-1/", "/a/b-1"), ("/", ""), ("", "")):
        run("--no-downloads", "--root-path", given)
        assert served[-1][0].models.names == ("fruits", "cifar10", "digits")
        assert served[-1][1]["root_path"] == path


def test_users_come_from_a_file_that_the_environment_may_name(served: Any, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("ann:secret\n")
    run("--users", str(file))
    run(env={"BIGGAN_USERS": str(file)})
    assert [options["users"] for _, options in served] == [{"ann": "secret"}] * 2


def test_passwords_are_asked_for(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_is_terminal", lambda: True)
    result = run("--user", "ann", "--user", "bob", input="a\na\nb\nb\n")
    assert served[0][1]["users"] == {"ann": "a", "bob": "b"}
    assert "Password of ann" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--user", "ann:secret"), "other users of this machine can see a password"),
        (("--user", "ann"), "--user needs a terminal to ask for the password: use --users FILE"),
        (("--user", ""), "a user has no name"),
        (("--users", "/no/such/file"), "cannot read the users in /no/such/file"),
        (("--model", "digits", "--model", "digits"), "the model digits is given twice"),
        (("--model", "digits", "--model", "digist"), "no model 'digist'"),
        (("--allow-origin", "*"), "--allow-origin '*' must look like https://example.org"),
        (("--allow-origin", "https://my.site/"), "must look like https://example.org"),
        (("--trusted-proxy", "proxy"), "--trusted-proxy 'proxy' must be an IP address"),
        (("--root-path", "biggan"), "--root-path 'biggan' must look like /biggan"),
        (("--root-path", "/big gan"), "must look like /biggan or /apps/biggan"),
        (("--root-path", "/a?c"), "must look like /biggan or /apps/biggan"),
        (("--root-path", "/a/../b"), "must look like /biggan or /apps/biggan"),
        (("--root-path", "/api/x"), "is an address of the API: choose another"),
    ],
)
def test_mistakes_in_options(served: Any, arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, InputError)
    assert told in str(result.exception)
    assert served == []


def test_users_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "users"
    for encoding in ("utf-8", "utf-8-sig"):  # the latter as Windows writes it
        file.write_text("ann:secret:of ann\n\n  bob:pässword\n", encoding=encoding)
        assert demo._read_users(file) == {"ann": "secret:of ann", "bob": "pässword"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "cannot read the users in .*: No such file"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"", "names no user"),
        (b"ann:1\nbob\n", "line 2 of .* must be NAME:PASSWORD"),
        (b":secret", "line 1 of .* must be NAME:PASSWORD"),
        (b"ann:", "line 1 of .* must be NAME:PASSWORD"),
        (b"ann:1\nann:2", "line 2 of .*: ann is there twice"),
    ],
)
def test_a_file_without_users_is_refused(text: bytes | None, fault: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "users").write_bytes(text)
    with pytest.raises(InputError, match=fault) as caught:
        demo._read_users(tmp_path / "users")
    assert "secret" not in str(caught.value)
