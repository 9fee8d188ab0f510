"""The logic within the benchmark scripts, and that they run where their peers are missing."""

import importlib
import mmap
import os
import socket
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import cold_start
import gpu
import memory
import sampling
import scale
import turns

from biggan.nn import StandingBatchNorm2d
from tiny import tiny_generator


@pytest.fixture
def _only_pytorch_at_a_known_rate(monkeypatch):
    monkeypatch.setattr(sampling, "openvino_version", lambda: None)
    monkeypatch.setattr(sampling, "matrix_product_rate", lambda _: 1e9)
    monkeypatch.setattr(sampling, "has_bfloat16", lambda: False)


def test_the_ratio_is_the_median_of_the_rounds():
    assert turns.ratio([4.0, 9.0, 100.0], [2.0, 3.0, 50.0]) == 2.0


@torch.no_grad()
def test_statistics_are_those_of_what_reaches_each_norm():
    generator = tiny_generator()
    norms = [m for m in generator.modules() if isinstance(m, StandingBatchNorm2d)]
    z = torch.randn(6, generator.config.z_dim)
    labels = torch.arange(6) % 3
    sampling.record_statistics(norms, lambda: generator(z, labels))
    seen = {}
    for norm in norms:
        norm.register_forward_pre_hook(lambda m, inputs: seen.update({m: inputs[0].double()}))
    generator(z, labels)
    for norm in norms:
        values = seen[norm].transpose(0, 1).flatten(1)
        mean, var = values.mean(1).float(), values.var(1).float()
        for recorded in (norm.running_mean, *norm.table_mean):
            torch.testing.assert_close(recorded, mean, atol=1e-5, rtol=1e-5)
        for recorded in (norm.running_var, *norm.table_var):
            torch.testing.assert_close(recorded, var, atol=1e-5, rtol=1e-4)


