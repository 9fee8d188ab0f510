"""The HTTP API, Gradio's API and the page behind all limits, asked over a socket."""

import base64
import contextlib
import http.client
import io
import json
import re
import threading
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")

from biggan import Gan
from biggan.demo import page
from biggan.demo.drawing import draw_grid
from biggan.demo.forms import DIRECTIONS, EXPLORE, INTERPOLATE, SWEEP, Form
from biggan.demo.models import ModelCache
from biggan.provenance_files import read_provenance
from demo_app import GatedGan, ask, call, get, make_gan, post, running, serving, until


def detail(body: bytes) -> str:
    answer = json.loads(body)
    assert set(answer) == {"detail"}
    return answer["detail"]


@pytest.mark.parametrize(
    ("path", "form", "values"),
    [
        ("sample", EXPLORE, {}),  # the defaults of the page
        (
            "sample?num=3&truncation=0.5&seed=4294967295&category=three",
            EXPLORE,
            {"num": 3, "truncation": 0.5, "seed": 2**32 - 1, "category": "three"},
        ),
        ("sample?category=3%29+three&seed=7.0&model=tiny", EXPLORE, {"seed": 7, "category": 3}),
        ("interpolate", INTERPOLATE, {}),
        (
            "interpolate?num=1&steps=3&seed_b=1&category_a=2",
            INTERPOLATE,
            {"num": 1, "steps": 3, "seed_b": 1, "category_a": "two"},
        ),
        ("sweep?noise=hub&num=1", SWEEP, {"noise": "hub", "num": 1}),
        ("directions?direction_1=-2.5&seed=3", DIRECTIONS, {"direction_1": -2.5, "seed": 3}),
    ],
)
def test_a_picture_is_the_pages_with_its_provenance(
    address: str, gan: Gan, path: str, form: Form, values: dict[str, Any], tmp_path: Path
) -> None:
    status, body = get(address, f"/api/{path}")
    assert status == 200
    (tmp_path / "picture.png").write_bytes(body)
    sheet = form.plan(gan, **values)
    assert read_provenance(tmp_path / "picture.png") == sheet
    assert serving.read(body).tobytes() == draw_grid(gan, sheet).tobytes()


def test_an_answer_has_a_type_a_name_and_a_length(address: str) -> None:
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    with contextlib.closing(connection):
        connection.request("GET", "/api/sample?num=2&category=three")
        reply = connection.getresponse()
        assert reply.getheader("Content-Type") == "image/png"
        name = 'inline; filename="tiny-three-hub0.4-seed0-2.png"'
        assert reply.getheader("Content-Disposition") == name
        assert len(reply.read()) == int(reply.getheader("Content-Length") or 0)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("sample?truncation=nan", 400, "truncation must be between 0.02 and 1, not nan"),
        ("sample?category=cheeseburger", 400, "no class is named 'cheeseburger'"),
        ("sample?category=", 400, "the class is empty"),
        ("sample?steps=3", 400, "'steps' is unknown; see /api/docs"),
        (f"sample?{'x' * 50_000}=3", 400, "'xxx.*' is unknown; see"),
        ("sample?num=1&num=2", 400, "a name is given twice"),
        ("sample?num=1" + "+" * 1000 + "no", 400, "number of samples must be a number, not '1 "),
        ("classes?serch=se", 400, "'serch' is unknown; see"),
        ("classes?search=" + "x" * 50_000, 400, "'search': .* at most 1000 characters"),
        (
            "sample?model=/etc/passwd",
            404,
            "no model is named '/etc/passwd' here; available are tiny, plain, gated, broken",
        ),
        ("samples", 404, "there is no /api/samples; see /api/docs"),
    ],
)
def test_a_mistake_is_one_line_and_hurts_nobody(
    address: str, path: str, status: int, text: str
) -> None:
    answered, body = get(address, f"/api/{path}")
    assert answered == status
    assert re.search(text, detail(body))
    assert len(body) < 400
    assert get(address, "/api/sample?num=1")[0] == 200


def test_a_long_body_and_another_method_are_refused(address: str) -> None:
    status, body = serving.get(address, "/api/sample", "x" * 10_000_000)
    assert (status, detail(body)[:23]) == (413, "the request is too long")
    status, body = serving.get(address, "/api/sample", "{}")
    assert (status, detail(body)) == (405, "only GET is allowed here")


