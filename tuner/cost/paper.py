"""Communication volume of Xu et al., "Characterizing Communication Patterns in Distributed Large Language Model
Inference" (arXiv 2507.14392, 2025), to the letter.

The formulas mix scopes (see ``tuner.cost.volume`` for what each rank really sends) and keep their literal value at
t = 1, where nothing is sent. Symbols: L layers, h hidden, v vocabulary, b bytes per element, t tensor-parallel, p
pipeline-parallel, S_p prompt and S_d output tokens, T = S_p + S_d − 1 tokens that pass through the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tuner.ask.model import ModelShape


@dataclass(frozen=True, slots=True)
class PaperVolume:
    """The formulas' values in bytes for one request of batch 1."""

    v_tp_bytes: int | float
    v_pp_bytes: int | float
    hybrid_allreduce_bytes: int | float
    hybrid_allgather_bytes: int | float
    hybrid_gather_bytes: int | float
    hybrid_p2p_bytes: int | float
    stage0_embedding_allreduce_bytes: int | float

    @property
    def hybrid_total_bytes(self) -> int | float:
        """Sum of the four boxed terms, without the embedding."""
        terms = (self.hybrid_allreduce_bytes, self.hybrid_allgather_bytes, self.hybrid_gather_bytes)
        return sum(terms) + self.hybrid_p2p_bytes


def paper_volume(
    model: ModelShape, t: int, p: int, prompt_tokens: int, output_tokens: int, element_bytes: int = 2
) -> PaperVolume:
    """V_tp at ``t``, V_pp at ``p`` and the terms of V_hybrid at both; exact integers wherever they are whole.

    The embedding all-reduce of stage 0 takes the ring factor 2(t−1)/t like every other all-reduce; the paper's wording
    (T·h·b) agrees with that at t = 2, the only hybrid that it tabulates.
    """
    tokens = prompt_tokens + output_tokens - 1
    passed = tokens * model.hidden * element_bytes  # T·h·b
    logits = Fraction(output_tokens * model.vocab * element_bytes, t)
    ring = Fraction(2 * (t - 1), t)
    return PaperVolume(
        v_tp_bytes=_number((2 * model.layers + 1) * passed * ring + logits),
        v_pp_bytes=(p - 1) * 2 * passed,
        hybrid_allreduce_bytes=_number(Fraction(2 * model.layers, p) * passed * ring),
        hybrid_allgather_bytes=_number(2 * (p - 1) * passed * Fraction(t - 1, t)),
        hybrid_gather_bytes=_number(logits),
        hybrid_p2p_bytes=_number(Fraction(2 * (p - 1) * passed, t)),
        stage0_embedding_allreduce_bytes=_number(passed * ring),
    )


def _number(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)
