"""A layout: one point of the search space, frozen, ordered, printable and parseable. Its fields declare the axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import total_ordering
from typing import Any

from tuner.ask.axes import Axis, EngineArgument, Memory, Prices, Role, always, axis_of, declared
from tuner.errors import BadInput

_ALWAYS_PRINTED = ("tp", "pp", "dp")
FRONTS = ("auto", "ray_serve", "ray_haproxy", "ray_direct", "vllm")  # auto: what the launcher has
SERVE_MODES = ("default", "grpc", "throughput")
_WITH_INGRESS = ("auto", "ray_serve", "ray_haproxy")


@total_ordering
@dataclass(frozen=True, slots=True)
class ParallelLayout:
    """How one model is spread over devices and how its engine is set.

    Degrees are counts of ranks: ``tp`` tensor, ``pp`` pipeline, ``dp`` data, ``pcp`` prefill context parallelism;
    ``dcp`` (decode context parallelism) reuses tensor-parallel ranks and adds none. ``ep`` spreads experts over the
    tp × pcp × dp ranks of a stage. ``executor`` is vLLM's distributed executor backend, ``all2all`` its expert
    dispatch, looked at where tokens travel to experts on other data- or context-parallel ranks. ``kv_cache_dtype`` is
    what keys and values are stored in: ``auto``, as the checkpoint says or in the model's own precision, or ``fp8``
    (e4m3, a byte each). ``max_num_batched_tokens`` and ``max_num_seqs`` are the scheduler's limits per step and
    replica.

    ``front`` is the path from client to engine (``FRONTS``). Of one through Ray Serve, ``stream_interval_ms`` is how
    long tokens are gathered into a message (0: each is one), ``ingress_replicas`` how many take requests for each
    engine (0: the launcher's rule), ``request_router`` how a request finds its copy of the engine, and ``serve_mode``
    how Serve's processes speak to each other: by Ray's actor calls, by gRPC, or as Serve's throughput-optimized mode
    has them. ``api_servers`` are the processes of vLLM's own server that speak HTTP. ``gpu`` names the node group where
    the cluster has several; a layout never spans two.
    """

    # fmt: off
    tp: int = field(default=1, metadata=declared(
        Role.STRUCTURE, Prices.LAYERS, Memory.SPLITS, engine=EngineArgument("tensor_parallel_size", always)))
    pp: int = field(default=1, metadata=declared(
        Role.STRUCTURE, Prices.STEPS, Memory.SPLITS, engine=EngineArgument("pipeline_parallel_size", always)))
    dp: int = field(default=1, metadata=declared(  # copies, or ranks that share experts: the launcher's matter
        Role.STRUCTURE, Prices.LAYERS, Memory.SPLITS_EXPERTS))
    ep: bool = field(default=False, metadata=declared(
        Role.STRUCTURE, Prices.LAYERS, Memory.UNORDERED, engine=EngineArgument("enable_expert_parallel")))
    dcp: int = field(default=1, metadata=declared(
        Role.STRUCTURE, Prices.LAYERS, Memory.SPLITS, engine=EngineArgument("decode_context_parallel_size")))
    pcp: int = field(default=1, metadata=declared(
        Role.STRUCTURE, Prices.LAYERS, Memory.SPLITS_EXPERTS, engine=EngineArgument("prefill_context_parallel_size")))
    executor: str = field(default="mp", metadata=declared(
        Role.ENGINE, Prices.NONE, Memory.NONE,
        words=("mp", "ray", "uni"),
        engine=EngineArgument("distributed_executor_backend", always)))
    all2all: str = field(default="allgather_reducescatter", metadata=declared(
        Role.ENGINE, Prices.STEPS, Memory.UNORDERED,
        words=("allgather_reducescatter", "deepep_high_throughput", "deepep_low_latency", "flashinfer_all2allv"),
        engine=EngineArgument("all2all_backend", lambda layout: layout.ep),
        acts=lambda layout: layout.ep and layout.dp * layout.pcp > 1))
    kv_cache_dtype: str = field(default="auto", metadata=declared(
        Role.ENGINE, Prices.LAYERS, Memory.UNORDERED,
        words=("auto", "fp8"),
        engine=EngineArgument("kv_cache_dtype"),
        cautions={"fp8": "stores its KV cache in fp8 (e4m3), so answers may differ from those of a full-width cache"}))
    max_num_batched_tokens: int = field(default=2048, metadata=declared(
        Role.SCHEDULER, Prices.STEPS, Memory.ADDS, engine=EngineArgument("max_num_batched_tokens", always)))
    max_num_seqs: int = field(default=256, metadata=declared(
        Role.SCHEDULER, Prices.NONE, Memory.ADDS, engine=EngineArgument("max_num_seqs", always)))
    front: str = field(default="auto", metadata=declared(
        Role.FRONT, Prices.NONE, Memory.NONE, words=FRONTS))
    stream_interval_ms: int = field(default=0, metadata=declared(
        Role.FRONT, Prices.NONE, Memory.NONE, least=0, acts=lambda layout: layout.front in _WITH_INGRESS))
    ingress_replicas: int = field(default=0, metadata=declared(
        Role.FRONT, Prices.NONE, Memory.NONE, least=0, acts=lambda layout: layout.front in _WITH_INGRESS))
    api_servers: int = field(default=1, metadata=declared(
        Role.FRONT, Prices.NONE, Memory.NONE, acts=lambda layout: layout.front == "vllm"))
    request_router: str = field(default="power_of_two", metadata=declared(
        Role.FRONT, Prices.NONE, Memory.NONE,
        words=("power_of_two", "prefix_aware", "round_robin"),
        acts=lambda layout: layout.front != "vllm" and layout.dp > 1 and not layout.shares_experts))
    serve_mode: str = field(default="default", metadata=declared(
        Role.FRONT, Prices.NONE, Memory.NONE, words=SERVE_MODES, acts=lambda layout: layout.front in _WITH_INGRESS))
    gpu: str | None = field(default=None, metadata=declared(Role.PLACE, Prices.LAYERS, Memory.UNORDERED))
    # fmt: on

    def __post_init__(self) -> None:
        for name, axis in AXES.items():
            if not axis.has(value := getattr(self, name)):
                raise BadInput(f"layout.{name}", value, axis.allowed)

    @property
    def devices_per_replica(self) -> int:
        """Devices of one engine: tp × pcp × pp."""
        return self.tp * self.pcp * self.pp

    @property
    def devices(self) -> int:
        """Devices of the whole deployment: tp × pcp × pp × dp."""
        return self.devices_per_replica * self.dp

    @property
    def shares_experts(self) -> bool:
        """True where the replicas are ranks of one engine group, with experts spread over all of them."""
        return self.ep and self.dp > 1

    @property
    def shape(self) -> ParallelLayout:
        """The degrees of parallelism and the node group alone: every other axis at its default."""
        return ParallelLayout(**{name: getattr(self, name) for name in _SHAPE})

    @property
    def served(self) -> ParallelLayout:
        """What decides how requests are served: axes that move neither prices nor memory are at their defaults, but
        those of the path to the engines stay."""
        return self.without(_UNSEEN)

    @property
    def engine(self) -> ParallelLayout:
        """The engines alone: every axis of the path to them is at its default."""
        return self.without(FRONT_AXES)

    @property
    def canonical(self) -> ParallelLayout:
        """The same deployment written one way: an axis that is not looked at has its default."""
        unused = [name for name, acts in _CONDITIONAL if not acts(self) and getattr(self, name) != AXES[name].default]
        return self.without(unused) if unused else self

    @property
    def cautions(self) -> tuple[str, ...]:
        """Why its answers may differ from those of the model as it was published: one predicate per such setting."""
        found = (axis.cautions.get(getattr(self, axis.name)) for axis in AXES.values() if axis.cautions)
        return tuple(text for text in found if text)

    def without(self, axes: Iterable[str]) -> ParallelLayout:
        """The layout with these axes at their defaults."""
        return replace(self, **{name: AXES[name].default for name in axes})

    def as_dict(self) -> dict[str, Any]:
        """Every axis by name, in declaration order."""
        return {name: getattr(self, name) for name in AXES}

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, ParallelLayout):
            return NotImplemented
        return self._order < other._order

    @property
    def _order(self) -> tuple[Any, ...]:
        return (self.devices, *("" if value is None else value for value in self.as_dict().values()))

    def __str__(self) -> str:
        """``tp=4,pp=2,dp=1`` and, after it, every other axis that is not at its default."""
        shown = [axis for n, axis in AXES.items() if n in _ALWAYS_PRINTED or getattr(self, n) != axis.default]
        return ",".join(f"{axis.name}={axis.shown(getattr(self, axis.name))}" for axis in shown)

    @classmethod
    def parse(cls, text: str) -> ParallelLayout:
        """Read what ``str`` printed; axes in any order, those left out at their defaults.

        Raises BadInput for an axis that does not exist, stands twice, or has a value of the wrong kind.
        """
        values: dict[str, Any] = {}
        for part in text.split(","):
            name, sign, word = (piece.strip() for piece in part.partition("="))
            if not sign or name not in AXES:
                raise BadInput("layout", part, "axis=value with an axis of " + ", ".join(AXES))
            if name in values:
                raise BadInput(f"layout.{name}", text, "each axis once")
            values[name] = AXES[name].read(word)
        return cls(**values)


AXES: Mapping[str, Axis] = {f.name: axis_of(f) for f in fields(ParallelLayout)}
SPACE_AXES = tuple(name for name, axis in AXES.items() if axis.role is not Role.PLACE)  # those that a space may name
_SHAPE = tuple(name for name, axis in AXES.items() if axis.role in (Role.STRUCTURE, Role.PLACE))
FRONT_AXES = tuple(name for name, axis in AXES.items() if axis.role is Role.FRONT)
IDLE_AXES = tuple(name for name, axis in AXES.items() if axis.prices is Prices.NONE and axis.memory is Memory.NONE)
_UNSEEN = tuple(name for name in IDLE_AXES if name not in FRONT_AXES)
_CONDITIONAL = tuple((name, axis.acts) for name, axis in AXES.items() if axis.acts is not None)
