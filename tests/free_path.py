"""Engines behind a path that costs nothing: for tests of what engines alone carry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tuner.ask.front_fits import FrontFit
from tuner.cost import front_path
from tuner.retune import contenders

_FREE = FrontFit("free", (), 0.0, 0.0, {}, "nothing costs nothing")
_KEPT = (contenders._contenders, contenders._priced, contenders._prices)


@pytest.fixture
def free_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every layout is behind such a path; what was priced before or meanwhile is forgotten."""
    for kept in _KEPT:
        kept.cache_clear()
    monkeypatch.setattr(front_path, "front_fit", lambda name: _FREE)
    yield
    for kept in _KEPT:
        kept.cache_clear()