def test_models_classes_and_the_queue_can_be_asked_for(address: str) -> None:
    assert json.loads(get(address, "/api/models")[1]) == ["tiny", "plain", "gated", "broken"]
    classes = json.loads(get(address, "/api/classes")[1])
    assert classes[3] == {"index": 3, "name": "three"}
    assert len(classes) == 10
    found = json.loads(get(address, "/api/classes?search=se&model=tiny")[1])
    assert found == [{"index": 7, "name": "seven"}]
    assert json.loads(get(address, "/api/queue")[1]) == {"waiting": 0, "limit": 100}


def test_a_class_is_found_or_another_model_that_has_it(address: str) -> None:
    def find(query: str) -> Any:
        return json.loads(get(address, f"/api/classes/find?model=tiny&{query}")[1])

    assert len(find("")["classes"]) == 10
    assert find("search=sevne") == {"classes": ["7) seven"], "other": None}
    assert find("search=3") == find("search=3)+three") == {"classes": ["3) three"], "other": None}
    # Only models that are on offer are named; here they are not.
    assert find("search=golden+retriever") == {"classes": [], "other": None}
    assert detail(get(address, "/api/classes/find?model=x")[1]).startswith("no model is named 'x'")


def test_a_picture_is_enlarged_by_repeating_its_pixels(
    address: str, gan: Gan, tmp_path: Path
) -> None:
    small, large = (get(address, f"/api/sample?num=2&enlarge={k}")[1] for k in (1, 3))
    with Image.open(io.BytesIO(small)) as a, Image.open(io.BytesIO(large)) as b:
        assert np.array_equal(np.asarray(a).repeat(3, 0).repeat(3, 1), b)
    (tmp_path / "large.png").write_bytes(large)
    assert read_provenance(tmp_path / "large.png") == EXPLORE.plan(gan, num=2)
    status, body = get(address, "/api/sample?enlarge=9")
    assert (status, detail(body)) == (400, "'enlarge': Input should be less than or equal to 8")


def test_the_documentation_has_all_ranges_and_defaults(address: str) -> None:
    schema = json.loads(get(address, "/api/openapi.json")[1])
    assert set(schema["paths"]) == {
        f"/api/{name}"
        for name in (
            *("sample", "interpolate", "sweep", "directions"),
            *("models", "classes", "classes/find", "queue"),
        )
    }
    parameters = schema["paths"]["/api/sweep"]["get"]["parameters"]
    names = [p["name"] for p in parameters]
    assert names == ["model", "num", "seed", "noise", "category", "enlarge"]
    model, num, seed, noise, category, _ = (p["schema"] for p in parameters)
    assert model["default"] == "tiny"
    assert (num["type"], num["minimum"], num["maximum"], num["default"]) == ("integer", 1, 5, 2)
    assert seed["maximum"] == 2**32 - 1
    assert (noise["enum"], noise["default"]) == (["paper", "hub"], "paper")
    assert "A name or an index." in category["description"]
    status, body = get(address, "/api/docs")
    reference = body.decode().replace("\n", "")
    assert (status, "A PNG that contains its provenance" in reference) == (200, True)
    assert "<td><code>num</code></td><td>integer, 1 to 5</td><td>2</td>" in reference
    assert "<td>paper or hub</td>" in reference
    assert not re.findall(r"https?:|<script|<link", reference)  # nothing from the internet
    links = re.findall(r'href="([^"]+)"', reference)
    assert {f"..{path}" for path in schema["paths"]} <= {*links}
    for link in links:
        assert get(address, urllib.parse.urljoin("/api/docs", link))[0] == 200
    assert get(address, "/api")[0] == 307  # to there


def test_a_full_queue_refuses_and_serves_the_first_that_came(
    address: str, renderer: Any, slow: GatedGan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer, "limit", 3)
    path = "/api/sample?model=gated&num=1&seed="
    with ThreadPoolExecutor() as clients:
        answers = []
        for seed in range(3):
            answers.append(clients.submit(get, address, f"{path}{seed}"))
            until(lambda: renderer.length == len(answers))
        status, body = get(address, f"{path}3")
        slow.let_through(4)
        assert [answer.result()[0] for answer in answers] == [200] * 3
    assert status == 503
    assert detail(body) == "3 requests are waiting already: try again in 5 s"
    assert get(address, f"{path}3")[0] == 200
    assert slow.seeds == [0, 1, 2, 3]


