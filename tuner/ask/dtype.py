"""What a model computes in, as vLLM 0.29 decides it (``config/model.py``: ``_get_and_verify_dtype``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuner.errors import BadInput

PRECISIONS = {
    "bfloat16": "bf16",
    "float16": "bf16",
    "float32": "fp32",
}  # how wide each is: float16 costs what bf16 does
_SHORT = {"half": "float16", "float": "float32"}
_NEVER_HALF = ("gemma2", "gemma3", "gemma3_text", "glm4")  # model types that are unstable in float16


def engine_dtype(config: Mapping[str, Any], text: Mapping[str, Any], asked: str, name: str) -> str:
    """The precision of a checkpoint of that ``config`` (``text``: its language model's part) as vLLM names it.

    ``auto`` is the checkpoint's own, but bfloat16 where it is stored in float32, says nothing, or must not run in
    float16. Raises BadInput for a checkpoint's precision that is none of them, and for float16 where it must not be.
    """
    places = [(source, key) for source in (config, text) for key in ("torch_dtype", "dtype")]
    declared = next((value for source, key in places if (value := source.get(key)) is not None), "float32")
    stored = str(declared).removeprefix("torch.")
    stored = _SHORT.get(stored, stored)
    if stored not in PRECISIONS:
        raise BadInput(f"{name}: torch_dtype", declared, ", ".join(PRECISIONS))
    kind = config.get("model_type")
    if asked == "auto":
        return "bfloat16" if stored == "float32" or (stored == "float16" and kind in _NEVER_HALF) else stored
    if asked == "float16" and kind in _NEVER_HALF:
        raise BadInput(
            "engine.dtype", asked, f"auto, bfloat16 or float32: models of type {kind} are unstable in float16"
        )
    return asked


def require_runs(dtype: str, activations: Sequence[str], method: str) -> None:
    """Refuse, with BadInput, a precision in which the engine does not run weights of a quantisation ``method``."""
    if dtype not in activations:
        raise BadInput("engine.dtype", dtype, f"{' or '.join(activations)} with {method} weights")
