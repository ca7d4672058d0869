"""A study as a page shows it: the parts of the report as HTML, and its charts."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tuner.app.answers.base import Answer


class PictureAnswer(Answer):
    """What the report shows, for a page that draws it anew as the study goes on."""

    ended: bool = Field(description="False: not decided yet, this is how its trials stand.")
    sections: list[str] = Field(description="Parts of the page as HTML; every text from outside is escaped.")
    figures: dict[str, dict[str, Any]] = Field(description="Charts for plotly.js, by the name of their place.")
