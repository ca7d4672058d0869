"""What is wrong in a request, in one line: pydantic's findings in the operator's words."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tuner.ask.request import (
    Arrival,
    Budget,
    ClusterSpec,
    Engine,
    Load,
    Objective,
    SloTarget,
    TokenLengths,
    TuneRequest,
    Workload,
)
from tuner.errors import BadInput

_UNION_BRANCHES = ("ClusterSpec", "tuple[ClusterSpec, ...]", "literal['ray']", "str", "dict[str,any]")
_UNIONS = {
    ("cluster",): "ray, a mapping with the keys " + ", ".join(ClusterSpec.model_fields) + ", or a list of such",
    ("objective",): "one of " + ", ".join(Objective) + ", or a list of two of them that differ",
    ("space",): "the name of a search space, or a mapping of axes to lists of values",
}
_SECTIONS: dict[str, type[BaseModel]] = {
    "cluster": ClusterSpec,
    "workload": Workload,
    "prompt_tokens": TokenLengths,
    "output_tokens": TokenLengths,
    "arrival": Arrival,
    "slo": SloTarget,
    "engine": Engine,
    "load": Load,
    "budget": Budget,
}


def as_bad_input(error: ValidationError, where: str) -> BadInput:
    """The first wrong place of a request, what was given there and what is allowed, and how many others there are."""
    issues = _distinct(error.errors(include_url=False))
    place, issue = next(iter(issues.items()))
    others = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
    given = "nothing" if issue["type"] == "missing" else issue["input"]
    return BadInput(f"{where}: {'.'.join(place) or 'document'}", given, _allowed(place, issue) + others)


def _distinct(errors: Sequence[ErrorDetails]) -> dict[tuple[str, ...], ErrorDetails]:
    """One issue per place, the innermost: pydantic names one per branch of a union, and calls a list too short whose
    only item is wrong."""
    found: dict[tuple[str, ...], ErrorDetails] = {}
    for issue in errors:
        found.setdefault(tuple(str(part) for part in issue["loc"] if part not in _UNION_BRANCHES), issue)
    around = {place[:depth] for place in found for depth in range(len(place))}
    return {place: issue for place, issue in found.items() if place not in around}


def _allowed(place: tuple[str, ...], issue: ErrorDetails) -> str:
    kind = issue["type"]
    if kind == "extra_forbidden":
        return "one of the known keys: " + ", ".join(_section(place[:-1]).model_fields)
    if place in _UNIONS and kind != "value_error":
        return _UNIONS[place]
    if kind == "missing":
        return "a value; this key is required"
    if kind == "dict_type":
        return "a mapping of names to values"
    if kind == "model_type":
        return "a mapping with the keys " + ", ".join(_section(place).model_fields)
    if kind == "tuple_type":
        return "a list"
    if kind == "too_short":
        return "at least one entry"
    if kind == "string_too_short":
        return "a text that is not empty"
    return issue["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def _section(place: tuple[str, ...]) -> type[BaseModel]:
    return next((_SECTIONS[part] for part in reversed(place) if part in _SECTIONS), TuneRequest)
