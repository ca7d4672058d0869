"""A layout: one point of the search space, frozen, ordered, printable and parseable."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import total_ordering
from typing import Any

from tuner.errors import BadInput

EXECUTORS = ("mp", "ray", "uni")
ALL2ALL_BACKENDS = (
    "allgather_reducescatter",
    "deepep_high_throughput",
    "deepep_low_latency",
    "flashinfer_all2allv",
)
_GPU_NAME = re.compile(r"[A-Za-z0-9._/-]+")
_ALWAYS_PRINTED = ("tp", "pp", "dp")


@total_ordering
@dataclass(frozen=True, slots=True)
class ParallelLayout:
    """How one model is spread over devices and how its engine is set.

    Degrees are counts of ranks: ``tp`` tensor, ``pp`` pipeline, ``dp`` data, ``pcp`` prefill context parallelism;
    ``dcp`` (decode context parallelism) reuses tensor-parallel ranks and adds none. ``ep`` spreads experts over the
    tp × pcp × dp ranks of a stage. ``executor`` is vLLM's distributed executor backend, ``all2all`` its expert
    dispatch; ``max_num_batched_tokens`` and ``max_num_seqs`` are the scheduler's limits per step and replica.
    ``gpu`` names the node group where the cluster has several; a layout never spans two.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: bool = False
    dcp: int = 1
    pcp: int = 1
    executor: str = "mp"
    all2all: str = "allgather_reducescatter"
    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    gpu: str | None = None

    def __post_init__(self) -> None:
        for name in ("tp", "pp", "dp", "dcp", "pcp", "max_num_batched_tokens", "max_num_seqs"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BadInput(f"layout.{name}", value, "a whole number of at least 1")
        if not isinstance(self.ep, bool):
            raise BadInput("layout.ep", self.ep, "true or false")
        if self.executor not in EXECUTORS:
            raise BadInput("layout.executor", self.executor, ", ".join(EXECUTORS))
        if self.all2all not in ALL2ALL_BACKENDS:
            raise BadInput("layout.all2all", self.all2all, ", ".join(ALL2ALL_BACKENDS))
        if self.gpu is not None and not _GPU_NAME.fullmatch(self.gpu):
            raise BadInput("layout.gpu", self.gpu, "a profile's name or path of letters, digits and . _ - /")

    @property
    def devices_per_replica(self) -> int:
        """Devices of one engine: tp × pcp × pp."""
        return self.tp * self.pcp * self.pp

    @property
    def devices(self) -> int:
        """Devices of the whole deployment: tp × pcp × pp × dp."""
        return self.devices_per_replica * self.dp

    @property
    def shape(self) -> tuple[int, int, int, bool, int, int, str]:
        """The degrees of parallelism and the node group alone, without executor and scheduler knobs."""
        return (self.tp, self.pp, self.dp, self.ep, self.dcp, self.pcp, self.gpu or "")

    def as_dict(self) -> dict[str, Any]:
        """Every axis by name, in declaration order."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, ParallelLayout):
            return NotImplemented
        return self._order < other._order

    @property
    def _order(self) -> tuple[Any, ...]:
        return (self.devices, *(value or "" if name == "gpu" else value for name, value in self.as_dict().items()))

    def __str__(self) -> str:
        """``tp=4,pp=2,dp=1`` and, after it, every other axis that is not at its default."""
        shown = [f for f in fields(self) if f.name in _ALWAYS_PRINTED or getattr(self, f.name) != f.default]
        return ",".join(f"{f.name}={_printed(getattr(self, f.name))}" for f in shown)

    @classmethod
    def parse(cls, text: str) -> ParallelLayout:
        """Read what ``str`` printed; axes in any order, those left out at their defaults.

        Raises BadInput for an axis that does not exist, stands twice, or has a value of the wrong kind.
        """
        kinds = {f.name: str if f.default is None else type(f.default) for f in fields(cls)}
        values: dict[str, Any] = {}
        for part in text.split(","):
            name, sign, word = (piece.strip() for piece in part.partition("="))
            if not sign or name not in kinds:
                raise BadInput("layout", part, "axis=value with an axis of " + ", ".join(kinds))
            if name in values:
                raise BadInput(f"layout.{name}", text, "each axis once")
            values[name] = _read(name, word, kinds[name])
        return cls(**values)


def _printed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(name: str, word: str, kind: type) -> object:
    if kind is bool:
        if word not in ("true", "false"):
            raise BadInput(f"layout.{name}", word, "true or false")
        return word == "true"
    if kind is int:
        if not (word.isascii() and word.isdigit()):
            raise BadInput(f"layout.{name}", word, "a whole number of at least 1")
        return int(word)
    return word
