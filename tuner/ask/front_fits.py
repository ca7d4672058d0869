"""What the path from client to engine costs, hop by hop: measured, and kept as data in ``fronts/``.

A hop is an event loop: it works on one thing at a time, for a request on its way in and for each streamed message on
its way out. ``tests/fit/front.py`` measures the path with an engine that costs nothing, and writes the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from tuner.ask.strict import Strict
from tuner.errors import BadInput

FRONTS_DIR = Path(__file__).resolve().parent / "fronts"
PER = ("node", "ingress", "engine", "api_server")


@dataclass(frozen=True, slots=True)
class HopFit(Strict):
    """One hop: what its event loop works, in ms, for a request, for a message, and for each further token of one.

    ``per`` says how many of it share the load: one on the ``node`` that is asked, the replicas of the ``ingress``, one
    for each ``engine``, or each ``api_server``. ``cores`` is the processor time of all its threads for a millisecond of
    its loop's work, ``standing`` are cores that its other threads keep busy as long as anything streams, however much.
    """

    name: str
    per: str
    request_ms: float
    message_ms: float
    token_ms: float = 0.0
    cores: float = 1.0
    standing: float = 0.0


@dataclass(frozen=True, slots=True)
class FrontFit(Strict):
    """A path: its hops in the order in which a request passes them.

    ``idle_ms`` is what it adds to TTFT when nothing else is on its way, ``passes`` how many times a request and its
    first token wait for a loop of each hop. ``versions`` and ``source`` say what was measured, and on what.
    """

    name: str
    hops: tuple[HopFit, ...]
    idle_ms: float
    passes: float
    versions: dict[str, str]
    source: str


_READER = TypeAdapter(FrontFit)


@cache
def front_names() -> tuple[str, ...]:
    """Paths that were measured."""
    return tuple(sorted(path.stem for path in FRONTS_DIR.glob("*.yaml")))


@cache
def front_fit(name: str) -> FrontFit:
    """The figures of a path; raises BadInput for one that was never measured, and for a file that is none."""
    if name not in front_names():
        raise BadInput("front", name, ", ".join(front_names()))
    document: dict[str, Any] = yaml.safe_load((FRONTS_DIR / f"{name}.yaml").read_text(encoding="utf-8"))
    hops = tuple(document.pop("hops"))
    fit = _READER.validate_python({"name": name, **document, "hops": hops})
    for hop in fit.hops:
        if hop.per not in PER:
            raise BadInput(f"fronts/{name}.yaml", hop.per, ", ".join(PER))
    return fit
