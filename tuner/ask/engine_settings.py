"""The request's section ``engine``: settings of vLLM that all layouts share, by vLLM's own names.

A setting that changes prices, memory or what is measured has a key of its own; ``tuner.ask.engine_policy`` says which
others may be given by ``extra_args`` and ``env``.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tuner.ask.engine_version import EngineVersion
from tuner.ask.sections import Count, Document, Positive
from tuner.errors import BadInput

BLOCK_TOKENS = 16  # of a KV-cache block, vLLM's default on GPUs
_Switch = Annotated[bool, Field(strict=True)]
_SERVED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


def _as_text(value: object) -> object:
    """A variable's value as its process sees it: ``1`` and ``true`` are ``"1"``."""
    if isinstance(value, bool):
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


def _release_as_text(value: object) -> object:
    """YAML reads ``version: 0.28`` as a number; none of the known releases ends in a zero, which it would lose."""
    return repr(value) if isinstance(value, float) else value


_Variable = Annotated[str, BeforeValidator(_as_text)]
_Version = Annotated[str, BeforeValidator(_release_as_text)]


class Engine(Document):
    """Engine settings shared by every layout, by vLLM's names; left out, vLLM's own default holds.

    ``dtype`` as vLLM names it. ``version`` is the release of vLLM that the request is for, where no installed one says.
    ``kv_cache_gib`` sizes the KV cache of a device. ``extra_args`` are further arguments of vLLM, ``env`` environment
    variables of its processes. ``start_timeout_s`` is how long a launch may take.
    """

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: Count | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.9
    kv_cache_gib: Positive | None = None
    start_timeout_s: Positive = 900.0
    version: _Version | None = None
    trust_remote_code: _Switch = False
    revision: str | None = None
    served_model_name: str | None = None
    tokenizer_mode: str | None = None
    language_model_only: _Switch | None = None
    block_size: Annotated[int, Field(ge=16, multiple_of=16, strict=True)] | None = None
    enable_prefix_caching: _Switch | None = None
    enable_chunked_prefill: _Switch | None = None
    long_prefill_token_threshold: Count | None = None
    enforce_eager: _Switch = False
    cudagraph_capture_sizes: tuple[Count, ...] | None = None
    max_cudagraph_capture_size: Count | None = None
    async_scheduling: _Switch | None = None
    disable_custom_all_reduce: _Switch = False
    stream_interval: Count | None = None
    extra_args: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, _Variable] = Field(default_factory=dict)

    @field_validator("version")
    @classmethod
    def _a_release(cls, version: str | None) -> str | None:
        if version is not None:
            try:
                EngineVersion.parse(version)
            except BadInput as error:
                raise ValueError(error.allowed) from None
        return version

    @field_validator("served_model_name")
    @classmethod
    def _plain_name(cls, name: str | None) -> str | None:
        if name is not None and not _SERVED.fullmatch(name):
            raise ValueError("a name of letters, digits and . _ : / -")
        return name

    @field_validator("revision")
    @classmethod
    def _plain_revision(cls, name: str | None) -> str | None:
        if name is not None and not _REVISION.fullmatch(name):
            raise ValueError("a branch, a tag or a commit, of letters, digits and . _ / -")
        return name

    @field_validator("cudagraph_capture_sizes")
    @classmethod
    def _rising(cls, sizes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if sizes is not None and (not sizes or list(sizes) != sorted(set(sizes))):
            raise ValueError("a list of rising sizes")
        return sizes

    @model_validator(mode="after")
    def _chunks_or_none(self) -> Engine:
        if self.enable_chunked_prefill is False and self.long_prefill_token_threshold:
            raise ValueError("long_prefill_token_threshold with chunked prefill only")
        return self

    @model_validator(mode="after")
    def _one_word_on_graphs(self) -> Engine:
        given = [name for name in _GRAPH_SIZES if getattr(self, name) is not None]
        if len(given) > 1 or (given and self.enforce_eager):
            raise ValueError(f"one of enforce_eager and {' and '.join(_GRAPH_SIZES)}")
        return self

    @property
    def block_tokens(self) -> int:
        """Tokens of a block of the KV cache."""
        return self.block_size or BLOCK_TOKENS

    def held_tokens(self, tokens: float) -> int:
        """Tokens of the KV cache that a sequence of so many keeps from others: whole blocks."""
        return math.ceil(tokens / self.block_tokens) * self.block_tokens

    @property
    def release(self) -> EngineVersion | None:
        """The release that was asked for, or found; None where nothing says it."""
        return None if self.version is None else EngineVersion.parse(self.version)

    @property
    def passed(self) -> dict[str, Any]:
        """The keys that go to vLLM as they are, where they differ from its default, as plain JSON."""
        found = {name: getattr(self, name) for name in PASSED}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if value != Engine.model_fields[name].default
        }


_GRAPH_SIZES = ("cudagraph_capture_sizes", "max_cudagraph_capture_size")
# In the order in which people read arguments. Others become something else, or nothing, of vLLM's.
PASSED = (
    "trust_remote_code", "revision", "tokenizer_mode", "language_model_only", "block_size", "enable_prefix_caching",
    "enable_chunked_prefill", "long_prefill_token_threshold", "enforce_eager", "cudagraph_capture_sizes",
    "max_cudagraph_capture_size", "async_scheduling", "disable_custom_all_reduce", "stream_interval",
)  # fmt: skip
