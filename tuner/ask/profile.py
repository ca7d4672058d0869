"""Hardware profiles: what one device can do, from its datasheet and from a compact fit of measured kernels.

A profile is a YAML file of ``tuner/ask/profiles/`` or of the operator. It holds a few dozen numbers, never tables;
every section names its source. A device on which nothing was measured names a relative in ``efficiencies_from`` and
takes over the sections that it does not give itself: those hold shares of a datasheet peak, so they carry over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from tuner.ask.compressed_fits import BlockSparseFit, CompressedFit, EncoderFit, ExchangeFit, HyperConnectionFit
from tuner.ask.device import ARCHITECTURES, GPU, DeviceKind, kind_of
from tuner.ask.gpu_names import near_profiles, profile_named
from tuner.ask.kernel_fits import DecodeAttentionFit, ElementwiseFit, GemmFit, MoeFit, PrefillAttentionFit
from tuner.ask.latent_fits import (
    LatentDecodeFit,
    LatentPrefillFit,
    LatentProductsFit,
    QuantiseFit,
    SparseDecodeFit,
    SparsePrefillFit,
)
from tuner.ask.linear_fits import LinearAttentionFits
from tuner.ask.measurable import FITTED, MEASURABLE, TABLED
from tuner.ask.strict import Strict
from tuner.errors import BadInput

PROFILE_DIR = Path(__file__).parent / "profiles"
ENGINE_DIR = PROFILE_DIR / "engines"
LAUNCH_US = 4.0  # of a kernel by itself, from PyTorch, on the hosts that the engine's constants were fitted on: assumed


@dataclass(frozen=True, slots=True)
class EngineOverheads(Strict):
    """What the serving engine adds to the kernels' time, and how a served model differs from tables of its kernels.

    ``step_ms`` per scheduler step, ``decode_layer_ms`` per layer and step on the GPU (gaps between the kernels of a
    CUDA graph), ``prefill_layer_launch_ms`` per layer of host time to launch a step without a graph (it runs beside
    the GPU: the slower of both counts), ``expert_layer_launch_ms`` what experts add to that, ``graph_layer_launch_ms``
    the same with graphs between the attentions. ``request_ms`` is per request before its first token (HTTP, queue
    hops), ``prompt_token_us`` per token of its prompt (tokenizer, JSON, copies between processes), one request after
    the other, ``sequence_ms`` per running sequence and step (input preparation, sampling, detokenizing).
    ``layer_kernels`` small kernels per layer take the elementwise floor each; ``expert_layer_ms`` is what the router
    and the sorting of tokens add to a layer with experts. ``expert_share`` is the share of the tabled time that expert
    products take as long as experts get less than a tile of rows (real routers repeat themselves, so fewer experts are
    read), ``expert_crowding`` the factor when they get many (the most loaded ones decide). ``prefill_slowdown`` is that
    of the other matrix products when they run for long, as clocks drop. ``collective_wait_us`` is how long ranks wait
    for the last one at each collective, beyond what loops of one collective show; ``prompt_wait_us`` comes on top in
    steps with long prompts, in which ranks drift further apart. ``exposed_step_ms`` per step and
    ``exposed_sequence_ms`` per running sequence are host time that asynchronous scheduling hides behind the GPU. They
    and the launches hold for hosts that launch a kernel in ``LAUNCH_US``; this one takes ``launch_us``.
    ``lean_launch`` is the share of the launch times without a graph that vLLM 0.18 and later take. ``expert_spread``
    is the factor of ``expert_share`` where devices hold different experts: all wait for the busiest. In steps with
    prompts, experts in fp8 blocks take ``block_experts`` times as long: their rows are quantised by separate kernels.
    With an fp8 KV cache, ``fp8_cache_kernels`` of the small kernels are left where attention quantises its output
    itself (vLLM 21716 and 25179; ``tuner.cost.compute.quantises_output``).
    """

    prefill_layer_launch_ms: float
    request_ms: float
    step_ms: float = 0.0
    sequence_ms: float = 0.0
    decode_layer_ms: float = 0.0
    graph_layer_launch_ms: float = 0.0
    expert_layer_launch_ms: float = 0.0
    layer_kernels: float = 1.0
    expert_layer_ms: float = 0.0
    expert_share: float = 1.0
    expert_crowding: float = 1.0
    prefill_slowdown: float = 1.0
    collective_wait_us: float = 0.0
    prompt_wait_us: float = 0.0
    exposed_step_ms: float = 0.0
    exposed_sequence_ms: float = 0.0
    lean_launch: float = 1.0
    expert_spread: float = 1.0
    block_experts: float = 1.0
    fp8_cache_kernels: float = 1.0
    prompt_token_us: float = 0.0
    launch_us: float = LAUNCH_US

    @property
    def launch_scale(self) -> float:
        """How many times as long as on the hosts of the fit launches take here."""
        return self.launch_us / LAUNCH_US

    def handling_ms(self, prompt_tokens: float) -> float:
        """What a request spends outside the engine before its first token when no other one does, in ms."""
        return self.request_ms + self.prompt_token_us * prompt_tokens / 1e3


@dataclass(frozen=True, slots=True)
class NvLink(Strict):
    """NVLink of one GPU: number of links, and their sum in bytes per second and direction; 0 where there is none."""

    links: int
    bytes_per_s: float


@dataclass(frozen=True, slots=True, eq=False)
class HardwareProfile(Strict):
    """One device and the node that it sits in.

    Bandwidths are bytes per second and direction, peaks are dense FLOP per second by precision (``bf16``, ``fp8``,
    ``fp4``, ``int8``; a precision without hardware support is absent). ``memory_bytes`` is what a process can see of
    the device's memory. ``fabric`` names a file of ``tuner/ask/profiles/fabrics/``. ``usd_per_hour`` is per device,
    None where no price is known. ``sources`` says per section where its numbers come from, and ``measured`` which were
    fitted to measurements of this device: all may be but ``elementwise`` and ``engine``. Others are those of
    ``efficiencies_from``, or estimates where it is None. ``collectives`` is the raw section that the collective models
    read. Compared and hashed by identity: ``load_profile`` gives one per file.
    """

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
    block_sparse: Mapping[str, BlockSparseFit] = field(default_factory=dict)
    compressed: Mapping[str, CompressedFit] = field(default_factory=dict)
    hyper_connections: Mapping[str, HyperConnectionFit] = field(default_factory=dict)
    encoder_attention: Mapping[str, EncoderFit] = field(default_factory=dict)
    expert_exchange: Mapping[str, ExchangeFit] = field(default_factory=dict)
    latent_products: Mapping[str, LatentProductsFit] = field(default_factory=dict)
    latent_prefill: Mapping[str, LatentPrefillFit] = field(default_factory=dict)
    latent_decode: Mapping[str, LatentDecodeFit] = field(default_factory=dict)
    sparse_prefill: Mapping[str, SparsePrefillFit] = field(default_factory=dict)
    sparse_decode: Mapping[str, SparseDecodeFit] = field(default_factory=dict)
    quantise: Mapping[str, QuantiseFit] = field(default_factory=dict)
    linear_attention: LinearAttentionFits = field(default_factory=LinearAttentionFits)
    efficiencies_from: str | None = None
    measured: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if kind_of(self.arch) is None:
            raise BadInput(f"profile {self.name}: arch", self.arch, ", ".join(ARCHITECTURES))
        for name in ("memory_bytes", "memory_bytes_per_s", "sm_count", "gpus_per_node"):
            if not getattr(self, name) > 0:
                raise BadInput(f"profile {self.name}: {name}", getattr(self, name), "a number above 0")
        if not self.peak_flops_per_s.get("bf16", 0) > 0:
            raise BadInput(f"profile {self.name}: peak_flops_per_s.bf16", None, "a number above 0")
        if strange := set(self.measured) - set(TABLED):
            raise BadInput(f"profile {self.name}: measured", min(strange), ", ".join(TABLED))

    @property
    def kind(self) -> DeviceKind:
        """What kind of device it is."""
        kind = kind_of(self.arch)
        assert kind is not None  # as __post_init__ saw to
        return kind

    @property
    def unmeasured_sections(self) -> tuple[str, ...]:
        """Those of ``MEASURABLE`` that were not measured on this device: taken over from a relative, or estimated."""
        return tuple(section for section in MEASURABLE if section not in self.measured)


_SCHEMA = TypeAdapter(HardwareProfile)


@lru_cache(maxsize=1)
def known_profiles() -> tuple[str, ...]:
    """Names of the profiles that ship with Parlay, in alphabetical order."""
    return tuple(sorted(path.stem for path in PROFILE_DIR.glob("*.yaml")))


def load_profile(name_or_path: str) -> HardwareProfile:
    """The profile of a known device, or of a YAML file given by its path (anything with a slash or ending in .yaml).

    A device may be written in other ways, where it is clear which one is meant (``tuner.ask.gpu_names``). Raises
    ``BadInput`` for one without a profile, saying how to make one, and for a file that is not a profile.
    """
    return _load(canonical_gpu(name_or_path))


def canonical_gpu(name_or_path: str) -> str:
    """The profile's name where a known device is written in another way; a path, and what is unclear, as it stands."""
    if _is_path(name_or_path) or name_or_path in known_profiles():
        return name_or_path
    named = profile_named(name_or_path)
    return named if named in known_profiles() else name_or_path


