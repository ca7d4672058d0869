"""What the path from client to engine costs, hop by hop: measured, and kept as data in ``fronts/``.

A hop is an event loop: it works on one thing at a time, for a request on its way in and for each streamed message on
its way out. ``tests/fit/front.py`` measures the path with an engine that costs nothing, and writes the files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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

    ``idle_ms`` is what it adds to TTFT when nothing else is on its way, ``passes`` in how many rounds of its loop a hop
    works on a request, and on its first token. ``versions`` and ``source`` say what was measured, and on what.

    Where vLLM runs in a process of the path, its own work on a request and on each token is part of that hop's figures:
    ``engine_request_ms`` and ``engine_token_ms`` of it, which an engine that costs nothing does not do.
    """

    name: str
    hops: tuple[HopFit, ...]
    idle_ms: float
    passes: float
    versions: dict[str, str]
    source: str
    engine_request_ms: float = 0.0
    engine_token_ms: float = 0.0

    @property
    def free(self) -> FrontFit:
        """The same path before an engine that costs nothing."""
        return self._more(-self.engine_request_ms, -self.engine_token_ms)

    def before(self, request_ms: float, token_ms: float) -> FrontFit:
        """The same path, measured before an engine that costs nothing, whose engine does so much in the replica."""
        more = self._more(request_ms, token_ms)
        return replace(more, engine_request_ms=request_ms, engine_token_ms=token_ms)

    def _more(self, request_ms: float, token_ms: float) -> FrontFit:
        hops = tuple(
            replace(
                hop, request_ms=hop.request_ms + request_ms, message_ms=hop.message_ms + token_ms,
                token_ms=hop.token_ms + token_ms,
            ) if hop.per == "engine" else hop for hop in self.hops
        )  # fmt: skip
        return replace(self, hops=hops, engine_request_ms=0.0, engine_token_ms=0.0)


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
