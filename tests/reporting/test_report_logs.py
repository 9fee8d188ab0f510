"""Logs as they are found: cut, of other versions, with numbers that are none."""

import json

from biggan.reporting import read_run
from biggan.reporting.run import Curve, read_log
from biggan.supervision.log import read_events


def test_numbers_become_curves_by_the_names_that_lead_to_them(tmp_path):
    log = tmp_path / "signals.jsonl"
    lines = [
        {"step": 20, "singular_values": {"generator": {"blocks.0.conv1": [3.0, 2.0]}}, "x": 1},
        {"step": 40, "singular_values": {"generator": {"blocks.0.conv1": [4.0, 2.5]}}, "new": "?"},
    ]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    read = read_log(log)
    assert read.curves == {
        ("singular_values", "generator", "blocks.0.conv1", "0"): Curve([20, 40], [3.0, 4.0]),
        ("singular_values", "generator", "blocks.0.conv1", "1"): Curve([20, 40], [2.0, 2.5]),
        ("x",): Curve([20], [1.0]),
    }
    assert read.damaged == 0
    assert list(read.under("singular_values", "generator")) == [
        ("blocks.0.conv1", "0"),
        ("blocks.0.conv1", "1"),
    ]


def test_numbers_that_are_none_are_kept_apart(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text(
        '{"step": 1, "a": NaN, "b": 1.0}\n{"step": 2, "a": null, "b": -Infinity}\n'
        f'{{"step": 3, "a": 1{"0" * 400}, "b": true}}\n'
        '{"step": 4, "b": 1e308, "a": 1e400, "c": [1, [NaN, 2]]}\n'
    )
    read = read_log(log)
    assert read.curves == {
        ("b",): Curve([1, 4], [1.0, 1e308]),
        ("c", "0"): Curve([4], [1.0]),
        ("c", "1", "1"): Curve([4], [2.0]),
    }
    assert read.not_finite == {("a",): [1, 2, 3, 4], ("b",): [2], ("c", "1", "0"): [4]}


def test_lines_that_hold_no_object_are_counted(tmp_path):
    log = tmp_path / "metrics.jsonl"
    deep = '{"step": 1, "a": ' + "[" * 900 + "1" + "]" * 900 + "}"
    bad = [
        deep,
        "[" * 100_000,
        "3",
        '{"a": 1}',
        '{"step": "7"}',
        '{"step": -1}',
        '{"step": 9, "a"',
        "",
    ]
    log.write_bytes("\n".join(['{"step": 1, "a": 2}', *bad, ""]).encode() + b'\xff{"step": 2}\n')
    read = read_log(log)
    assert read.curves == {("a",): Curve([1], [2.0])}
    assert read.damaged == len(bad) + 1


def test_steps_that_go_back_are_put_in_order_and_the_later_value_counts(tmp_path):
    log = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "a": value} for step, value in ((1, 1), (3, 3), (2, 2), (3, 30))]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert read_log(log).curves == {("a",): Curve([1, 2, 3], [1.0, 2.0, 30.0])}


def test_half_characters_in_names_do_not_reach_the_page(tmp_path):
    log = tmp_path / "signals.jsonl"
    log.write_text('{"step": 1, "\\ud800": {"layer": 1.5}}\n')
    (name, _), *_ = read_log(log).curves
    name.encode()
    log.unlink()
    read = read_log(log)
    assert (read.curves, read.not_finite, read.damaged) == ({}, {}, 0)


def test_events_keep_what_they_can(tmp_path):
    log = tmp_path / "events.jsonl"
    lines = [
        {"step": 5, "event": "rollback", "to": 3, "changes": {"optimizer.g_lr": 1e-4}, "why": 1},
        {"step": 6, "event": "celebration", "reason": 7, "values": [1], "to": "start"},
        {"step": 7},
    ]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"step": 8, "ev')
    (first, second), damaged = read_events(tmp_path)
    assert (first.event, first.to, first.changes) == ("rollback", 3, {"optimizer.g_lr": 1e-4})
    assert (second.event, second.reason, second.values, second.to) == ("celebration", "", {}, None)
    assert damaged == 2


def test_what_rollbacks_took_out_is_found_by_number(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    for name in ("2", "10", "1", "x", "-3"):
        log = tmp_path / f"signals.before-rollback-{name}.jsonl"
        log.write_text(f'{{"step": 1, "number": {0 if name == "x" else name}}}')
    undone = read_run(tmp_path).undone
    assert [u["signals"].curves["number",].values for u in undone] == [[1.0], [2.0], [10.0]]
    assert all(u["metrics"].curves == {} for u in undone)
