"""What can be named in a request, as the service tells it."""

from __future__ import annotations

from pydantic import Field

from tuner.app.answers.base import Answer


class NamesAnswer(Answer):
    """What can be named in a request."""

    models: list[str] = Field(description="Models that are known by name.")
    gpus: list[str] = Field(description="Hardware profiles.")
    spaces: dict[str, dict[str, list[bool | int | str]]] = Field(description="Search spaces: axes and their values.")
