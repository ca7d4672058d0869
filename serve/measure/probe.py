"""Is there an OpenAI-compatible endpoint at an address, and does it serve the model? Every no is one clear line."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from serve.load.endpoint import Endpoint
from tuner.errors import BadInput, ParlayError

TIMEOUT_S = 10.0
MAX_BYTES = 1 << 22


class EndpointFailed(ParlayError):
    """The endpoint does not answer as it should; nothing was measured."""


def base_url(url: str) -> str:
    """The address without a closing ``/v1``, which many documents include."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def offered_models(endpoint: Endpoint, named: bool = False) -> tuple[str, ...] | None:
    """The names that ``GET /v1/models`` lists; None where the server has no such page, or where the model is ``named``
    and the list is refused: a key may be good for completions alone.

    Raises EndpointFailed where nobody answers, and BadInput where the key is refused or the answer is not OpenAI's.
    """
    listed = _listed(endpoint, named)
    return None if listed is None else tuple(str(model["id"]) for model in listed)


def longest_served(endpoint: Endpoint) -> int | None:
    """The prompt and output that the endpoint's model takes together, in tokens, as vLLM says it (``max_model_len``);
    None where the server does not say. Raises as ``offered_models`` does."""
    said = [
        model.get("max_model_len") for model in _listed(endpoint, named=True) or () if model["id"] == endpoint.model
    ]
    return said[0] if said and type(said[0]) is int and said[0] > 0 else None


def _listed(endpoint: Endpoint, named: bool) -> list[dict[str, Any]] | None:
    """The models on ``GET /v1/models``, each with its ``id``; None as ``offered_models`` says."""
    url = endpoint.url.rstrip("/") + "/v1/models"
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if (tls := endpoint.tls()) is not None:
        handlers.append(urllib.request.HTTPSHandler(context=tls))
    request = urllib.request.Request(url, headers=dict(endpoint.headers))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as response:
            document = json.loads(response.read(MAX_BYTES))
    except urllib.error.HTTPError as error:
        if error.code in (404, 405) or (named and error.code != 401):
            return None
        if error.code in (401, 403):
            given = "a key" if endpoint.headers else "no key"
            raise BadInput("API key", given, f"one that the server accepts; {url} answers {error.code}") from None
        raise EndpointFailed(f"{url} answers with status {error.code}") from None
    except OSError as error:
        raise EndpointFailed(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from None
    except (ValueError, http.client.HTTPException):
        raise BadInput("URL", endpoint.url, f"an OpenAI-compatible endpoint; {url} answers with no JSON") from None
    models = document.get("data") if isinstance(document, dict) else None
    if not isinstance(models, list) or not all(isinstance(model, dict) and "id" in model for model in models):
        raise BadInput("URL", endpoint.url, f"an OpenAI-compatible endpoint; {url} lists no models")
    return models


def choose_model(offered: tuple[str, ...] | None, asked: str | None, url: str) -> str:
    """The model that requests will name: the one asked for, or the only one (the first, where there are several).

    Raises BadInput for a model that is not offered, listing those that are.
    """
    if not offered:
        if asked is None:
            allowed = f"a model's name; {url} does not say what it serves (is it an OpenAI-compatible endpoint?)"
            raise BadInput("--model", "nothing", allowed)
        return asked
    if asked is not None and asked not in offered:
        raise BadInput("--model", asked, f"what {url} serves: {', '.join(offered)}")
    return asked or offered[0]
