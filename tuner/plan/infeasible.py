"""Why no layout can meet the SLO, bound by bound, and which single changes would make it feasible.

What it would take comes from the model as it is, or corrected by what was measured, without a bound's optimism.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.ask.cluster import Cluster, Fleet, requested_cluster
from tuner.ask.engine_version import NEWEST
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import ClusterSpec, SloTarget, TuneRequest
from tuner.ask.slo import Values, over, within, worst_ratio
from tuner.ask.space import Space
from tuner.cost.collectives import load_fabric
from tuner.cost.steady import Floats
from tuner.plan.bounds import Bound, Deployments, best_of, bounds
from tuner.plan.front_advice import FrontAdvice, front_advice
from tuner.plan.front_choice import front_words
from tuner.plan.prune import Prediction, price_all
from tuner.trial.results import TrialResult

MOST_TIMES = 16  # a cluster or a link so many times larger is the most that is looked at
STEPS = (2, 4, 8, 16)  # by which a link is made faster
LOWER = (*STEPS, 32, 64)  # by which a rate is


@dataclass(frozen=True, slots=True)
class Change:
    """One change that would do, by the model; ``value`` is in ``unit``.

    ``kind`` is slo, rate, front, gpus_per_node, nodes or link; or slo_and_rate, where it takes ``rate_req_per_s`` as
    well.
    """

    kind: str
    what: str
    value: float
    unit: str
    layout: str
    text: str
    rate_req_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Bounds, the proven ones first, and the changes that would each do.

    ``slower`` is by how much measured latencies exceed the model's; the changes count with it, the bounds do not.
    ``expected`` is a layout that does meet the SLO by the model, if any: then nothing has to change by the model.
    """

    bounds: tuple[Bound, ...]
    would_take: tuple[Change, ...]
    slower: float = 1.0
    expected: str | None = None

    @property
    def proven(self) -> bool:
        """True where a bound shows that no layout can meet the SLO."""
        return any(bound.proven for bound in self.bounds)

    def lines(self) -> list[str]:
        """For people: a line per bound and per change."""
        told = [f"{'out of reach' if bound.proven else 'missed by the model'}: {bound.text}" for bound in self.bounds]
        source = "the model" if self.slower == 1 else f"the model, corrected by what was measured ({self.slower:.2f} ×)"
        if self.expected is not None:
            return [*told, f"By {source}, {self.expected} would meet it: more launches may show one that does."]
        if not self.would_take:
            return [*told, f"By {source}, not even a cluster {MOST_TIMES} times as large would do."]
        return [*told, f"Any of these would do, by {source}:", *(f"  {change.text}" for change in self.would_take)]


def infeasible(request: TuneRequest, model: ModelShape, space: Space, slower: float = 1.0) -> Infeasible:
    """Bounds of all layouts of the space on the request's cluster, and what it would take where engines are ``slower``
    times the model.

    Raises BadInput as ``requested_cluster`` does.
    """
    cluster = requested_cluster(request)
    _, priced = price_all(request, model, cluster, space)
    found = [Deployments(request, one, slower) for one in priced]
    told = bounds(request, model, cluster, priced)
    if meeting := _fewest_devices(found):
        return Infeasible(told, (), slower, str(meeting))
    front = _front(request, model, cluster, found)
    told += _front_bound(front)
    changes = [*_front_change(front), *_slo_changes(request, found), *_rate_change(found)]
    for changed in (_gpus_per_node_changes, _node_changes, _link_changes):
        changes += changed(request, model, space, slower)
    if not changes:
        changes += _both_changes(request, found)
    return Infeasible(told, tuple(changes), slower)


def _front(
    request: TuneRequest, model: ModelShape, cluster: Cluster | Fleet, found: Sequence[Deployments]
) -> FrontAdvice | None:
    """What the path does to the layout that carries the most; None where none carries anything."""
    rate, layout = best_of(found, lambda one: -one.highest_rate())
    return front_advice(request, model, cluster, layout) if layout is not None and rate < 0 else None


def _front_bound(front: FrontAdvice | None) -> tuple[Bound, ...]:
    if front is None or not front.limit:
        return ()
    reach, asked = front.reach_req_per_s, front.rate_req_per_s
    return (Bound("front", reach, asked, "requests/s", False, str(front.layout), front.limit_text),)


