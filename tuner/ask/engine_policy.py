"""Which arguments a request may hand to vLLM: those that the release knows, that nothing else in a request or in Parlay
sets, and that can neither load code nor open files, ports or secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tuner.ask.engine_arguments import Release, near, plain_name, release
from tuner.ask.engine_environment import CODE, FILES, PLACES, PORTS, SECRETS, require_variable
from tuner.ask.engine_settings import Engine
from tuner.ask.engine_version import NEWEST, RELEASES
from tuner.ask.layout import AXES
from tuner.errors import BadInput

_ANOTHER = "nothing that makes another model of it: change the model's own config.json, which the plan reads too"
_GENERATION = "nothing for models that do not generate"
_REFUSED = {
    CODE: (
        "worker_cls", "worker_extension_cls", "scheduler_cls", "logits_processors", "middleware", "tool_parser_plugin",
        "reasoning_parser_plugin", "io_processor_plugin", "model_class_overrides", "ec_manager_config",
        "ec_transfer_config", "tool_server",
    ),
    FILES: (
        "allowed_local_media_path", "download_dir", "log_config_file", "mm_encoder_fp8_scale_path",
        "mm_encoder_fp8_scale_save_path", "profiler_config", "ssl_keyfile", "ssl_certfile", "ssl_ca_certs",
        "ssl_cert_reqs", "ssl_ciphers", "enable_ssl_refresh",
    ),
    PORTS: (
        "host", "port", "uds", "kv_events_config", "otlp_traces_endpoint", "weight_transfer_config",
        "data_parallel_supervisor_port",
    ),
    SECRETS: ("api_key", "hf_token"),
    _ANOTHER: ("hf_overrides", "hf_config_path"),
    PLACES: (
        "nnodes", "node_rank", "master_addr", "master_port", "device_ids", "ray_workers_use_nsight",
        "enable_elastic_ep", "enable_fault_tolerance", "fault_tolerance_config",
    ),
    _GENERATION: ("runner", "convert", "pooler_config"),
    "nothing that hides the engine's figures: Parlay reads them": (
        "disable_log_stats", "disable_uvicorn_access_log", "aggregate_engine_logging",
    ),
}  # fmt: skip
_WHY = {name: why for why, names in _REFUSED.items() for name in names}
_OWNERS = {
    "model": "the request's key model",
    "kv_cache_memory_bytes": "engine.kv_cache_gib",
    **{name: f"engine.{name}" for name in Engine.model_fields},
    **{axis.engine.name: f"the layout's axis {axis.name}" for axis in AXES.values() if axis.engine},
}
_NESTED_CODE = re.compile(r"(module_path|_cls|_class|_plugin|passes|inductor_compile_config)$")
_NESTED_FILES = re.compile(r"(_path|_dir|_file)$")
_NESTED_PORTS = ("kv_ip", "kv_port")
_NESTED_SECRETS = re.compile(r"(api_key|access_key|secret|password|hf_token|auth_token)$")
_WORDS = {  # arguments of which a word may name a plugin, a module or a folder: those that are vLLM's own
    ("compilation_config", "backend"): ("inductor", "eager", ""),
    ("compilation_config", "mode"): (0, 1, 2, 3, "NONE", "STOCK_TORCH_COMPILE", "DYNAMO_TRACE_ONCE", "VLLM_COMPILE"),
    ("compilation_config", "cudagraph_mode"): ("NONE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"),
    ("generation_config", None): ("auto", "vllm"),
    ("mm_processor_device", None): ("auto", "cpu", "cuda"),
    ("config_format", None): ("auto", "hf", "mistral"),
    ("model_impl", None): ("auto", "vllm", "transformers"),
    ("load_format", None): (
        "auto", "hf", "safetensors", "fastsafetensors", "pt", "npcache", "dummy", "gguf", "mistral", "instanttensor",
    ),
}  # fmt: skip


def require_allowed(engine: Engine, where: str = "engine") -> None:
    """Raise BadInput at the first setting that vLLM does not have, that something else sets, or that is refused.

    ``engine.version`` says which release's arguments they are; without one those of the newest.
    """
    version = engine.release or NEWEST
    known = release(version)
    for name, value in engine.passed.items():
        argument = known.arguments.get(name)
        if argument is None or not argument.takes(value):
            allowed = f"nothing: vLLM {version} does not have it" if argument is None else argument.allowed
            raise BadInput(f"{where}.{name}", value, allowed)
    for name, value in engine.extra_args.items():
        _require_argument(known, name, value, f"{where}.extra_args.{name}", str(version.known))
    for name, text in engine.env.items():
        require_variable(known, name, text, f"{where}.env.{name}", str(version.known))


def require_known_release(engine: Engine, where: str = "engine") -> None:
    """Raise BadInput where a request asks for a release whose sources were not read."""
    if engine.release is not None and engine.release not in RELEASES:
        raise BadInput(f"{where}.version", engine.version, "one of " + ", ".join(map(str, RELEASES)))


def _require_argument(known: Release, name: str, value: object, where: str, version: str) -> None:
    plain = plain_name(name)
    if (why := _elsewhere(plain)) is not None:
        raise BadInput(where, "…" if why == SECRETS else value, why)
    if _NESTED_SECRETS.search(plain) and name not in known.arguments:
        raise BadInput(where, "…", SECRETS)
    argument = known.arguments.get(name)
    if argument is None:
        names = [one for one in known.arguments if _elsewhere(one) is None]
        raise BadInput(where, value, near(name, names, "argument", version))
    if name == "compilation_config" and isinstance(value, Mapping):
        _require_compilation(value, where)
    if not argument.takes(value):
        _require_keys(argument.keys, value, where, version)
        raise BadInput(where, value, argument.allowed)
    _require_words(name, value, where)
    _require_harmless(value, where)


def _elsewhere(name: str) -> str | None:
    """What says an argument in its place, or why nothing may; None where a request may."""
    if name in _OWNERS:
        return f"{_OWNERS[name]}, which says it"
    if name in _WHY:
        return _WHY[name]
    if name.startswith("data_parallel_"):
        return "the layout's axis dp, which says how many replicas share the load"
    return None


def _require_compilation(value: Mapping[str, object], where: str) -> None:
    """What a price reads of it must be of the right kind."""
    for key in ("cudagraph_capture_sizes", "max_cudagraph_capture_size"):
        if key in value:
            raise BadInput(f"{where}.{key}", value[key], f"engine.{key}, which says it")
    if not isinstance(value.get("pass_config", {}), Mapping):
        raise BadInput(f"{where}.pass_config", value["pass_config"], "a mapping")


def _require_keys(keys: tuple[str, ...] | None, value: object, where: str, version: str) -> None:
    """Name the key of a mapping that is wrong, not the mapping."""
    if keys is None or not isinstance(value, Mapping):
        return
    for key in value:
        if key not in keys:
            raise BadInput(f"{where}.{key}", value[key], near(str(key), keys, "key", version))


def _require_words(name: str, value: object, where: str) -> None:
    for (argument, key), words in _WORDS.items():
        given = value if key is None else value.get(key) if isinstance(value, Mapping) else None
        if argument == name and given is not None and given not in words:
            place = where if key is None else f"{where}.{key}"
            raise BadInput(place, given, "one of " + ", ".join(str(word) for word in words if word != ""))
    method = value.get("method") if isinstance(value, Mapping) else value
    if name in ("speculative_config", "spec_method") and method == "custom_class":
        raise BadInput(where, method, CODE)
    if name == "chat_template" and "{" not in str(value) and not str(value).endswith((".jinja", ".jinja2")):
        raise BadInput(where, value, "a template, or the path of a .jinja file")


def _require_harmless(value: object, where: str) -> None:
    """What stands in mappings, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            place, name = f"{where}.{key}", str(key)
            if _NESTED_CODE.search(name):
                raise BadInput(place, inner, CODE)
            if _NESTED_FILES.search(name):
                raise BadInput(place, inner, FILES)
            if name in _NESTED_PORTS:
                raise BadInput(place, inner, PORTS)
            if _NESTED_SECRETS.search(plain_name(name)):
                raise BadInput(place, "…", SECRETS)
            _require_harmless(inner, place)
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_harmless(inner, where)
    elif not isinstance(value, str | int | float | None):
        raise BadInput(where, value, "values that JSON has")
