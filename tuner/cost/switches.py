"""Settings of the engine that change what a step costs or a device holds, whoever sets them: a run, or a layout."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from tuner.ask.engine_settings import Engine
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.model import ModelShape


@dataclass(frozen=True, slots=True)
class EngineSwitches:
    """Settings of the engine that change the price of a step.

    ``custom_allreduce`` off (``--disable-custom-all-reduce``) leaves every all-reduce to NCCL; ``cuda_graphs`` off
    (``--enforce-eager``) has the host launch every kernel of decode steps too, ``full_graphs`` off (cudagraph mode
    PIECEWISE) each layer's attention; steps with prefill replay graphs up to ``graph_tokens`` (largest capture size).
    ``custom_ops`` (``+rms_norm`` and the like) keeps small kernels apart that compilation would fuse: twice as many are
    launched. ``asynchronous`` off schedules a step only when the one before it is done. ``kv_cache_dtype`` is named as
    vLLM does; ``fused_allreduce`` (pass ``fuse_allreduce_rms``) merges all-reduces with the norms after them. Decode
    steps of more than ``largest_graph`` sequences are launched kernel by kernel, too (None: every batch has its graph).
    """

    custom_allreduce: bool = True
    cuda_graphs: bool = True
    kv_cache_dtype: str = "auto"
    fused_allreduce: bool = False
    full_graphs: bool = True
    graph_tokens: int = 512
    custom_ops: bool = False
    asynchronous: bool = True
    largest_graph: int | None = None

    @classmethod
    def asked(cls, engine: Engine) -> EngineSwitches:
        """Those that a request's section ``engine`` sets, ``extra_args`` included.

        An engine without compilation (``enforce_eager``, mode NONE, ``-O0``) captures no graphs and fuses nothing.
        """
        compiled: dict[str, Any] = engine.extra_args.get("compilation_config", {})
        graphs = str(compiled.get("cudagraph_mode", "")).upper()
        eager = engine.enforce_eager or compiled.get("mode") in (0, "NONE", "none")
        eager = eager or engine.extra_args.get("optimization_level") == 0
        largest = _largest_graph(engine)
        plain = cls()
        return cls(
            custom_allreduce=not engine.disable_custom_all_reduce,
            cuda_graphs=not (eager or graphs == "NONE"),
            fused_allreduce=bool(compiled.get("pass_config", {}).get("fuse_allreduce_rms", plain.fused_allreduce)),
            full_graphs=graphs != "PIECEWISE",
            graph_tokens=_mixed_graph(graphs, plain.graph_tokens if largest is None else largest),
            custom_ops=eager,
            asynchronous=engine.async_scheduling is not False,
            largest_graph=largest,
        )

    def on(self, layout: ParallelLayout, model: ModelShape) -> EngineSwitches:
        """The switches of one layout of a model: an axis of a switch's name sets it, where it is not at its default. A
        KV cache that nobody sets is stored as the checkpoint says, or in what the model computes in."""
        own = {name: value for name in _SET_BY_AXES if (value := getattr(layout, name)) != AXES[name].default}
        if own.get("kv_cache_dtype", self.kv_cache_dtype) == "auto":
            own["kv_cache_dtype"] = model.cached_dtype
        return replace(self, **own)

    @property
    def fp8_cache(self) -> bool:
        """True where the KV cache is stored in a byte per element."""
        return self.kv_cache_dtype.startswith("fp8")

    @property
    def kv_element_bytes(self) -> float:
        """Bytes of one element of the KV cache."""
        return 1.0 if self.fp8_cache else 4.0 if self.kv_cache_dtype == "fp32" else 2.0


def _largest_graph(engine: Engine) -> int | None:
    """Tokens of the largest graph that is captured, where the request says it."""
    sizes = engine.cudagraph_capture_sizes
    return max(sizes) if sizes else engine.max_cudagraph_capture_size


def _mixed_graph(mode: str, largest: int) -> int:
    """Tokens of the largest graph that steps with prefill replay: none where decode steps alone have graphs."""
    return 0 if mode == "FULL_DECODE_ONLY" else largest


AS_SHIPPED = EngineSwitches()
_SET_BY_AXES = tuple(f.name for f in fields(EngineSwitches) if f.name in AXES)
