"""The CustomResourceDefinition, made of the models; ``python -m deploy.controller.crd`` writes the chart's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deploy.controller.names import GROUP, KIND, PLURAL, VERSION
from deploy.controller.resource import Spec, Status
from deploy.controller.structural import structural
from tuner.ask.request import TuneRequest

FILE = Path(__file__).parents[2] / "helm" / "parlay" / "crds" / "layoutrequest.yaml"
_HEADING = (
    "# Written from deploy/controller/resource.py and tuner/ask/request.py by `python -m deploy.controller.crd`.\n"
)


def _column(name: str, path: str, kind: str = "string", wide: bool = False, says: str = "") -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path}
    return column | ({"priority": 1} if wide else {}) | ({"description": says} if says else {})


COLUMNS = [
    _column("Phase", ".status.phase"),
    _column("Model", ".spec.request.model"),
    _column("Layout", ".status.decision.layout", says="The winner"),
    _column("GPUs", ".status.decision.gpus", "integer"),
    _column("Trials", ".status.spent.launches", "integer"),
    _column("RolledOut", '.status.conditions[?(@.type=="RolledOut")].status'),
    _column("Age", ".metadata.creationTimestamp", "date"),
    _column("Best", ".status.best.layout", wide=True, says="The best so far"),
    _column("GPU-h", ".status.spent.gpuHours", "number", wide=True),
    _column("USD", ".status.spent.usd", "number", wide=True),
    _column("Study", ".status.study", wide=True),
    _column("RayCluster", ".status.rayCluster", wide=True, says="Made for the study"),
]


def schema() -> dict[str, Any]:
    """The schema of the resource."""
    spec, status = structural(Spec.model_json_schema()), structural(Status.model_json_schema())
    asked = structural(TuneRequest.model_json_schema())
    spec["properties"]["request"] = asked | {"description": "The request, as `parlay tune` reads it."}
    spec["properties"]["deploy"]["default"] = "manual"
    asked["properties"]["workload"]["required"] = [
        "arrival"
    ]  # a trace says the lengths; the reader knows where it must
    status["properties"]["conditions"] |= {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    status["properties"]["conditions"]["items"]["properties"]["lastTransitionTime"]["format"] = "date-time"
    return {
        "description": "A request for a vLLM layout that meets a latency SLO: it is found by measuring, and deployed.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }


def definition() -> dict[str, Any]:
    """The whole definition."""
    names = {"kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower(), "shortNames": ["lr"]}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": COLUMNS,
        "schema": {"openAPIV3Schema": schema()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": names | {"categories": ["parlay"]},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def text() -> str:
    """The file."""
    dumped = yaml.dump(definition(), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return _HEADING + str(dumped)


class _Dumper(yaml.SafeDumper):
    """Without anchors, which people do not read."""

    def ignore_aliases(self, data: object) -> bool:
        return True


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")
