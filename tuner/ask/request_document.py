"""A request as a document, YAML or JSON: read, checked and refused with the place in it that is wrong.

What its trace says is filled in first (``tuner.ask.trace_document``): a request that was read has all its lengths.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from pydantic import ValidationError

from tuner.ask.engine_policy import require_allowed, require_known_release
from tuner.ask.recorded import of_one_moment
from tuner.ask.request import TuneRequest, require_defined
from tuner.ask.request_errors import as_bad_input
from tuner.ask.trace_document import with_trace
from tuner.ask.workload import TooLong
from tuner.errors import BadInput


def parse_request(document: object, where: str = "request", folder: Path | None = None) -> TuneRequest:
    """Check a decoded document; raises BadInput naming the first wrong place and counting the others.

    ``folder`` is where a trace is looked for that is not in the working directory.
    """
    if not isinstance(document, dict):
        raise BadInput(where, document, "a mapping with the keys " + ", ".join(TuneRequest.model_fields))
    try:
        request = TuneRequest.model_validate(with_trace(document, where, folder))
    except ValidationError as error:
        raise as_bad_input(error, where) from None
    require_known_release(request.engine, f"{where}: engine")
    require_allowed(request.engine, f"{where}: engine")
    require_defined(request.slo, request.workload.output_tokens.bounds[1], f"{where}: slo")
    longest, limit = request.workload.longest_tokens, request.engine.max_model_len
    if limit is not None and longest > limit:  # vLLM answers such a request with status 400
        allowed = f"a prompt and an output of at most engine.max_model_len, {limit} tokens, together"
        raise BadInput(f"{where}: workload", f"up to {longest} tokens", allowed)
    return request


def retraced(request: TuneRequest, trace: Path, too_long: TooLong, rate_req_per_s: float | None = None) -> TuneRequest:
    """The request with the load of a ``trace`` instead of its own, on engines as they are launched for it.

    The trace is replayed at ``rate_req_per_s`` (None: its own, or the asked one where it has none). Raises BadInput as
    ``parse_request`` does.
    """
    if rate_req_per_s is None and of_one_moment(trace):
        rate_req_per_s = request.workload.arrival.requests_per_s
    document = request.model_dump(mode="json")
    arrival: dict[str, object] = {"process": "trace", "trace": str(trace), "too_long": too_long.value}
    if rate_req_per_s is not None:
        arrival["requests_per_s"] = rate_req_per_s
    document["workload"] = {"arrival": arrival, "shared_prefix_tokens": request.workload.shared_prefix_tokens}
    document["engine"]["max_model_len"] = request.max_model_len
    return parse_request(document, "--trace")


def load_request(path: Path) -> TuneRequest:
    """Read a request from a YAML or JSON file."""
    return parse_request(read_document(path), str(path), path.parent)


def read_document(path: Path) -> object:
    """What a YAML or JSON file holds, unchecked; raises BadInput where it cannot be read, or is neither."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("REQUEST", str(path), f"a readable YAML or JSON file ({error})") from None
    try:
        document: object = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise BadInput(str(path), " ".join(str(error).split()), "well-formed YAML or JSON") from None
    return document
