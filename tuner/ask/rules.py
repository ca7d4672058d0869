"""Which layouts the engine accepts for a model, and which the cluster can place: vLLM's own rules.

Each rule gives the reason and the figure that break it. Sources: vLLM 0.29 ``ModelConfig.verify_with_parallel_config``
(heads, context parallelism), ``QKVParallelLinear`` (KV heads), ``get_pp_indices`` (layers), ``divide`` in the sharded
linear layers (MLP width; groups of quantised weights: ``tuner.ask.shard_rules``), ``ParallelConfig`` (executors) and
the attention backends (precision of the KV cache). What changed since 0.26 is a rule that knows the release.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tuner.ask.cluster import Cluster
from tuner.ask.engine_version import NEWEST, EngineVersion
from tuner.ask.kernel_rules import without_kernel
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Mixer
from tuner.ask.models.compressed import CompressedAttention
from tuner.ask.models.latent import LatentAttention
from tuner.ask.models.matrices import Layer
from tuner.ask.packing import footprint, unplaceable
from tuner.ask.request import TuneRequest
from tuner.ask.shard_rules import straddling

_FP8_CACHE_HEADS = (64, 128, 256, 512)  # head sizes of FlashInfer
_FP8_CACHE_CAPABILITY = 8.9  # from which Triton's attention, which takes every head size, reads fp8
_SPARSE_CAPABILITIES = (9, 10, 12)
_SINKS = ("GptOssForCausalLM",)  # models whose attention has sinks
_PCP_BY_ITSELF_SINCE = EngineVersion(0, 27)
_RUNNER_V2 = ("DeepseekV2ForCausalLM",)  # models with latent attention that vLLM 0.26 runs by its second model runner


class DropReason(StrEnum):
    """Why a candidate was dropped before launch."""

    HEADS = "attention_heads"
    KV_HEADS = "kv_heads"
    LAYERS = "layers"
    MLP_WIDTH = "mlp_width"
    EXPERTS = "experts"
    CONTEXT_PARALLEL = "context_parallel"
    EXECUTOR = "executor"
    FRONT = "front"
    SCHEDULER = "scheduler"
    KV_CACHE = "kv_cache"
    WEIGHT_FORMAT = "weight_format"
    PLACEMENT = "placement"
    MEMORY = "memory"
    SLO_TTFT = "slo_ttft"
    SLO_TPOT = "slo_tpot"
    SLO_E2E = "slo_e2e"
    OTHER_FRONT = "other_front"
    OUTRANKED = "outranked"
    LAUNCHER = "launcher"


@dataclass(frozen=True, slots=True)
class Drop:
    """A verdict against a candidate: the reason and, in ``figure``, the numbers behind it."""

    reason: DropReason
    figure: str


EngineRule = Callable[[ModelShape, ParallelLayout], Drop | None]
ReleaseRule = Callable[[ModelShape, ParallelLayout, EngineVersion], Drop | None]
ClusterRule = Callable[[ParallelLayout, Cluster], Drop | None]
DeviceRule = Callable[[ModelShape, ParallelLayout, Cluster], Drop | None]


def engine_refuses(model: ModelShape, layout: ParallelLayout, version: EngineVersion = NEWEST) -> Drop | None:
    """The first rule of the engine that the layout breaks, whatever the cluster; or None."""
    always = next((drop for rule in _ENGINE_RULES if (drop := rule(model, layout)) is not None), None)
    by_release = (rule(model, layout, version) for rule in _RELEASE_RULES)
    return always or next((drop for drop in by_release if drop is not None), None)


def illegal(model: ModelShape, layout: ParallelLayout, cluster: Cluster) -> Drop | None:
    """The first rule that the layout breaks, or None."""
    placed = (rule(layout, cluster) for rule in _CLUSTER_RULES)
    run = (rule(model, layout, cluster) for rule in _DEVICE_RULES)
    refused = next((drop for drop in placed if drop is not None), None) or engine_refuses(model, layout, cluster.vllm)
    return refused or next((drop for drop in run if drop is not None), None)


def unchunked(request: TuneRequest, max_num_batched_tokens: int) -> str | None:
    """Why a limit of tokens per step does not do for prompts that are not cut, in words; None where it does
    (``SchedulerConfig.verify_max_model_len``)."""
    if request.engine.enable_chunked_prefill is not False or max_num_batched_tokens >= request.max_model_len:
        return None
    needs = f"enable_chunked_prefill: false needs max_num_batched_tokens of {request.max_model_len} tokens"
    return f"{needs}, the longest sequence; not {max_num_batched_tokens}"


def _placement(layout: ParallelLayout, cluster: Cluster) -> Drop | None:
    if layout.gpu not in (None, cluster.gpu, cluster.profile.name):
        return Drop(DropReason.PLACEMENT, f"gpu={layout.gpu}, the nodes have {cluster.gpu or cluster.profile.name}")
    figure = unplaceable(layout, cluster)
    return None if figure is None else Drop(DropReason.PLACEMENT, figure)


def _heads(model: ModelShape, layout: ParallelLayout) -> Drop | None:
    """Every kind of mixer has its own rule; heads of attention come before KV heads."""
    for mixer in model.mixers:
        if figure := mixer.refuses(layout.tp):
            of_keys = isinstance(mixer, Attention) and mixer.heads % layout.tp == 0
            return Drop(DropReason.KV_HEADS if of_keys else DropReason.HEADS, figure)
    return None


def _layers(model: ModelShape, layout: ParallelLayout) -> Drop | None:
    if layout.pp > model.layers:
        return Drop(DropReason.LAYERS, f"pp={layout.pp} stages, {model.layers} layers")
    if layout.pp > 1 and not model.pipeline_tensors:
        return Drop(DropReason.LAYERS, f"pp={layout.pp}: the engine's class of {model.architecture} has no stages")
    return None


def _mlp_width(model: ModelShape, layout: ParallelLayout) -> Drop | None:
    widths = {block.mlp.inter for block in model.kinds if block.mlp is not None and not block.mlp.whole}
    if model.experts is not None:
        widths |= {model.experts.shared_inter} | (set() if layout.ep else {model.experts.inter})
    for width in sorted(widths):
        if width % layout.tp:
            return Drop(DropReason.MLP_WIDTH, f"MLP width {width} does not divide by tp={layout.tp}")
    if model.padded_vocab % layout.tp:
        return Drop(DropReason.MLP_WIDTH, f"{model.padded_vocab} vocabulary rows do not divide by tp={layout.tp}")
    return None


def _weight_groups(model: ModelShape, layout: ParallelLayout, version: EngineVersion) -> Drop | None:
    found = straddling(model, layout.tp, layout.ep, version)
    if found is None:
        return None
    reason = DropReason.HEADS if found.layer is Layer.ATTENTION else DropReason.MLP_WIDTH
    return Drop(reason, found.figure)


def _expert_parallel(model: ModelShape, layout: ParallelLayout) -> Drop | None:
    if not layout.ep:
        return None
    if model.experts is None:
        return Drop(DropReason.EXPERTS, "expert parallelism for a model without experts")
    ranks = layout.tp * layout.pcp * layout.dp
    if ranks > model.experts.count:
        return Drop(DropReason.EXPERTS, f"{ranks} expert-parallel ranks, {model.experts.count} experts")
    return None


def _context_parallel(model: ModelShape, layout: ParallelLayout) -> Drop | None:
    t, d, c = layout.tp, layout.dcp, layout.pcp
    reason = DropReason.CONTEXT_PARALLEL
    if c > 1 and not model.caches_latent:
        return Drop(reason, f"pcp={c} needs latent attention (MLA)")
    if c > 1 and (model.windowed or model.recurrent):
        return Drop(reason, f"pcp={c} with layers that keep a window or a state: the engine divides full caches alone")
    if d > 1 and model.windowed:
        return Drop(reason, f"dcp={d} with layers that keep a window: the engine divides full caches alone")
    if c > 1 and d not in (1, c, t * c):
        return Drop(reason, f"dcp={d} with pcp={c}, tp={t}: allowed are 1, {c} and {t * c}")
    if d == 1 or c > 1:
        return None
    if t % d:
        return Drop(reason, f"tp={t} does not divide by dcp={d}")
    if model.caches_latent:
        return None
    if not model.attends:
        return Drop(reason, f"dcp={d} for a model without attention")
    if t <= model.kv_heads or d > t // model.kv_heads:
        return Drop(reason, f"dcp={d} needs tp of at least {d} × {model.kv_heads} KV heads, tp={t}")
    if (model.heads // model.kv_heads) % d:
        return Drop(reason, f"{model.heads // model.kv_heads} query heads per KV head do not divide by dcp={d}")
    return None


def _runner(model: ModelShape, layout: ParallelLayout, version: EngineVersion) -> Drop | None:
    """Prefill context parallelism runs on vLLM's second model runner alone; releases before 0.27 do not choose that for
    its sake (``VllmConfig.use_v2_model_runner``)."""
    if layout.pcp == 1 or version >= _PCP_BY_ITSELF_SINCE or model.architecture in _RUNNER_V2:
        return None
    figure = f"pcp={layout.pcp} needs vLLM {_PCP_BY_ITSELF_SINCE} for {model.architecture}, the engines run {version}"
    return Drop(DropReason.CONTEXT_PARALLEL, figure)


def _executor(layout: ParallelLayout, cluster: Cluster) -> Drop | None:
    ranks = layout.devices_per_replica
    if layout.executor == "uni" and ranks > 1:
        return Drop(DropReason.EXECUTOR, f"executor uni runs 1 rank, the replica has {ranks}")
    if layout.executor == "mp" and not footprint(layout, cluster.gpus_per_node).on_one_node:
        return Drop(DropReason.EXECUTOR, f"executor mp stays in a node of {cluster.gpus_per_node}, needs {ranks}")
    grouped = layout.shares_experts and layout.front != "vllm"  # by Ray Serve LLM, on Ray's executor
    if layout.executor != "ray" and grouped:
        figure = f"executor {layout.executor} does not share experts over dp={layout.dp} replicas"
        return Drop(DropReason.EXECUTOR, figure)
    return None


def _front(layout: ParallelLayout, cluster: Cluster) -> Drop | None:
    """Ray Serve LLM runs engines by executor mp or ray; vLLM's own server is a process of one node, without a Ray. What
    a front needs of a release of Ray is asked of the launcher, which knows it (``serve.launch.fronts``)."""
    if layout.front == "vllm":
        if layout.executor == "ray":
            return Drop(DropReason.FRONT, "front vllm starts no Ray: executor mp or uni")
        if layout.devices > cluster.gpus_per_node:
            figure = f"front vllm is a server of one node of {cluster.gpus_per_node}, needs {layout.devices}"
            return Drop(DropReason.FRONT, figure)
    elif layout.front != "auto" and layout.executor == "uni":
        return Drop(DropReason.FRONT, f"front {layout.front} runs executor mp or ray, not uni")
    return None


def _scheduler(model: ModelShape, layout: ParallelLayout) -> Drop | None:
    if layout.max_num_batched_tokens < layout.max_num_seqs:
        figure = f"max_num_batched_tokens={layout.max_num_batched_tokens} below max_num_seqs={layout.max_num_seqs}"
        return Drop(DropReason.SCHEDULER, figure)
    return None


def _kv_cache(model: ModelShape, layout: ParallelLayout, cluster: Cluster) -> Drop | None:
    """Is there an attention kernel of the device for a cache in fp8?

    On GPUs (``vllm/v1/attention/backends``): before compute capability 8.9 FlashAttention (``fa_utils.py``), Triton
    (``triton_attn.py``) and Triton's latent attention (``mla/triton_mla.py``) refuse it, and FlashInfer
    (``flashinfer.py``) reads it for some head sizes, without sinks. On CPUs ``cpu_attn.py`` reads it with AVX-512 or
    AMX, which the profile of CPUs supposes, for heads of multiples of 32; latent attention (``mla/cpu_mla.py``,
    ``mla/amx_mla.py``) does not.
    """
    by_checkpoint = layout.kv_cache_dtype == "auto"
    if not model.attends:  # states have a precision of their own
        return None
    if by_checkpoint and model.kv_cache != "fp8":
        return None
    profile, asked = cluster.profile, f"kv_cache_dtype={layout.kv_cache_dtype}"
    asked += ", fp8 as the checkpoint says," if by_checkpoint else ""
    if (multiple := profile.kind.fp8_cache_head_multiple) is not None:
        where = f"on a {profile.kind.name.upper()}"
        if model.caches_latent:
            return Drop(DropReason.KV_CACHE, f"{asked} with latent attention (MLA) {where}")
        if model.head_dim % multiple:
            needs = f"{asked} {where} needs heads of multiples of {multiple}"
            return Drop(DropReason.KV_CACHE, f"{needs}, not {model.head_dim}")
        return None
    if profile.compute_capability is None or profile.compute_capability >= _FP8_CACHE_CAPABILITY:
        return None
    needs = f"{asked} needs compute capability {_FP8_CACHE_CAPABILITY}, {profile.name} has {profile.compute_capability}"
    if model.caches_latent:
        return Drop(DropReason.KV_CACHE, f"{needs}, for latent attention (MLA)")
    if model.architecture in _SINKS:
        return Drop(DropReason.KV_CACHE, f"{needs}, for attention with sinks")
    if model.head_dim not in _FP8_CACHE_HEADS:
        return Drop(DropReason.KV_CACHE, f"{needs}, for heads of {model.head_dim}")
    return None


def _sparse_attention(model: ModelShape, layout: ParallelLayout, cluster: Cluster) -> Drop | None:
    """Kernels over chosen or compressed latent vectors are for some generations of GPUs alone (``*sparse*.py`` of
    ``v1/attention/backends/mla`` and ``models/deepseek_v4``); FlashInfer's and FlashMLA's together know these."""
    profile = cluster.profile
    sparse = next((part.kind for one in model.mixers for part in one.parts if _chooses(part)), None)
    if sparse is None:
        return None
    if not profile.kind.own_memory:
        return Drop(DropReason.KV_CACHE, f"no kernel for {sparse} on a {profile.kind.name.upper()}")
    capability = profile.compute_capability
    if capability is None or int(capability) in _SPARSE_CAPABILITIES:
        return None
    generations = ", ".join(f"{major}.x" for major in _SPARSE_CAPABILITIES)
    figure = f"{sparse} needs compute capability {generations}; {profile.name} has {capability}"
    return Drop(DropReason.KV_CACHE, figure)


def _chooses(mixer: Mixer) -> bool:
    if isinstance(mixer, LatentAttention):
        return mixer.indexer is not None
    return isinstance(mixer, CompressedAttention)


def _weight_format(model: ModelShape, layout: ParallelLayout, cluster: Cluster) -> Drop | None:
    figure = without_kernel(model, layout.tp, layout.ep, cluster.profile)
    return None if figure is None else Drop(DropReason.WEIGHT_FORMAT, figure)


_DEVICE_RULES: tuple[DeviceRule, ...] = (_sparse_attention, _kv_cache, _weight_format)
_CLUSTER_RULES: tuple[ClusterRule, ...] = (_placement, _executor, _front)
_ENGINE_RULES: tuple[EngineRule, ...] = (
    _heads,
    _layers,
    _mlp_width,
    _expert_parallel,
    _context_parallel,
    _scheduler,
)
_RELEASE_RULES: tuple[ReleaseRule, ...] = (_weight_groups, _runner)
