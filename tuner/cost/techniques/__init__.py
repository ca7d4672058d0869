"""Techniques of the literature that vLLM does not run, as changes to the price of a layout.

Each is a small frozen strategy; ``Techniques`` applies several in a fixed order. None of them can be emitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Engine
from tuner.ask.rules import Drop
from tuner.cost.collectives import CommGroup
from tuner.cost.memory import MemoryEstimate
from tuner.cost.step_batch import Floats, StepShape, Terms
from tuner.cost.techniques.base import Hardware, Operations, Technique
from tuner.cost.techniques.collectives import DirectDataAccess, Nvrar, SyncPointDrop
from tuner.cost.techniques.experts import DynamicGating, ExpertBuffering, SpeculativePlacement
from tuner.cost.techniques.grid import GridParallel
from tuner.cost.techniques.sequence import HPipe, RingAttention
from tuner.errors import BadInput

__all__ = ["NONE", "TECHNIQUES", "Hardware", "Technique", "Techniques", "parse_techniques"]

# In the order in which they apply: the grid comes before what drops its all-reduces, exchanges before their sizes.
TECHNIQUES: tuple[type[Technique], ...] = (
    GridParallel,
    SyncPointDrop,
    DirectDataAccess,
    Nvrar,
    HPipe,
    RingAttention,
    DynamicGating,
    SpeculativePlacement,
    ExpertBuffering,
)


@dataclass(frozen=True, slots=True)
class Techniques:
    """Several techniques at once, each applied to what those before it left; empty changes nothing."""

    items: tuple[Technique, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.items)

    @property
    def names(self) -> tuple[str, ...]:
        """As the operator would write them."""
        return tuple(str(one) for one in self.items)

    def check(self, model: ModelShape, cluster: Cluster) -> None:
        """Raise ``BadInput`` for one that means nothing for the model or the cluster."""
        for one in self.items:
            one.check(model, cluster)

    def verdict(self, model: ModelShape, layout: ParallelLayout, drop: Drop | None) -> Drop | None:
        """The rule that a layout still breaks, or None."""
        for one in self.items:
            drop = one.verdict(model, layout, drop) if drop else None
        return drop

    def slices(self, stages: int) -> int:
        """The least number of pieces of a prompt in a pipeline of so many stages."""
        return max((one.slices(stages) for one in self.items), default=1)

    def grid(self, layout: ParallelLayout) -> tuple[int, int]:
        """Rows and columns that cut each weight matrix."""
        grids = (one.grid(layout) for one in self.items)
        return next((grid for grid in grids if grid is not None), (1, layout.tp))

    def operations(self, model: ModelShape, layout: ParallelLayout, operations: Operations) -> Operations:
        """The messages of one forward pass."""
        for one in self.items:
            operations = one.operations(model, layout, operations)
        return operations

    def collective_us(
        self, hardware: Hardware, operation: str, message_bytes: Floats, group: CommGroup, engine_us: Floats
    ) -> Floats:
        """Microseconds of one collective call, of the message's shape."""
        for one in self.items:
            engine_us = one.collective_us(hardware, operation, message_bytes, group, engine_us)
        return engine_us

    def attention_step(self, layout: ParallelLayout, step: StepShape) -> tuple[StepShape, int]:
        """The step that attention sees on one rank, and how often."""
        times = 1
        for one in self.items:
            step, more = one.attention_step(layout, step)
            times *= more
        return step, times

    def layer_terms(
        self, hardware: Hardware, layout: ParallelLayout, step: StepShape, terms: Terms, has_experts: bool
    ) -> Terms:
        """The terms of one layer, in ms."""
        for one in self.items:
            terms = one.layer_terms(hardware, layout, step, terms, has_experts)
        return terms

    def memory(
        self, model: ModelShape, layout: ParallelLayout, engine: Engine, estimate: MemoryEstimate
    ) -> MemoryEstimate:
        """What a rank holds."""
        for one in self.items:
            estimate = one.memory(model, layout, engine, estimate)
        return estimate


NONE = Techniques()


def parse_techniques(given: Iterable[str]) -> Techniques:
    """Read ``name`` or ``name=value`` each, such as ``nvrar`` and ``spd=0.5``.

    Raises ``BadInput`` for an unknown name, a value out of range, and a technique that is named twice.
    """
    found: dict[type[Technique], Technique] = {}
    for text in given:
        one = _parse(text)
        if type(one) in found:
            raise BadInput("--what-if", text, f"{one.name} once")
        found[type(one)] = one
    return Techniques(tuple(found[kind] for kind in TECHNIQUES if kind in found))


def _parse(text: str) -> Technique:
    name, sign, value = (part.strip() for part in text.partition("="))
    kind = next((kind for kind in TECHNIQUES if kind.name == name), None)
    if kind is None:
        raise BadInput("--what-if", text, ", ".join(kind.setting or kind.name for kind in TECHNIQUES))
    if not sign:
        if kind is GridParallel:
            raise BadInput("--what-if", text, kind.setting)
        return kind()
    made = _READERS[kind](value) if kind in _READERS else None
    if made is None:
        raise BadInput("--what-if", text, kind.setting or f"{name} without a value")
    return made


def _grid(value: str) -> Technique | None:
    rows, _, columns = value.partition("x")
    return GridParallel(int(rows), int(columns)) if _is_count(rows) and _is_count(columns) else None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 7


def _number(make: Callable[[float], Technique]) -> Callable[[str], Technique | None]:
    def read(value: str) -> Technique | None:
        try:
            return make(float(value))
        except ValueError:
            return None

    return read


_READERS: Mapping[type[Technique], Callable[[str], Technique | None]] = {
    GridParallel: _grid,
    SyncPointDrop: _number(SyncPointDrop),
    HPipe: lambda value: HPipe(int(value)) if _is_count(value) else None,
    SpeculativePlacement: _number(SpeculativePlacement),
    ExpertBuffering: _number(ExpertBuffering),
}
