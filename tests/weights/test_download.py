"""Downloads: whole or not at all, resumed, verified, and by one process at a time."""

import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from biggan import InputError
from biggan.hub import is_offline
from biggan.weights import download
from biggan.weights.download import DownloadError, fetch, obtain_address
from biggan.weights.files import cache_dir
from biggan.weights.load import is_address
from file_server import Served
from tiny import refusal

BODY = random.Random(0).randbytes(1_000_000)
OTHER = random.Random(1).randbytes(1_200_000)
SHA256 = hashlib.sha256(BODY).hexdigest()

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "weights.bin"


def reason(url, path, **options):
    """Why a download fails; nothing of it has its final name."""
    with pytest.raises(DownloadError) as raised:
        fetch(url, path, **options)
    assert not path.exists()
    assert str(raised.value) == f"cannot download {url}: {raised.value.reason}"
    assert "\n" not in str(raised.value)
    return raised.value.reason


def files_of(folder):
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


def test_a_file_appears_with_nothing_beside_it(server, path):
    server.files["/a%20b/%C3%BC%25?x=1&y=%2F"] = Served(BODY, etag='"1"')
    path.parent.mkdir()
    path.write_bytes(b"old")
    fetch(server.url("/a b/ü%25?x=1&y=%2F#part"), path, sha256=SHA256)
    assert path.read_bytes() == BODY
    assert files_of(path.parent) == ["weights.bin"]
    assert server.asked[0].headers["User-Agent"].startswith("biggan/")
    assert "Range" not in server.asked[0].headers
    server.files["/a"] = Served(OTHER, length=-1)  # announces none
    fetch(server.url("/a"), path)
    assert path.read_bytes() == OTHER


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Sign in", "a web page: an error, or a login"),
        (b"\n <HTML>503", "a web page: an error, or a login"),
    ],
)
def test_answers_that_are_no_file_are_not_kept(server, path, body, what):
    server.files["/a"] = Served(body, etag='"1"')
    assert reason(server.url("/a"), path) == f"the answer is {what}"
    assert files_of(path.parent) == []
    assert what in refusal(obtain_address, server.url("/a"))
    server.files["/a"] = Served(BODY)
    assert obtain_address(server.url("/a")).read_bytes() == BODY


def test_a_broken_connection_is_taken_up_where_it_broke(server, path):
    server.files["/a"] = Served(status=302, location="/b")
    server.files["/b"] = Served(BODY, etag='"1"', cuts=[400_000, 300_000])
    fetch(server.url("/a"), path, sha256=SHA256)
    assert path.read_bytes() == BODY
    asked = [asked for asked in server.asked if asked.path == "/b"]
    ranges = [each.headers.get("Range") for each in asked]
    assert ranges == [None, "bytes=400000-", "bytes=700000-"]
    assert {each.headers.get("If-Range") for each in asked[1:]} == {'"1"'}
    assert sum(each.sent for each in asked) == len(BODY)


def test_a_later_call_takes_up_an_earlier_one(server, path):
    server.files["/a"] = Served(BODY, etag='"1"', cuts=[400_000, 0, 0, 0])
    assert "closed after 400,000 of 1,000,000 bytes" in reason(server.url("/a"), path)
    assert (path.parent / "weights.bin.part").read_bytes() == BODY[:400_000]
    fetch(server.url("/a"), path)
    assert path.read_bytes() == BODY
    assert sum(asked.sent for asked in server.asked) == len(BODY)
    path.unlink()
    server.files["/a"] = Served(BODY, length=len(BODY) + 5)
    assert "closed after 1,000,000 of 1,000,005 bytes" in reason(server.url("/a"), path)


@pytest.mark.parametrize(
    "changes",
    [
        {"ranges": False},
        {"etag": 'W/"1"'},  # says "equivalent", not "the same bytes"
        {"etag": None},
        {"skipped": 1},  # the part begins elsewhere
        {"skipped": -1},
    ],
)
def test_what_cannot_be_resumed_is_taken_from_its_start(server, path, changes):
    server.files["/a"] = Served(**{"body": BODY, "etag": '"1"', "cuts": [400_000], **changes})
    fetch(server.url("/a"), path, sha256=SHA256)
    assert path.read_bytes() == BODY
    if "skipped" not in changes:
        assert [asked.sent for asked in server.asked] == [400_000, len(BODY)]


@pytest.mark.parametrize("believes_etags", [True, False])
def test_a_file_that_changes_between_two_tries_is_never_mixed(server, path, believes_etags):
    server.files["/a"] = Served(BODY, etag='"1"', cuts=[400_000, 0, 0, 0])
    reason(server.url("/a"), path)
    server.files["/a"] = Served(OTHER, etag='"2"', believes_etags=believes_etags)
    fetch(server.url("/a"), path)
    assert path.read_bytes() == OTHER
    assert files_of(path.parent) == ["weights.bin"]


