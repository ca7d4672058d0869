"""The devices to plan for: equal nodes, or groups of them. What they hold says ``tuner.ask.packing``."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.deployment import Deployment, pools_of
from tuner.ask.engine_version import NEWEST, EngineVersion
from tuner.ask.layout import ParallelLayout
from tuner.ask.profile import HardwareProfile, load_profile
from tuner.ask.request import ClusterSpec, Objective, TuneRequest
from tuner.errors import BadInput


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal nodes of equal devices.

    ``inter_node_gb_per_s`` is 10^9 bytes per second, device and direction; None: what the fabric's NICs give.
    ``gpu`` is the ``ParallelLayout.gpu`` of its layouts: None unless it is one node group of several. ``vllm`` is the
    release that its engines run.
    """

    profile: HardwareProfile
    nodes: int
    gpus_per_node: int
    fabric: str
    inter_node_gb_per_s: float | None = None
    usd_per_gpu_hour: float | None = None
    gpu: str | None = None
    vllm: EngineVersion = NEWEST

    @classmethod
    def from_spec(cls, spec: ClusterSpec, gpu: str | None = None, vllm: EngineVersion = NEWEST) -> Cluster:
        """Resolve the request's cluster section; raises BadInput for a device without a profile."""
        profile = load_profile(spec.gpu)
        fabric = spec.fabric or profile.fabric
        usd = spec.usd_per_gpu_hour or profile.usd_per_hour
        return cls(profile, spec.nodes, spec.gpus_per_node, fabric, spec.inter_node_gb_per_s, usd, gpu, vllm)

    @property
    def groups(self) -> tuple[Cluster, ...]:
        """Itself: one kind of node."""
        return (self,)

    def group(self, layout: ParallelLayout) -> Cluster:
        """Itself, where all layouts live."""
        return self

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True, slots=True)
class Fleet:
    """Node groups with a GPU each; a layout lives in one of them, named by its ``gpu``."""

    groups: tuple[Cluster, ...]

    @property
    def devices(self) -> int:
        """Devices in all groups."""
        return sum(group.devices for group in self.groups)

    def group(self, layout: ParallelLayout) -> Cluster:
        """Where a layout lives; raises BadInput for one that names no group."""
        found = next((group for group in self.groups if group.gpu == layout.gpu), None)
        if found is None:
            raise BadInput("layout", str(layout), "gpu=" + " or gpu=".join(str(group.gpu) for group in self.groups))
        return found


def requested_cluster(request: TuneRequest) -> Cluster | Fleet:
    """The cluster that a request names.

    Raises BadInput for one that must be discovered, and for a group without a price where groups are told apart by it.
    """
    specs, vllm = request.groups, request.engine.release or NEWEST
    if not specs:
        raise BadInput("cluster", request.cluster, "gpu, nodes and gpus_per_node; only tune asks a running Ray")
    if len(specs) == 1:
        return Cluster.from_spec(specs[0], vllm=vllm)
    fleet = Fleet(tuple(Cluster.from_spec(spec, spec.gpu, vllm) for spec in specs))
    priced = Objective.MIN_COST in request.objectives or request.budget.usd is not None
    for place, group in enumerate(fleet.groups):
        if priced and group.usd_per_gpu_hour is None:
            raise BadInput(f"cluster.{place}.usd_per_gpu_hour", None, "a price: this request compares costs")
    return fleet


def usd_per_million_tokens(usd_an_hour: float, output_tok_per_s: float) -> float:
    """What a million output tokens cost at a rate of tokens, in US dollars."""
    return usd_an_hour / 3600 / output_tok_per_s * 1e6


def usd_per_hour(request: TuneRequest, deployment: Deployment) -> float | None:
    """What its devices cost in US dollars per hour: their group's price or their profile's; None without one."""
    known = [_usd_per_hour(request, layout) for layout in pools_of(deployment).values()]
    found = [usd for usd in known if usd is not None]
    return sum(found) if len(found) == len(known) else None


def _usd_per_hour(request: TuneRequest, layout: ParallelLayout) -> float | None:
    specs = request.on(layout.gpu).groups
    if not specs:
        return None
    price = specs[0].usd_per_gpu_hour or load_profile(specs[0].gpu).usd_per_hour
    return None if price is None else price * layout.devices


def usd_per_gpu_hour(request: TuneRequest, deployment: Deployment) -> float | None:
    """What one of its devices costs in US dollars per hour, on average; None where no price is known."""
    usd = usd_per_hour(request, deployment)
    return None if usd is None else usd / deployment.devices
