"""Answers as the bytes that leave, with a tag by which whoever has them already need not be sent them again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Response

from tuner.app.answers.study import study_answer
from tuner.study.listing import Listing


@dataclass(frozen=True, slots=True)
class Tagged:
    """An answer as JSON; ``tag`` differs where the answer does (RFC 9110, a strong validator)."""

    json: bytes
    tag: str

    def response(self, if_none_match: str | None) -> Response:
        """The answer, or that nothing has changed; whoever keeps it has to ask each time."""
        headers = {"ETag": self.tag, "Cache-Control": "private, no-cache"}
        if if_none_match is not None and _names(if_none_match, self.tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(self.json, media_type="application/json", headers=headers)


def tagged(json: bytes) -> Tagged:
    """Bytes with their tag."""
    return Tagged(json, f'"{hashlib.sha256(json).hexdigest()[:32]}"')


def told_as_json(listing: Listing, study: str) -> Tagged | None:
    """The answer of one study; None where there is none."""
    head = listing.head(study)
    return None if head is None else tagged(study_answer(head).model_dump_json().encode())


def _names(if_none_match: str, tag: str) -> bool:
    """Whether the header has the tag, as weak ones are compared: that is what the header asks for."""
    known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return "*" in known or tag in known
