"""What the model expects of a layout at the load of a look: the measure against which it is slow or fast.

Mean latencies in the closed form, with the prices that the study learnt. That the model errs by a constant factor does
no harm: a residual is told against its own first level. What it is for is how latencies follow rate and lengths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tuner.ask.cluster import requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.cost.steady import Curve, Floats
from tuner.retune.asked_now import STEP, asked_now
from tuner.retune.contenders import factors_of, priced
from tuner.retune.demand import Demand
from tuner.retune.known import Known
from tuner.retune.seen import Look, Tokens
from tuner.search.term_prices import TermPrices

_BUSIEST = 0.85  # of a replica's highest rate: beyond, a queue says more of chance than of steps
_By = Mapping[Metric, Floats]


class ExpectedByModel:
    """Asked with a look, it says mean ms by metric; nothing where the load is unknown, or near what it can carry."""

    def __init__(self, request: TuneRequest, layout: ParallelLayout, known: Known) -> None:
        self._request, self._layout, self._known = request, layout, known
        self._curves: dict[tuple[int, int], tuple[Floats, _By] | None] = {}

    def __call__(self, look: Look) -> dict[Metric, float]:
        """By metric, of those whose means the model knows."""
        rate = look.req_per_s
        if not rate or look.prompt is None or look.output is None:
            return {}
        lengths = self._step(look.prompt.mean), self._step(look.output.mean)
        if lengths not in self._curves:
            self._curves[lengths] = self._curve(*lengths)
        found = self._curves[lengths]
        if found is None:
            return {}
        rates, values = found
        each = rate / self._layout.dp
        if each > _BUSIEST * rates[-1]:
            return {}
        return {metric: float(np.interp(each, rates, ms)) for metric, ms in values.items()}

    @staticmethod
    def _step(tokens: float) -> int:
        return round(math.log(max(tokens, 1.0)) / STEP)

    def _curve(self, prompt: int, output: int) -> tuple[Floats, _By] | None:
        """(requests/s of a replica, by metric its mean ms) with such lengths."""
        prompts, answers = (Tokens(1.0, math.exp(STEP * step)) for step in (prompt, output))
        now = asked_now(self._request, Demand(None, prompts, answers), None).request
        if now is None:
            return None
        model, cluster = requested_model(now), requested_cluster(now)
        candidate = priced(now, model, cluster, self._layout)
        if candidate is None:
            return None
        prices = TermPrices.of(now, [candidate], model, cluster)
        factors = factors_of(self._known, prices.terms, prices.unmeasured)
        curve = prices.curve(np.array([[factors[name][0] for name in prices.terms]]), np.arange(1))
        return curve.rate_req_per_s[0], self._means(curve, now)

    @staticmethod
    def _means(curve: Curve, now: TuneRequest) -> _By:
        tokens = float(now.workload.output_tokens.mean)
        return {m: np.asarray(curve.at(m, None, tokens)[0]) for m in (Metric.TTFT, Metric.TPOT, Metric.E2E)}
