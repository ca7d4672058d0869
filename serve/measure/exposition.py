"""vLLM's metrics as they are served: over HTTP, in Prometheus' text format, under the names of vLLM or of Ray.

vLLM serves them at ``/metrics``; Ray's metrics agent serves those of the engines of its node, at the node's
``MetricsExportPort`` (``--metrics-export-port`` of ``ray start``).
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 5.0
MAX_BYTES = 1 << 24
_PREFIXES = ("vllm:", "ray_vllm:", "ray_vllm_")  # Ray turns the colon into an underscore in its newer exporters
_ENGINE_LABELS = ("ReplicaId", "engine")


@dataclass(frozen=True, slots=True)
class EngineSample:
    """One value: its name without prefix, the engine's name, and the labels."""

    name: str
    engine: str
    labels: Mapping[str, str]
    value: float


def engine_samples(text: str, names: Collection[str]) -> Iterator[EngineSample]:
    """vLLM's samples whose names, without prefix, begin with one of ``names``.

    Lines of other metrics are dropped before they are parsed: a server exposes thousands of histogram buckets.
    Raises ValueError for a line of ours that is not of the format.
    """
    wanted = tuple(prefix + name for prefix in _PREFIXES for name in names)
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            name = next((sample.name.removeprefix(p) for p in _PREFIXES if sample.name.startswith(p)), "")
            label = "/".join(value for key in _ENGINE_LABELS if (value := sample.labels.get(key)))
            yield EngineSample(name, label or "0", sample.labels, sample.value)


def read_text(url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> tuple[str | None, str | None]:
    """One GET: the text, or why there is none. A redirection to another server is not followed."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _StaysThere()]
    if tls is not None:
        handlers.append(urllib.request.HTTPSHandler(context=tls))
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as response:
            return response.read(MAX_BYTES).decode("utf-8", "replace"), None
    except urllib.error.HTTPError as error:
        return None, f"{url} answers with status {error.code}"
    except OSError as error:
        return None, f"{url} cannot be read: {getattr(error, 'reason', error)}"
    except http.client.HTTPException as error:
        return None, f"{url} cannot be read: it does not answer in HTTP ({type(error).__name__})"


class _StaysThere(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)
