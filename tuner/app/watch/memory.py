"""What a watcher has to know after a kill, beside what the store has: kept with the watched study, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tuner.app.answers.watch import StandingAnswer
from tuner.ask.deployment import Deployment, parse_deployment
from tuner.ask.request import Metric, Workload
from tuner.retune.asked_now import AskedNow
from tuner.retune.demand import Demand
from tuner.retune.known import Known, Lived
from tuner.retune.seen import Tokens


class LivedMemory(BaseModel):
    """How a deployment lived with a load (``tuner.retune.known.Lived``)."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    layout: str
    req_per_s: float
    prompt_tokens: float
    output_tokens: float
    met: bool
    at_s: float | None = None

    def lived(self) -> Lived:
        """As judgements take it."""
        deployment = parse_deployment(self.layout)
        return Lived(deployment, self.req_per_s, self.prompt_tokens, self.output_tokens, self.met, self.at_s)

    @classmethod
    def of(cls, one: Lived) -> LivedMemory:
        """As it is kept."""
        return cls(
            layout=str(one.deployment),
            req_per_s=one.req_per_s,
            prompt_tokens=one.prompt_tokens,
            output_tokens=one.output_tokens,
            met=one.met,
            at_s=one.at_s,
        )


class LoadMemory(BaseModel):
    """The load under which the layout was changed last; tokens of prompts and answers as (mean, deviation)."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    req_per_s: float
    prompt_tokens: tuple[float, float | None]
    output_tokens: tuple[float, float | None]
    prefix_share: float

    @property
    def demand(self) -> Demand:
        """As judgements take it."""
        prompt, output = (Tokens(1.0, *tokens) for tokens in (self.prompt_tokens, self.output_tokens))
        return Demand(self.req_per_s, prompt, output, self.prefix_share)

    @classmethod
    def of(cls, load: Workload) -> LoadMemory:
        """As it is kept."""
        prompt, output = load.prompt_tokens, load.output_tokens
        return cls(
            req_per_s=load.arrival.requests_per_s,
            prompt_tokens=(prompt.mean, prompt.sd),
            output_tokens=(output.mean, output.sd),
            prefix_share=load.shared_prefix_tokens / prompt.mean,
        )


class Memory(BaseModel):
    """``round`` is a study that decides anew, until what came of it was heeded, and ``round_ended_s`` when the last
    one was; ``measured_s`` when a measuring round began last; ``decided_s`` when a round last found that what
    serves stays. ``told`` are notices and holds that were told, so that each is told once. ``lived``, ``slower``
    and ``slower_on`` were learnt under what served before (``tuner.retune.evidence``), ``load`` was seen then.
    ``shortened``: how many times shorter the detectors' windows are. Times in s since 1970."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    standing: StandingAnswer | None = None
    shortened: float = 1.0
    round: str | None = None
    round_why: str = ""
    round_ended_s: float | None = None
    measured_s: float | None = None
    decided_s: float | None = None
    told: tuple[str, ...] = ()
    lived: tuple[LivedMemory, ...] = ()
    slower: dict[Metric, float] = {}
    slower_on: str | None = None
    load: LoadMemory | None = None

    def learnt(self, known: Known | None, now: AskedNow | None) -> Memory:
        """With what is known as the layout is changed, and the load of now: what is seen begins anew then."""
        if known is None:
            return self
        lived = tuple(LivedMemory.of(one) for one in known.lived)
        load = self.load if now is None or now.request is None else LoadMemory.of(now.request.workload)
        on = None if known.slower_on is None else str(known.slower_on)
        return self.model_copy(update={"lived": lived, "slower": dict(known.slower), "slower_on": on, "load": load})

    @property
    def slowed(self) -> Deployment | None:
        """The layout that was noticed to be slower."""
        return None if self.slower_on is None else parse_deployment(self.slower_on)

    @property
    def demand(self) -> Demand:
        """The load that was seen before what serves."""
        return Demand() if self.load is None else self.load.demand

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Memory:
        """As it was kept; of an older Parlay, whose it cannot read, nothing is known."""
        try:
            return cls.model_validate(kept)
        except ValidationError:
            return cls()
