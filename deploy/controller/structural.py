"""From a pydantic model to the structural OpenAPI v3 schema that a CustomResourceDefinition needs.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/ says what that is: no
references, one type for every value, alternatives that only narrow what stands beside them. A key that pydantic lets
be of several types has no such schema: it is kept as it is given, and its values are checked by whoever reads it.
Defaults are left out, since the API server would write today's into what it keeps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

KEEP, INT_OR_STRING = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"
_AS_THEY_ARE = (
    "type", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "multipleOf", "minimum", "maximum",
    "required",
)  # fmt: skip
_BOUNDS = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


def structural(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a model, as ``model_json_schema`` gives it, in that form."""
    return _node(schema, schema.get("$defs", {}))


def _node(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    described = schema.get("description")
    while "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    described = described or schema.get("description")
    if len(choices) == 1:  # that or nothing
        found = _node(choices[0], defs)
    elif choices:
        found = _several(choices)
    else:
        found = _one(schema, defs)
    text = described or found.pop("description", None)
    return ({"description": plain(text)} if text else {}) | found


def _several(choices: list[Mapping[str, Any]]) -> dict[str, Any]:
    types = {choice.get("type") for choice in choices}
    if types == {"integer", "number"}:
        return {"type": "number"}
    return {INT_OR_STRING: True} if types == {"integer", "string"} else {KEEP: True}


def _one(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: schema[key] for key in _AS_THEY_ARE if key in schema}
    if "const" in schema:
        found |= {"type": "string", "enum": [schema["const"]]}
    for key, bound in _BOUNDS.items():
        if key in schema:
            found |= {bound: schema[key], key: True}
    if "type" not in found:
        return {KEEP: True}
    if "properties" in schema:
        found["properties"] = {name: _node(part, defs) for name, part in schema["properties"].items()}
    elif found["type"] == "object":
        found |= _entries(schema.get("additionalProperties"), defs)
    if "items" in schema:
        found["items"] = _node(schema["items"], defs)
    elif found["type"] == "array":
        found["items"] = {KEEP: True}
    return found


def _entries(schema: object, defs: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a mapping whose keys are free."""
    return {"additionalProperties": _node(schema, defs)} if isinstance(schema, Mapping) and schema else {KEEP: True}


def plain(text: str) -> str:
    """A docstring as `kubectl explain` shows it: one paragraph."""
    return re.sub(r"\s+", " ", text.replace("``", "`")).strip()
