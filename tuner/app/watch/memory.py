"""What a watcher has to know after a kill, beside what the store has: kept with the watched study, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tuner.app.answers.watch import StandingAnswer
from tuner.ask.deployment import parse_deployment
from tuner.ask.request import Metric
from tuner.retune.known import Known, Lived


class LivedMemory(BaseModel):
    """How a deployment lived with a load (``tuner.retune.known.Lived``)."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    layout: str
    req_per_s: float
    prompt_tokens: float
    output_tokens: float
    met: bool

    def lived(self) -> Lived:
        """As judgements take it."""
        deployment = parse_deployment(self.layout)
        return Lived(deployment, self.req_per_s, self.prompt_tokens, self.output_tokens, self.met)

    @classmethod
    def of(cls, one: Lived) -> LivedMemory:
        """As it is kept."""
        return cls(
            layout=str(one.deployment),
            req_per_s=one.req_per_s,
            prompt_tokens=one.prompt_tokens,
            output_tokens=one.output_tokens,
            met=one.met,
        )


class Memory(BaseModel):
    """``round`` is a study that decides anew, until what came of it was heeded, and ``round_ended_s`` when the last one
    was; ``decided_s`` when a round last found that what serves stays. ``told`` are notices and holds that were told, so
    that each is told once. ``lived`` and ``slower`` were learnt under what served before (``tuner.retune.evidence``).
    ``shortened``: how many times shorter the detectors' windows are. Times in s since 1970."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    standing: StandingAnswer | None = None
    shortened: float = 1.0
    round: str | None = None
    round_why: str = ""
    round_ended_s: float | None = None
    decided_s: float | None = None
    told: tuple[str, ...] = ()
    lived: tuple[LivedMemory, ...] = ()
    slower: dict[Metric, float] = {}

    def learnt(self, known: Known | None) -> Memory:
        """With what is known as the layout is changed: its notices begin anew then."""
        if known is None:
            return self
        lived = tuple(LivedMemory.of(one) for one in known.lived)
        return self.model_copy(update={"lived": lived, "slower": dict(known.slower)})

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Memory:
        """As it was kept; of an older Parlay, whose it cannot read, nothing is known."""
        try:
            return cls.model_validate(kept)
        except ValidationError:
            return cls()
