"""What a simulated cluster is like and a study does not know: other prices than the model's, noise, failures, drift."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.cost.latency import StepCosts, StepShape, Terms, total
from tuner.cost.switches import AS_SHIPPED, EngineSwitches
from tuner.cost.volume import Phase
from tuner.errors import BadInput, FailureReason

_RANDOM_FAILURES = (FailureReason.ENGINE_CRASHED, FailureReason.START_TIMED_OUT, FailureReason.REPLICA_DIED)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the simulated cluster is like; by default nothing goes wrong and the model is right.

    ``term_error`` is the standard deviation, on a log scale, of the factor between the true and the modelled price of
    each cost term (``gemm``, ``attention``, each collective by link, ``host``); ``noise`` that of a factor on a whole
    load step. ``slowdown_per_hour`` is the share by which everything slows per simulated hour. ``failures`` names
    layouts that always fail, and how; of the others, a share of ``failure_share`` does. A start takes about
    ``start_up_s``. ``pace`` is how many real seconds a simulated one lasts.
    """

    seed: int = 0
    term_error: float = 0.0
    noise: float = 0.0
    slowdown_per_hour: float = 0.0
    failures: Mapping[ParallelLayout, FailureReason] = field(default_factory=dict)
    failure_share: float = 0.0
    start_up_s: float = 90.0
    pace: float = 0.0

    def __post_init__(self) -> None:
        for name in ("seed", "term_error", "noise", "slowdown_per_hour", "failure_share", "start_up_s", "pace"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"conditions.{name}", getattr(self, name), "at least 0")
        if self.failure_share > 1:
            raise BadInput("conditions.failure_share", self.failure_share, "at most 1")

    def random(self, *words: object) -> np.random.Generator:
        """A stream of its own for whatever the words name."""
        return np.random.default_rng([self.seed, zlib.crc32("|".join(map(str, words)).encode())])

    def failure_of(self, layout: ParallelLayout) -> FailureReason | None:
        """How a layout fails here, if it does; always the same way."""
        if layout in self.failures:
            return self.failures[layout]
        random = self.random("failure", layout)
        return (
            _RANDOM_FAILURES[random.integers(len(_RANDOM_FAILURES))] if random.random() < self.failure_share else None
        )


AT_REST = Conditions()
SEED_FACT = "simulated cluster, seed"  # by which a study's facts tell that nothing in it was measured


def simulated_seed(facts: Mapping[str, str]) -> int | None:
    """The seed of the simulated cluster that a study ran on; None where its engines were real."""
    return int(facts[SEED_FACT]) if SEED_FACT in facts else None


class TrueCosts(StepCosts):
    """Step prices as they are on the simulated cluster: the model's, each term times a factor of its own."""

    def __init__(
        self,
        model: ModelShape,
        cluster: Cluster,
        conditions: Conditions,
        factor: float,
        switches: EngineSwitches = AS_SHIPPED,
    ) -> None:
        super().__init__(model, cluster, switches=switches)
        self._conditions, self._factor = conditions, factor

    def factor_of(self, term: str) -> float:
        """By which factor a term is dearer here than by the model."""
        error = self._conditions.term_error
        return self._factor * float(np.exp(error * self._conditions.random("term", term).standard_normal()))

    def stages(self, layout: ParallelLayout, step: StepShape) -> list[Terms]:
        """As the model's, scaled; attention and host time are scaled where they are priced, and of launching what lasts
        longer than the GPU's work does here."""
        own = ("attention", "host")
        scaled = [
            {name: value if name in own else value * self.factor_of(name) for name, value in terms.items()}
            for terms in super().stages(layout, step)
        ]
        for terms, (added_ms, launch_ms) in zip(scaled, self.host_sides(layout, step), strict=True):
            del terms["host"]
            terms["host"] = added_ms + np.maximum(launch_ms - total(terms), 0.0)
        return scaled

    def attention_ms(self, layout: ParallelLayout, step: StepShape) -> NDArray[np.float64]:
        """As the model's, scaled."""
        return super().attention_ms(layout, step) * self.factor_of("attention")

    def host_parts(
        self, phase: Phase, layers: float, moe_layers: int = 0, in_graph: bool = False, beyond_graphs: bool = False
    ) -> tuple[float, float]:
        """As the model's, scaled."""
        added, launch = super().host_parts(phase, layers, moe_layers, in_graph, beyond_graphs)
        return added * self.factor_of("host"), launch * self.factor_of("host")
