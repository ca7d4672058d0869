"""A request as a document, YAML or JSON: read, checked and refused with the place in it that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from pydantic import ValidationError

from tuner.ask.request import TuneRequest, require_defined
from tuner.ask.request_errors import as_bad_input
from tuner.errors import BadInput


def parse_request(document: object, where: str = "request") -> TuneRequest:
    """Check a decoded document; raises BadInput naming the first wrong place and counting the others."""
    if not isinstance(document, dict):
        raise BadInput(where, document, "a mapping with the keys " + ", ".join(TuneRequest.model_fields))
    try:
        request = TuneRequest.model_validate(document)
    except ValidationError as error:
        raise as_bad_input(error, where) from None
    require_defined(request.slo, request.workload.output_tokens.bounds[1], f"{where}: slo")
    return request


def load_request(path: Path) -> TuneRequest:
    """Read a request from a YAML or JSON file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("REQUEST", str(path), f"a readable YAML or JSON file ({error})") from None
    try:
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise BadInput(str(path), " ".join(str(error).split()), "well-formed YAML or JSON") from None
    return parse_request(document, str(path))