def _front_change(front: FrontAdvice | None) -> Iterator[Change]:
    """Another path, where that alone would do."""
    if front is not None and front.opens is not None and (front.opens_req_per_s or 0.0) >= front.rate_req_per_s:
        words, rate = front_words(front.opens), front.opens_req_per_s or 0.0
        text = f"another path to the engine, with {front.opens}"
        yield Change("front", words, rate, "requests/s", str(front.opens), text)


def slower_than_predicted(
    request: TuneRequest, trials: Sequence[TrialResult], predictions: Mapping[str, Prediction]
) -> float:
    """Measured latency ÷ the model's: the geometric median over the shown metrics of all load steps that the model
    says can be carried; 1 where nothing was measured. ``predictions`` are by layout."""
    ratios = []
    for trial in trials:
        predicted = predictions.get(str(trial.layout))
        if predicted is None:
            continue
        for step in (step for step in trial.steps if not step.client_bound and step.invalid is None):
            pairs = zip(predicted.steps[step.step.index], step.shown_ms(request), strict=True)
            ratios += [measured / model_ms for model_ms, measured in pairs if model_ms and measured]
    return float(np.exp(np.median(np.log(ratios)))) if ratios else 1.0


def _slo_changes(request: TuneRequest, found: Sequence[Deployments]) -> Iterator[Change]:
    """The smallest value of each target alone; where no single one is enough, all of them widened alike."""
    changes = []
    for target in request.slo:

        def alone(one: Deployments, relaxed: SloTarget = target) -> Floats:
            value = one.target_ms(relaxed)
            for other in request.slo:
                if other is not relaxed:
                    value = np.where(within(other, one.target_ms(other)), value, np.inf)
            return value

        value_ms, layout = best_of(found, alone)
        if layout is not None and not within(target, value_ms):
            name = f"{target.metric.value} p{target.percentile:g}"
            text = f"a target of {_ceil(value_ms)} ms for {name} instead of {target.ms:g}, with {layout}"
            changes.append(Change("slo", name, value_ms, "ms", str(layout), text))
    yield from changes or _all_targets(request, found)


def _all_targets(request: TuneRequest, found: Sequence[Deployments]) -> Iterator[Change]:
    """The layout whose worst target is missed by the smallest factor, and the values that it would need."""
    best: tuple[float, ParallelLayout, Values] | None = None
    for one in found:
        times = worst_ratio(request.slo, one.target_ms).ravel()
        place = int(np.argmin(times))
        if np.isfinite(times[place]) and (best is None or times[place] < best[0]):
            values = {target.key: float(one.target_ms(target).ravel()[place]) for target in request.slo}
            best = float(times[place]), one.layout(place), values
    if best is not None and best[0] > 1:
        times_wider, layout, needed = best
        pairs = over(request.slo, needed)
        wider = " and ".join(f"{_ceil(ms)} ms for {t.metric.value} p{t.percentile:g}" for t, ms in pairs)
        instead = " and ".join(f"{target.ms:g}" for target, _ in pairs)
        text = f"targets of {wider} instead of {instead}, with {layout}"
        yield Change("slo", "all", times_wider, "× the targets", str(layout), text)


def _rate_change(found: Sequence[Deployments]) -> Iterator[Change]:
    rate, layout = best_of(found, lambda one: -one.highest_rate())
    if layout is not None and rate < 0:
        text = f"a rate of at most {math.floor(-rate * 100) / 100:g} requests/s, with {layout}"
        yield Change("rate", "requests_per_s", -rate, "requests/s", str(layout), text)


def _both_changes(request: TuneRequest, found: Sequence[Deployments]) -> Iterator[Change]:
    """Where no change alone would do: a lower rate together with wider targets, the rate halved until one would."""
    asked = request.workload.arrival
    for times in LOWER:
        arrival = asked.model_copy(update={"requests_per_s": asked.requests_per_s / times})
        lower = request.model_copy(update={"workload": request.workload.model_copy(update={"arrival": arrival})})
        wider = list(_slo_changes(lower, [Deployments(lower, one.priced, one.slower) for one in found]))
        for change in wider:
            text = f"{arrival.requests_per_s:g} requests/s and {change.text}"
            yield replace(change, kind="slo_and_rate", text=text, rate_req_per_s=arrival.requests_per_s)
        if wider:
            return


