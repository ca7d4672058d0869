"""The model of a request: who else would make its shape could miss what the request says of its engine."""

from __future__ import annotations

from dataclasses import replace

from tuner.ask.model import ModelShape, load_model
from tuner.ask.profile import load_profile
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput


def requested_model(request: TuneRequest) -> ModelShape:
    """The shape of a request's model, computed in what its ``engine.dtype`` becomes; without its encoders where
    ``engine.language_model_only`` says so.

    Raises BadInput for a model that cannot be priced, for a dtype in which the engine does not run it, and for float32
    on devices whose profile states no peak for it.
    """
    model = load_model(request.model, request.engine.dtype)
    if request.engine.language_model_only:
        model = replace(model, towers=())
    if model.precision == "fp32":
        for group in request.groups:
            _require_float32(model, group.gpu)
    return model


def asserted_cache(request: TuneRequest) -> str | None:
    """The precision of the KV cache that the engine must be told where a layout leaves it open; None for models whose
    engine chooses by itself, and for one that cannot be read here, which no plan names."""
    try:
        model = requested_model(request)
    except BadInput:
        return None
    return model.kv_cache if model.asserts_cache else None


def _require_float32(model: ModelShape, gpu: str) -> None:
    """On GPUs no latent attention runs in float32 (vLLM 0.29, ``v1/attention/backends/mla``)."""
    profile = load_profile(gpu)
    if "fp32" not in profile.peak_flops_per_s:
        allowed = f"auto, bfloat16 or float16 on {profile.name}, whose profile has no peak_flops_per_s.fp32"
        raise BadInput("engine.dtype", "float32", allowed)
    if model.caches_latent and profile.kind.own_memory:
        raise BadInput("engine.dtype", "float32", f"auto, bfloat16 or float16 with latent attention on {profile.name}")


def require_sequences_fit(request: TuneRequest, model: ModelShape) -> None:
    """Refuse, with BadInput, a request whose longest sequence the ``model`` does not take, as the engine does."""
    longest, most = request.max_model_len, model.max_position
    if longest <= most:
        return
    if request.engine.max_model_len is not None:
        raise BadInput("engine.max_model_len", longest, f"at most {most} tokens, as {request.model} takes them")
    raise BadInput("workload", f"{longest} tokens", f"prompts and outputs that fit {most} tokens")
