"""A study's request as a LayoutRequest, for `kubectl apply`."""

from __future__ import annotations

from typing import Any

import yaml

from deploy.controller.names import API_VERSION, KIND, label_of
from tuner.ask.request import TuneRequest

FORMAT = "layoutrequest"


def layout_request(name: str, request: TuneRequest, seed: int | None, **target: str | None) -> dict[str, Any]:
    """The resource that asks for it again; ``seed`` of a simulated cluster, None of a real one. ``target`` has keys of
    the resource's."""
    spec: dict[str, Any] = {"request": request.model_dump(mode="json", exclude_defaults=True), "deploy": "manual"}
    if seed is not None:
        spec |= {"launcher": "simulated", "simulatedSeed": seed}
    if given := {key: value for key, value in target.items() if value is not None}:
        spec["target"] = given
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": label_of(name)}, "spec": spec}


def layout_request_text(name: str, request: TuneRequest, seed: int | None, **target: str | None) -> str:
    """The same as a file."""
    heading = "# Written by Parlay. Use: kubectl apply -f FILE; spec.deploy: auto rolls the winner out.\n"
    if request.workload.arrival.trace is not None:
        heading += "# Note: the file of its trace has to lie where controller and workers find it.\n"
    document = layout_request(name, request, seed, **target)
    return heading + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
