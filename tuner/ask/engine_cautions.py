"""What a request's section ``engine`` does that no price knows: said in plan, decision and specs, never passed over."""

from __future__ import annotations

from tuner.ask.engine_settings import Engine

_SPECULATION = "speculative decoding is not priced: planned times are those without it"
_ADAPTERS = "LoRA adapters are not priced: planned times and memory are the model's alone"
_KERNELS = "kernels are priced as vLLM chooses them by itself"
_CACHES = "moving and keeping KV caches elsewhere is not priced"
_WEIGHTS = "memory is planned for weights and caches as the checkpoint stores them, all on the devices"
_SCHEDULER = "the scheduler is priced and simulated without it"
_UNPRICED = {
    _SPECULATION: ("speculative_config", "spec_method", "spec_model", "spec_tokens"),
    _ADAPTERS: (
        "enable_lora", "lora_modules", "max_loras", "max_lora_rank", "max_cpu_loras", "fully_sharded_loras",
        "lora_dtype", "lora_target_modules", "default_mm_loras",
    ),
    _KERNELS: (
        "attention_backend", "attention_config", "moe_backend", "linear_backend", "kernel_config", "ir_op_priority",
        "enable_flashinfer_autotune", "enable_bf16x3_router_gemm", "disable_cascade_attn", "model_impl",
        "performance_mode", "optimization_level", "use_fp64_gumbel", "enable_batch_sharded_sampling",
    ),
    _CACHES: (
        "kv_transfer_config", "kv_offloading_size", "kv_offloading_backend", "kv_sharing_fast_prefill",
        "prefix_cache_retention_interval",
    ),
    _WEIGHTS: (
        "quantization", "quantization_config", "cpu_offload_gb", "cpu_offload_params", "offload_backend",
        "offload_group_size", "offload_num_in_group", "offload_params", "offload_prefetch_step",
        "kv_cache_dtype_skip_layers", "num_gpu_blocks_override",
    ),
    _SCHEDULER: (
        "scheduling_policy", "max_num_scheduled_tokens", "watermark", "prefill_schedule_interval",
        "scheduler_reserve_full_isl", "max_num_queued_reqs", "max_num_queued_tokens", "max_num_partial_prefills",
        "max_long_partial_prefills", "enable_dbo", "ubatch_size", "dbo_decode_token_threshold",
        "dbo_prefill_token_threshold",
    ),
}  # fmt: skip
_WHY = {name: why for why, names in _UNPRICED.items() for name in names}
_COSTLESS = (  # they answer, log or read a model, and cost an engine's steps nothing
    "seed", "tokenizer", "tokenizer_revision", "code_revision", "reasoning_parser", "reasoning_config",
    "structured_outputs_config", "max_logprobs", "logprobs_mode", "generation_config", "override_generation_config",
    "enable_log_requests", "enable_logging_iteration_details", "load_format", "ignore_patterns", "use_tqdm_on_load",
    "safetensors_load_strategy", "safetensors_prefetch_num_threads", "safetensors_prefetch_block_size",
    "model_loader_extra_config", "max_parallel_loading_workers", "config_format", "distributed_timeout_seconds",
    "cpu_distributed_timeout_seconds", "shutdown_timeout", "fail_on_environ_validation", "interleave_mm_strings",
    "show_hidden_metrics_for_version", "kv_cache_metrics", "kv_cache_metrics_sample", "cudagraph_metrics",
    "prefix_caching_hash_algo", "pt_load_map_location", "allowed_media_domains", "media_io_kwargs",
    "limit_mm_per_prompt", "skip_mm_profiling", "allow_deprecated_quantization", "jit_monitor_mode",
    "jit_monitor_verbose",
)  # fmt: skip
_COSTLESS_STEMS = ("mm_", "enable_mm_", "video_")  # a request's prompts are text
_FRONT = (
    "chat_template", "chat_template_content_format", "default_chat_template_kwargs", "enable_auto_tool_choice",
    "tool_call_parser", "exclude_tools_when_tool_choice_none", "response_role", "trust_request_chat_template",
)  # fmt: skip
_PRICED_OF_COMPILATION = {"mode", "cudagraph_mode"}
_COSTLESS_VARIABLES = ("NCCL_DEBUG", "VLLM_LOGGING_LEVEL", "VLLM_CONFIGURE_LOGGING", "VLLM_ENGINE_READY_TIMEOUT_S")


def cautions(engine: Engine) -> tuple[str, ...]:
    """One sentence for each thing that is launched as asked and priced as if it were not, and for what is trusted."""
    found: dict[str, list[str]] = {}
    for name, value in engine.extra_args.items():
        if (why := _unpriced(name, value)) is not None:
            found.setdefault(why, []).append(f"engine.extra_args.{name}")
    variables = [name for name in engine.env if name not in _COSTLESS_VARIABLES]
    if variables:
        found["what variables change is not priced"] = [f"engine.env.{name}" for name in variables]
    if (engine.stream_interval or 1) > 1:
        why = "tokens are streamed in groups, so a measured ITL is that of groups; it is planned per token"
        found[why] = ["engine.stream_interval"]
    if engine.trust_remote_code:
        pinned = "" if engine.revision else "; engine.revision would hold it to one version"
        found[f"code of the model's repository runs in the engine{pinned}"] = ["engine.trust_remote_code"]
    return tuple(f"{', '.join(names)}: {why}." for why, names in found.items())


def _unpriced(name: str, value: object) -> str | None:
    if name == "compilation_config" and isinstance(value, dict):
        passes = value.get("pass_config", {})
        others = [key for key in value if key not in _PRICED_OF_COMPILATION and key != "pass_config"]
        others += [key for key in passes if key != "fuse_allreduce_rms"]
        return f"{_KERNELS} ({', '.join(others)})" if others else None
    if name == "optimization_level" and value == 0:
        return None
    if name in _WHY:
        return _WHY[name]
    costless = name in _COSTLESS or name in _FRONT or name.startswith(_COSTLESS_STEMS)
    return None if costless else "it is not priced"
