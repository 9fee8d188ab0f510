"""The points of the paper's Table 2 on a sweep made by hand."""

from biggan.evaluation.scores import operating_points

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
