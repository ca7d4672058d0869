"""What the ways in have counted of an application's requests: Ray Serve's proxies, and HAProxy where it stands before.

Ray Serve 2.60 tells ``serve_num_http_requests`` by application, method and status; Ray's agents add the prefix ``ray_``
and, since Prometheus' client does, ``_total``. HAProxy's statistics are its documented CSV (management guide, section
9.1). An answer with a status of 500 and more is a failure of what serves; below that it is the asker's doing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_PROXY = ("ray_serve_num_ongoing_http_requests", "serve_num_ongoing_http_requests")
_NAMES = ("ray_serve_num_http_requests_total", "ray_serve_num_http_requests", "serve_num_http_requests")


@dataclass(frozen=True, slots=True)
class Answered:
    """How many requests one way in has answered since it began: in all, and those that failed. ``waiting``: how many
    it holds now that no server has yet; None where it does not tell."""

    requests: float
    failed: float
    waiting: float | None = None

    def __add__(self, other: Answered) -> Answered:
        known = [one for one in (self.waiting, other.waiting) if one is not None]
        return Answered(self.requests + other.requests, self.failed + other.failed, sum(known) if known else None)


def serve_answers(text: str) -> dict[str, dict[str, float]]:
    """Requests by application and status, of those that ask for an answer (POST), from the text of a Ray node's agent.

    Empty where it tells none. Raises ValueError for a line of these that is not of the format.
    """
    lines = [line for line in text.splitlines() if line.startswith(tuple(f"{name}{{" for name in _NAMES))]
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.labels.get("method", "POST") == "POST":
                by_status = found.setdefault(sample.labels.get("application", ""), {})
                status = sample.labels.get("status_code", "")
                by_status[status] = by_status.get(status, 0.0) + sample.value
    return found


def tells_answers(text: str) -> bool:
    """Whether a proxy of Ray Serve tells its counts there: one that has answered nothing yet shows no request."""
    return any(line.startswith(_PROXY) for line in text.splitlines())


def is_failure(status: str) -> bool:
    """Whether a status says that what serves has failed."""
    return status[:1] == "5"


def haproxy_answers(text: str) -> dict[tuple[str, str], Answered]:
    """What HAProxy has counted, by backend and server (``BACKEND`` the whole), from its statistics as CSV.

    Failures are answers of status 500 and more, HAProxy's own among them, and those that the server broke off after
    they had begun (``srv_abrt``), which have a good status. Raises ValueError for a text that is not of that form.
    """
    found = {}
    for row in _rows(text):
        if row["svname"] == "FRONTEND":
            continue
        failed = _number(row, "hrsp_5xx", "srv_abrt")
        found[row["pxname"], row["svname"]] = Answered(_number(row, *_STATUSES), failed, _number(row, "qcur"))
    return found


def haproxy_refused(text: str) -> float:
    """How many requests HAProxy has answered with a status of 500 and more before any backend had them.

    Raises ValueError for a text that is not of that form.
    """
    by = {"FRONTEND": 0.0, "BACKEND": 0.0}
    for row in _rows(text):
        if (kind := row["svname"] or "") in by:
            by[kind] += _number(row, "hrsp_5xx")
    return max(0.0, by["FRONTEND"] - by["BACKEND"])


_STATUSES = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other")


def _rows(text: str) -> list[dict[str, str]]:
    lines = text.lstrip("# ").splitlines()
    if not lines or not lines[0].startswith("pxname,svname,"):
        raise ValueError("not HAProxy's statistics")
    return list(csv.DictReader(io.StringIO("\n".join(lines))))


def _number(row: Mapping[str, str | None], *names: str) -> float:
    return sum(float(row.get(name) or 0) for name in names)
