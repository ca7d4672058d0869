"""Measured closed-loop runs of vLLM: one table row as a model, a layout, a load and an engine's settings.

Columns are those of the AIConfigurator project's collection of public runs, most of them by the InferenceX benchmark:
``model_path``, ``system``, ``gemm_quant_mode``, ``prompt_tokens``, ``output_tokens``, ``concurrency``, ``tp_size``; and
where they differ from 1, ``pp_size``, ``attention_dp_size``, ``moe_tp_size`` and ``moe_ep_size``; ``backend_version``
and ``id``. What a table leaves out of an engine's settings follows the launch scripts of the benchmark
(``benchmarks/single_node`` of SemiAnalysisAI/InferenceX); columns of the names in ``SETTINGS`` overrule them.
Rows with an empty ``attention_dp_size`` are the AIConfigurator project's own runs: another client, other lengths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from tuner.ask.cluster import Cluster
from tuner.ask.formats.weights import USUAL, Storage
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape, known_models, load_model
from tuner.ask.profile import LAUNCH_US, HardwareProfile, load_profile
from tuner.cost.latency import EngineSwitches
from tuner.errors import BadInput
from tuner.validate.points import Points

SETTINGS = ("kv_cache_dtype", "max_num_batched_tokens", "gpu_memory_utilization", "enforce_eager")
OLDEST_RELEASE = "0.11"  # of the runs; what a row without a version is priced as
NIGHTLY_RELEASE = "0.18"  # of the runs named by a nightly build
SEQUENCES = 256  # at least; the scripts allow as many as there are users
BATCHED_TOKENS = 8192  # vLLM's default on the GPUs of the runs
SHORTEST_SHARE = 0.8  # of the nominal length: InferenceX draws prompts and outputs evenly from there to all of it
OWN_SHORTEST_SHARE = 0.97  # the project's own client keeps lengths: TTFT shows users nearly in step
REPEATED_PROMPTS = 100  # distinct prompts of that client unless told otherwise (AIPerf's --num-dataset-entries)
_NODE_GPUS = 8
_SYSTEMS = {"gb200_sxm": "gb200", "gb300_sxm": "gb300"}  # their names in some releases of the collection
_VARIANTS = re.compile(r"-(instruct|hf|chat|fp8|fp4|nvfp4|kv|\d{4})$")
_DTYPES = {
    "": "bf16", "bfloat16": "bf16", "float16": "bf16", "fp8_static": "fp8", "int4_wo": "int4", "w4afp8": "int4",
    "int8_wo": "int8", "sq": "int8", "w4a16_mxfp4": "mxfp4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One run: ``users`` each send their next prompt when the last is answered; lengths are nominal, in tokens.

    Lengths are drawn from ``shortest_share`` of the nominal ones up to them; of ``distinct_prompts`` (None: all), what
    was computed before is found in the prefix cache.
    """

    model: ModelShape
    cluster: Cluster
    layout: ParallelLayout
    switches: EngineSwitches
    vllm_version: str
    prompt_tokens: int
    output_tokens: int
    users: int
    gpu_memory_utilization: float
    shortest_share: float = SHORTEST_SHARE
    distinct_prompts: int | None = None


