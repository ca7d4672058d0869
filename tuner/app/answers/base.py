"""What all answers have in common: they are frozen, have no key beside those named, and print as JSON."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Scalar = bool | int | float | str | None
Interval = tuple[float, float]


class Answer(BaseModel):
    """One answer, or a part of one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> str:
        """Indented, with the end of its last line."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2) + "\n"


def where_it_applies(description: str) -> Any:
    """A field whose key is left out where it has no value."""
    return Field(default=None, description=description, exclude_if=lambda value: value is None)