@pytest.mark.parametrize(
    ("part", "etag"),
    [
        (OTHER, b'"1"'),  # longer than the file
        *((BODY[:1000], tag) for tag in (b"", b"\0", b'"1', b"\xff\xfe", b'"' + b"x" * 9999)),
        (BODY[:1000], b'"a\r\nHost: elsewhere"'),
    ],
)
def test_a_damaged_beginning_is_not_built_upon(server, path, part, etag):
    path.parent.mkdir()
    (path.parent / "weights.bin.part").write_bytes(part)
    (path.parent / "weights.bin.part.etag").write_bytes(etag)
    server.files["/a"] = Served(BODY, etag='"1"')
    fetch(server.url("/a"), path)
    assert path.read_bytes() == BODY
    assert ("If-Range" in server.asked[0].headers) == (etag == b'"1"')
    assert files_of(path.parent) == ["weights.bin"]


@pytest.mark.parametrize("drip", ["head", "body"])
def test_an_answer_that_drips_is_given_up(server, path, monkeypatch, drip):
    monkeypatch.setattr(download, "_WINDOW", 0.2)
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    server.files["/a"] = Served(BODY, etag='"1"', drip=drip)
    why = reason(server.url("/a"), path)
    assert ("bytes came in 0.2 s" if drip == "body" else "the connection failed") in why
    assert len(server.asked) == 4  # and after each wait


def test_a_busy_host_is_asked_again(server, path):
    server.files["/a"] = Served(BODY, busy=2)
    fetch(server.url("/a"), path)
    assert path.read_bytes() == BODY
    server.files["/a"] = Served(BODY, busy=99)
    path.unlink()
    assert reason(server.url("/a"), path) == "HTTP 503 Service Unavailable"


def test_what_a_host_refuses_is_not_asked_for_twice(server, path):
    for status, words in ((403, "HTTP 403 Forbidden"), (404, "HTTP 404 Not Found")):
        server.files[f"/{status}"] = Served(b"no", status=status)
        assert reason(server.url(f"/{status}"), path) == words
    assert server.paths() == ["/403", "/404"]
    for location in ("ftp://host/a", "file:///etc/hostname", "/a"):
        server.files["/a"] = Served(status=302, location=location)
        assert reason(server.url("/a"), path).startswith("HTTP 302")
    server.files["/a"] = Served(OTHER, etag='"1"')
    assert f"not {SHA256}" in reason(server.url("/a"), path, sha256=SHA256)
    assert files_of(path.parent) == []


def test_a_file_too_large_to_be_meant(server, path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 500_000)
    body_that_never_comes = threading.Event()
    server.files["/a"] = Served(BODY, cuts=[0], pause=body_that_never_comes)
    assert "larger than" in reason(server.url("/a"), path)
    body_that_never_comes.set()
    server.files["/a"] = Served(BODY, length=-1, endless=True)
    assert "larger than" in reason(server.url("/a"), path)
    assert files_of(path.parent) == []


def test_nobody_answers(path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a"
        assert reason(url, path) == "no connection (Connection refused)"
    unknown = mock.Mock(side_effect=socket.gaierror(-2, "Name or service not known"))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert reason(url, path) == "no connection (Name or service not known)"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *((u, "only https:// and http://") for u in ("ftp://host/a", "data:text/plain,x", "a", "")),
        ("file:///etc/hostname", "only https:// and http://"),
        ("http:///a", "has no host"),
        ("http://[1/a", "Invalid IPv6"),
        ("http://host:port/a", "not well formed"),
    ],
)
def test_addresses_that_are_not_downloaded(path, url, why):
    assert why in reason(url, path)