def test_requests_of_clients_that_left_are_abandoned(
    address: str, renderer: Any, slow: GatedGan
) -> None:
    gone = [http.client.HTTPConnection(address.removeprefix("http://")) for _ in range(3)]
    for seed, connection in enumerate(gone):
        connection.request("GET", f"/api/sample?model=gated&num=20&seed={seed}")
        until(lambda: renderer.length == seed + 1)  # noqa: B023
    with ThreadPoolExecutor() as clients:
        patient = clients.submit(get, address, "/api/sample?model=gated&num=1&seed=9")
        until(lambda: renderer.length == 4)
        for connection in gone:  # one is being drawn, two wait
            connection.close()
        until(lambda: renderer.length == 1)
        slow.let_through(2)  # one that is abandoned, and the patient client's
        assert patient.result()[0] == 200
    assert slow.seeds == [0, 9]
    assert slow.drawn == 2


def test_a_model_that_cannot_be_loaded_is_the_servers_fault(address: str) -> None:
    status, body = get(address, "/api/sample?model=broken")
    assert status == 503
    assert "secret" not in detail(body)
    assert get(address, "/api/sample")[0] == 200


def test_models_that_take_turns_in_memory_are_not_mixed_up() -> None:
    gans = {"one": make_gan(), "two": make_gan(("a", "one"))}
    loads: list[str] = []

    def load(source: str | Path) -> Gan:
        loads.append(str(source))
        return make_gan(gans[str(source)].class_names)

    asked = [(name, seed) for seed in range(6) for name in gans]
    with (
        running(ModelCache(list(gans), load, memory=1)) as (address, _),
        ThreadPoolExecutor(8) as many,
    ):
        paths = [f"/api/sample?model={n}&num=1&category=1&seed={s}" for n, s in asked]
        answers = list(many.map(lambda path: get(address, path), paths))
    for (name, seed), (status, body) in zip(asked, answers, strict=True):
        assert status == 200
        sheet = EXPLORE.plan(gans[name], num=1, seed=seed, category="one")
        assert serving.read(body).tobytes() == draw_grid(gans[name], sheet).tobytes()
    assert len(loads) > 2  # they were dropped in between


@pytest.mark.parametrize("ask", [serving.ask_http, serving.ask_gradio])
def test_many_clients_get_what_one_gets(address: str, gan: Gan, ask: Any) -> None:
    settings = serving.make_settings(gan, 21)
    expected = [draw_grid(gan, form.plan(gan, **values)) for form, values in settings]
    report = serving.hammer(address, ask, settings, expected, clients=8)
    assert report.faults == []
    assert len(report.times) == 21
    assert serving.hammer(address, ask, settings[:4], expected[3::-1], clients=2).faults


def test_an_unconditional_model_has_no_category(address: str) -> None:
    flat = make_gan(())
    status, body = get(address, "/api/sample?num=2&model=plain")
    assert status == 200
    with Image.open(io.BytesIO(body)) as picture:
        assert np.array_equal(picture, draw_grid(flat, EXPLORE.plan(flat, num=2)))
    assert get(address, "/api/interpolate?model=plain")[0] == 200
    assert json.loads(get(address, "/api/classes?model=plain")[1]) == []
    status, body = get(address, "/api/sample?category=cat&model=plain")
    assert status == 400
    assert "unconditional" in detail(body)


# Gradio's API.


def test_a_mistake_in_gradios_api_is_one_line(address: str) -> None:
    event, data = call(address, "sample", 1, 0.4, [0], "three")
    assert (event, data["error"]) == ("error", "noise seed must be a number, not [0]")
    assert call(address, "sample", 1, 0.4, 0, "three")[0] == "complete"


def test_a_request_that_gradio_cannot_read_is_the_clients_fault(address: str) -> None:
    assert post(address, "call/sample", {"data": ["x" * 10_000_000]})[0] == 413
    assert post(address, "call/sample", {"data": 5})[0] == 422
    assert post(address, "call/nothing", {"data": []})[0] == 404
    assert post(address, "call/v2/sample", {"numm": 5})[0] == 404
    unknown = {"data": [1], "fn_index": 999, "session_hash": "me"}
    assert post(address, "queue/join", unknown)[0] == 404
    for path in ("run/sample", "api/sample"):  # would bypass the queue
        assert post(address, path, {"data": [1, 0.4, 0, "three"]})[0] == 404


def test_gradios_queue_is_as_long_as_ours(gan: Gan) -> None:
    gate = threading.Event()

    def load(source: Any) -> Gan:
        assert source == "one" or gate.wait(20)
        return gan

    with running(ModelCache(["one", "two"], load), 2) as (address, _):
        assert get(address, "/")[0] == 200
        settings = [[1, 0.4, seed, "three", "two"] for seed in range(12)]
        answers = [post(address, "call/sample", {"data": data}) for data in settings]
        gate.set()
    assert [status for status, _ in answers[:2]] == [200] * 2
    refused = [answer["detail"] for status, answer in answers if status == 503]
    assert len(refused) >= 12 - 4 - 2  # four are begun, two wait
    assert all(detail.startswith("Queue is full") for detail in refused)


