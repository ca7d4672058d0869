"""Hardware profiles: what one device can do, from its datasheet and from a compact fit of measured kernels.

A profile is a YAML file of ``tuner/profiles/`` or of the operator. It holds a few dozen numbers, never tables; every
section names its source. A device on which nothing was measured names a relative in ``efficiencies_from`` and takes
over the sections that it does not give itself: those hold shares of a datasheet peak, so they carry over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from tuner.errors import BadInput

PROFILE_DIR = Path(__file__).parent / "profiles"
ARCHITECTURES = ("ampere", "ada", "hopper", "blackwell", "cpu", "generic")
_FITTED = ("gemm", "attention_prefill", "attention_decode", "moe", "elementwise", "engine", "collectives")
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class GemmFit:
    """Efficiencies of one precision's matrix product (see ``tuner.cost.compute.gemm_ms``)."""

    __pydantic_config__ = _STRICT
    floor_us: float
    compute_efficiency: float
    memory_efficiency: float


@dataclass(frozen=True, slots=True)
class PrefillAttentionFit:
    """Efficiencies of attention over a prompt (see ``tuner.cost.compute.prefill_attention_ms``)."""

    __pydantic_config__ = _STRICT
    floor_us: float
    compute_efficiency: float
    memory_efficiency: float


@dataclass(frozen=True, slots=True)
class DecodeAttentionFit:
    """Efficiencies of attention for one new token per sequence (see ``tuner.cost.compute.decode_attention_ms``)."""

    __pydantic_config__ = _STRICT
    floor_us: float
    compute_efficiency: float
    memory_efficiency: float


@dataclass(frozen=True, slots=True)
class MoeFit:
    """Efficiencies of one precision's grouped expert product (see ``tuner.cost.compute.moe_ms``)."""

    __pydantic_config__ = _STRICT
    floor_us: float
    compute_efficiency: float
    memory_efficiency: float


@dataclass(frozen=True, slots=True)
class ElementwiseFit:
    """Norms, rotary embedding, activation, sampling: bound by bytes, above a launch floor."""

    __pydantic_config__ = _STRICT
    floor_us: float
    memory_efficiency: float


@dataclass(frozen=True, slots=True)
class EngineOverheads:
    """What the serving engine adds to the kernels' time.

    ``step_ms`` per scheduler step, ``decode_layer_ms`` per layer and step on the GPU (gaps between the kernels of a
    CUDA graph), ``prefill_layer_launch_ms`` per layer of host time to launch a step without a graph (it runs beside
    the GPU: the slower of both counts), ``request_ms`` per request before its first token (HTTP, tokenizer, queue hops)
    and ``sequence_ms`` per running sequence and step (input preparation, sampling, detokenizing).
    """

    __pydantic_config__ = _STRICT
    step_ms: float
    decode_layer_ms: float
    prefill_layer_launch_ms: float
    request_ms: float
    sequence_ms: float


@dataclass(frozen=True, slots=True)
class NvLink:
    """NVLink of one GPU: number of links, and their sum in bytes per second and direction; 0 where there is none."""

    __pydantic_config__ = _STRICT
    links: int
    bytes_per_s: float