def test_spectral_norms_divide_by_the_largest_singular_value():
    torch.manual_seed(3)
    layer = nn.utils.spectral_norm(nn.Linear(12, 20)).eval()
    sampling.POWER_ITERATIONS, before = 200, sampling.POWER_ITERATIONS
    try:
        sampling.converge(layer)
    finally:
        sampling.POWER_ITERATIONS = before
    layer(torch.zeros(1, 12))
    weight = layer.weight_orig.double()
    expected = weight / torch.linalg.svdvals(weight)[0]
    torch.testing.assert_close(layer.weight.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("_only_pytorch_at_a_known_rate")
@torch.no_grad()
def test_the_peers_network_is_ours_of_the_same_weights(tmp_path):
    package = pytest.importorskip("pytorch_pretrained_biggan")
    layers = [[up, i, i // 2 if up else i] for i in (16, 8, 4, 2) for up in (False, True)]
    config = package.BigGANConfig(
        output_dim=64, channel_width=8, layers=layers, attention_layer_position=4
    )
    peer = sampling.build_peer(config)
    sampling.write_peer(peer, tmp_path)
    theirs = peer(sampling.noise(), sampling.one_hot(), sampling.TRUNCATION)
    builds = [plan.build for plan in sampling.own_plans(tmp_path).values()]
    assert len(builds) == 2
    assert theirs.std() > 0.05  # neither faded nor exploded
    for build in (*builds, partial(sampling.peers_image, tmp_path)):
        image = build()["image"]()
        torch.testing.assert_close(image, theirs, atol=1e-4, rtol=0)
    alone = sampling.AtOneTruncation(peer)(sampling.noise(), sampling.one_hot())
    torch.testing.assert_close(alone, theirs, atol=1e-5, rtol=0)
    assert hasattr(peer.generator.gen_z, "weight_orig")  # its copy alone was changed


@pytest.mark.slow
@pytest.mark.usefixtures("_only_pytorch_at_a_known_rate")
def test_without_the_peer_our_networks_are_compared(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "pytorch_pretrained_biggan", None)
    generator = tiny_generator(num_classes=1000)
    monkeypatch.setattr(sampling, "build_ours", lambda _: generator)
    weights, peer = sampling.write_deep(128, tmp_path)
    assert peer is None
    plans = sampling.own_plans(weights)
    assert list(plans) == [sampling.PLAIN, "ours, engine pytorch"]
    sampling.compare("tiny", plans, weights, rounds=2)
    output = capsys.readouterr().out
    assert "pytorch-pretrained-biggan is not installed: left out" in output
    assert "plain/it" in output
    assert "  equal: largest" in output


def test_an_image_in_bfloat16_may_differ(capsys):
    image = torch.rand(1, 3, 8, 8)
    sampling.report_images({"a": image, sampling.IN_BFLOAT16: image + 0.01, "b": image})
    output = capsys.readouterr().out
    assert "  equal: largest" in output
    assert "bfloat16: PSNR 46.0 dB, 0.01 at most" in output


@pytest.mark.parametrize("fault", [0.01, float("nan")])
def test_different_images_are_said_to_be_different(capsys, fault):
    image = torch.rand(1, 3, 8, 8)
    sampling.report_images({"a": image, "b": image, "wrong": image + fault})
    assert "NOT EQUAL" in capsys.readouterr().out


def some_functions(module="torch"):
    """What a contender's process builds."""
    importlib.import_module(module)
    calls = torch.zeros(1)
    return {
        "call": lambda: calls.add_(1) and time.sleep(0.05),
        "calls": lambda more=0: calls + more,
        "digits": lambda: torch.tensor(sys.get_int_max_str_digits()),
        "fail": lambda: 1 / 0,
        "end": lambda: os._exit(3),
        "hang": lambda: print(os.getpid(), flush=True) or time.sleep(600),
    }


@pytest.mark.slow
def test_contenders_take_turns_in_processes_of_their_own(capsys):
    before = dict(os.environ)
    plans = {
        "plain": turns.Plan(some_functions),
        "  lacking": turns.Plan(partial(some_functions, "no_such_module")),
        "set": turns.Plan(some_functions, lambda: os.environ.update(PYTHONINTMAXSTRDIGITS="5000")),
    }
    with turns.running(plans) as contenders:
        assert capsys.readouterr().out == "lacking: left out, No module named 'no_such_module'\n"
        assert os.environ == before
        plain, changed = contenders.values()
        assert plain.result("digits") != 5000
        assert changed.result("digits") == 5000  # read before anything is imported
        times = turns.take_turns(contenders, "call", rounds=2, calls=3)
        assert list(times) == ["plain", "set"]
        assert all(len(taken) == 2 and min(taken) >= 0.05 for taken in times.values())
        assert plain.result("calls") == 6
        assert changed.result("calls", 0.5) == 6.5
        with pytest.raises(ZeroDivisionError) as raised:
            changed.times("fail")
        assert raised.value.__notes__ == ["in the process of set"]
        assert '"fail": lambda' in str(raised.value.__cause__)  # the traceback of the process
        with pytest.raises(BrokenProcessPool):
            plain.times("end")
        assert changed.result("calls") == 6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
def test_a_contender_ends_with_the_script(tmp_path):
    log = tmp_path / "log"
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; import turns, test_benchmarks\n"
        "plan = turns.Plan(test_benchmarks.some_functions)\n"
        "with turns.running({'one': plan}) as them: them['one'].times('hang')"
    )
    with log.open("w") as out:
        killed = subprocess.Popen([sys.executable, "-c", code], stdout=out)
    wait_until(lambda: log.read_text().endswith("\n"))
    killed.kill()
    killed.wait()
    wait_until_gone(log.read_text().strip())


def test_imports_are_read_longest_first():
    report = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       100 |        100 |   encodings.aliases\n"
        "import time:      2000 |    1500000 | torch\n"
        "something else\n"
    )
    assert cold_start.slowest_imports(report) == [(1.5, "torch"), (0.0001, "encodings.aliases")]


@pytest.mark.slow
def test_the_gpu_run_loses_nothing_to_a_part_that_fails_or_hangs_and_repeats_nothing(tmp_path):
    def part(name, code, limit=60.0, **more):
        code = f"open({str(tmp_path / name)!r}, 'a').write('x'); {code}"
        return gpu.Part(name, lambda _: [sys.executable, "-c", code], limit, **more)

    def run(seconds):
        records = gpu.run_parts(chosen, tmp_path, seconds, lambda now: reported.append(dict(now)))
        return {name: record["status"] for name, record in records.items()}, records

    def starts():
        return [len(p.read_text()) if (p := tmp_path / c.name).exists() else 0 for c in chosen]

    reported, row = [], '{"form": "a", "rate": 2.5}'
    chosen = [
        part("fails", "print('no GPU'); raise SystemExit(3)"),
        part("hangs", f"print({row!r}, flush=True); import time; time.sleep(600)", 3.0),
        part("works", """print('{"form": "b|c", "rate": 1.5}'); print('{"cut')"""),
        part("trains", "print('step 7')", continues=True),
    ]
    statuses, records = run(120)
    assert statuses == {
        "fails": "failed with exit status 3",
        "hangs": "stopped after 3 s",
        "works": gpu.DONE,
        "trains": gpu.DONE,
    }
    assert reported[-1] == records
    assert starts() == [1, 1, 1, 1]
    lines = gpu.table(records).splitlines()
    assert lines[2].endswith("| failed with exit status 3: no GPU |")
    assert lines[3].startswith("| hangs | a |  | 2.5 |  |  |  | stopped after 3 s: ")
    assert lines[4] == "| works | b/c |  | 1.5 |  |  |  |  |"
    assert lines[5].endswith("| step 7 |")
    assert run(120)[0] == statuses
    assert starts() == [2, 2, 1, 2]
    chosen.append(part("late", ""))
    assert run(0)[0] == {**statuses, "late": "not run: no time was left"}
    assert starts() == [2, 2, 1, 2, 0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="uses Linux's signal of a parent's death")
def test_a_killed_gpu_run_leaves_no_part_running(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(gpu.__file__).parent)!r}); import gpu, pathlib;"
        "slow = [sys.executable, '-c', 'import os, time; print(os.getpid()); time.sleep(600)'];"
        "gpu.run_parts([gpu.Part('slow', lambda _: slow, 600)], pathlib.Path(sys.argv[1]), 600,"
        "print, {'PYTHONUNBUFFERED': '1'})"
    )
    killed = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.DEVNULL)
    log = tmp_path / "slow.log"
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    killed.kill()
    killed.wait()
    wait_until_gone(log.read_text().strip())


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's figures of a connection")
def test_bytes_sent_are_those_of_this_process_over_tcp():
    code = (
        "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
        "s.recv(50_000, socket.MSG_WAITALL); s.sendall(bytes(7)); s.recv(1)"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        with subprocess.Popen([sys.executable, "-c", code, port]), server.accept()[0] as own_end:
            before = scale.sent()
            own_end.sendall(bytes(50_000))
            assert len(own_end.recv(7, socket.MSG_WAITALL)) == 7
            assert scale.sent() - before == 50_000


def wait_until_gone(process):
    status = Path("/proc") / process / "status"
    wait_until(lambda: not status.exists() or "State:\tZ" in status.read_text())


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("waited for a minute")


def test_memory_is_measured_in_bytes():
    assert memory.MEBIBYTE < memory.held() <= memory.peak() * 1.01
    before = memory.held()
    size = 64 * memory.MEBIBYTE
    with mmap.mmap(-1, size) as kept:  # new pages: a heap may hold freed ones of earlier tests
        kept.write(b"x" * size)
        assert memory.held() - before > 0.9 * size


def test_memory_without_the_peer_is_that_of_our_engines(monkeypatch, capsys, tmp_path):
    answers = {"--peak": [941.0], "--growth": [260.0, 262.0]}
    calls = []

    def run(*arguments):
        calls.append(arguments[0])
        return answers.get(arguments[0], [])

    monkeypatch.setattr(memory, "run", run)
    monkeypatch.setattr(memory, "find_spec", lambda _: None)
    memory.compare(tmp_path, ["pytorch"], quick=True)
    assert calls == ["--prepare", "--peak", "--growth"]
    output = capsys.readouterr().out
    assert "pytorch-pretrained-biggan is not installed: left out" in output
    assert "941\n" in output
    assert "260 after 100 images, 262 after 1000: +2" in output
