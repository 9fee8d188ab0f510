"""What `biggan demo` does before it serves; the page itself is tested in tests/demo."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

import pytest
from click.testing import CliRunner

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
    with pytest.raises(InputError, match=r"is no address of this machine; use 127\.0\.0\.1"):
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


def test_help_shows_examples() -> None:
    result = CliRunner().invoke(demo.command, ["--help"])

    assert result.exit_code == 0
    assert "  biggan demo\n    biggan demo --model runs/digits" in result.output
