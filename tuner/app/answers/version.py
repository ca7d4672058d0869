"""What a service is, and that it is well."""

from __future__ import annotations

from pydantic import Field

from tuner.app.answers.base import Answer


class VersionAnswer(Answer):
    """What answers."""

    parlay: str = Field(description="Of Parlay.")
    api: str = Field(description="Of the paths: v1.")
    schema_version: int = Field(description="Of the store's tables.")


class HealthAnswer(Answer):
    """That it answers."""

    status: str = Field(description="ok.")
