"""What was measured of collectives on one kind of GPU, as a few fitted numbers, and the formulas that use them.

Every bandwidth is an efficiency: a share of the GPU's link bandwidth per direction (NVLink, or PCIe where there is no
NVLink) or of its memory bandwidth, so that a relative without measurements can take the section over. The forms are
Hockney's (latency plus bytes over bandwidth); where an implementation switches protocol, the quickest counts, so every
time rises with the message. Fitted by ``tests/fit/collectives.py``.

``message_bytes`` is the whole buffer of one rank throughout, as NCCL's own benchmarks count it: what an all-reduce
reduces, what an all-gather ends with, what a reduce-scatter or an all-to-all starts with, what a send sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from tuner.ask.strict import Strict
from tuner.errors import BadInput

if TYPE_CHECKING:
    from tuner.ask.profile import HardwareProfile


@dataclass(frozen=True, slots=True)
class NcclFit(Strict):
    """NCCL inside one node: launch, ring steps, and three protocols of rising start-up cost and bandwidth.

    ``launch_us`` is paid once and ``step_us`` by every step of the ring; ``peers_launch_us`` and ``peer_us``
    are these for grouped sends and receives (all-to-all). ``ll128_us`` and ``simple_us`` are what they add to LL.
    ``local_copy_efficiency`` prices the rank's own share, which an all-gather, reduce-scatter or all-to-all also moves.
    ``nvls_us`` and ``nvls_efficiency`` (in-switch reduction, from four ranks) are None without NVLink. ``contention``
    is the power of the ranks (from two) by which bandwidth falls where all share host bridges: it counts without NVLink
    alone, and its default is that of the L40S, the one PCIe system measured.
    """

    launch_us: float
    step_us: float
    peers_launch_us: float
    peer_us: float
    ll_efficiency: float
    ll128_us: float
    ll128_efficiency: float
    simple_us: float
    simple_efficiency: float
    local_copy_efficiency: float
    nvls_us: float | None = None
    nvls_efficiency: float | None = None
    contention: float = 1.85


@dataclass(frozen=True, slots=True)
class KernelFit(Strict):
    """One peer-to-peer all-reduce kernel: ``launch_us``, ``peer_us`` per doubling of the ranks from two, link share."""

    launch_us: float
    efficiency: float
    peer_us: float = 0.0


@dataclass(frozen=True, slots=True)
class SymmetricFit(Strict):
    """All-reduce on symmetric memory; ``efficiency`` is of in-switch reduction, its two staging copies included."""

    launch_us: float
    efficiency: float


@dataclass(frozen=True, slots=True)
class EagerFit(Strict):
    """Without a CUDA graph: host time to launch a kernel, or the symmetric-memory path, and a copy of the buffer.

    ``copy_efficiency`` is a share of the memory bandwidth, over which the copy's bytes go twice (read and write).
    """

    kernel_us: float
    copy_efficiency: float
    symmetric_us: float | None = None


@dataclass(frozen=True, slots=True)
class HostFit(Strict):
    """Processes of one host that exchange through shared memory or loopback sockets (gloo): plain Hockney figures."""

    alpha_us: float
    gb_per_s: float


@dataclass(frozen=True, slots=True)
class CollectiveFits(Strict):
    """The ``collectives`` section of a hardware profile: a CPU has ``host`` alone, a GPU all others.

    ``two_shot`` is None without NVLink, ``symmetric`` where vLLM has no symmetric-memory path for the GPU.
    """

    nccl: NcclFit | None = None
    one_shot: KernelFit | None = None
    two_shot: KernelFit | None = None
    symmetric: SymmetricFit | None = None
    eager: EagerFit | None = None
    host: HostFit | None = None


_SCHEMA = TypeAdapter(CollectiveFits)


def parse_fits(section: Mapping[str, Any], where: str) -> CollectiveFits:
    """The fits of a profile's raw ``collectives`` section; ``BadInput`` names the field that is wrong or missing."""
    try:
        fits = _SCHEMA.validate_python(dict(section))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{where}: collectives.{place}", first.get("input"), first["msg"]) from None
    if fits.host is None and any(part is None for part in (fits.nccl, fits.one_shot, fits.eager)):
        raise BadInput(f"{where}: collectives", sorted(section), "at least nccl, one_shot and eager; or host")
    return fits


@lru_cache(maxsize=64)
def fits_of(profile: HardwareProfile) -> CollectiveFits:
    """The parsed fits of a profile (cached: profiles are compared by identity)."""
    return parse_fits(profile.collectives, f"profile {profile.name}")
