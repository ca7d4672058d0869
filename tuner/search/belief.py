"""What is believed of every candidate's latency: the model's prices, how far each may be off, and what trials taught.

Every cost term of the model (``gemm``, ``attention``, each collective by link, ``host``) has an unknown factor, TTFT
and TPOT have one each for what the closed form leaves out, and every engine a residual, most of which it shares with
its kin: engines that run the same kernels on as many devices (``tuner.search.term_prices.kin_of``). All log-normal. A
trial's latencies update them together (Gauss-Newton steps of a Bayesian regression whose design is each latency's
sensitivity to each factor, Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, section 2.1); a
candidate that shares terms with a measured one is then known better, too. Forecasts are draws from that posterior, put
through the load curve of ``tuner.cost.steady``, because latency near saturation is nowhere near linear.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.ask.cluster import Cluster, Fleet
from tuner.ask.deployment import Deployment
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Metric, SloTarget, TuneRequest
from tuner.ask.slo import log_ratio
from tuner.cost.steady import Floats
from tuner.plan.prune import Candidate
from tuner.search.front_prices import added_ms
from tuner.search.on_curve import OnCurve, log_seen
from tuner.search.presimulation import REQUESTS, presimulate
from tuner.search.priors import fresh_sd
from tuner.search.term_prices import TermPrices, engine_of, kin_of
from tuner.trial.results import StepResult

# Standard deviations on a log scale, beside those of prices (``tuner.search.priors``): what the closed form misses, and
# a simulation with the same prices does not tell of other prices.
RESIDUAL_SD = {Metric.TTFT: 0.15, Metric.TPOT: 0.05}
OWN_SD = {Metric.TTFT: 0.05, Metric.TPOT: 0.015}  # the part of it that an engine has alone
QUEUE_SD = 0.35  # more of it, per e-fold by which waiting stretches a latency
_TAIL_SD = {Metric.TTFT: 0.3, Metric.TPOT: 0.1}  # of a percentile that one request lies beyond
_DRAWN = 1_000_000  # draws × candidates
_LIMITS = ("max_num_batched_tokens", "max_num_seqs")  # of the scheduler
_SAME = 0.001  # log units by which latencies that are simulated of twins differ at most
_FARTHEST = 2.5  # logs by which the simulator may differ from the closed form
_STEPS = 4  # of Gauss and Newton
_FREEDOM = 3  # of the t distribution that factors are drawn from: how far prices may be off is itself not known well
_OWN = np.array([OWN_SD[metric] for metric in RESIDUAL_SD])
_SHARED = np.sqrt(np.square(list(RESIDUAL_SD.values())) - _OWN**2)

Kin = Callable[[ParallelLayout], Hashable]  # the same for engines that share most of their residual


@dataclass(frozen=True, slots=True)
class Forecast:
    """Draws from the belief, of shape (draws, candidates): ``held`` is the number of load steps, from the lowest rate,
    at which the SLO holds; ``e2e_ms`` the mean latency at the asked rate; ``miss`` log(latency ÷ target) there, of the
    target that is missed by most (infinite beyond capacity)."""

    held: NDArray[np.int64]
    e2e_ms: Floats
    miss: Floats


class Belief:
    """Of all candidates of one request. ``observe`` what was measured, then ask for a ``forecast``.

    ``twins`` has the same number for candidates that nothing tells apart: they differ in limits of the scheduler that
    the load does not reach, so that the simulator expects the same of all. What one of them does, the others do.
    """

    def __init__(
        self,
        request: TuneRequest,
        candidates: Sequence[Candidate],
        prices: TermPrices,
        presimulated: Mapping[ParallelLayout, Floats],
        carried: Mapping[str, tuple[float, float]] | None = None,
        kin: Kin = kin_of,
    ) -> None:
        self._request, self._prices = request, prices
        self._rates = np.array(request.rates_req_per_s)
        self._asked = int(np.argmin(np.abs(self._rates - request.workload.arrival.requests_per_s)))
        self.candidates = tuple(candidates)
        self.devices = np.array([float(c.layout.devices) for c in candidates])
        self._place: dict[ParallelLayout, int] = {}  # layouts that serve alike have one place
        self._place_of = np.array(
            [self._place.setdefault(c.layout.served, len(self._place)) for c in candidates], dtype=int
        )
        served = [candidates[i] for i in np.unique(self._place_of, return_index=True)[1]]
        self._engine_of = np.array([prices.index[engine_of(c.layout)] for c in served], dtype=int)
        caps = [float(c.prediction.sequences or c.layout.max_num_seqs) for c in served]
        self._added_at: dict[tuple[ParallelLayout, float], Floats] = {}
        self._added = self._paths_ms(list(self._place), np.tile(self._rates, (len(self._place), 1)))
        self._shift = self._shifts(presimulated)
        simulated = [layout in presimulated for layout in self._place]
        self._cap = np.where(simulated, np.inf, caps)  # the simulator minds it
        self.twins = self._twins(presimulated)[self._place_of]
        self._channels = [Metric.TTFT if m is Metric.TTFT else Metric.TPOT for m, _ in request.shown_metrics]
        known = [(carried or {}).get(name, (1.0, sd)) for name, sd in self._fresh().items()]
        self._prior_mean, self._prior_sd = np.log([f for f, _ in known]), np.array([sd for _, sd in known])
        self._mean, self._root = self._prior_mean, np.diag(self._prior_sd)
        self._seen: dict[ParallelLayout, tuple[StepResult, ...]] = {}
        self._drawn: Forecast | None = None
        kinds: dict[Hashable, int] = {}
        self._kin_of = np.array([kinds.setdefault(kin(engine), len(kinds)) for engine in prices.index], dtype=int)
        self._own: dict[int, int] = {}  # engine: where the two residuals that it has alone stand in the state
        self._shared: dict[int, int] = {}  # kin: where the two that they share do

    @classmethod
    def of(
        cls,
        request: TuneRequest,
        candidates: Sequence[Candidate],
        model: ModelShape,
        cluster: Cluster | Fleet,
        carried: Mapping[str, tuple[float, float]] | None = None,
        kin: Kin = kin_of,
    ) -> Belief:
        """The belief before any trial: the closed form's prices, and how the simulator's latencies differ from it.

        ``carried``: by name as in ``factors``, what earlier studies taught, where it is not to begin afresh.
        """
        prices = TermPrices.of(request, candidates, model, cluster)
        return cls(request, candidates, prices, presimulate(request, candidates, model, cluster), carried, kin)

    @property
    def factors(self) -> Mapping[str, tuple[float, float]]:
        """By cost term, and ``ttft`` and ``tpot`` for what no term explains: (factor on the price, its log's sd)."""
        sd = np.sqrt((self._root**2).sum(axis=1))
        return {name: (float(np.exp(self._mean[i])), float(sd[i])) for i, name in enumerate(self._fresh())}

    @property
    def unmeasured(self) -> frozenset[str]:
        """Cost terms whose price stands on what was not measured on the device: fresh, they are less sure."""
        return self._prices.unmeasured

    def served_as(self, layouts: Iterable[ParallelLayout]) -> NDArray[np.bool_]:
        """By candidate, whether one of these (each ``ParallelLayout.served``) serves as it does."""
        return np.isin(self._place_of, [self._place[layout] for layout in layouts if layout in self._place])

    def observe(self, seen: Mapping[Deployment, Sequence[StepResult]]) -> None:
        """Believe what the load steps of all trials so far say; what is no candidate, as two pools are none, says
        nothing."""
        steps = ((k, tuple(s for s in v if not s.step.warmup and not s.invalid)) for k, v in seen.items())
        known = {k: v for k, v in steps if isinstance(k, ParallelLayout)}
        known = {k: v for k, v in known.items() if v and engine_of(k) in self._prices.index}
        if known != self._seen:
            self._seen, self._drawn = known, None
            self._update()

    def forecast(self) -> Forecast:
        """Draws, the same ones for the same trials. Layouts that serve alike share theirs."""
        if self._drawn is None:
            self._drawn = self._draw()
        return self._drawn

    def _draw(self) -> Forecast:
        prices, engines = self._prices, len(self._prices.index)
        draws = int(np.clip(_DRAWN // max(len(self._place), 1), 64, 256))
        random = np.random.default_rng(20260301)
        tails = np.sqrt(_FREEDOM / np.random.default_rng(20260302).chisquare(_FREEDOM, (draws, 1)))
        state = self._mean + tails * random.standard_normal((draws, self._mean.size)) @ self._root.T
        own = random.standard_normal((draws, engines, 2)) * _OWN
        shared = random.standard_normal((draws, self._kin_of.max() + 1, 2)) * _SHARED
        for part, places in ((own, self._own), (shared, self._shared)):
            for one, place in places.items():
                part[:, one] = state[:, place : place + 2]
        terms = len(prices.terms)
        offset = own + shared[:, self._kin_of] + state[:, None, terms : terms + 2]
        queue = QUEUE_SD * random.standard_normal((draws, engines, 1))
        asked = self._forecast(np.exp(state[:, :terms]), offset, queue)
        batch, values, e2e_ms = asked
        miss = np.full((draws, len(self._place), self._rates.size), -np.inf)
        for target in self._request.slo:
            place = self._request.shown_metrics.index(target.key)
            behind = np.logaddexp(values[target][:, self._engine_of], log_ratio(target, self._added[..., place]))
            np.maximum(miss, behind + self._shift[..., place], out=miss)
        miss[batch[:, self._engine_of] > self._cap[:, None]] = np.inf
        held = np.cumprod(miss <= 0, axis=-1).sum(axis=-1)
        e2e_ms = e2e_ms[:, self._engine_of] + np.exp(self._added[:, self._asked, -1])
        e2e = e2e_ms * np.exp(self._shift[:, self._asked, -1])
        return Forecast(held[:, self._place_of], e2e[:, self._place_of], miss[:, self._place_of, self._asked])

    def _forecast(
        self, factors: Floats, offset: Floats, queue: Floats
    ) -> tuple[Floats, dict[SloTarget, Floats], Floats]:
        """(batch needed, by target log(latency ÷ target)) of shape (draws, engines, rates), and E2E at the asked."""
        everything = np.arange(len(self._prices.index))
        curve = self._prices.curve(factors, everything)
        idle_ms = curve.idle_ttft_ms.reshape(len(factors), -1, 1)
        rates = np.tile(self._rates / self._prices.replicas[everything][:, None], (len(factors), 1))
        keys = [*(target.key for target in self._request.slo), (Metric.E2E, None)]
        place, logs = log_seen(curve, keys, self._prices.output_tokens, rates, rates * self._request.load.seconds)
        shape = (*offset.shape[:2], self._rates.size)
        batch = np.where(place.beyond, np.inf, place.batch).reshape(shape)
        values = dict[SloTarget, Floats]()
        for target, log_ms in zip(self._request.slo, logs, strict=False):
            value = log_ms.reshape(shape)
            channel = 0 if target.metric is Metric.TTFT else 1
            if channel == 0:
                value = value + queue * np.maximum(value - np.log(idle_ms), 0.0)
            values[target] = log_ratio(target, value + offset[..., channel, None])
        e2e = logs[-1].reshape(shape)[..., self._asked] + offset[..., 1]
        return batch, values, np.exp(e2e)

    def _paths_ms(self, layouts: Sequence[ParallelLayout], rates: Floats) -> Floats:
        """Logs of what the paths of layouts add at ``rates`` (layouts, rates) of whole deployments, in ms, with a last
        axis of shown metrics and E2E; minus infinity where they add nothing."""
        engines = np.array([self._prices.index[engine_of(layout)] for layout in layouts], dtype=int)
        curve = self._prices.curve(np.ones((1, len(self._prices.terms))), engines)
        place, output = OnCurve.of(curve, rates / self._prices.replicas[engines][:, None]), self._prices.output_tokens
        keys = [*self._request.shown_metrics, (Metric.E2E, None)]
        values = [(key, np.exp(place.log_of(curve.at(*key, output)))) for key in keys]
        means = np.exp(place.log_of(curve.ttft_ms())), np.exp(place.log_of(curve.tpot_ms))
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(added_ms(self._prices, layouts, rates, curve.idle_ttft_ms, means, values)))

    def _twins(self, presimulated: Mapping[ParallelLayout, Floats]) -> NDArray[np.int64]:
        """By place, the first place of its twins."""
        known: dict[ParallelLayout, list[int]] = {}
        said = [presimulated.get(layout) for layout in self._place]
        twins = np.arange(len(said))
        for i, layout in enumerate(self._place):
            alike = known.setdefault(layout.without(_LIMITS), [])
            near = (j for j in alike if _same(said[i], said[j]))
            twins[i] = next(near, i)
            alike += [i] if twins[i] == i else []
        return twins

    def _shifts(self, presimulated: Mapping[ParallelLayout, Floats]) -> Floats:
        """log(simulated ÷ closed form), with axes (places, rates, shown metrics and E2E).

        A layout that was not simulated is taken to differ as the median of the others of its pipeline depth does.
        """
        metrics = self._request.shown_metrics
        if not presimulated:
            return np.zeros((len(self._place), self._rates.size, len(metrics) + 1))
        everything = np.arange(len(self._prices.index))
        curve = self._prices.curve(np.ones((1, len(self._prices.terms))), everything)
        replicas, keys = self._prices.replicas[everything][:, None], [*metrics, (Metric.E2E, None)]
        logs = log_seen(curve, keys, self._prices.output_tokens, self._rates / replicas, REQUESTS / replicas)[1]
        closed = np.stack(logs, axis=-1)
        behind = np.logaddexp(closed[self._engine_of], self._added)
        shift = np.full((len(self._place), *closed.shape[1:]), np.nan)
        for i, layout in enumerate(self._place):
            said = presimulated.get(layout)
            if said is not None:
                shift[i] = np.clip(said - behind[i], -_FARTHEST, _FARTHEST)
        for rate in range(1, self._rates.size):
            shift[:, rate] = np.where(np.isnan(shift[:, rate]), shift[:, rate - 1], shift[:, rate])
        depth = np.array([layout.pp for layout in self._place])
        for alike in (*(depth == pp for pp in set(depth)), depth > 0):
            known = shift[alike & ~np.isnan(shift).any(axis=(1, 2))]
            if len(known):
                shift[alike] = np.where(np.isnan(shift[alike]), np.median(known, axis=0), shift[alike])
        return np.nan_to_num(shift)

    def _fresh(self) -> dict[str, float]:
        """By factor, the standard deviation of its log where nothing was learnt."""
        names = (*self._prices.terms, Metric.TTFT.value, Metric.TPOT.value)
        return {name: fresh_sd(name, self._prices.unmeasured) for name in names}

    def _update(self) -> None:
        """Maximum of the posterior and its covariance there, from the prior and all load steps seen."""
        rows = list(self._rows())
        terms, engines = len(self._prices.terms), sorted({row.engine for row in rows})
        kin = sorted({int(self._kin_of[engine]) for engine in engines})
        self._own = {engine: terms + 2 + 2 * i for i, engine in enumerate(engines)}
        self._shared = {one: terms + 2 + 2 * (len(engines) + i) for i, one in enumerate(kin)}
        sd = np.concatenate([self._prior_sd, np.tile(_OWN, len(engines)), np.tile(_SHARED, len(kin))])
        prior = np.concatenate([self._prior_mean, np.zeros(2 * (len(engines) + len(kin)))])
        state = prior
        measured = np.array([row.log_ms for row in rows])
        precision = np.diag(sd**-2.0)
        for _ in range(_STEPS if rows else 0):
            predicted, design, stretch = self._linearised(state, rows, engines)
            noise = np.array([row.sd for row in rows]) ** 2 + (QUEUE_SD * stretch) ** 2
            off = (measured - predicted) / np.sqrt(noise)
            weight = 1 / (noise * (1 + (off / 3) ** 2))  # a wild value counts less: Student's t
            precision = np.diag(sd**-2.0) + design.T @ (weight[:, None] * design)
            gradient = design.T @ (weight * (measured - predicted)) - (state - prior) / sd**2
            state = state + np.clip(np.linalg.solve(precision, gradient), -0.5, 0.5)
        self._mean = state
        self._root = np.linalg.cholesky(np.linalg.inv(precision))

    def _rows(self) -> list[_Row]:
        found = []
        for layout, steps in self._seen.items():
            for step in steps:
                values = zip(self._request.shown_metrics, self._channels, step.shown_ms(self._request), strict=True)
                for i, ((_, percentile), channel, ms) in enumerate(values):
                    if ms is not None and ms > 0:
                        beyond = max(step.completed * (1 - percentile / 100), 0.2)
                        sd = float(np.clip(_TAIL_SD[channel] / np.sqrt(beyond), 0.02, 0.6))
                        engine = self._prices.index[engine_of(layout)]
                        rate = step.step.rate_req_per_s
                        at = int(np.argmin(np.abs(self._rates - rate)))
                        own = self._place.get(layout.served)
                        shift = 0.0 if own is None else float(self._shift[own, at, i])
                        added = self._added_to(layout, rate, i)
                        found.append(_Row(engine, rate, step.completed, i, float(np.log(ms)) - shift, sd, added))
        return found

    def _added_to(self, layout: ParallelLayout, rate_req_per_s: float, metric: int) -> float:
        key = (layout.served, rate_req_per_s)
        if key not in self._added_at:
            self._added_at[key] = self._paths_ms([layout], np.full((1, 1), rate_req_per_s))[0, 0]
        return float(self._added_at[key][metric])

    def _linearised(self, state: Floats, rows: Sequence[_Row], engines: list[int]) -> tuple[Floats, Floats, Floats]:
        """(log latencies predicted of the rows, their derivatives, e-folds by which waiting stretches each)."""
        terms, delta = len(self._prices.terms), 0.02
        moved = np.exp(np.vstack([state[:terms], state[:terms] + delta * np.eye(terms)]))
        curve = self._prices.curve(moved, np.array(engines))
        keys, shape = list(self._request.shown_metrics), (terms + 1, len(engines))
        idle = np.log(curve.idle_ttft_ms.reshape(shape)[0])
        replicas = np.tile(self._prices.replicas[engines], terms + 1)
        predicted, stretch = np.zeros(len(rows)), np.zeros(len(rows))
        design = np.zeros((len(rows), state.size))
        for window in {row.window for row in rows}:
            rate, requests = ((total / replicas)[:, None] for total in window)
            seen = log_seen(curve, keys, self._prices.output_tokens, rate, requests)[1]
            logs = [value[:, 0].reshape(shape) for value in seen]
            for n, row in enumerate(rows):
                if row.window == window:
                    at, channel = engines.index(row.engine), 0 if self._channels[row.metric] is Metric.TTFT else 1
                    own, kin = self._own[row.engine], self._shared[int(self._kin_of[row.engine])]
                    level = [terms + channel, own + channel, kin + channel]
                    engine = logs[row.metric][:, at] + state[level].sum()
                    found = np.logaddexp(engine, row.added)
                    predicted[n], share = found[0], np.exp(engine[0] - found[0])
                    design[n, :terms] = (found[1:] - found[0]) / delta
                    design[n, level] = share
                    stretch[n] = share * max(logs[row.metric][0, at] - idle[at], 0.0) if channel == 0 else 0.0
        return predicted, design, stretch


def _same(one: Floats | None, other: Floats | None) -> bool:
    return one is not None and other is not None and np.allclose(one, other, rtol=0, atol=_SAME, equal_nan=True)


@dataclass(frozen=True, slots=True)
class _Row:
    """One measured latency: which engine, at which rate, in a window of how many requests, which of the shown metrics,
    its log as the closed form would have it, and that one's sd; ``added`` is the log of what the path adds."""

    engine: int
    rate_req_per_s: float
    requests: int
    metric: int
    log_ms: float
    sd: float
    added: float

    @property
    def window(self) -> tuple[float, int]:
        """Its rate, and how many requests."""
        return self.rate_req_per_s, self.requests
