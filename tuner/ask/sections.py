"""What the sections of a request are made of: a base that refuses unknown keys, and numbers that are numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Numbers are strict: neither "2" nor true is a count of nodes.
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]


class Document(BaseModel):
    """A section: frozen, with no keys but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)
