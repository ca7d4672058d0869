"""From a layout to what is launched: vLLM's engine arguments and one Ray Serve LLM application.

The launchers take their configuration from here, and keep it in the record from which specs are emitted.
Nothing in this module imports Ray or vLLM; names are those of vLLM 0.29 (``EngineArgs``) and Ray Serve LLM 2.60.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from serve.launch.ray_nodes import PROFILES
from tuner.ask.axes import Axis, Role, always
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.request import ClusterSpec, TuneRequest
from tuner.errors import BadInput

GIB = 1 << 30
CPU_KV_CACHE_GIB = (
    1.0  # vLLM's own default on CPUs is a share of the machine's memory, which two ranks cannot both have
)
MAX_ONGOING_REQUESTS = 1_000_000_000  # Serve's default of 5 would queue an open-loop load where nobody measures it
INGRESS_REPLICAS_PER_ENGINE = 2  # what Ray's documentation advises, so that token streaming is not the bottleneck

CPU_ON_RAY = "parlay_cpu_on_ray"  # the plugin of serve.launch.cpu_on_ray, which only engines import

# In the order in which people read arguments: how the model is spread, what the scheduler may do, what is special.
_LIMITS = [axis for axis in AXES.values() if axis.role is Role.SCHEDULER]
_FIXED = [axis for axis in AXES.values() if axis.engine and axis.engine.when is always and axis not in _LIMITS]
_OPTIONS = [axis for axis in AXES.values() if axis not in (*_FIXED, *_LIMITS)]

_CPU_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # otherwise more ranks than NUMA nodes are refused
    "OMP_NUM_THREADS": "1",  # a "device" is one core
    "TORCHDYNAMO_DISABLE": "1",  # the sampler alone would be compiled, in the first request and for 10 s
}
# On CPUs the engine runs uncompiled, in a compilation mode in which vLLM 0.29's CPU runner compiles nothing but warms
# up (``CPUModelRunner.warming_up_model``: a step of ``max_num_batched_tokens`` in every worker before it serves, with
# the tensors that pipeline stages exchange). ``enforce_eager`` would skip that, and an engine whose matrices are small,
# at most 1 MiB each, would die of SIGILL at a first prompt of up to four tokens on processors with AMX:
# - read in ``vllm/_C.abi3.so``: only the attention kernel of ISA "amx" (``cpu_attn._get_attn_isa``) loads tiles, and it
#   never asks Linux for them (arch_prctl ARCH_REQ_XCOMP_PERM, once per process); oneDNN alone does, at its first use;
# - read there, too: the kernel of small matrices (``layers.utils.check_cpu_sgl_kernel``) uses oneDNN beyond four rows;
# - seen on a Xeon with AMX: a first prompt of 3 tokens kills the worker, after one of 64 all lengths are answered;
# - inferred, not seen: that the warm-up, which takes the same way through oneDNN, does what that first prompt does.
_CPU_ENGINE = {"compilation_config": {"mode": "STOCK_TORCH_COMPILE", "backend": "eager"}}
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_PLUGINS": "",
    "PYTHONFAULTHANDLER": "1",  # a process that dies of a signal says which, and where; vLLM often cannot tell
}


def served_model_id(request: TuneRequest) -> str:
    """The name that clients send: the last part of the request's model, in characters that need no quoting."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(request.model).name).strip("-.") or "model"


def is_cpu(layout: ParallelLayout, request: TuneRequest) -> bool:
    """True where each "device" is a CPU core."""
    return cluster_of(layout, request).gpu == "cpu"


def cluster_of(layout: ParallelLayout, request: TuneRequest) -> ClusterSpec:
    """The node group where a layout lives.

    Raises BadInput where the cluster still has to be discovered, or has several groups and the layout names none.
    """
    groups = request.on(layout.gpu).groups
    if not groups:
        raise BadInput("cluster", "ray", "a cluster that was discovered before a layout is launched on it")
    if len(groups) > 1:
        raise BadInput("layout.gpu", None, ", ".join(group.gpu for group in groups))
    return groups[0]


def accelerator_type(gpu: str) -> str:
    """Ray's name of a profile's device, by which replicas find the nodes that have it; raises BadInput without one."""
    found = [kind for kind, profile in PROFILES.items() if profile == gpu]
    if not found:
        allowed = ", ".join(sorted(set(PROFILES.values())))
        raise BadInput("cluster: gpu", gpu, f"a device that Ray tells from others, where node groups differ: {allowed}")
    return found[-1]  # the longer name of A100s, which says how much memory they have


