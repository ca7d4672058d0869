"""From a layout to what is launched: vLLM's engine arguments and one Ray Serve LLM application.

The launchers take their configuration from here, and keep it in the record from which specs are emitted.
Nothing in this module imports Ray or vLLM; names are those of vLLM 0.29 (``EngineArgs``) and Ray Serve LLM 2.60.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from serve.launch.device import CPU_ON_RAY, cluster_of, device_of
from serve.launch.engine_options import option_environment, option_kwargs, unserved, words_of
from serve.launch.fronts import has_ingress, router
from serve.launch.vllm_server import COUNT
from tuner.ask.axes import Axis, Role, always
from tuner.ask.front import Front
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.packing import footprint
from tuner.ask.profile import load_profile
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import asserted_cache
from tuner.errors import BadInput

MAX_ONGOING_REQUESTS = 1_000_000_000  # Serve's default of 5 would queue an open-loop load where nobody measures it

# In the order in which people read arguments: how the model is spread, what the scheduler may do, what is special.
_LIMITS = [axis for axis in AXES.values() if axis.role is Role.SCHEDULER]
_FIXED = [axis for axis in AXES.values() if axis.engine and axis.engine.when is always and axis not in _LIMITS]
_OPTIONS = [axis for axis in AXES.values() if axis not in (*_FIXED, *_LIMITS)]

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_PLUGINS": "",
    "PYTHONFAULTHANDLER": "1",  # a process that dies of a signal says which, and where; vLLM often cannot tell
}


def served_model_id(request: TuneRequest) -> str:
    """The name that clients send: the one asked for, or the last part of the request's model, without any quoting."""
    return (
        request.engine.served_model_name
        or re.sub(r"[^A-Za-z0-9._-]+", "-", Path(request.model).name).strip("-.")
        or "model"
    )


def attention_dp(layout: ParallelLayout) -> bool:
    """True where the replicas are data-parallel ranks of one engine group that share their experts.

    Only expert parallelism needs that. Other data-parallel layouts are independent engines behind Serve's router:
    vLLM refuses dense models in the external data-parallel mode that Ray Serve LLM uses ("launch independent vLLM
    instances", ``EngineArgs.create_engine_config``), and independent engines do not wait for one another each step.
    """
    return layout.shares_experts


def engine_kwargs(layout: ParallelLayout, request: TuneRequest) -> dict[str, Any]:
    """vLLM's engine arguments of one layout, by the names of ``EngineArgs``; without model and served name.

    Data parallelism is present only where ``attention_dp`` holds. On CPUs the engine runs uncompiled, and warms up.
    A KV cache that the engine asserts but does not choose is named.
    """
    kwargs = _axis_kwargs(layout, _FIXED)
    kwargs |= {"dtype": request.engine.dtype, "max_model_len": request.max_model_len}
    kwargs |= _axis_kwargs(layout, _LIMITS) | _axis_kwargs(layout, _OPTIONS)
    if layout.kv_cache_dtype == "auto" and (asserted := asserted_cache(request)):
        kwargs["kv_cache_dtype"] = asserted
    if attention_dp(layout):
        kwargs["data_parallel_size"] = layout.dp
    device = device_of(layout, request)
    kwargs |= device.memory(request.engine) | copy.deepcopy(dict(device.kwargs))
    return kwargs | option_kwargs(request.engine, device)


def _axis_kwargs(layout: ParallelLayout, axes: Iterable[Axis]) -> dict[str, Any]:
    """The engine arguments that axes become, as they declare it."""
    found = {}
    for axis in axes:
        value = getattr(layout, axis.name)
        if axis.engine and (axis.engine.when(layout) if axis.engine.when else value != axis.default):
            found[axis.engine.name] = value
    return found


def environment(layout: ParallelLayout, request: TuneRequest, *, model_source: str) -> dict[str, str]:
    """Environment variables of the engine's processes. A local model never asks the Hugging Face hub."""
    device = device_of(layout, request)
    found = _ENVIRONMENT | dict(device.environment)
    if device.counts_as_gpus(layout):
        found["VLLM_PLUGINS"] = CPU_ON_RAY
    found |= option_environment(request.engine, found)
    return found | ({"HF_HUB_OFFLINE": "1"} if Path(model_source).is_absolute() else {})


