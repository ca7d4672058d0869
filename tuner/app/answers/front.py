"""What the path from client to engine does to a layout: part of what plans and simulations answer."""

from __future__ import annotations

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.plan.front_advice import FrontAdvice


class HopAnswer(Answer):
    """One hop of the path at the asked rate."""

    name: str = Field(description="proxy, ingress, replica or api server.")
    loops: int = Field(description="Event loops that share its load.")
    utilisation: float = Field(description="Share of the time that each works; from 1 on it does not keep up.")


class FrontAnswer(Answer):
    """The path to the engines of the best layout, by the closed form; rates are within the SLO."""

    layout: str = Field(description="The layout.")
    rate_req_per_s: float = Field(description="The asked rate, requests/s.")
    hops: list[HopAnswer] = Field(description="In the order in which a request passes them.")
    cores: float = Field(description="Cores that the path keeps busy at the asked rate.")
    saturates: str = Field(description="The hop that keeps up the least, or cores where its node's are full before.")
    saturates_tok_per_s: float = Field(description="Output tokens/s from which on it does not keep up.")
    reach_req_per_s: float = Field(description="Highest rate behind the path, requests/s.")
    engine_req_per_s: float = Field(description="Highest rate of the engines without a path, requests/s.")
    is_the_limit: bool = Field(description="Whether the path, not the engines, misses the SLO at the asked rate.")
    opens: str | None = Field(description="The same engines behind a path that reaches further; null where none does.")
    opens_req_per_s: float | None = Field(description="How far it reaches, requests/s.")
    lines: list[str] = Field(description="All of it in words.")


def front_answer(advice: FrontAdvice) -> FrontAnswer:
    """The advice."""
    return FrontAnswer(
        layout=str(advice.layout),
        rate_req_per_s=advice.rate_req_per_s,
        hops=[HopAnswer(name=hop.name, loops=hop.loops, utilisation=hop.utilisation) for hop in advice.hops],
        cores=advice.cores,
        saturates=advice.saturates,
        saturates_tok_per_s=advice.tokens_per_s,
        reach_req_per_s=advice.reach_req_per_s,
        engine_req_per_s=advice.engine_req_per_s,
        is_the_limit=advice.limit,
        opens=str(advice.opens) if advice.opens else None,
        opens_req_per_s=advice.opens_req_per_s,
        lines=advice.lines(),
    )
