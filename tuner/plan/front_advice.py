"""Is the path to the engines what limits a layout, and what would open it: said so that a person understands it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.ask.cluster import Cluster, Fleet
from tuner.ask.front import front_name
from tuner.ask.front_fits import FrontFit, front_names
from tuner.ask.layout import FRONTS, ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.ask.slo import within
from tuner.cost.front_curve import CurveBehind
from tuner.cost.front_path import Path
from tuner.cost.latency import StepCosts
from tuner.cost.steady import Curve, Shapes, load_curve
from tuner.cost.switches import EngineSwitches
from tuner.plan.front_choice import front_words, order_of, saturation_words

INTERVALS_MS, INGRESS, API_SERVERS = (0, 10, 20, 50, 100), (0, 1, 2, 4, 8), (1, 2, 4)
WORTH = 1.05  # by which factor an engine must reach further without its path, for the path to be what limits it
_HALVINGS = 24
_NOTHING = FrontFit("none", (), 0.0, 0.0, {}, "no path")


@dataclass(frozen=True, slots=True)
class HopAdvice:
    """One hop at the asked rate: how many loops it has, and the share of the time that each is busy."""

    name: str
    loops: int
    utilisation: float


@dataclass(frozen=True, slots=True)
class FrontAdvice:
    """What the path does to one layout. Rates are requests/s of the whole deployment within the SLO.

    ``saturates`` is the hop that keeps up the least, or ``cores`` where those of the node are full before, up to
    ``tokens_per_s``; ``of_cores`` are those that the path shares (None: enough for all). ``reach_req_per_s`` is behind
    the path, ``engine_req_per_s`` without one. Where the path is the ``limit``, ``opens`` is a layout of the same
    engine whose path reaches ``opens_req_per_s``; None where no path that was measured reaches further.
    """

    layout: ParallelLayout
    rate_req_per_s: float
    hops: tuple[HopAdvice, ...]
    cores: float
    of_cores: float | None
    saturates: str
    tokens_per_s: float
    reach_req_per_s: float
    engine_req_per_s: float
    limit: bool
    opens: ParallelLayout | None
    opens_req_per_s: float | None
    for_all: bool

    def lines(self) -> list[str]:
        """For people."""
        shares = ", ".join(f"{hop.name} {hop.utilisation:.0%}" for hop in self.hops)
        cores = f"{self.cores:.1f} cores" if self.of_cores is None else f"{self.cores:.1f} of {self.of_cores:.0f} cores"
        told = [f"The path to the engine at {self.rate_req_per_s:.4g} requests/s: {shares} busy, {cores}."]
        return [*told, self.limit_text] if self.limit else told

    @property
    def limit_text(self) -> str:
        """That the path is the limit, and what opens it."""
        most = saturation_words(self.saturates, self.tokens_per_s, self.of_cores)
        held = f"the SLO holds up to {self.reach_req_per_s:.1f} requests/s"
        text = f"the front door is the limit: {most}, and {held}, where the engine itself would hold it up to "
        text += f"{self.engine_req_per_s:.1f}"
        if self.opens is None or self.opens_req_per_s is None:
            text += "; no other path that was measured reaches further"
        else:
            enough = "holds" if self.opens_req_per_s >= self.rate_req_per_s else "would hold"
            text += f". {front_words(self.opens)} {enough} it up to {self.opens_req_per_s:.1f}"
        return text + ("; more GPUs would not" if self.for_all else "")

    @property
    def remedy(self) -> str:
        """What to do where the path is the limit."""
        others = "a lower rate or wider targets are needed"
        if self.opens is None or self.opens_req_per_s is None:
            return f"the path to the engine is the limit, and no other that was measured reaches further: {others}"
        opened = f"the path to the engine is the limit, so try {self.opens}, which by the model holds "
        opened += f"{self.opens_req_per_s:.2f}"
        if self.opens_req_per_s >= self.rate_req_per_s:
            return opened
        more = "more devices behind such a path, " if self.opens_req_per_s > 0.9 * self.engine_req_per_s else ""
        return f"{opened}; for {self.rate_req_per_s:g}, {more}{others}"


def front_advice(
    request: TuneRequest,
    model: ModelShape,
    cluster: Cluster | Fleet,
    layout: ParallelLayout,
    rate_req_per_s: float | None = None,
) -> FrontAdvice:
    """What the path of a layout does at a rate (None: the asked one), by the closed form."""
    group, rate = cluster.group(layout), rate_req_per_s or request.workload.arrival.requests_per_s
    costs = StepCosts(model, group, switches=EngineSwitches.asked(request.engine))
    shapes = Shapes.of(request, np.array([float(layout.max_num_batched_tokens)]), 1).for_stages(layout.pp)
    curve = load_curve(costs, layout, shapes)
    output = float(request.workload.output_tokens.mean)
    path = Path.of(layout, group)
    behind, alone = _behind(curve, layout, path, output), _behind(curve, layout, _without(path), output)
    reach, engine = highest_rate(request, behind), highest_rate(request, alone)
    at = behind.at(min(rate, float(curve.rate_req_per_s[0, -1]) * layout.dp * 0.999))
    tpot_ms = float(at.tpot_ms[0, 0])
    load, name = path.load(rate, output, tpot_ms), path.saturation(output, tpot_ms)
    limit = reach < rate and reach * WORTH < engine
    opens = _opening(request, group, layout, curve, reach) if limit else None
    return FrontAdvice(
        layout=layout,
        rate_req_per_s=rate,
        hops=tuple(
            HopAdvice(hop.name, path.servers(hop), float(load.hops[hop.name].utilisation)) for hop in path.fit.hops
        ),
        cores=float(load.cores),
        of_cores=path.cores,
        saturates=name[0],
        tokens_per_s=name[1] * output,
        reach_req_per_s=reach,
        engine_req_per_s=engine,
        limit=limit,
        opens=opens[0] if opens else None,
        opens_req_per_s=opens[1] if opens else None,
        for_all=limit and rate > name[1] and any(hop.per == "node" and hop.name == name[0] for hop in path.fit.hops),
    )


def highest_rate(request: TuneRequest, behind: CurveBehind) -> float:
    """The highest rate in requests/s at which one deployment holds every target; 0 where it holds them at none."""

    def holds(rate_req_per_s: float) -> bool:
        at = behind.at(rate_req_per_s)
        held = bool(at.load.carries.all() and np.isfinite(at.batch).all())
        return held and all(
            bool(within(target, at.value(target.metric, target.percentile)).all()) for target in request.slo
        )

    low, high = 0.0, float(behind.curve.rate_req_per_s.max() * behind.replicas[0])
    if holds(high):
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low if low > high * 1e-3 else 0.0


def _opening(
    request: TuneRequest, cluster: Cluster, layout: ParallelLayout, curve: Curve, reach: float
) -> tuple[ParallelLayout, float] | None:
    """The best path of the same kind, and how far it reaches; of the others where none of the kind reaches further."""
    output, named = float(request.workload.output_tokens.mean), front_name(layout)
    for kinds in ((named,), tuple(name for name in FRONTS if name in front_names() and name != named)):
        layouts = [other for kind in kinds for other in _others(layout, kind, named) if other != layout]
        if not layouts:
            continue
        best = layouts[order_of(request, cluster, layouts, curve)[0]]
        found = highest_rate(request, _behind(curve, best, Path.of(best, cluster), output))
        if found > reach * WORTH:
            return best, found
    return None


def _others(layout: ParallelLayout, kind: str, named: str) -> Sequence[ParallelLayout]:
    """The same engine behind paths of one kind."""
    front = layout.front if kind == named else kind
    found = (
        replace(layout, front=front, stream_interval_ms=interval, ingress_replicas=ingress, api_servers=servers)
        for servers in API_SERVERS
        for ingress in INGRESS
        for interval in INTERVALS_MS
    )
    return tuple(dict.fromkeys(one.canonical for one in found))


def _behind(curve: Curve, layout: ParallelLayout, path: Path, output: float) -> CurveBehind:
    return CurveBehind(curve, [path], [float(layout.dp)], output)


def _without(path: Path) -> Path:
    front = replace(path.front, interval_ms=0)
    return Path(_NOTHING, front, path.cores, path.engine_cores)
