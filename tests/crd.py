"""Checks a manifest against a CustomResourceDefinition without a cluster, as strictly as the API server.

A CRD's schema is OpenAPI 3.0 with Kubernetes' own extensions; ``_strict`` rewrites it to JSON Schema in which every
object refuses fields that it does not name.
"""

from __future__ import annotations

import lzma
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

FOLDER = Path(__file__).parent / "crds"
FILES = {
    "RayCluster": "ray.io_rayclusters.yaml.xz",
    "RayService": "ray.io_rayservices.yaml.xz",
    "ServiceMonitor": "monitoring.coreos.com_servicemonitors.yaml.xz",
    "PodMonitor": "monitoring.coreos.com_podmonitors.yaml.xz",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules.yaml.xz",
}
RAYSERVICE = FOLDER / FILES["RayService"]


def problems(manifest: dict[str, Any]) -> list[str]:
    """``path: message`` of everything that a manifest of one of these kinds has wrong."""
    validator = _validator(manifest["kind"], manifest["apiVersion"].partition("/")[2])
    found = validator.iter_errors(_without_nulls(manifest))
    return sorted(f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in found)


@cache
def _validator(kind: str, version: str) -> Draft202012Validator:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(lzma.decompress((FOLDER / FILES[kind]).read_bytes()), Loader=loader)
    schema = next(v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == version)
    return strict_validator(schema)


def strict_validator(schema: dict[str, Any]) -> Draft202012Validator:
    """Of a kind with that ``openAPIV3Schema``: what an API server would refuse or drop is an error."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    properties = schema["properties"] | {"metadata": anything}
    return Draft202012Validator(_strict(schema | {"properties": properties}))


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        out = {"anyOf": [{"type": "integer"}, {"type": "string"}]} | {k: v for k, v in out.items() if k != "type"}
    if "properties" in out:
        fields = {name: _strict(field) for name, field in out["properties"].items()}
        out["properties"] = fields
        # The API server fills defaults in before it looks for what is required.
        out["required"] = [name for name in out.get("required", ()) if "default" not in fields.get(name, {})]
        if out.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
            out.setdefault("additionalProperties", False)
    for bound, key in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if out.get(key) is True:  # OpenAPI 3.0 says of a bound whether it is excluded
            out[key] = out.pop(bound)
    for key in ("items", "additionalProperties", "not"):
        if isinstance(out.get(key), dict):
            out[key] = _strict(out[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in out:
            out[key] = [_strict(part) for part in out[key]]
    if out.pop("nullable", False):
        out["type"] = [out["type"], "null"]
    return out


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
