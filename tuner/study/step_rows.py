"""A measured load step as the store keeps it: JSON, with the values of the SLO's targets each beside its target.

Rows of stores up to schema version 2 hold these values in the order of the request's targets; they are read as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from tuner.ask.request import Metric, SloTarget, TargetKey
from tuner.trial.results import StepResult

_STEP = TypeAdapter(StepResult)
_BY_TARGET = {"slo_values_ms": "ms", "slo_intervals_ms": "interval_ms"}  # our field: its name beside a target


def dump_step(result: StepResult) -> str:
    """The row of a step."""
    row: dict[str, Any] = _STEP.dump_python(result, mode="json", exclude=set(_BY_TARGET))
    found: dict[TargetKey, dict[str, Any]] = {}
    for field, name in _BY_TARGET.items():
        for key, value in getattr(result, field).items():
            found.setdefault(key, {"metric": key[0].value, "percentile": key[1]})[name] = value
    return json.dumps(row | {"targets": list(found.values())})


def load_step(text: str, slo: Sequence[SloTarget]) -> StepResult:
    """The step of a row; ``slo`` are the targets of its study's request."""
    row: dict[str, Any] = json.loads(text)
    targets = row.pop("targets", None)
    if targets is None:
        keys = [target.key for target in slo]
        old = {field: dict(zip(keys, row.get(field, ()), strict=False)) for field in _BY_TARGET}
        return _STEP.validate_python(row | old)
    found = {
        field: {(Metric(one["metric"]), one["percentile"]): one[name] for one in targets if name in one}
        for field, name in _BY_TARGET.items()
    }
    return _STEP.validate_python(row | found)
