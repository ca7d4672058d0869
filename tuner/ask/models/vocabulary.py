"""How the engine stores embeddings (``layers/vocab_parallel_embedding.py`` of vLLM 0.29)."""

from __future__ import annotations

MULTIPLE = 64  # of rows


def padded(rows: int) -> int:
    """Rows of an embedding of so many tokens."""
    return -(-rows // MULTIPLE) * MULTIPLE
