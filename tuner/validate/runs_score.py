"""Predict measured closed-loop runs: the analytical core prices their steps, the simulator serves their requests.

Each run is played as it was measured: all users start at once, about ten prompts per user, lengths drawn from a share
of the nominal ones up to them; TTFT and TPOT are means over requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.ask.arrivals import ClosedLoad
from tuner.ask.engine_settings import BLOCK_TOKENS
from tuner.ask.request import Engine
from tuner.cost.latency import StepCosts
from tuner.cost.memory import estimate_memory
from tuner.errors import BadInput
from tuner.simulate import SimulationSettings, Simulator
from tuner.validate.correct import correct
from tuner.validate.points import Points
from tuner.validate.runs import Run, run_of
from tuner.validate.scores import E2E, Prediction, Validation, measured_column

Floats = NDArray[np.float64]

PROMPTS_PER_USER = 10
FIGURES = ("ttft_ms", "tpot_ms")
_NUMBERS = ("prompt_tokens", "output_tokens", "concurrency", "tp_size")
_MAYBE = ("pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")


@dataclass(frozen=True, slots=True)
class RunFigures:
    """Means over the requests of a run, in ms."""

    ttft_ms: float
    tpot_ms: float


class RunPredictor:
    """Predicts runs; step prices and equal runs are shared between them."""

    def __init__(self, prompts_per_user: int = PROMPTS_PER_USER, seed: int = 0) -> None:
        self._prompts, self._seed = prompts_per_user, seed
        self._costs: dict[object, StepCosts] = {}
        self._simulators: dict[object, Simulator] = {}
        self._known: dict[Run, RunFigures] = {}

    def predict(self, run: Run) -> RunFigures:
        """Mean TTFT and TPOT of a run. Raises BadInput where a request does not fit the device's memory."""
        if run not in self._known:
            self._known[run] = self._simulate(run)
        return self._known[run]

    def costs(self, run: Run) -> StepCosts:
        """The step prices of a run's engine."""
        key = (run.model, run.cluster, run.vllm_version, run.switches)
        if key not in self._costs:
            self._costs[key] = StepCosts(run.model, run.cluster, run.vllm_version, run.switches)
        return self._costs[key]

    def _simulate(self, run: Run) -> RunFigures:
        result = self._simulator(run).run(self.load(run))
        ttft_ms = 1e3 * (result.first_token_s - result.arrival_s)
        decoded = np.maximum(result.output_tokens - 1, 1)
        tpot_ms = 1e3 * (result.end_s - result.first_token_s) / decoded
        return RunFigures(float(np.mean(ttft_ms)), float(np.mean(tpot_ms)))

    def _simulator(self, run: Run) -> Simulator:
        longest, tokens = run.prompt_tokens + run.output_tokens, kv_tokens(run)
        hits = self._hit_rate(run)
        key = (run.model, run.cluster, run.vllm_version, run.switches, run.layout, longest, tokens, hits)
        if key not in self._simulators:
            settings = SimulationSettings(asynchronous=run.switches.asynchronous, prefix_hit_rate=hits)
            self._simulators[key] = Simulator(
                self.costs(run), run.layout, kv_tokens=tokens, longest_tokens=longest, settings=settings
            )
        return self._simulators[key]

    def _hit_rate(self, run: Run) -> float:
        """Share of the prompts that came before, where there are fewer of them than requests."""
        requests = self._prompts * run.users
        return max(0.0, 1 - run.distinct_prompts / requests) if run.distinct_prompts else 0.0

    def load(self, run: Run) -> ClosedLoad:
        """The requests of a run."""
        random = np.random.default_rng(self._seed)
        count = self._prompts * run.users

        def lengths(nominal: int) -> NDArray[np.int64]:
            return random.integers(max(1, int(run.shortest_share * nominal)), nominal, size=count, endpoint=True)

        return ClosedLoad(run.users, lengths(run.prompt_tokens), lengths(run.output_tokens))


def kv_tokens(run: Run) -> int:
    """Tokens that one replica's cache holds; at least the longest request where the weights fit, since the run took
    place."""
    engine = Engine(gpu_memory_utilization=run.gpu_memory_utilization)
    batched, seqs = np.array([run.layout.max_num_batched_tokens]), np.array([run.layout.max_num_seqs])
    memory = estimate_memory(run.model, run.layout, run.cluster, engine, batched, seqs, run.switches, run.vllm_version)
    found = int(memory.kv_tokens[0])
    longest = -(-(run.prompt_tokens + run.output_tokens) // BLOCK_TOKENS) * BLOCK_TOKENS
    fits = memory.weights_bytes < run.cluster.profile.memory_bytes
    return max(found, longest) if fits else found


def validate_runs(points: Points, probes: Points | None = None) -> Validation:
    """Predict every run of a table; ``probes`` are measured runs of the same layouts that correct the predictions.

    Raises BadInput for a table without the columns of a run.
    """
    predictor = RunPredictor()
    predicted, reasons = predict_points(points, predictor)
    if probes is not None:
        predicted = correct(points, predicted, probes, predict_points(probes, predictor)[0], _measured(probes))
    measured = _measured(points)
    found = (Prediction(name, predicted[:, i], measured[:, i]) for i, name in enumerate(FIGURES))
    return Validation(E2E, points, tuple(found), tuple(reasons))


def _measured(points: Points) -> Floats:
    return np.stack([measured_column(points, f"measured_{name}") for name in FIGURES], axis=1)


def predict_points(points: Points, predictor: RunPredictor) -> tuple[Floats, list[str | None]]:
    """([row, figure] in ms, NaN where a row cannot be predicted; the reason per row)."""
    check_columns(points)
    predicted = np.full((len(points), len(FIGURES)), np.nan)
    reasons: list[str | None] = []
    for row in range(len(points)):
        try:
            figures = predictor.predict(run_of(points, row))
        except BadInput as error:
            reasons.append(str(error))
        else:
            predicted[row] = figures.ttft_ms, figures.tpot_ms
            reasons.append(None)
    return predicted, reasons


def check_columns(points: Points) -> None:
    """Raise BadInput, with line and column, where a table is not one of runs."""
    for name in ("model_path", "system"):
        points.text(name)
    for name in _NUMBERS:
        points.numbers(name, least=1)
    for name in _MAYBE:
        if name in points.columns:
            points.numbers(name, least=0, blank=1.0)