@lru_cache(maxsize=64)
def _load(name_or_path: str) -> HardwareProfile:
    return profile_from_document(_read(_find(name_or_path)), where=name_or_path)


def profile_from_document(document: Mapping[str, Any], where: str) -> HardwareProfile:
    """Build a profile from a parsed YAML document, completing it from the relative that it names."""
    merged = dict(document)
    relative = merged.get("efficiencies_from")
    if relative is not None:
        merged = _with_relative(merged, _resolve(str(relative), seen=(where,)), str(relative))
    kind = kind_of(merged.get("arch")) or GPU  # what is no architecture is refused below, by its place
    if kind.shared_overheads is not None:
        merged = _with_engine(merged, kind.shared_overheads)
    try:
        return _SCHEMA.validate_python(merged)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"profile {where}: {place}", first.get("input"), first["msg"]) from None


def _with_relative(own: dict[str, Any], relative: Mapping[str, Any], name: str) -> dict[str, Any]:
    """``own`` with the fitted sections it lacks, and their sources, taken from its relative."""
    sources = dict(own.get("sources", {}))
    for section in FITTED:
        if section not in own and section in relative:
            own[section] = relative[section]
            text = relative.get("sources", {}).get(section, "no source given")
            sources.setdefault(section, f"nothing measured on this device: taken over from {name} ({text})")
    return own | {"sources": sources}


def _with_engine(own: dict[str, Any], file: str) -> dict[str, Any]:
    """``own`` on top of what the engine adds on any device of its kind, told in a file of ``ENGINE_DIR``."""
    shared, engine = _read(ENGINE_DIR / file), own.get("engine", {})
    if not isinstance(engine, Mapping):
        return own  # refused by the schema, with its place
    source = " ".join(filter(None, (own.get("sources", {}).get("engine"), f"shared: {shared['source'].strip()}")))
    sources = {**own.get("sources", {}), "engine": source}
    return own | {"engine": {**shared["engine"], **engine}, "sources": sources}


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
    if _is_path(name_or_path):
        return Path(name_or_path).expanduser()
    if name_or_path not in known_profiles():
        how = f"copy {PROFILE_DIR / 'generic.yaml'}, put in the datasheet figures and give its path"
        raise BadInput("gpu", name_or_path, f"{gpu_choices(name_or_path)}; for another device {how}")
    return PROFILE_DIR / f"{name_or_path}.yaml"


def gpu_choices(name: str) -> str:
    """What may stand in place of a name that means no profile, or not clearly one, in words."""
    near = near_profiles(name, known_profiles())
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{meant}{', '.join(known_profiles())}"


def _is_path(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))


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
