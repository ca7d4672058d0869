"""How far each price of the model may be off before any trial, on a log scale.

A term is priced from sections of the device's profile. Where those were fitted to measurements of that device, the
held-out errors of its operations have medians of 5 to 12 % (docs/model.md) with longer tails, and a site differs from
the tables' machines too. Where they are taken over from a relative or estimated, they are off by more: a measured GPU
that is priced with another generation's sections, by 23 % as a rule, and its single kernels spread by 41 %
(``python -m tests.fit.taken_over``).
"""

from __future__ import annotations

from collections.abc import Iterable

from tuner.ask.profile import HardwareProfile
from tuner.ask.request import Metric

TERM_SD = 0.3  # of a term whose sections were measured on the device
UNMEASURED_SD = 0.45  # of another
OFFSET_SD = {Metric.TTFT: 0.25, Metric.TPOT: 0.10}  # what no term explains
_SECTIONS = {
    "gemm": ("gemm",),
    "LM head": ("gemm",),
    "attention": ("attention_prefill", "attention_decode"),
    "experts": ("moe",),
}
_COLLECTIVE = (" in node", " between nodes")  # how names of collectives end


def unmeasured_terms(profile: HardwareProfile, terms: Iterable[str]) -> frozenset[str]:
    """Those of the cost terms on a device that stand on a section of its profile which was not measured on it."""
    lacking = set(profile.unmeasured_sections)
    return frozenset(name for name in terms if lacking.intersection(_sections_of(name)))


def _sections_of(term: str) -> tuple[str, ...]:
    return ("collectives",) if term.endswith(_COLLECTIVE) else _SECTIONS.get(term, ())


def fresh_sd(name: str, unmeasured: Iterable[str] = ()) -> float:
    """Standard deviation of the log of a factor of which nothing was learnt, by its name in ``Belief.factors``."""
    if name in (Metric.TTFT.value, Metric.TPOT.value):
        return OFFSET_SD[Metric(name)]
    return UNMEASURED_SD if name in unmeasured else TERM_SD
