"""Dataclasses that pydantic reads from an operator's file."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict


class Strict:
    """Base of those of which a misspelt field is an error."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
