"""The benchmark of the page says all that it found, and takes nothing unknown for good."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from tests import tools
from tests.benchmarks import page_quality


def report(score: float | None = 1.0, paint_ms: float | None = 300.0) -> dict[str, object]:
    """As Lighthouse writes it where an audit went wrong (a score of None), or nothing was painted."""
    told = {"id": "contrast", "title": "Contrast", "score": score, "errorMessage": "no trace"}
    told["scoreDisplayMode"] = "error" if score is None else "binary"
    paint = {} if paint_ms is None else {"numericValue": paint_ms}
    category = {"score": score, "auditRefs": [{"id": "contrast", "weight": 3}, {"id": "paint", "weight": 0}]}
    audits = {"contrast": told, "paint": told, "first-contentful-paint": paint}
    return {"categories": dict.fromkeys(page_quality.CATEGORIES, category), "audits": audits}


@pytest.mark.parametrize(
    ("found", "wrong", "code"),
    [
        (report(), 0, 0),
        (report(), 2, 1),
        (report(score=0.9), 0, 1),
        (report(score=None), 0, 1),
        (report(paint_ms=None), 0, 1),
        (report(paint_ms=1500.0), 0, 1),
    ],
)
def test_what_is_missed_or_unknown_is_no_success_and_all_is_looked_at(monkeypatch, found, wrong, code):
    counted = []
    made = type("Made", (), {"full": type("Full", (), {"url": "http://x/"})})
    monkeypatch.setattr("sys.argv", ["page_quality", "--runs", "2"])
    monkeypatch.setattr(tools, "chromium", lambda: Path("chromium"))
    monkeypatch.setattr(page_quality, "services", lambda _: nullcontext(made))
    monkeypatch.setattr(page_quality, "audit", lambda *_: found)
    monkeypatch.setattr(page_quality, "counted", lambda made: counted.append(made) or wrong)
    assert page_quality.main() == code
    assert counted == [made]
