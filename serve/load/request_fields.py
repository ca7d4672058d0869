"""The fields of a request that an OpenAI-compatible server may refuse, and what is sent in their place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Length(StrEnum):
    """How an answer is kept from ending before its length."""

    IGNORE_EOS = "ignore_eos"  # vLLM and its kin: go on after the end of text
    MIN_TOKENS = "min_tokens"  # the same servers: do not make an end of text before
    FREE = "free"  # the answer ends where the model ends it


@dataclass(frozen=True, slots=True)
class RequestFields:
    """What every request carries beside model and prompt; the defaults are what vLLM takes.

    ``usage`` asks for the server's own token counts (``stream_options.include_usage``). ``limit`` is the name of the
    field that holds the most tokens. ``temperature`` 0 makes answers alike. Prompts of completions are ``token_ids``,
    whose number is exact, or words.
    """

    length: Length = Length.IGNORE_EOS
    usage: bool = True
    limit: str = "max_tokens"
    temperature: bool = True
    token_ids: bool = True

    def body(self, output_tokens: int) -> dict[str, Any]:
        """The fields of a request for ``output_tokens``."""
        fields: dict[str, Any] = {"stream": True, self.limit: output_tokens}
        if self.temperature:
            fields["temperature"] = 0
        if self.length is Length.IGNORE_EOS:
            fields["ignore_eos"] = True
        elif self.length is Length.MIN_TOKENS:
            fields["min_tokens"] = output_tokens
        if self.usage:
            fields["stream_options"] = {"include_usage": True}
        return fields

    @property
    def names(self) -> tuple[str, ...]:
        """The fields by name, sorted."""
        return tuple(sorted(self.body(1)))


VLLM_FIELDS = RequestFields()