def attention_dp(layout: ParallelLayout) -> bool:
    """True where the replicas are data-parallel ranks of one engine group that share their experts.

    Only expert parallelism needs that. Other data-parallel layouts are independent engines behind Serve's router:
    vLLM refuses dense models in the external data-parallel mode that Ray Serve LLM uses ("launch independent vLLM
    instances", ``EngineArgs.create_engine_config``), and independent engines do not wait for one another each step.
    """
    return layout.ep and layout.dp > 1


def engine_kwargs(layout: ParallelLayout, request: TuneRequest) -> dict[str, Any]:
    """vLLM's engine arguments of one layout, by the names of ``EngineArgs``; without model and served name.

    Data parallelism is present only where ``attention_dp`` holds. On CPUs the engine runs uncompiled, and warms up.
    """
    kwargs = _axis_kwargs(layout, _FIXED)
    kwargs |= {"dtype": request.engine.dtype, "max_model_len": request.max_model_len}
    kwargs |= _axis_kwargs(layout, _LIMITS) | _axis_kwargs(layout, _OPTIONS)
    if attention_dp(layout):
        kwargs["data_parallel_size"] = layout.dp
    return kwargs | _memory_kwargs(layout, request) | (copy.deepcopy(_CPU_ENGINE) if is_cpu(layout, request) else {})


def _axis_kwargs(layout: ParallelLayout, axes: Iterable[Axis]) -> dict[str, Any]:
    """The engine arguments that axes become, as they declare it."""
    found = {}
    for axis in axes:
        value = getattr(layout, axis.name)
        if axis.engine and (axis.engine.when(layout) if axis.engine.when else value != axis.default):
            found[axis.engine.name] = value
    return found


def _memory_kwargs(layout: ParallelLayout, request: TuneRequest) -> dict[str, Any]:
    kv_cache_gib = request.engine.kv_cache_gib
    if is_cpu(layout, request):
        return {"kv_cache_memory_bytes": int((kv_cache_gib or CPU_KV_CACHE_GIB) * GIB)}
    memory: dict[str, Any] = {"gpu_memory_utilization": request.engine.gpu_memory_utilization}
    if kv_cache_gib is not None:
        memory["kv_cache_memory_bytes"] = int(kv_cache_gib * GIB)
    return memory


def environment(layout: ParallelLayout, request: TuneRequest, *, model_source: str) -> dict[str, str]:
    """Environment variables of the engine's processes. A local model never asks the Hugging Face hub."""
    found = dict(_ENVIRONMENT)
    if is_cpu(layout, request):
        found |= _CPU_ENVIRONMENT
    if on_logical_gpus(layout, request):
        found["VLLM_PLUGINS"] = CPU_ON_RAY
    return found | ({"HF_HUB_OFFLINE": "1"} if Path(model_source).is_absolute() else {})


def on_logical_gpus(layout: ParallelLayout, request: TuneRequest) -> bool:
    """True where Ray's executor places ranks on CPU cores, which Ray then counts as GPUs: ``cpu_on_ray``."""
    return layout.executor == "ray" and is_cpu(layout, request)


def check_served(layout: ParallelLayout, request: TuneRequest) -> None:
    """Raise BadInput where Ray Serve LLM would not run ``layout`` as it is written, or not where it says.

    Ray Serve LLM 2.60 runs an engine with vLLM's ``mp`` or ``ray`` executor and knows no other. A layout named after
    an executor that did not run would be a false measurement.
    """
    if layout.executor == "uni":
        raise BadInput("layout.executor", layout.executor, "mp, ray under Ray Serve")
    per_node = cluster_of(layout, request).gpus_per_node
    if layout.executor == "mp" and layout.devices_per_replica > per_node:
        allowed = f"ray, as {layout.devices_per_replica} devices of a replica span nodes of {per_node}"
        raise BadInput("layout.executor", "mp", allowed)
    if layout.executor == "mp" and attention_dp(layout):
        raise BadInput("layout.executor", "mp", "ray, with expert parallelism over data-parallel ranks")
    if layout.gpu is not None and not is_cpu(layout, request):
        accelerator_type(layout.gpu)


def refused(layout: ParallelLayout, request: TuneRequest) -> str | None:
    """What ``check_served`` has against a layout, in words; None where it has nothing."""
    try:
        check_served(layout, request)
    except BadInput as error:
        return f"{error.given} does not run under Ray Serve; {error.allowed}"
    return None


