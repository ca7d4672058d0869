"""What answers say of the engine that a request is for: its release and why that, what a model needs of it, and what is
launched without a price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.ask.engine_cautions import cautions
from tuner.ask.engine_version import NEWEST, RELEASES
from tuner.ask.remote_code import missing_trust
from tuner.ask.request import TuneRequest
from tuner.trial.launched import ENGINES, versions_shown


class EngineAnswer(Answer):
    """The engine of a request, or of a study."""

    version: str = Field(description="The release of vLLM whose rules, argument names and kernels count.")
    version_why: str = Field(description="Who says so: what is installed, the request, or nobody.")
    needs: list[str] = Field(description="What the request must allow before tune launches its model.")
    cautions: list[str] = Field(description="What is launched as asked, and not priced; whose code is trusted.")

    @property
    def line(self) -> str:
        """The release, for people."""
        return f"vLLM {self.version}: {self.version_why}."

    @property
    def lines(self) -> list[str]:
        """All of it, for people."""
        return [self.line, *self.needs, *self.cautions]


def engine_answer(
    request: TuneRequest, facts: Mapping[str, str] | None = None, more: Sequence[str] = ()
) -> EngineAnswer:
    """Of a request, or of a study with these ``facts``, which began with all that it needs; ``more``: cautions."""
    release = request.engine.release or NEWEST
    needed = missing_trust(request) if facts is None else None
    return EngineAnswer(
        version=str(release),
        version_why=_why(request, facts or {}),
        needs=[] if needed is None else [f"engine.trust_remote_code: true is needed before tune: {needed}."],
        cautions=[*cautions(request.engine), *more],
    )


def _why(request: TuneRequest, facts: Mapping[str, str]) -> str:
    release = request.engine.release
    engines = {name: facts[name] for name in ENGINES if name != "ray" and name in facts}
    if engines:
        why = f"installed where its engines start ({versions_shown(engines)})"
    elif release is not None:
        why = "asked for by engine.version"
    else:
        why = "the newest that Parlay knows; the request asks for none"
    if release is not None and release not in RELEASES:
        why += f"; rules and argument names are those of {release.known}, the nearest that Parlay knows"
    return why
