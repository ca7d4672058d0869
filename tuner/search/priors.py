"""How far each price of the model may be off before any trial, on a log scale.

A term is priced from sections of the device's profile. Where those were fitted to measurements of that device, the
held-out errors of its operations have medians of 5 to 12 % (docs/model.md) with longer tails, and a site differs from
the tables' machines too. Where they are taken over from a relative or estimated, they are off by more: a measured GPU
that is priced with another generation's sections, by 23 % as a rule, and its single kernels spread by 41 %
(``python -m tests.fit.taken_over``). The same doubt is of kernels that no table has, which physics alone prices.
"""

from __future__ import annotations

from collections.abc import Iterable

from tuner.ask.model import ModelShape
from tuner.ask.profile import HardwareProfile
from tuner.ask.request import Metric
from tuner.cost.stands_on import kernels_of

TERM_SD = 0.3  # of a term whose sections were measured on the device
UNMEASURED_SD = 0.45  # of another
OFFSET_SD = {Metric.TTFT: 0.25, Metric.TPOT: 0.10}  # what no term explains
_SECTIONS = {
    "gemm": ("gemm",),
    "LM head": ("gemm",),
    "experts": ("moe",),
}
_EXCHANGE = "alltoall expert"  # how its names begin: by kernels of its own, or by the library
_COLLECTIVE = (" in node", " between nodes")  # how names of collectives end


def unmeasured_terms(profile: HardwareProfile, model: ModelShape, terms: Iterable[str]) -> frozenset[str]:
    """Those of the cost terms of a model on a device that stand on a section of its profile which was not measured on
    it, or on kernels that were measured nowhere."""
    kernels = {one.term for one in kernels_of(model) if not one.measured_on(profile)}
    measured = set(profile.measured)
    return frozenset(name for name in terms if name in kernels or not measured.issuperset(_sections_of(name)))


def _sections_of(term: str) -> tuple[str, ...]:
    if term.startswith(_EXCHANGE):
        return "collectives", "expert_exchange"
    return ("collectives",) if term.endswith(_COLLECTIVE) else _SECTIONS.get(term, ())


def is_collective(name: str) -> bool:
    """Is a cost term one of what GPUs send each other?"""
    return name.endswith(_COLLECTIVE) or name.startswith(_EXCHANGE)


def fresh_sd(name: str, unmeasured: Iterable[str] = ()) -> float:
    """Standard deviation of the log of a factor of which nothing was learnt, by its name in ``Belief.factors``."""
    if name in (Metric.TTFT.value, Metric.TPOT.value):
        return OFFSET_SD[Metric(name)]
    return UNMEASURED_SD if name in unmeasured else TERM_SD
