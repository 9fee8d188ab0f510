"""A web server in a thread that stands in for the hosts of weights, with their faults."""

import base64
import hashlib
import json
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote


@dataclass
class Served:
    """What the server answers under one path."""

    body: bytes = b""
    status: int = 200
    etag: str | None = None
    ranges: bool = True
    """Whether it understands Range and If-Range."""
    believes_etags: bool = True
    """Whether it looks at If-Range."""
    skipped: int = 0
    """A part begins so many bytes behind the place that was asked for."""
    endless: bool = False
    """The body is sent again and again."""
    location: str | None = None
    length: int | None = None
    """What Content-Length says; the truth if None."""
    cuts: list[int] = field(default_factory=list)
    """The connection ends after so many bytes of the body: an entry for each answer."""
    busy: int = 0
    """So many answers are "503 Service Unavailable" first."""
    drip: str = ""
    """Of the answer's "head" or "body" a byte comes every hundredth of a second."""
    commit: str | None = None
    """The repository's, where the answer is that of the Hugging Face Hub."""
    error: str = ""
    """The Hub's name of what is wrong."""
    pause: threading.Event | None = None
    """Where an answer is cut, its connection stays open until this is set."""


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    sent: int = 0
    """Bytes of a body that went out in answer."""


class FileServer:
    """`with FileServer() as server: server.files["/a"] = Served(...)`, then `server.url("/a")`."""

    def __init__(self):
        self.files = {}
        self.asked = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def use_tls(self, certificate, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    def url(self, path, host="127.0.0.1"):
        return f"http://{host}:{self._http.server_port}{path}"

    def paths(self):
        return [asked.path for asked in self.asked]

    def receive(self, path, body):
        """The status and body in answer to what is sent here."""
        return 404, b"not here"

    def serve_repository(self, repo, files, revision="main", kind="models"):
        """Files as the Hugging Face Hub serves them."""
        folder = "" if kind == "models" else f"/{kind}"
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        tree = [
            {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
            for name, body in files.items()
        ]
        info = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        for name in (revision, commit):
            self.files[f"/api/{kind}/{repo}/tree/{name}"] = Served(json.dumps(tree).encode())
            self.files[f"/api/{kind}/{repo}/revision/{name}"] = Served(json.dumps(info).encode())
        for name, body in files.items():
            served = Served(body, etag=f'"{hashlib.sha1(body).hexdigest()}"', commit=commit)
            for each in (revision, commit):
                self.files[f"{folder}/{repo}/resolve/{each}/{quote(name)}"] = served

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = Asked(self.path, dict(self.headers))
                server.asked.append(asked)
                missing = Served(b"not here", status=404, error="EntryNotFound")
                served = server.files.get(self.path)
                if served is None:  # what the Hub is asked for has options that do not matter
                    served = server.files.get(self.path.partition("?")[0], missing)
                if served.busy:
                    served.busy -= 1
                    served = Served(b"later", status=503)
                body, status = served.body, served.status
                begin = self._begin(served)
                begin += served.skipped if begin else 0
                if begin:
                    status = 206 if begin < len(body) else 416
                self.send_response(status)
                if status == 206:
                    self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
                rest = body[begin:]
                length = len(rest) if served.length is None else served.length
                if length >= 0:
                    self.send_header("Content-Length", str(length))
                if served.etag:
                    self.send_header("ETag", served.etag)
                if served.error:
                    self.send_header("X-Error-Code", served.error)
                if served.commit:
                    self.send_header("X-Repo-Commit", served.commit)
                if served.location:
                    self.send_header("Location", served.location)
                if served.drip == "head":
                    self._drip(b"X-Long: " + b"x" * 10_000 + b"\r\n")
                self.end_headers()
                if self.command == "HEAD":
                    return
                if served.drip == "body":
                    self._drip(rest)
                    return
                cut = served.cuts.pop(0) if served.cuts else len(rest)
                asked.sent = len(rest[:cut])
                with suppress(ConnectionError):  # of a client that has seen enough
                    self.wfile.write(rest[:cut])
                    while served.endless:
                        self.wfile.write(rest)
                if cut < len(rest) and served.pause is not None:
                    served.pause.wait()

            do_HEAD = do_GET  # noqa: N815  (the name is the base class's)

            def do_POST(self):
                size = int(self.headers.get("Content-Length") or 0)
                server.asked.append(Asked(self.path, dict(self.headers)))
                status, body = server.receive(self.path, self.rfile.read(size))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_POST  # noqa: N815

            def _drip(self, contents):
                with suppress(ConnectionError):
                    for byte in contents:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.01)

            def _begin(self, served):
                wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
                if not wanted or not served.ranges:
                    return 0
                if served.believes_etags and version != served.etag:
                    return 0
                return int(wanted.removeprefix("bytes=").removesuffix("-"))

            def log_message(self, *_):
                pass

        return Handler


class HubServer(FileServer):
    """The part of the Hub's interface with which models are published.

    Attributes:
        repositories: The files of each repository that was created.
        large: Names of files that go to the storage of large ones (Git LFS), not into the commit.
    """

    def __init__(self):
        super().__init__()
        self.repositories = {}
        self.large = ()
        self._stored = {}

    def receive(self, path, body):
        path = path.partition("?")[0]
        if path.startswith("/store/"):
            self._stored[path.removeprefix("/store/")] = body
            return 200, b""
        if path == "/api/repos/create":
            about = json.loads(body)
            name = f"{about['organization']}/{about['name']}"
            files = self.repositories.setdefault(name, {})
            self.serve_repository(name, files)
            return 200, json.dumps({"url": self.url(f"/{name}")}).encode()
        if path == "/api/validate-yaml":
            return 200, b'{"errors": [], "warnings": []}'
        if path.endswith("/objects/batch"):
            asked = json.loads(body)["objects"]
            objects = [
                {**a, "actions": {"upload": {"href": self.url(f"/store/{a['oid']}")}}}
                for a in asked
            ]
            return 200, json.dumps({"transfer": "basic", "objects": objects}).encode()
        repo = "/".join(path.split("/")[3:5])
        if repo not in self.repositories:
            return 404, b"{}"
        if "/preupload/" in path:
            answers = [
                {
                    "path": (name := each["path"]),
                    "uploadMode": "lfs" if name in self.large else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            return 200, json.dumps({"files": answers}).encode()
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.repositories[repo][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.repositories[repo][value["path"]] = self._stored[value["oid"]]
            self.serve_repository(repo, self.repositories[repo])
            about = {"commitUrl": self.url(f"/{repo}/commit/0"), "commitOid": "0" * 40}
            return 200, json.dumps(about).encode()
        return 404, b"{}"
