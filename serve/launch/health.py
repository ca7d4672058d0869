"""Is a deployment ready: it names its model, and every replica has answered a completion."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tuner.trial.seams import Watch

T = TypeVar("T")

WARM_REQUESTS_PER_REPLICA = 2  # at once, so that the router's choice of the shorter queue reaches every replica
WARM_PROMPT = "How many accelerators does this service need?"
WARM_OUTPUT_TOKENS = 4


def served_models(url: str, *, timeout_s: float) -> tuple[str, ...]:
    """Model names that ``GET url/v1/models`` lists; empty while nothing answers there."""
    try:
        return tuple(str(model["id"]) for model in _json(f"{url}/v1/models", None, timeout_s)["data"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return ()


def completes(url: str, model_id: str, *, timeout_s: float, prompt: str = WARM_PROMPT) -> bool:
    """True where a short completion comes back with the tokens that were asked for."""
    body = {"model": model_id, "prompt": prompt, "max_tokens": WARM_OUTPUT_TOKENS, "ignore_eos": True}
    try:
        answer = _json(f"{url}/v1/completions", body, timeout_s)
        return int(answer["usage"]["completion_tokens"]) == WARM_OUTPUT_TOKENS
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False


def warm_up(url: str, model_id: str, replicas: int, *, timeout_s: float) -> bool:
    """Send each replica its first requests; True where all were answered, so none is cold when it is measured.

    No two begin alike: a router that looks at prompts would send them to one replica.
    """
    count = replicas * WARM_REQUESTS_PER_REPLICA
    with ThreadPoolExecutor(max_workers=min(count, 64)) as pool:
        prompts = [f"{number} {WARM_PROMPT}" for number in range(count)]
        answers = pool.map(lambda prompt: completes(url, model_id, timeout_s=timeout_s, prompt=prompt), prompts)
        return all(list(answers))


class Waiting:
    """How a launch waits: it tells its watch what for, when that changes and every few seconds, with the seconds so
    far, and waits no longer than the launch is wanted."""

    def __init__(self, watch: Watch, every_s: float = 5.0) -> None:
        self._watch, self._every_s = watch, every_s
        self._said: tuple[str, float] | None = None

    def tell(self, words: str) -> None:
        """Of what is launched, while nothing is waited for yet."""
        self._watch.progress(words)

    def pause(self, seconds: float) -> None:
        """Let so many seconds go by; raises Cancelled as soon as the launch is cancelled."""
        self._watch.cancel.wait(seconds)

    def answer(self, ask: Callable[[], T]) -> T:
        """What ``ask`` comes back with; raises Cancelled as soon as the launch is cancelled, and leaves it behind."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(ask())
            except BaseException as error:
                future.set_exception(error)

        ended = threading.Event()
        future.add_done_callback(lambda _: ended.set())
        with self._watch.cancel.listening(lambda *_: ended.set()):
            threading.Thread(target=work, name="asking", daemon=True).start()
            ended.wait()
        self._watch.cancel.raise_if_cancelled()
        return future.result()

    def on(self, what: str, elapsed_s: float, since_s: float = 0.0) -> None:
        """Waiting for ``what`` since ``since_s``, ``elapsed_s`` seconds into the launch."""
        if self._said is None or self._said[0] != what or elapsed_s - self._said[1] >= self._every_s:
            self._said = (what, elapsed_s)
            so_far = f"{elapsed_s - since_s:.0f} s"
            self._watch.progress(f"{what} ({so_far}{f', {elapsed_s:.0f} s in all' if since_s >= 1 else ''})")


def _json(url: str, body: dict[str, Any] | None, timeout_s: float) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout_s) as response:
        return json.load(response)