def _feasible(
    request: TuneRequest, model: ModelShape, space: Space, spec: ClusterSpec, gpu: str | None, slower: float
) -> ParallelLayout | None:
    """A layout with the fewest devices that meets the SLO on a node group, or None."""
    cluster = Cluster.from_spec(spec, gpu, request.engine.release or NEWEST)
    replicas = {2**i for i in range(cluster.devices.bit_length())}
    wider = replace(space, axes={**space.axes, "dp": tuple(sorted(replicas.union(space.values("dp"))))})
    priced = price_all(request, model, cluster, wider)[1]
    return _fewest_devices([Deployments(request, one, slower) for one in priced])


def _fewest_devices(found: Sequence[Deployments]) -> ParallelLayout | None:
    """A layout with the fewest devices of those that meet the SLO, or None."""

    def devices(one: Deployments) -> Floats:
        counts = np.array([float(member.devices) for member in one.priced.members])
        return np.where(one.meeting(), counts[:, None, None], np.inf)

    return best_of(found, devices)[1]


def _specs(request: TuneRequest) -> list[tuple[ClusterSpec, str | None]]:
    several = len(request.groups) > 1
    return [(spec, spec.gpu if several else None) for spec in request.groups]


def _gpus_per_node_changes(request: TuneRequest, model: ModelShape, space: Space, slower: float) -> Iterator[Change]:
    """The fewest devices in each node of a group that would do, doubling them."""
    for spec, gpu in _specs(request):
        most = Cluster.from_spec(spec).profile.kind.most_per_node or spec.gpus_per_node * MOST_TIMES
        count = spec.gpus_per_node * 2
        while count <= most:
            layout = _feasible(request, model, space, spec.model_copy(update={"gpus_per_node": count}), gpu, slower)
            if layout is not None:
                text = f"{count} {spec.gpu} per node instead of {spec.gpus_per_node}, with {layout}"
                yield Change("gpus_per_node", spec.gpu, float(count), "devices", str(layout), text)
                break
            count *= 2


def _node_changes(request: TuneRequest, model: ModelShape, space: Space, slower: float) -> Iterator[Change]:
    """The fewest nodes of each group that would do, by planning again."""
    for spec, gpu in _specs(request):

        def with_nodes(nodes: int, spec: ClusterSpec = spec, gpu: str | None = gpu) -> ParallelLayout | None:
            return _feasible(request, model, space, spec.model_copy(update={"nodes": nodes}), gpu, slower)

        low, high = spec.nodes, spec.nodes * 2
        while (layout := with_nodes(high)) is None and high < spec.nodes * MOST_TIMES:
            low, high = high, high * 2
        if layout is None:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            found = with_nodes(middle)
            low, high, layout = (low, middle, found) if found else (middle, high, layout)
        text = f"{high} nodes of {spec.gpus_per_node} {spec.gpu} ({high * spec.gpus_per_node} devices) instead of "
        yield Change("nodes", spec.gpu, float(high), "nodes", str(layout), f"{text}{spec.nodes}, with {layout}")


def _link_changes(request: TuneRequest, model: ModelShape, space: Space, slower: float) -> Iterator[Change]:
    """The slowest faster network between nodes that would do; else all devices in one NVLink domain."""
    for spec, gpu in _specs(request):
        if spec.nodes == 1:
            continue
        now = spec.inter_node_gb_per_s or _own_gb_per_s(Cluster.from_spec(spec))
        for times in STEPS:
            faster = spec.model_copy(update={"inter_node_gb_per_s": now * times})
            layout = _feasible(request, model, space, faster, gpu, slower)
            if layout is not None:
                text = f"{now * times:g} GB/s between nodes of {spec.gpu}, per GPU and direction, instead of {now:g}, "
                yield Change("link", "inter_node_gb_per_s", now * times, "GB/s", str(layout), f"{text}with {layout}")
                break
        else:
            domain = spec.model_copy(update={"nodes": 1, "gpus_per_node": spec.devices})
            layout = _feasible(request, model, space, domain, gpu, slower)
            if layout is not None:
                text = f"all {spec.devices} {spec.gpu} in one NVLink domain, with {layout}"
                yield Change("link", "nvlink_domain", float(spec.devices), "devices", str(layout), text)


def _own_gb_per_s(cluster: Cluster) -> float:
    """What the fabric's NICs give each GPU, 10^9 bytes per second and direction."""
    return load_fabric(cluster.fabric).nic_gb_per_s * cluster.profile.nics_per_node / cluster.gpus_per_node


def _ceil(value: float, digits: int = 0) -> str:
    """Rounded up: a target rounded down would still be missed."""
    return f"{math.ceil(value * 10**digits) / 10**digits:g}"
