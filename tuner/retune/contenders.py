"""The layouts that may be the best now, as the plan prices them, and how likely each is to meet the SLO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from tuner.ask.cluster import Cluster, Fleet, requested_cluster
from tuner.ask.deployment import Deployment
from tuner.ask.layout import SPACE_AXES, ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.ask.space import Space, load_space
from tuner.cost.steady import Floats
from tuner.errors import BadInput
from tuner.plan.prune import Candidate, plan
from tuner.retune.carries import carries
from tuner.retune.causes import explained
from tuner.retune.known import Known
from tuner.search.belief import Belief
from tuner.search.choice import held
from tuner.search.presimulation import presimulate
from tuner.search.priors import OFFSET_SD, fresh_sd
from tuner.search.term_prices import TermPrices

_LOOKED_AT = 4096  # of a plan's ranking
_OF_A_SIZE = 3  # layouts with as many devices, different in more than their limits and executor
_OF_A_SHAPE = 2
AT_MOST = 24  # some tens of ms each in the simulator
_DRAWS_LEFT = 32  # at least, of those that agree with what was seen


def cluster_of(request: TuneRequest, named: bool) -> Cluster | Fleet:
    """The cluster of a request; ``named``: its layouts name their node group, though it be the only one that is left of
    several."""
    found = requested_cluster(request)
    return Fleet((replace(found, gpu=request.groups[0].gpu),)) if named and isinstance(found, Cluster) else found


def contenders(request: TuneRequest, named: bool = False) -> list[Candidate]:
    """The first of a plan's ranking, some of each size: the smallest that the model expects to meet the SLO may do so
    with little to spare. None where no layout is legal. ``named`` as in ``cluster_of``."""
    return list(_contenders(request.model_dump_json(), named))


def replicated(request: TuneRequest, engine: ParallelLayout, named: bool = False) -> list[Candidate]:
    """An engine in every number of replicas of the space for which there is room: the ranking goes by the model's
    prices, and where everything is slower than those say, what does is far behind what would do by them."""
    return list(_replicated(request.model_dump_json(), engine, named))


@lru_cache(maxsize=256)
def _replicated(document: str, engine: ParallelLayout, named: bool) -> tuple[Candidate, ...]:
    request = TuneRequest.model_validate_json(document)
    replicas = load_space(request.space).values("dp")
    alike = Space("one engine", {axis: (getattr(engine, axis),) for axis in SPACE_AXES} | {"dp": replicas})
    try:
        ranked = plan(request, requested_model(request), cluster_of(request, named), alike).ranked
    except BadInput:  # none of them is legal
        return ()
    return tuple(one for one in ranked if engine.gpu in (None, one.layout.gpu))


@lru_cache(maxsize=256)
def _contenders(document: str, named: bool) -> tuple[Candidate, ...]:
    """Of a request as JSON: the same is asked whenever something else is learnt."""
    request = TuneRequest.model_validate_json(document)
    model, cluster = requested_model(request), cluster_of(request, named)
    try:
        ranked = plan(request, model, cluster, load_space(request.space), keep=_LOOKED_AT).ranked
    except BadInput:  # no point of the space is legal here
        return ()
    shapes, sizes, served = Counter[ParallelLayout](), Counter[tuple[str | None, int]](), set[ParallelLayout]()
    found = []
    for candidate in ranked:
        layout = candidate.layout
        size = (layout.gpu, layout.devices)
        new = not shapes[layout.shape]
        if layout.served in served or shapes[layout.shape] >= _OF_A_SHAPE or (new and sizes[size] >= _OF_A_SIZE):
            continue
        served.add(layout.served)
        shapes[layout.shape] += 1
        sizes[size] += new
        found.append(candidate)
        if len(found) == AT_MOST:
            break
    return tuple(found)


def priced(
    request: TuneRequest, model: ModelShape, cluster: Cluster | Fleet, layout: ParallelLayout
) -> Candidate | None:
    """One layout as the plan prices it, whatever its place in the ranking; None where a rule or its memory forbids it,
    or even an idle engine would miss the SLO by far."""
    return _priced(request.model_dump_json(), model, cluster, layout)


@lru_cache(maxsize=1024)
def _priced(document: str, model: ModelShape, cluster: Cluster | Fleet, layout: ParallelLayout) -> Candidate | None:
    request = TuneRequest.model_validate_json(document)
    point = Space("one layout", {axis: (getattr(layout, axis),) for axis in SPACE_AXES})
    try:
        ranked = plan(request, model, cluster, point).ranked
    except BadInput:
        return None
    return next((one for one in ranked if one.layout == layout or layout.gpu is None), None)


def chances(
    request: TuneRequest,
    candidates: Sequence[Candidate],
    model: ModelShape,
    cluster: Cluster | Fleet,
    known: Known,
    shown: Mapping[Deployment, bool],
    simulate: bool,
    slower: Candidate | None = None,
) -> list[tuple[float, float]]:
    """By candidate, the probability that it meets the SLO at the asked rate, and the requests/s that it carries within
    the SLO, with prices as far as they are ``known``: the lower ones, where a layout was ``slower`` than was expected,
    and that may have several causes.

    ``shown`` says of some whether they do: of the belief's draws those count that agree with most of it.
    """
    if not candidates:
        return []
    document = request.model_dump_json()
    prices = _prices(document, (*candidates, *([] if slower is None else [slower])), model, cluster)
    each = (_simulated(document, one, model, cluster) for one in candidates) if simulate else ()
    simulated = {layout: logs for found in each for layout, logs in found.items()}
    likely, carry = [], []
    for one in explained(request, prices, known):
        likely.append(_likely(request, candidates, prices, one, shown, simulated))
        carry.append(carries(request, candidates, prices, factors_of(one, prices.terms, prices.unmeasured)))
    return [(min(c), min(r)) for c, r in zip(zip(*likely, strict=True), zip(*carry, strict=True), strict=True)]


def _likely(
    request: TuneRequest,
    candidates: Sequence[Candidate],
    prices: TermPrices,
    known: Known,
    shown: Mapping[Deployment, bool],
    simulated: Mapping[ParallelLayout, Floats],
) -> list[float]:
    holds = held(
        request, Belief(request, candidates, prices, simulated, factors_of(known, prices.terms, prices.unmeasured))
    )
    seen = [(place, shown[one.deployment]) for place, one in enumerate(candidates) if one.deployment in shown]
    if seen:
        agreeing = sum((holds[:, place] == met).astype(int) for place, met in seen)
        least = np.sort(agreeing)[-_DRAWS_LEFT:][0]
        holds = holds[agreeing >= least]
    return [float(chance) for chance in holds.mean(axis=0)]


@lru_cache(maxsize=512)
def _simulated(
    document: str, candidate: Candidate, model: ModelShape, cluster: Cluster | Fleet
) -> dict[ParallelLayout, Floats]:
    """The simulator's word on one layout: tens to hundreds of ms, and the same is asked with every look."""
    return presimulate(TuneRequest.model_validate_json(document), [candidate], model, cluster)


@lru_cache(maxsize=256)
def _prices(
    document: str, candidates: tuple[Candidate, ...], model: ModelShape, cluster: Cluster | Fleet
) -> TermPrices:
    return TermPrices.of(TuneRequest.model_validate_json(document), candidates, model, cluster)


def factors_of(
    known: Known, terms: Sequence[str], unmeasured: frozenset[str] = frozenset()
) -> dict[str, tuple[float, float]]:
    """(factor, sd of its log) of each term's price, and of ``ttft`` and ``tpot``: what was learnt, and on top what was
    noticed since."""
    steps, first = (known.slower.get(metric, 1.0) for metric in (Metric.TPOT, Metric.TTFT))
    scale = dict.fromkeys(terms, steps) | {Metric.TTFT.value: first}
    names = (*terms, *(one.value for one in OFFSET_SD))
    found = {name: known.factors.get(name, (1.0, fresh_sd(name, unmeasured))) for name in names}
    return {name: (factor * scale.get(name, 1.0), sd) for name, (factor, sd) in found.items()}
