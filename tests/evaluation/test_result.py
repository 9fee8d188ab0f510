"""Tables, plots and the points of the paper's Table 2, of an evaluation made by hand."""

import csv
import io

import pytest
from PIL import Image

from biggan.errors import InputError
from biggan.evaluation import Evaluation
from biggan.evaluation.result import as_csv, as_table, plot_tradeoff
from biggan.evaluation.scores import check_metrics, operating_points


def evaluation(rows, points=None):
    return Evaluation(
        subject={"model": "tiny"},
        reference={"name": "photos", "num": 5000, "resolution": 32},
        extractor={"name": "TF-Inception 2015-12-05"},
        protocol={"num": 2048},
        rows=rows,
        points=points or {},
        versions={},
        date="",
    )


ROWS = [
    {"truncation": None, "scores": {"fid": 12.3456, "is": 50.0, "is_std": 1.25}},
    {"truncation": 0.25, "scores": {"fid": 30.0, "is": 99.5, "is_std": 0.5}},
    {"truncation": 0.5, "scores": {"fid": 8.0, "is": 80.0, "is_std": 0.75}},
]


def test_the_table():
    points = {"best fid": ROWS[2], "is of the data": ROWS[0]}
    assert as_table(evaluation(ROWS, points)).splitlines() == [
        "2048 images of tiny against 5000 of photos at 32 px, seen by TF-Inception 2015-12-05",
        "truncation    FID          IS",
        "      none  12.35    50 ± 1.2",
        "      0.25     30  99.5 ± 0.5",
        "       0.5      8   80 ± 0.75",
        "best FID: at truncation 0.5",
        "IS of the data: at truncation none",
    ]


def test_the_spreadsheet_has_all_digits():
    lines = list(csv.reader(io.StringIO(as_csv(evaluation(ROWS)))))
    assert lines[0] == ["truncation", "fid", "is", "is_std"]
    assert lines[1] == ["none", "12.3456", "50.0", "1.25"]
    assert lines[2][0] == "0.25"


def test_the_plot_joins_neighbours_in_truncation(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    save = figure.Figure.savefig

    def look(self, *arguments, **options):
        for axes in self.axes:
            [line] = axes.lines
            words = [text.get_text() for text in axes.texts]
            drawn.append((axes.get_xlabel(), axes.get_ylabel(), line.get_xydata().tolist(), words))
        return save(self, *arguments, **options)

    monkeypatch.setattr(figure.Figure, "savefig", look)
    plot_tradeoff(evaluation(ROWS), tmp_path / "plot.png")
    [(x, y, points, words)] = drawn
    assert (x, y) == ("FID", "IS")
    assert points == [[30.0, 99.5], [8.0, 80.0], [12.3456, 50.0]]
    assert words == ["0.25", "0.5", "none"]
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size[0] > 400


def test_a_plot_of_nothing_is_refused(tmp_path):
    rows = [{"truncation": t, "scores": {"kid": 1.0}} for t in (0.5, None)]
    with pytest.raises(InputError, match="needs the metrics fid and is, or pr"):
        plot_tradeoff(evaluation(rows), tmp_path / "plot.png")


def test_metrics_are_in_an_order_of_their_own():
    assert check_metrics("cas, is,fid,is") == ("fid", "is", "cas")


SWEEP = [
    {"truncation": truncation, "scores": {"fid": fid, "is": score}}
    for truncation, fid, score in (
        (0.2, 30.0, 99.0),
        (0.5, 8.0, 80.0),
        (0.8, 7.0, 64.0),
        (1.0, 9.0, 55.0),
        (None, 10.0, 50.0),
    )
]


def test_each_point_is_the_nearest_that_was_measured():
    points = operating_points(SWEEP, "fid", "is", 61.0)
    assert {name: row["truncation"] for name, row in points.items()} == {
        "no truncation": None,
        "best fid": 0.8,
        "is of the data": 0.8,  # 64 is nearer than 55
        "best is": 0.2,
    }
    assert operating_points(SWEEP, "fid", "is", 59.0)["is of the data"]["truncation"] == 1.0


def test_points_that_nobody_measured_are_left_out():
    assert sorted(operating_points(SWEEP[:2], "fid", "is", None)) == ["best fid", "best is"]