def check_served(layout: ParallelLayout, request: TuneRequest) -> None:
    """Raise BadInput where Ray Serve LLM would not run ``layout`` as it is written, or not where it says.

    Ray Serve LLM 2.60 runs an engine with vLLM's ``mp`` or ``ray`` executor and knows no other. A layout named after
    an executor that did not run would be a false measurement.
    """
    if layout.front == "vllm":
        raise BadInput("layout.front", layout.front, "auto, ray_serve, ray_haproxy, ray_direct under Ray Serve")
    if layout.executor == "uni":
        raise BadInput("layout.executor", layout.executor, "mp, ray under Ray Serve")
    per_node = cluster_of(layout, request).gpus_per_node
    if layout.executor == "mp" and not footprint(layout, per_node).on_one_node:
        allowed = f"ray, as {layout.devices_per_replica} devices of a replica span nodes of {per_node}"
        raise BadInput("layout.executor", "mp", allowed)
    if layout.executor == "mp" and attention_dp(layout):
        raise BadInput("layout.executor", "mp", "ray, with expert parallelism over data-parallel ranks")
    if (dropped := unserved(request.engine)) is not None:
        raise dropped
    device_of(layout, request).check(layout)


def refused(layout: ParallelLayout, request: TuneRequest) -> str | None:
    """What ``check_served`` has against a layout, in words; None where it has nothing."""
    try:
        check_served(layout, request)
    except BadInput as error:
        return f"{error.where.split('.', 1)[-1]}={error.given} does not run under Ray Serve; {error.allowed}"
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
    arguments: dict[str, Any] = {"llm_config": config} if grouped else {"llm_configs": [config]}
    if has_ingress(layout):
        arguments["ingress_deployment_config"] = _ingress(layout, request)
    return {
        "name": app,
        "route_prefix": route_prefix,
        "import_path": f"ray.serve.llm:{'build_dp_openai_app' if grouped else 'build_openai_app'}",
        "logging_config": {"enable_access_log": False},
        "args": arguments,
    }


def _ingress(layout: ParallelLayout, request: TuneRequest) -> dict[str, Any]:
    """Those who take requests in, and hand answers out."""
    kind = load_profile(cluster_of(layout, request).gpu).kind
    return {
        "num_replicas": Front.of(layout, kind).ingress_replicas,
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "ray_actor_options": {"num_cpus": device_of(layout, request).ingress_cpus},
    }


def _llm_config(layout: ParallelLayout, request: TuneRequest, model_source: str) -> dict[str, Any]:
    deployment: dict[str, Any] = {
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
        "graceful_shutdown_timeout_s": 10,
        "graceful_shutdown_wait_loop_s": 0.5,
        "ray_actor_options": device_of(layout, request).replica(layout),
        **router(layout),
    }
    if not attention_dp(layout):
        deployment["num_replicas"] = layout.dp
    config: dict[str, Any] = {
        "model_loading_config": {"model_id": served_model_id(request), "model_source": model_source},
        "engine_kwargs": engine_kwargs(layout, request),
        "placement_group_config": _placement(layout, request),
        "deployment_config": deployment,
        "runtime_env": {"env_vars": environment(layout, request, model_source=model_source)},
    }
    if has_ingress(layout):
        # Ray's default of 50 ms would be most of a small model's TTFT and ITL.
        config["experimental_configs"] = {"stream_batching_interval_ms": layout.stream_interval_ms}
    if layout.executor == "mp":
        # Ray Serve LLM derives the executor from the kind: "gpu" means Ray's, "cpu" means child processes of the
        # replica, which then holds the devices itself.
        config["accelerator_config"] = {"kind": "cpu"}
    return config


def _placement(layout: ParallelLayout, request: TuneRequest) -> dict[str, Any]:
    """The placement group of one replica, on one node where it fits."""
    one_node = footprint(layout, cluster_of(layout, request).gpus_per_node).on_one_node
    bundles = device_of(layout, request).bundles(layout)
    return {"bundles": bundles, "strategy": "STRICT_PACK" if one_node else "PACK"}


def vllm_args(layout: ParallelLayout, request: TuneRequest, *, model_source: str, host: str, port: int) -> list[str]:
    """Arguments of ``vllm serve`` (or ``python -m vllm.entrypoints.openai.api_server``) for one layout.

    Data parallelism is vLLM's own here (its API servers in front of dp engines), since no router stands before it. How
    many there are is said where it is not 1, which ``vllm serve`` takes for as many as engines.
    """
    kwargs = engine_kwargs(layout, request)
    words = server_args(model_source, served_model_id(request), kwargs, layout.dp, host=host, port=port)
    servers = layout.canonical.api_servers
    return words + ([COUNT, str(servers)] if max(servers, layout.dp) > 1 else [])


def server_args(
    model_source: str, model_id: str, kwargs: Mapping[str, Any], replicas: int, *, host: str, port: int
) -> list[str]:
    """Arguments of vLLM's server for the engine arguments ``kwargs``; ``replicas`` are its data-parallel ranks."""
    arguments: dict[str, Any] = {"model": model_source, "served_model_name": model_id}
    arguments |= {"host": host, "port": port} | dict(kwargs)
    if replicas > 1:
        arguments["data_parallel_size"] = replicas
    arguments["disable_uvicorn_access_log"] = True
    return [word for name, value in arguments.items() for word in words_of(name, value)]
