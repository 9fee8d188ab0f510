"""Pages without drawing, which is what takes the time."""

import pytest


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biggan.reporting.page.as_svg", lambda chart, number: "<svg></svg>")
