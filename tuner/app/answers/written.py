"""A request as a form and as YAML, with what is wrong in it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tuner.app.answers.base import Answer


class ProblemPlaceAnswer(Answer):
    """The first wrong place of a request."""

    where: str = Field(description="The place, such as request: slo.0.ms.")
    given: str = Field(description="What stands there.")
    allowed: str = Field(description="What may stand there.")


class WrittenAnswer(Answer):
    """A request both ways."""

    text: str = Field(description="As YAML.")
    document: dict[str, Any] = Field(description="As a document.")
    problem: ProblemPlaceAnswer | None = Field(description="What is wrong in it first; null: nothing.")
