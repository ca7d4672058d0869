"""Who communicates over what: a communicator group, the network between its nodes, and the bandwidth it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import TypeAdapter, ValidationError

from tuner.ask.strict import Strict
from tuner.errors import BadInput

if TYPE_CHECKING:
    from tuner.ask.profile import HardwareProfile

FABRIC_DIR = Path(__file__).parents[2] / "ask" / "profiles" / "fabrics"
LINKS = ("nvlink", "pcie", "host")


@dataclass(frozen=True, slots=True)
class Fabric(Strict):
    """The network between nodes.

    ``nic_gb_per_s`` is one NIC's line rate in 10^9 bytes per second and direction, ``efficiency`` the share of it that
    large messages reach. ``hop_us`` is a small GPU-to-GPU message between two nodes, one way, by one-sided puts;
    ``mpi_hop_us`` the same by GPU-aware MPI; ``nccl_latency_us`` what NCCL's transport adds to its network constants
    (InfiniBand's adds none). On a ``rail_optimised`` network, same-index NICs share a leaf switch, so that
    collectives escape the ``oversubscription`` of the spine. ``nvlink_domain_gpus`` is the size of an NVLink domain
    that spans nodes, None where it ends at the node. ``amd_hosts`` selects NCCL's constants for hosts with AMD CPUs;
    ``has_near_nics`` says that each GPU shares a PCIe switch with a NIC, which NCCL's LL128 protocol needs.
    """

    name: str
    nic_gb_per_s: float
    efficiency: float
    hop_us: float
    mpi_hop_us: float
    source: str
    nccl_latency_us: float = 0.0
    rail_optimised: bool = False
    oversubscription: float = 1.0
    nvlink_domain_gpus: int | None = None
    amd_hosts: bool = False
    has_near_nics: bool = True

    def __post_init__(self) -> None:
        for name in ("nic_gb_per_s", "efficiency", "oversubscription"):
            if not getattr(self, name) > 0:
                raise BadInput(f"fabric {self.name}: {name}", getattr(self, name), "a number above 0")


_SCHEMA = TypeAdapter(Fabric)


def known_fabrics() -> tuple[str, ...]:
    """Names of the fabrics that ship with Parlay, in alphabetical order."""
    return tuple(sorted(path.stem for path in FABRIC_DIR.glob("*.yaml")))


@lru_cache(maxsize=32)
def load_fabric(name_or_path: str) -> Fabric:
    """A fabric by its name, or from a YAML file given by its path; ``BadInput`` lists the known names."""
    is_path = "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))
    if not is_path and name_or_path not in known_fabrics():
        raise BadInput("fabric", name_or_path, f"{', '.join(known_fabrics())}, or the path of a YAML file")
    path = Path(name_or_path) if is_path else FABRIC_DIR / f"{name_or_path}.yaml"
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput("fabric", name_or_path, f"a readable YAML file ({' '.join(str(error).split())})") from None
    return fabric_from_document(document, name_or_path)


def fabric_from_document(document: Mapping[str, Any], where: str) -> Fabric:
    """A fabric from a parsed YAML document; ``BadInput`` names the field that is wrong."""
    try:
        return _SCHEMA.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"fabric {where}: {place}", first.get("input"), first["msg"]) from None


@dataclass(frozen=True, slots=True)
class CommGroup:
    """The ranks of one communicator and how many nodes they span, as evenly as may be.

    ``link`` is what connects ranks of one node: ``nvlink``, ``pcie`` or ``host``; None takes what the profile has.
    """

    ranks: int
    nodes: int = 1
    link: str | None = None

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise BadInput("ranks", self.ranks, "a whole number from 1")
        if not 1 <= self.nodes <= self.ranks:
            raise BadInput("nodes", self.nodes, f"1 to the {self.ranks} ranks")
        if self.link is not None and self.link not in LINKS:
            raise BadInput("link", self.link, ", ".join(LINKS))

    @property
    def ranks_per_node(self) -> int:
        """G: ranks on the fullest node."""
        return -(-self.ranks // self.nodes)


@dataclass(frozen=True, slots=True)
class Topology:
    """A group on its hardware. ``group.nodes`` is 1 where one NVLink domain holds all ranks, whatever their nodes.

    Bandwidths are bytes per second and direction: ``intra_bytes_per_s`` per rank inside a node (the raw link),
    ``inter_bytes_per_s`` per rank between nodes when all ranks of the node send at once.
    """

    group: CommGroup
    link: str
    intra_bytes_per_s: float
    inter_bytes_per_s: float


def place(
    group: CommGroup, profile: HardwareProfile, fabric: Fabric, inter_bytes_per_s: float | None = None
) -> Topology:
    """Which links a group gets. ``inter_bytes_per_s`` (per GPU and direction) overrules the fabric's NICs.

    Without it, a node's NICs are shared by all its GPUs, as when every group of the node communicates at once.
    """
    has_nvlink = profile.nvlink.links > 0
    default = profile.kind.link or ("nvlink" if has_nvlink else "pcie")
    link = group.link or default
    if link == "nvlink" and not has_nvlink:
        raise BadInput("link", link, f"pcie: {profile.name} has no NVLink")
    intra = profile.nvlink.bytes_per_s if link == "nvlink" else profile.pcie_bytes_per_s
    inter = inter_bytes_per_s
    if inter is None:
        nics_per_gpu = profile.nics_per_node / profile.gpus_per_node
        narrowing = 1.0 if fabric.rail_optimised else fabric.oversubscription
        inter = nics_per_gpu * fabric.nic_gb_per_s * 1e9 * fabric.efficiency / narrowing
    one_domain = link == "nvlink" and group.ranks <= (fabric.nvlink_domain_gpus or 0)
    inside = replace(group, nodes=1) if one_domain else group
    return Topology(inside, link, intra, inter)