def test_the_same_picture_asked_for_both_ways_is_drawn_once(address: str, slow: GatedGan) -> None:
    with ThreadPoolExecutor(52) as clients:
        settings = (2, 0.4, 0, "three", "gated")
        asked = [clients.submit(call, address, "sample", *settings) for _ in range(48)]
        path = "/api/sample?model=gated&seed=0&"
        paths = (f"{path}num=2&category=3%29+three", f"{path}category=3&num=2.0")
        direct = [clients.submit(get, address, paths[k % 2]) for k in range(4)]
        slow.let_through(2)
        bodies = {answer.result()[1] for answer in direct}
        files = [answer.result() for answer in asked]
        (url,) = {data[0]["url"] for event, data in files if event == "complete"}
        with urllib.request.urlopen(url) as reply:
            bodies.add(reply.read())
    assert [event for event, _ in files] == ["complete"] * 48
    assert len(bodies) == 1
    assert slow.drawn == 2


VIDEO = (1, 1, 0.2, 0, 1, "one", "six", "gated")


@pytest.mark.parametrize(
    ("endpoint", "values"), [("video", VIDEO), ("sample", (20, 0.4, 0, "three", "gated"))]
)
def test_jobs_of_gradios_clients_that_left_are_abandoned(
    address: str, renderer: Any, slow: GatedGan, endpoint: str, values: tuple[Any, ...], caplog: Any
) -> None:
    status, answer = post(address, f"call/{endpoint}", {"data": values})
    assert status == 200
    stream = urllib.request.urlopen(
        f"{address}/gradio_api/call/{endpoint}/{answer['event_id']}", timeout=20
    )
    slow.let_through(2)
    until(lambda: slow.drawn == 2)
    assert renderer.length == 1
    stream.close()
    until(lambda: renderer.length == 0)
    slow.let_through(100)
    assert call(address, "sample", 1, 0.4, 5, "three", "gated")[0] == "complete"
    assert caplog.text == ""
    assert slow.drawn <= 2 + 1 + 1  # the picture at hand of the abandoned job, and the other


def test_a_newer_request_of_a_visitor_ends_the_older(
    address: str, renderer: Any, slow: GatedGan
) -> None:
    events = {
        e["api_name"]: e["id"] for e in json.loads(get(address, "/config")[1])["dependencies"]
    }
    me = {"session_hash": "me"}
    settings = ["explore", None, 1, "gated", 20, 0.4, 0, "three"]
    joined = {"data": settings, "fn_index": events["draw"], **me}
    assert post(address, "queue/join", joined)[0] == 200
    until(lambda: slow.seeds == [0])
    for number, length in ((1, 1), (2, 0)):
        noted = {"data": [None, number], "fn_index": events["note"], **me}
        assert post(address, "run/predict", noted)[0] == 200
        until(lambda: renderer.length == length, 5)  # noqa: B023


def test_a_job_whose_messages_nobody_reads_is_abandoned(
    address: str, renderer: Any, slow: GatedGan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_MAX_UNREAD", 1)
    assert post(address, "call/video", {"data": VIDEO})[0] == 200
    until(lambda: renderer.length == 1)
    until(lambda: renderer.length == 0)
    assert slow.drawn == 0


# Users and limits.


def test_everything_is_for_users_only_and_a_client_cannot_call_itself_many(gan: Gan) -> None:
    models = ModelCache(["tiny"], lambda _: gan)
    clients = [f"203.0.113.{number}" for number in range(15)]
    with running(models, users={"ann": "secret"}, per_minute=8) as (address, _):
        for path in ("/", "/api", "/api/docs", "/config", "/gradio_api/info", "/theme.css"):
            assert get(address, path)[0] == 401
        assert post(address, "call/sample", {"data": []})[0] == 401

        def status(client: str, credentials: str) -> int:
            basic = f"Basic {base64.b64encode(credentials.encode()).decode()}"
            url = f"{address}/api/sample?num=1"
            return ask(url, X_Forwarded_For=client, Authorization=basic)[0]

        pictures = [status(client, "ann:secret") for client in clients]
        guesses = [status(client, f"ann:{client}") for client in clients]
    assert pictures == [200] * 4 + [429] * 11
    assert guesses == [401] * 10 + [429] * 5
