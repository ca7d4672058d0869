"""A vLLM platform plugin: CPU cores as devices that Ray's executor can place ranks on.

vLLM's CPU platform names no Ray resource, so its Ray executor refuses to run there. This platform is the CPU platform
with that one name added: Ray's logical GPUs, of which a Ray on CPUs declares one per core. It stays out of the way
unless the engine's environment asks for it by name.
"""

from __future__ import annotations

import os

from vllm.platforms.cpu import CpuPlatform

from serve.launch.device import CPU_ON_RAY


class CpuOnRayPlatform(CpuPlatform):  # type: ignore[misc]
    """The CPU platform, with a resource for Ray to count."""

    ray_device_key = "GPU"


def register() -> str | None:
    """Entry point of ``vllm.platform_plugins``: the platform's name, or None where nobody asked for it."""
    asked = CPU_ON_RAY in os.environ.get("VLLM_PLUGINS", "").split(",")
    return f"{__name__}.{CpuOnRayPlatform.__name__}" if asked else None
