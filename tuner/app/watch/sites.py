"""From where a watched study serves, as the store has it, to the place: the one table of kinds of places."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.app.watch.place import Place
from tuner.errors import BadInput
from tuner.study.store import Store

RAY = "ray-serve"


def ray_site(address: str, port: int) -> dict[str, Any]:
    """As it is kept: a Ray cluster, and where clients ask: at a port of this machine."""
    return {"kind": RAY, "address": address, "port": port, "host": socket.gethostname()}


def is_here(site: Mapping[str, Any], ray_address: str | None) -> bool:
    """Whether it serves behind a front of this machine, on the Ray cluster of that address: who is elsewhere would open
    another front."""
    here = site.get("kind") == RAY and site.get("host") == socket.gethostname()
    return here and site.get("address") == (ray_address or "auto")


def place_of(site: Mapping[str, Any], store: Store, study: str, out: Path) -> Place:
    """The place; ``out`` is where it may keep files. Raises BadInput where it is not to be reached from here."""
    if site.get("kind") == RAY and site.get("host") != socket.gethostname():
        raise BadInput("site", site.get("host"), f"a study that serves behind this machine, {socket.gethostname()}")
    if site.get("kind") == RAY:
        from tuner.app.watch.ray_place import RayPlace

        return RayPlace(study, str(site["address"]), int(site["port"]), out / "state")
    raise BadInput("site", site.get("kind"), f"{RAY}; others are watched by who runs there")