def test_a_disk_that_cannot_take_it(server, tmp_path):
    server.files["/a"] = Served(BODY)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write .*(File exists|Not a directory)") as raised:
        fetch(server.url("/a"), tmp_path / "file" / "a")
    assert not isinstance(raised.value, DownloadError)  # no other host would do better
    if Path("/dev/full").exists():
        (tmp_path / "full.part").symlink_to("/dev/full")
        with pytest.raises(InputError, match="cannot write .*full .*No space left on device"):
            fetch(server.url("/a"), tmp_path / "full")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_certificates_that_the_environment_names(server, path, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    server.use_tls(certificate, key)
    server.files["/a"] = Served(BODY)
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    url = server.url("/a").replace("http:", "https:")
    assert "certificate verify failed" in reason(url, path).lower()
    for name in names:
        with monkeypatch.context() as patch:
            patch.setenv(name, str(certificate))
            fetch(url, path)
    assert path.read_bytes() == BODY
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    assert "cannot read the certificates /no/such/file" in refusal(fetch, url, path)


def test_what_an_address_is():
    for text in ("https://host/a", "HTTP://host", "hf://owner/repo", "file:///a", "s3://bucket/a"):
        assert is_address(text), text
    for text in ("biggan-128", "runs/a", "C:\\a", "/a//b", "://a", "a b://c"):
        assert not is_address(text), text


def test_a_file_of_the_web_is_fetched_once(server, close_network):
    places = ("/a/g.pth", "/b/g.pth", "/a/g.pth?version=2")
    for place in places:
        server.files[place] = Served(place.encode())
    paths = [obtain_address(server.url(place)) for place in places]
    assert [path.read_bytes().decode() for path in paths] == list(places)
    assert {path.name for path in paths} == {"g.pth"}
    close_network()
    for place, path in zip(places, paths, strict=True):
        assert obtain_address(server.url(place)) == path
        assert obtain_address(server.url(place), offline=True) == path


@pytest.mark.parametrize("path", ["/", "", "/..", "/a/%2e%2e", "/%2F%00", f"/{'x' * 300}"])
def test_names_that_cannot_be_those_of_files(server, cache, path):
    server.files[path or "/"] = Served(BODY)
    found = obtain_address(server.url(path))
    assert found.read_bytes() == BODY
    assert (cache / "addresses") in found.parents


def test_a_local_file_is_read_where_it_is(tmp_path, server):
    path = tmp_path / "a ü.pth"
    assert obtain_address(path.as_uri()) == path
    assert obtain_address(path.as_uri().replace("file://", "file://localhost")) == path
    assert "three slashes" in refusal(obtain_address, "file://a.pth")
    assert server.asked == []


def test_offline_opens_no_socket(close_network, monkeypatch):
    close_network()
    for address in ("ftp://host/a", "s3://bucket/a", "gs://bucket/a"):
        assert "only https://, http://, hf:// and file://" in refusal(obtain_address, address)
    for address in ("https://[bad/x.pth", "file://[x", "file:///x%00y", "ftp://[a\n"):
        refusal(obtain_address, address)
        refusal(obtain_address, address, offline=True)
    address = "https://host/a.pth"
    assert f"{address} is not in the cache" in refusal(obtain_address, address, offline=True)
    monkeypatch.setenv("BIGGAN_OFFLINE", "1")
    assert "nothing is downloaded offline" in refusal(obtain_address, address)


def test_secrets_in_an_address_are_not_shown(server, caplog):
    caplog.set_level("INFO")
    address = server.url("/gone.pth?signature=SECRET#x").replace("http://", "http://me:PASSWORD@")
    for options in ({}, {"offline": True}):
        message = refusal(obtain_address, address, **options) + caplog.text
        assert "SECRET" not in message
        assert "PASSWORD" not in message
        assert "/gone.pth" in message


def test_where_the_cache_is_and_whether_anything_is_fetched(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("BIGGAN_CACHE", "~/here")
    assert cache_dir() == Path("/home/somebody/here")
    monkeypatch.delenv("BIGGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_dir() == Path("/caches/biggan")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path("/home/somebody/.cache/biggan")
    for value, offline in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv("BIGGAN_OFFLINE", value)
        assert is_offline(False) is offline
        assert is_offline(True)


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path, server):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "file"))
    message = refusal(obtain_address, server.url("/a"))
    assert message.startswith("cannot write to the cache ")
    assert "set BIGGAN_CACHE" in message
    assert server.asked == []


def until(condition):
    while not condition():
        time.sleep(0.01)


def obtaining(url):
    """A process that obtains an address, and prints where it lies; it loads no torch."""
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO, format='%(message)s'); "
        "from biggan.weights.download import obtain_address; print(obtain_address(sys.argv[1])); "
        "sys.exit('torch' in sys.modules)"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, url], env=dict(os.environ), **pipes)


def test_two_processes_fetch_one_thing_once(server, tmp_path):
    pause = threading.Event()
    server.files["/a.bin"] = Served(BODY, etag='"1"', cuts=[400_000], pause=pause)
    first = obtaining(server.url("/a.bin"))
    until(lambda: server.asked)
    second = obtaining(server.url("/a.bin"))
    assert "another process is downloading" in second.stderr.readline()
    pause.set()
    outputs = [process.communicate()[0] for process in (first, second)]
    assert outputs[0] == outputs[1]
    assert (first.returncode, second.returncode) == (0, 0)
    assert Path(outputs[0].strip()).read_bytes() == BODY
    assert sum(asked.sent for asked in server.asked) == len(BODY)


def test_a_killed_process_is_taken_up(server, tmp_path):
    pause = threading.Event()
    server.files["/a.bin"] = Served(BODY, etag='"1"', cuts=[400_000], pause=pause)
    process = obtaining(server.url("/a.bin"))
    until(lambda: [p for p in tmp_path.rglob("a.bin.part") if p.stat().st_size == 400_000])
    process.kill()
    process.communicate()
    pause.set()
    assert obtain_address(server.url("/a.bin")).read_bytes() == BODY
    assert server.asked[-1].headers["Range"] == "bytes=400000-"
    assert sum(asked.sent for asked in server.asked) == len(BODY)
