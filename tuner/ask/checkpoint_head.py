"""Whether a checkpoint has an LM head of its own, whatever the class of the whole says by default (vLLM 0.29:
``ModelConfig.maybe_untie_word_embeddings``, ``checkpoint_has_lm_head``)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tuner.ask.models.config import Config

KEY = "tie_word_embeddings"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_LENGTH = 8  # bytes before a file's header, which say how long that is
_LONGEST = 100 * 2**20  # bytes of a header: the format's own limit


def with_own_head(whole: Config, text: Config, directory: Path) -> Config:
    """The ``whole``, untied where it leaves that out, its language model's part says so and the head is in the files
    of ``directory``. Copies of a tied head, which the engine ties again, are not told from heads otherwise."""
    says_so = text is not whole and text.values.get(KEY) is False and whole.values.get(KEY) is None
    return whole.filled(**{KEY: False}) if says_so and _has_head(_tensors(directory)) else whole


def _has_head(names: Iterable[str]) -> bool:
    return any(name.endswith("lm_head.weight") for name in names)


def _tensors(directory: Path) -> Iterable[str]:
    """Names of a checkpoint's tensors; none where it is not stored as safetensors, or cannot be read."""
    try:
        if (directory / INDEX).is_file():
            found: Any = json.loads((directory / INDEX).read_bytes()).get("weight_map")
        else:
            found = _header(directory / SINGLE)
    except (OSError, ValueError, AttributeError):
        return ()
    return found if isinstance(found, dict) else ()


def _header(path: Path) -> Any:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        return json.loads(file.read(length)) if length <= _LONGEST else None
