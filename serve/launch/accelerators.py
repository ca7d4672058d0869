"""Ray's names of accelerators (``ray.util.accelerators``), and the hardware profiles that describe them."""

from __future__ import annotations

from collections.abc import Iterable

from tuner.errors import BadInput

PROFILES = {
    "A100": "a100_40gb_sxm",
    "A100-40G": "a100_40gb_sxm",
    "A100-80G": "a100_sxm",
    "H100": "h100_sxm",
    "H200": "h200_sxm",
    "H20": "h20",
    "GH200": "gh200",
    "B200": "b200_sxm",
    "B300": "b300_sxm",
    "GB200": "gb200",
    "GB300": "gb300",
    "L4": "l4",
    "L40": "l40",
    "L40S": "l40s",
    "A10G": "a10g",
    "RTX-PRO-6000": "rtx_pro_6000_server",
    "AMD-Instinct-MI300X-HF": "mi300x",
    "AMD-Instinct-MI300X-OAM": "mi300x",
    "AMD-Instinct-MI325X-OAM": "mi325x",
}
_RESOURCE = "accelerator_type:"


def accelerator_type(gpu: str) -> str:
    """Ray's name of a profile's device, by which replicas find the nodes that have it; raises BadInput without one."""
    found = [kind for kind, profile in PROFILES.items() if profile == gpu]
    if not found:
        allowed = ", ".join(sorted(set(PROFILES.values())))
        raise BadInput("cluster: gpu", gpu, f"a device that Ray tells from others, where node groups differ: {allowed}")
    return found[-1]  # the longer name of A100s, which says how much memory they have


def accelerator_resource(gpu: str) -> str:
    """The resource that Ray gives the nodes of a profile's device; raises BadInput where it tells them by none."""
    return f"{_RESOURCE}{accelerator_type(gpu)}"


def accelerators(resources: Iterable[str]) -> list[str]:
    """Ray's names of the accelerators of a node, told from its resources, in alphabetical order."""
    return sorted(name.removeprefix(_RESOURCE) for name in resources if name.startswith(_RESOURCE))