@dataclass(frozen=True, slots=True, eq=False)
class HardwareProfile:
    """One device and the node that it sits in.

    Bandwidths are bytes per second and direction, peaks are dense FLOP per second by precision (``bf16``, ``fp8``,
    ``fp4``, ``int8``; a precision without hardware support is absent). ``memory_bytes`` is what a process can see of
    the device's memory. ``fabric`` names a file of ``tuner/profiles/fabrics/``. ``usd_per_hour`` is per device, None
    where no price is known. ``sources`` says per section where its numbers come from. ``collectives`` is the raw
    section that the collective models read. Compared and hashed by identity: ``load_profile`` gives one object per file.
    """

    __pydantic_config__ = _STRICT
    name: str
    arch: str
    compute_capability: float | None
    memory_bytes: float
    memory_bytes_per_s: float
    l2_bytes: float
    peak_flops_per_s: Mapping[str, float]
    sm_count: int
    gpus_per_node: int
    nvlink: NvLink
    pcie_bytes_per_s: float
    nics_per_node: int
    fabric: str
    usd_per_hour: float | None
    sources: Mapping[str, str]
    gemm: Mapping[str, GemmFit]
    attention_prefill: Mapping[str, PrefillAttentionFit]
    attention_decode: Mapping[str, DecodeAttentionFit]
    moe: Mapping[str, MoeFit]
    elementwise: ElementwiseFit
    engine: EngineOverheads
    collectives: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise BadInput(f"profile {self.name}: arch", self.arch, ", ".join(ARCHITECTURES))
        for name in ("memory_bytes", "memory_bytes_per_s", "sm_count", "gpus_per_node"):
            if not getattr(self, name) > 0:
                raise BadInput(f"profile {self.name}: {name}", getattr(self, name), "a number above 0")
        if not self.peak_flops_per_s.get("bf16", 0) > 0:
            raise BadInput(f"profile {self.name}: peak_flops_per_s.bf16", None, "a number above 0")


_SCHEMA = TypeAdapter(HardwareProfile)


def known_profiles() -> tuple[str, ...]:
    """Names of the profiles that ship with Parlay, in alphabetical order."""
    return tuple(sorted(path.stem for path in PROFILE_DIR.glob("*.yaml")))


@lru_cache(maxsize=64)
def load_profile(name_or_path: str) -> HardwareProfile:
    """The profile of a known device, or of a YAML file given by its path (anything with a slash or ending in .yaml).

    Raises ``BadInput`` for a device without a profile, saying how to make one, and for a file that is not a profile.
    """
    return profile_from_document(_read(_find(name_or_path)), where=name_or_path)


def profile_from_document(document: Mapping[str, Any], where: str) -> HardwareProfile:
    """Build a profile from a parsed YAML document, completing it from the relative that it names."""
    merged = dict(document)
    relative = merged.pop("efficiencies_from", None)
    if relative is not None:
        merged = _with_relative(merged, _resolve(str(relative), seen=(where,)), str(relative))
    try:
        return _SCHEMA.validate_python(merged)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"profile {where}: {place}", first.get("input"), first["msg"]) from None


def _with_relative(own: dict[str, Any], relative: Mapping[str, Any], name: str) -> dict[str, Any]:
    """``own`` with the fitted sections it lacks, and their sources, taken from its relative."""
    sources = dict(own.get("sources", {}))
    for section in _FITTED:
        if section not in own and section in relative:
            own[section] = relative[section]
            text = relative.get("sources", {}).get(section, "no source given")
            sources.setdefault(section, f"nothing measured on this device: taken over from {name} ({text})")
    return own | {"sources": sources}


def _resolve(name: str, seen: tuple[str, ...]) -> Mapping[str, Any]:
    """The raw document of a relative, itself completed; refuses a circle."""
    if name in seen:
        raise BadInput("efficiencies_from", " -> ".join((*seen, name)), "a chain of relatives without a circle")
    document = dict(_read(_find(name)))
    parent = document.pop("efficiencies_from", None)
    if parent is None:
        return document
    return _with_relative(document, _resolve(str(parent), (*seen, name)), str(parent))


def _find(name_or_path: str) -> Path:
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path).expanduser()
    if name_or_path not in known_profiles():
        how = f"copy {PROFILE_DIR / 'generic.yaml'}, put in the datasheet figures and give its path"
        raise BadInput("gpu", name_or_path, f"{', '.join(known_profiles())}; for another device {how}")
    return PROFILE_DIR / f"{name_or_path}.yaml"


def _read(path: Path) -> Mapping[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except OSError as error:
        raise BadInput("profile", str(path), f"a readable YAML file ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput("profile", str(path), f"a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(document, dict):
        raise BadInput("profile", str(path), "a YAML mapping of profile fields")
    return document
