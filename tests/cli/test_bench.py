"""`biggan bench` as a user types it: the table, the JSON, and what `auto` takes from then on."""

import json

import pytest
import torch

from biggan.gan import load
from biggan.inference import measurements, openvino
from biggan.inference.engine import Engine, build_engine
from biggan.inference.measurements import measure_engines
from biggan.weights.files import measurements_file
from command_line import biggan, fails, succeeds
from tiny import tiny_generator

ENGINES = ["pytorch", "openvino"]


class InPlaceOfOpenVino(Engine):
    """Built at once, and there without the extra."""

    name = "openvino"


@pytest.fixture(autouse=True)
def _a_cache_of_its_own_and_small_matrices(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measurements, "_SIDE", 64)
    monkeypatch.setattr("biggan.inference.engine.has_bfloat16", lambda: False)


def pretend(monkeypatch, **seconds):
    """Let each engine take these seconds for an image, and the plain network `plain`."""

    def of_image(engine, run=None):
        return seconds[engine.name if run is None else getattr(run, "precision", "plain")]

    monkeypatch.setattr(measurements, "_seconds_per_image", of_image)
    monkeypatch.setattr(openvino, "OpenVinoEngine", InPlaceOfOpenVino)
    monkeypatch.setattr(openvino, "version", lambda: "1.0")
    monkeypatch.setattr(measurements, "matrix_product_rate", lambda _: 1e9)


def test_measures_and_keeps_what_auto_takes(tiny_file, monkeypatch):
    pretend(monkeypatch, pytorch=0.5, openvino=0.25, plain=2.0)
    result = biggan(f"bench --model {tiny_file} --json --device cpu")
    assert result.returncode == 0, result.stderr
    card = json.loads(result.stdout)
    assert (card["model"], card["device"]) == ("tiny", "cpu")
    rows = {row.pop("name"): row for row in card["engines"]}
    assert list(rows) == [*ENGINES, "plain"]
    assert card["auto"] == ENGINES[-1]
    assert rows["plain"] == pytest.approx(
        {
            "seconds_per_image": 2.0,
            "images_per_second": 0.5,
            "speed_over_pytorch": 0.25,
            "share_of_rate": card["operations_per_image"] / 2.0 / 1e9,
        }
    )
    assert all(f"building the {name} engine" in result.stderr for name in ENGINES)
    kept = json.loads(measurements_file().read_text())
    assert [list(times) for times in kept.values()] == [ENGINES]  # not the plain network
    assert load(tiny_file).engine.name == ENGINES[-1]


def test_bfloat16_is_a_row_where_the_cpu_has_it(tiny_file, monkeypatch):
    pretend(monkeypatch, pytorch=0.5, openvino=0.25, plain=2.0, bfloat16=0.125)
    monkeypatch.setattr("biggan.inference.engine.has_bfloat16", lambda: True)
    card = json.loads(succeeds(f"bench --model {tiny_file} --json --device cpu"))
    speeds = {row["name"]: row["speed_over_pytorch"] for row in card["engines"]}
    assert speeds == {"pytorch": 1, "openvino": 2, "plain": 0.25, "bfloat16": 4}
    assert card["auto"] == "openvino"  # in float32


def test_auto_is_what_was_measured_last(tiny_file, monkeypatch):
    for faster in ENGINES:
        others = dict.fromkeys(ENGINES, 1.0)
        pretend(monkeypatch, **(others | {faster: 0.5, "plain": 0.1}))
        assert f"auto uses {faster}." in succeeds(f"bench --model {tiny_file}")
        assert load(tiny_file).engine.name == faster
    # Another architecture, another number of threads: not measured.
    other = build_engine(tiny_generator(channels=16), measurements=measurements_file())
    assert other.name == "pytorch"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert load(tiny_file).engine.name == "pytorch"


def test_the_table_has_a_line_for_each_engine(tiny_file, monkeypatch):
    pretend(monkeypatch, pytorch=0.5, openvino=0.25, plain=2.0)
    first, _, *rows, last = succeeds(f"bench --model {tiny_file}").splitlines()
    assert first.startswith("tiny on cpu, ")
    assert last.startswith("auto uses openvino")
    assert [row.split()[0] for row in rows] == [*ENGINES, "plain"]
    for row, values in zip(rows, ((0.5, 2, 1), (0.25, 4, 2), (2, 0.5, 0.25)), strict=True):
        *numbers, speed, share = row.split()[1:]
        assert tuple(map(float, (*numbers, speed.rstrip("x")))) == values
        assert share.endswith("%")


def test_the_plain_network_is_timed_as_it_is(monkeypatch):
    """In eval mode, on as many images as the engine makes, without gradients."""
    generator = tiny_generator()
    calls = []
    generator.register_forward_hook(
        lambda module, inputs, image: calls.append(
            (module.training, len(inputs[0]), len(image), image.requires_grad)
        )
    )
    monkeypatch.setattr(measurements, "_candidates", lambda _: ["pytorch"])
    seconds = measure_engines(generator, others={"plain": generator})
    assert list(seconds) == ["pytorch", "plain"]
    assert all(value > 0 for value in seconds.values())
    assert calls == [(False, 1, 1, False)] * 6
    assert list(measure_engines(generator)) == ["pytorch"]


def test_the_rate_is_of_two_operations_a_multiplication(monkeypatch):
    clock = iter([0.0, 3.0, 10.0, 12.0, 20.0, 24.0])  # the best of 3, 2 and 4 seconds
    monkeypatch.setattr(measurements.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(measurements, "_PRODUCTS", 3)
    rate = measurements.matrix_product_rate(torch.device("cpu"))
    assert rate == 2 * 64**3 / 2.0


def test_an_engine_that_fails_is_no_row(tiny_file, monkeypatch):
    def failing(generator, name, precision):
        raise RuntimeError("no kernel")

    monkeypatch.setattr("biggan.inference.engine._build", failing)
    monkeypatch.setattr(measurements, "_candidates", lambda _: ["pytorch", "openvino"])
    result = biggan(f"bench --model {tiny_file} --json")
    assert result.returncode == 0
    assert [row["name"] for row in json.loads(result.stdout)["engines"]] == ["pytorch", "plain"]
    assert "not using the openvino engine in float32: no kernel" in result.stderr


def test_mistakes_are_one_line_before_anything_is_measured(tiny_file, tmp_path, monkeypatch):
    monkeypatch.setattr(measurements, "_seconds_per_image", lambda *_: pytest.fail("measured"))
    assert "there is no device 'tpu'" in fails(f"bench --model {tiny_file} --device tpu")
    assert "nothing.safetensors" in fails(f"bench --model {tmp_path}/nothing.safetensors")
    (tmp_path / "file").touch()
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "file"))
    assert "is not a folder" in fails(f"bench --model {tiny_file}")


def test_a_measurement_of_another_model_stays(tiny_file, monkeypatch):
    pretend(monkeypatch, pytorch=0.5, openvino=0.25, plain=2.0)
    measurements_file().parent.mkdir()
    other = tiny_generator(channels=16)
    measure_engines(other, measurements_file())
    succeeds(f"bench --model {tiny_file}")
    assert build_engine(other, measurements=measurements_file()).name == ENGINES[-1]
    assert len(json.loads(measurements_file().read_text())) == 2
