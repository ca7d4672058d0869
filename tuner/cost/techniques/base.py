"""What a technique may change: one base class whose methods all change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Engine
from tuner.ask.rules import Drop
from tuner.cost.collectives import CollectiveModel, CommGroup
from tuner.cost.memory import MemoryEstimate
from tuner.cost.step_batch import Floats, StepShape, Terms
from tuner.cost.volume import PassOperation

Operations = tuple[PassOperation, ...]


@dataclass(frozen=True, slots=True)
class Hardware:
    """A model on a cluster, and the time of a collective on it."""

    model: ModelShape
    cluster: Cluster
    collectives: CollectiveModel

    def collective_ms(self, operation: str, message_bytes: Floats, group: CommGroup) -> Floats:
        """Milliseconds of one call with its wait for the last rank, of the message's shape."""
        wait_us = self.cluster.profile.engine.collective_wait_us if group.ranks > 1 else 0.0
        return (self.collectives.latency_us(operation, message_bytes, group) + wait_us) / 1e3


@dataclass(frozen=True, slots=True)
class Technique:
    """A technique of the literature that vLLM does not have: what it changes in the price of a layout.

    ``name`` as the operator writes it, ``setting`` which values it takes, ``source`` where it was published,
    ``acts_on`` what it can change, ``priced`` by which formula. ``exact``: the model's outputs stay the same, with
    ``outputs`` saying why; ``missing`` says why vLLM cannot run it, for which reason no technique is ever emitted.
    Each method has one seam of the cost model in and out, and changes nothing here.
    """

    name: ClassVar[str]
    setting: ClassVar[str] = ""
    source: ClassVar[str]
    acts_on: ClassVar[str]
    priced: ClassVar[str]
    exact: ClassVar[bool]
    outputs: ClassVar[str]
    missing: ClassVar[str]

    def __str__(self) -> str:
        return self.name

    def check(self, model: ModelShape, cluster: Cluster) -> None:
        """Raise ``BadInput`` for a model or a cluster on which the technique means nothing."""

    def verdict(self, model: ModelShape, layout: ParallelLayout, drop: Drop) -> Drop | None:
        """The rule that a layout breaks once the technique is there; None where it is legal then."""
        return drop

    def slices(self, stages: int) -> int:
        """The least number of pieces in which a prompt passes a pipeline of so many stages."""
        return 1

    def grid(self, layout: ParallelLayout) -> tuple[int, int] | None:
        """Rows and columns of the grid that each weight matrix is cut by; None leaves it one row of tp columns."""
        return None

    def operations(self, model: ModelShape, layout: ParallelLayout, operations: Operations) -> Operations:
        """The messages of one forward pass."""
        return operations

    def collective_us(
        self, hardware: Hardware, operation: str, message_bytes: Floats, group: CommGroup, engine_us: Floats
    ) -> Floats:
        """Microseconds of one collective call, of the message's shape; ``engine_us`` is what it takes without."""
        return engine_us

    def attention_step(self, layout: ParallelLayout, step: StepShape) -> tuple[StepShape, int]:
        """The step that attention sees on one rank, and how often it runs that step."""
        return step, 1

    def layer_terms(
        self, hardware: Hardware, layout: ParallelLayout, step: StepShape, terms: Terms, has_experts: bool
    ) -> Terms:
        """The terms of one layer in ms, with those that the technique adds."""
        return terms

    def memory(
        self, model: ModelShape, layout: ParallelLayout, engine: Engine, estimate: MemoryEstimate
    ) -> MemoryEstimate:
        """What a rank holds."""
        return estimate
