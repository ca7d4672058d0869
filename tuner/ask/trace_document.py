"""Fills into the document of a request what its trace says: lengths, rate, and which file it was.

A document whose arrivals are of a trace need name the file alone. What it says beside that must be true of the trace:
a load has one set of lengths.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.ask.model import load_model
from tuner.ask.recorded import described
from tuner.ask.workload import Recorded, TokenLengths, TooLong
from tuner.errors import BadInput

_SAME = 0.5  # a mean that is given may be rounded to whole tokens


def with_trace(document: Mapping[str, Any], where: str, folder: Path | None = None) -> Mapping[str, Any]:
    """The document with the lengths, the rate and the description of its trace; itself where it has none.

    A relative path is looked for in the working directory, then in ``folder``. Raises BadInput for what is no trace,
    for requests longer than ``engine.max_model_len`` or the model's longest sequence (see ``TooLong``), and for what is
    given beside the trace and is not true of it. What is wrong elsewhere in the document is not looked at.
    """
    workload, model = document.get("workload"), document.get("model")
    arrival = workload.get("arrival") if isinstance(workload, dict) else None
    if not (isinstance(workload, dict) and isinstance(arrival, dict) and isinstance(model, str)):
        return document
    name = arrival.get("trace")
    if arrival.get("process") == "trace" and name is None:
        raise BadInput(f"{where}: workload.arrival.trace", "nothing", "the file of a recorded trace")
    if arrival.get("process") != "trace" or not isinstance(name, str) or not name:
        return document
    asked = arrival.get("too_long", TooLong.REFUSE.value)
    if asked not in list(TooLong):
        raise BadInput(f"{where}: workload.arrival.too_long", asked, ", ".join(TooLong))
    path = _found(Path(name), folder)
    limit, remedy = _limit(document, model)
    found = described(path, limit, TooLong(asked), f"{where}: workload.arrival.trace", remedy)
    rate = arrival.get("requests_per_s", found.rate_req_per_s)
    if rate is None:
        allowed = "a rate, as the requests of the trace all come at one moment"
        raise BadInput(f"{where}: workload.arrival.requests_per_s", "nothing", allowed)
    _require_same_file(arrival.get("recorded"), found.recorded, where)
    lengths = {"prompt_tokens": found.prompt_tokens, "output_tokens": found.output_tokens}
    for key, of_trace in lengths.items():
        _require_true(workload.get(key), of_trace, f"{where}: workload.{key}")
    described_arrival = arrival | {"trace": str(path), "requests_per_s": rate, "recorded": found.recorded.model_dump()}
    filled = {key: one.model_dump(exclude_none=True) for key, one in lengths.items()}
    return {**document, "workload": workload | filled | {"arrival": described_arrival}}


def _found(path: Path, folder: Path | None) -> Path:
    if folder is not None and not path.is_file() and (folder / path).is_file():
        path = folder / path
    return path.absolute()


def _limit(document: Mapping[str, Any], model: str) -> tuple[int, str]:
    """The longest sequence that the engine takes, and what may be done about a longer one."""
    engine = document.get("engine")
    asked = engine.get("max_model_len") if isinstance(engine, dict) else None
    choice = "or workload.arrival.too_long (--too-long) as skip or truncate"
    if isinstance(asked, int) and asked > 0:
        return asked, f"engine.max_model_len of at least {{longest}}, {choice}"
    return load_model(model).max_position, f"a model that takes {{longest}} tokens, {choice}"


def _require_same_file(given: object, found: Recorded, where: str) -> None:
    """What a document says of its trace, where it was read before, must still be so."""
    if given is not None and given != found.model_dump():
        allowed = f"what the file holds now (SHA-256 {found.sha256[:12]}…); leave the key out to read it anew"
        raise BadInput(f"{where}: workload.arrival.recorded", given, allowed)


def _require_true(given: object, found: TokenLengths, where: str) -> None:
    """Lengths that stand beside a trace must be its own: rounded to whole tokens, or with a part of the keys."""
    if given is None:
        return
    says: Any = given if isinstance(given, dict) else {"mean": given}
    mean = says.get("mean", found.mean)
    true = isinstance(mean, int | float) and abs(mean - found.mean) <= _SAME
    true = true and says.get("sd") is None and says.get("distribution", "trace") == "trace"
    bounds = {"min": mean, "max": mean} if says.keys() <= {"mean"} else {"min": found.min, "max": found.max}
    if not true or any(says.get(key, bound) != getattr(found, key) for key, bound in bounds.items()):
        of_trace = f"mean {found.mean:.6g}, min {found.min}, max {found.max}"
        raise BadInput(where, given, f"nothing, as the trace brings its own ({of_trace})")