def run_of(points: Points, row: int) -> Run:
    """The run of one row; raises BadInput for a model, device or precision that cannot be priced."""
    fields = {name: column[row] for name, column in points.columns.items()}
    profile = _on_their_host(load_profile(_SYSTEMS.get(fields["system"], fields["system"])))
    blackwell = profile.arch == "blackwell"
    model = at_precision(_model(fields["model_path"]), fields.get("gemm_quant_mode", ""), blackwell)
    release = _release(fields.get("backend_version", ""))
    layout, gpus, users = _layout(fields, model)
    prompt_tokens = _count(fields, "prompt_tokens")
    script = _scripted(model, profile.name, release, prompt_tokens)
    switches = replace(
        script.switches,
        kv_cache_dtype=fields.get("kv_cache_dtype") or script.switches.kv_cache_dtype,
        asynchronous=_asynchronous(model, release),
        cuda_graphs=script.switches.cuda_graphs and fields.get("enforce_eager", "") not in ("1", "true", "True"),
    )
    batched = _count(fields, "max_num_batched_tokens", script.batched_tokens or BATCHED_TOKENS)
    own = fields.get("attention_dp_size", "1") == ""
    return Run(
        model=model,
        cluster=Cluster(profile, -(-gpus // _NODE_GPUS), min(gpus, _NODE_GPUS), profile.fabric),
        layout=replace(layout, max_num_batched_tokens=batched),
        switches=switches,
        vllm_version=release,
        prompt_tokens=prompt_tokens,
        output_tokens=_count(fields, "output_tokens"),
        users=users,
        gpu_memory_utilization=float(fields.get("gpu_memory_utilization") or 0.9),
        shortest_share=OWN_SHORTEST_SHARE if own else SHORTEST_SHARE,
        distinct_prompts=REPEATED_PROMPTS if own and _cached(model) else None,
    )


@lru_cache(maxsize=64)
def _on_their_host(profile: HardwareProfile) -> HardwareProfile:
    """The device in a host of the benchmark's, whatever host it was measured in elsewhere."""
    return replace(profile, engine=replace(profile.engine, launch_us=LAUNCH_US))


def _cached(model: ModelShape) -> bool:
    """Did prompts that came again find themselves in the prefix cache? An assumption made from the measurements, no
    script says so: of the project's own runs, those of Llama-3.1-8B serve prompts at up to three quarters of the GPU's
    fp8 peak, on whatever GPU it is taken to be so; the others show no reuse. Told in docs/model.md beside the score."""
    return "Llama-3.1-8B" in model.name


def _layout(fields: dict[str, str], model: ModelShape) -> tuple[ParallelLayout, int, int]:
    """(layout, its GPUs, users of the whole deployment).

    With attention data parallelism ``concurrency`` counts a rank's share of the users and ``tp_size`` all GPUs. The
    scripts of Kimi-K2.5 never switch it on: its rows that name it repeat measurements that others list without.
    Rows of Qwen3-235B run on ``moe_tp_size`` x ``moe_ep_size`` GPUs.
    """
    gpus, pp = _count(fields, "tp_size"), _count(fields, "pp_size", 1)
    dp, moe_tp, moe_ep = (_count(fields, name, 1) for name in ("attention_dp_size", "moe_tp_size", "moe_ep_size"))
    users = _count(fields, "concurrency") * dp
    if model.experts and fields.get("attention_dp_size", "1") == "":
        gpus = max(gpus, moe_tp * moe_ep)
    if "Kimi" in model.name or gpus % dp:
        dp = 1
    ep = bool(model.experts) and moe_ep > 1
    layout = ParallelLayout(tp=gpus // dp, pp=pp, dp=dp, ep=ep, max_num_seqs=max(SEQUENCES, users))
    return layout, gpus * pp, users


@dataclass(frozen=True, slots=True)
class _Script:
    """What a launch script sets: switches, and tokens per step (None: vLLM's default)."""

    switches: EngineSwitches
    batched_tokens: int | None = None


def _scripted(model: ModelShape, gpu: str, release: str, prompt_tokens: int) -> _Script:
    """Settings of the benchmark's launch scripts for a model, by GPU and release."""
    name, plain = model.name, EngineSwitches()
    blackwell = load_profile(gpu).arch == "blackwell"
    if "gpt-oss" in name:
        cache = "fp8" if blackwell else "auto"
        return _Script(replace(plain, kv_cache_dtype=cache, fused_allreduce=blackwell, graph_tokens=2048))
    if "-70B" in name and blackwell and model.attention_dtype != "bf16":  # graphs for decode steps alone
        return _Script(replace(plain, kv_cache_dtype="fp8", fused_allreduce=True, graph_tokens=0, custom_ops=True))
    if "MiniMax" in name:
        if not blackwell:
            return _Script(replace(plain, full_graphs=False))
        if _number(release) >= (0, 19) or gpu == "b300_sxm":
            return _Script(replace(plain, kv_cache_dtype="fp8", graph_tokens=2048), 2 * prompt_tokens)
        return _Script(replace(plain, fused_allreduce=model.expert_dtype == "nvfp4"))
    if "Kimi" in name:  # the nvfp4 checkpoint names an fp8 cache, which the engine follows
        cache = "fp8" if model.expert_dtype == "nvfp4" else "auto"
        return _Script(replace(plain, fused_allreduce=True, kv_cache_dtype=cache))
    if "Qwen3-235B" in name:  # 34 to 59 ms per token whatever the batch: the host launches every kernel
        return _Script(replace(plain, cuda_graphs=False))
    return _Script(plain)


def _asynchronous(model: ModelShape, release: str) -> bool:
    """Does the engine compose a step while the one before it runs? The default since vLLM 0.14; before, the benchmark's
    scripts ask for it, those of other runs (Qwen3, Llama-3.1-8B) do not."""
    return _number(release) >= (0, 14) or any(name in model.name for name in ("-70B", "gpt-oss"))


def at_precision(model: ModelShape, mode: str, blackwell: bool) -> ModelShape:
    """The model as quantised for a run: ``mode`` names the precision of its matrix products, empty for bf16.

    Checkpoints of mixture-of-experts models quantise the experts alone to 4 bits; models that are published in a
    precision of that width keep their own kind of it (block-scaled fp8, mxfp4).
    """
    dtype = _DTYPES.get(mode, mode)
    if model.experts is None or dtype == "bf16":
        return _stored(model, dtype, dtype)
    if model.expert_dtype == "mxfp4":  # Blackwell's kernels quantise the activations as well; elsewhere Marlin's ran
        return _stored(model, None, "mxfp4_fp8" if blackwell else "int4")
    if dtype in ("nvfp4", "int4", "mxfp4"):
        return _stored(model, "bf16", dtype)
    if dtype == "fp8" and model.expert_dtype == "fp8_block":
        return model
    return _stored(model, dtype, dtype)


def _stored(model: ModelShape, layers: str | None, experts: str) -> ModelShape:
    """The model with its ``layers`` (None: as they are) and its ``experts`` stored as is usual for a precision."""
    if unknown := {layers, experts} - {None, *USUAL}:
        raise BadInput("gemm_quant_mode", unknown.pop(), ", ".join(sorted({*USUAL, *_DTYPES} - {""})))
    routed = replace(model.weights, experts=Storage.of(USUAL[experts]))
    if layers is not None:
        every = Storage.of(USUAL[layers])
        routed = replace(routed, attention=every, dense=every, shared=every)
    return replace(model, weights=routed)


@lru_cache(maxsize=256)
def _model(path: str) -> ModelShape:
    """A registry entry by its name or by that of a variant of it: ``nvidia/Llama-3.1-8B-Instruct-FP8``."""
    if path in known_models():
        return load_model(path)
    wanted = _family(path)
    same = [name for name in known_models() if _family(name) == wanted]
    return load_model(min(same, key=len) if same else path)  # the shortest name says least of how it is stored


def _family(name: str) -> str:
    short = name.rsplit("/", 1)[-1].lower().removeprefix("meta-")
    while (shorter := _VARIANTS.sub("", short)) != short:
        short = shorter
    return short


def _release(text: str) -> str:
    match = re.match(r"v?(\d+\.\d+)", text)
    if match:
        return match[1]
    return NIGHTLY_RELEASE if text else OLDEST_RELEASE


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


def _count(fields: dict[str, str], name: str, absent: int | None = None) -> int:
    """A whole number; empty, missing or 0 means ``absent``."""
    text = fields.get(name, "")
    value = float(text) if text else 0.0
    if value < 1 and absent is not None:
        return absent
    if value < 1 or value != int(value):
        raise BadInput(name, text, "a whole number of at least 1")
    return int(value)
