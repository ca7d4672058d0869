"""How far the belief's latencies are off once it knows every price: the closed form at the true prices, and what a
simulation at the model's own prices said beyond it, against a simulation at the true ones.

    python -m tests.benchmarks.belief_transfer [--quick] [--off SD] [--filling]

Of the layouts of the 24 tuning problems that are simulated before anything is launched, where every cost term is off
by a random factor (standard deviation 50 % on a log scale). What is left here no trial can teach.
With ``--filling``, by batch: TPOT of engines of one stage as the curve of a steady load has it, and as the belief has
windows of as many requests as were simulated, both at the model's own prices.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from tests.benchmarks.search_problems import COUNT, problem
from tuner.ask.request import Metric, TuneRequest
from tuner.cost.steady import Floats
from tuner.rehearse.conditions import Conditions, TrueCosts
from tuner.search.belief import Belief
from tuner.search.on_curve import log_seen
from tuner.search.presimulation import REQUESTS, presimulate, simulated
from tuner.search.term_prices import TermPrices, engine_of

_Case = tuple[str, str]  # metric, and with or without a pipeline


def errors(number: int, off: float) -> Iterator[tuple[_Case, float]]:
    """Of one problem: log(believed ÷ simulated) of every metric of every layout at every rate that was simulated."""
    conditions = Conditions(seed=number, term_error=off)
    of = problem(number, conditions)
    request, ranked = of.request, of.planned.ranked
    known = presimulate(request, ranked, of.model, of.cluster)
    belief = Belief(request, ranked, TermPrices.of(request, ranked, of.model, of.cluster), known)
    true = TrueCosts(of.model, of.cluster, conditions, 1.0)
    believed = _believed(belief, request, true)
    for candidate in ranked:
        layout = candidate.layout.served
        if known.pop(layout, None) is None:
            continue
        seen = simulated(request, true, layout, candidate.prediction.kv_tokens)
        off_by = (believed[belief._place[layout]] - seen).T
        for (metric, _), rates in zip(_keys(request), off_by, strict=True):
            case = metric.value, "pipeline" if layout.pp > 1 else "one stage"
            yield from ((case, float(one)) for one in rates if np.isfinite(one))


def fillings(number: int) -> Iterator[tuple[float, float, float]]:
    """Of one problem, at the model's prices: the batch of a steady load, and log(TPOT ÷ simulated) by its curve, and as
    a window of ``REQUESTS`` has it."""
    of = problem(number, Conditions())
    request, ranked = of.request, of.planned.ranked
    prices = TermPrices.of(request, ranked, of.model, of.cluster)
    curve, replicas = prices.curve(np.ones((1, len(prices.terms))), np.arange(len(prices.index))), prices.replicas
    rates = np.array(request.rates_req_per_s) / replicas[:, None]
    tpot = [place for place, (metric, _) in enumerate(request.shown_metrics) if metric is Metric.TPOT]
    keys = [request.shown_metrics[place] for place in tpot]
    place, steady = log_seen(curve, keys, prices.output_tokens, rates, np.full_like(rates, np.inf))
    filling = log_seen(curve, keys, prices.output_tokens, rates, REQUESTS / replicas[:, None])[1]
    for layout, logs in presimulate(request, ranked, of.model, of.cluster).items():
        engine = prices.index[engine_of(layout)]
        for rate in np.flatnonzero(~place.beyond[engine]) if layout.pp == 1 else ():
            for at, one, other in zip(tpot, steady, filling, strict=True):
                seen = logs[rate, at]
                if np.isfinite(seen):
                    yield float(place.batch[engine, rate]), one[engine, rate] - seen, other[engine, rate] - seen


def _by_batch(numbers: range) -> None:
    found = np.array([row for number in numbers for row in fillings(number)])
    print("| batch | latencies | by the curve ÷ simulated, median | as a window has it |")
    print("|---|---|---|---|")
    for low, high in pairwise((0, 4, 8, 16, 32, 64, np.inf)):
        here = found[(found[:, 0] >= low) & (found[:, 0] < high)]
        if len(here):
            steady, filling = np.exp(np.median(here[:, 1:], axis=0)) - 1
            print(f"| {low} to {high} | {len(here)} | {steady:+.0%} | {filling:+.0%} |")


def _keys(request: TuneRequest) -> list[tuple[Metric, float | None]]:
    return [*request.shown_metrics, (Metric.E2E, None)]


def _believed(belief: Belief, request: TuneRequest, true: TrueCosts) -> Floats:
    """Logs of ms by place, rate and metric, in windows as they were simulated."""
    prices = belief._prices
    factors = np.array([[true.factor_of(name) for name in prices.terms]])
    curve, replicas = prices.curve(factors, np.arange(len(prices.index))), prices.replicas[:, None]
    rates = np.array(request.rates_req_per_s) / replicas
    logs = log_seen(curve, _keys(request), prices.output_tokens, rates, REQUESTS / replicas)[1]
    closed = np.stack(logs, axis=-1)[belief._engine_of]
    return np.asarray(np.logaddexp(closed, belief._added) + belief._shift)


def _row(case: _Case, off_by: list[float]) -> str:
    factors = np.exp(np.abs(off_by))
    middle, most = np.quantile(factors, [0.5, 0.9]) - 1
    low = np.exp(np.median(off_by)) - 1
    return f"| {' | '.join(case)} | {len(off_by)} | {low:+.0%} | {middle:.0%} | {most:.0%} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every third problem")
    parser.add_argument("--off", type=float, default=0.5, help="standard deviation of prices on a log scale")
    parser.add_argument("--filling", action="store_true", help="TPOT by batch instead")
    asked = parser.parse_args()
    numbers = range(0, COUNT, 3 if asked.quick else 1)
    if asked.filling:
        _by_batch(numbers)
        return
    found = defaultdict[_Case, list[float]](list)
    for number in numbers:
        for case, one in errors(number, asked.off):
            found[case].append(one)
        print(f"problem {number}", file=sys.stderr, flush=True)
    print("| metric | engines | latencies | believed ÷ simulated, median | error, median | nine of ten within |")
    print("|---|---|---|---|---|---|")
    for case in sorted(found):
        print(_row(case, found[case]))


if __name__ == "__main__":
    main()