def serve_app(
    app: str, layout: ParallelLayout, request: TuneRequest, *, model_source: str, route_prefix: str = "/"
) -> dict[str, Any]:
    """One application of a Ray Serve config file (``ServeApplicationSchema``), plain JSON types throughout.

    ``model_source`` is a directory or a Hugging Face id. Raises BadInput for what ``check_served`` refuses.
    """
    check_served(layout, request)
    config = _llm_config(layout, request, model_source)
    grouped = attention_dp(layout)
    ingress: dict[str, Any] = {
        "num_replicas": 1 if is_cpu(layout, request) else INGRESS_REPLICAS_PER_ENGINE * layout.dp,
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "ray_actor_options": {"num_cpus": 0 if is_cpu(layout, request) else 1},
    }
    models: dict[str, Any] = {"llm_config": config} if grouped else {"llm_configs": [config]}
    return {
        "name": app,
        "route_prefix": route_prefix,
        "import_path": f"ray.serve.llm:{'build_dp_openai_app' if grouped else 'build_openai_app'}",
        "logging_config": {"enable_access_log": False},
        "args": models | {"ingress_deployment_config": ingress},
    }


def _llm_config(layout: ParallelLayout, request: TuneRequest, model_source: str) -> dict[str, Any]:
    deployment: dict[str, Any] = {
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
        "graceful_shutdown_timeout_s": 10,
        "graceful_shutdown_wait_loop_s": 0.5,
        "ray_actor_options": _replica_resources(layout, request),
    }
    if not attention_dp(layout):
        deployment["num_replicas"] = layout.dp
    config: dict[str, Any] = {
        "model_loading_config": {"model_id": served_model_id(request), "model_source": model_source},
        "engine_kwargs": engine_kwargs(layout, request),
        "placement_group_config": _placement(layout, request),
        "deployment_config": deployment,
        "runtime_env": {"env_vars": environment(layout, request, model_source=model_source)},
        # By default Serve hands tokens over every 50 ms; that would be most of a small model's TTFT and ITL.
        "experimental_configs": {"stream_batching_interval_ms": 0},
    }
    if layout.executor == "mp":
        # Ray Serve LLM derives the executor from the kind: "gpu" means Ray's, "cpu" means child processes of the
        # replica, which then holds the devices itself.
        config["accelerator_config"] = {"kind": "cpu"}
    return config


def _replica_resources(layout: ParallelLayout, request: TuneRequest) -> dict[str, Any]:
    if is_cpu(layout, request):
        return {"num_cpus": 0}
    return {"num_cpus": 1, "num_gpus": layout.devices_per_replica if layout.executor == "mp" else 0}


def _placement(layout: ParallelLayout, request: TuneRequest) -> dict[str, Any]:
    """Bundles of one replica: a device each. Serve adds the replica's own resources to the first."""
    one_node = layout.devices_per_replica <= cluster_of(layout, request).gpus_per_node
    bundles: list[dict[str, float]]
    if on_logical_gpus(layout, request):
        bundles = [{"CPU": 1, "GPU": 1}] * layout.devices_per_replica
    elif is_cpu(layout, request):
        bundles = [{"CPU": 1}] * layout.devices_per_replica
    elif layout.executor == "mp":
        bundles = [{"CPU": 1}]  # the replica's own num_gpus make this the bundle of all its devices
    else:
        bundles = [{"GPU": 1}] * layout.devices_per_replica
    if layout.gpu is not None and not is_cpu(layout, request):  # Ray Serve LLM refuses accelerator_type with kind "cpu"
        bundles = [bundle | {f"accelerator_type:{accelerator_type(layout.gpu)}": 0.001} for bundle in bundles]
    return {"bundles": [dict(bundle) for bundle in bundles], "strategy": "STRICT_PACK" if one_node else "PACK"}


def vllm_args(layout: ParallelLayout, request: TuneRequest, *, model_source: str, host: str, port: int) -> list[str]:
    """Arguments of ``vllm serve`` (or ``python -m vllm.entrypoints.openai.api_server``) for one layout.

    Data parallelism is vLLM's own here (one API server in front of dp engines), since no router stands before it.
    """
    kwargs = engine_kwargs(layout, request)
    return server_args(model_source, served_model_id(request), kwargs, layout.dp, host=host, port=port)


def server_args(
    model_source: str, model_id: str, kwargs: Mapping[str, Any], replicas: int, *, host: str, port: int
) -> list[str]:
    """Arguments of vLLM's server for the engine arguments ``kwargs``; ``replicas`` are its data-parallel ranks."""
    arguments: dict[str, Any] = {"model": model_source, "served_model_name": model_id}
    arguments |= {"host": host, "port": port} | dict(kwargs)
    if replicas > 1:
        arguments["data_parallel_size"] = replicas
    arguments["disable_uvicorn_access_log"] = True
    words: list[str] = []
    for name, value in arguments.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        else:
            words += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return words
