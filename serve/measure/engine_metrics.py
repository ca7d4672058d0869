"""An engine's own figures beside a load: queue, running requests, KV cache, preemptions and prefix cache.

Read from the Prometheus text that vLLM serves at ``/metrics``, or that Ray's metrics agent serves for the engines of a
node. Names differ between versions (``vllm:gpu_cache_usage_perc`` was renamed in 0.9.2 and removed in 0.13, see vLLM's
pull requests 18354 and 29330); the newest name that is exposed counts. What is not exposed is None, never 0.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from serve.measure.exposition import TIMEOUT_S, engine_samples, read_text

EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """One engine at one moment. ``running`` and ``waiting`` count requests, ``kv_cache_share`` is from 0 to 1; the
    others are counters since the engine's start (the prefix cache's in tokens)."""

    running: float | None = None
    waiting: float | None = None
    kv_cache_share: float | None = None
    preemptions: float | None = None
    prefix_queries_tokens: float | None = None
    prefix_hits_tokens: float | None = None


# figure → names without the prefix ``vllm:``, the newest first
_NAMES: dict[str, tuple[str, ...]] = {
    "running": ("num_requests_running",),
    "waiting": ("num_requests_waiting",),
    "kv_cache_share": ("kv_cache_usage_perc", "gpu_cache_usage_perc"),
    "preemptions": ("num_preemptions_total", "num_preemptions"),
    "prefix_queries_tokens": (
        "prefix_cache_queries_total",
        "prefix_cache_queries",
        "gpu_prefix_cache_queries_total",
        "gpu_prefix_cache_queries",
    ),
    "prefix_hits_tokens": (
        "prefix_cache_hits_total",
        "prefix_cache_hits",
        "gpu_prefix_cache_hits_total",
        "gpu_prefix_cache_hits",
    ),
}
LEVELS = ("waiting", "running", "kv_cache_share")
COUNTERS = ("preemptions", "prefix_queries_tokens", "prefix_hits_tokens")
WINDOW_FIGURES = (*(f"{level}_{fold}" for level in LEVELS for fold in ("mean", "max")), *COUNTERS)
_WANTED = tuple(name for names in _NAMES.values() for name in names)


@dataclass(frozen=True, slots=True)
class Scrape:
    """All engines behind one endpoint at one moment: seconds of ``time.perf_counter``, and figures by engine label."""

    at_s: float
    engines: Mapping[str, EngineFigures]

    def total(self, figure: str) -> float | None:
        """The figure over all engines: the sum, or for the KV cache the fullest; None where no engine has it."""
        values: list[float] = [v for one in self.engines.values() if (v := getattr(one, figure)) is not None]
        if not values:
            return None
        return max(values) if figure == "kv_cache_share" else sum(values)


@dataclass(frozen=True, slots=True)
class EngineWindow:
    """What the engines said of a window; means and maxima are over the scrapes in it.

    Requests are summed over the engines, the KV cache is that of the fullest; counters are differences over the window.
    ``restarted`` names engines whose counters fell. ``missing`` says why there are no figures, None where there are.
    """

    scrapes: tuple[Scrape, ...] = ()
    waiting_mean: float | None = None
    waiting_max: float | None = None
    running_mean: float | None = None
    running_max: float | None = None
    kv_cache_share_mean: float | None = None
    kv_cache_share_max: float | None = None
    preemptions: float | None = None
    prefix_queries_tokens: float | None = None
    prefix_hits_tokens: float | None = None
    restarted: tuple[str, ...] = ()
    missing: str | None = None

    @property
    def figures(self) -> dict[str, float]:
        """The figures that exist, by name."""
        every = {name: getattr(self, name) for name in WINDOW_FIGURES}
        return {name: value for name, value in every.items() if value is not None}

    @property
    def prefix_hit_share(self) -> float | None:
        """Share of the prompt tokens looked up that the prefix cache held; None where none was looked up."""
        if not self.prefix_queries_tokens or self.prefix_hits_tokens is None:
            return None
        return self.prefix_hits_tokens / self.prefix_queries_tokens


def parse_metrics(text: str) -> dict[str, EngineFigures]:
    """The figures in a Prometheus text by engine label; empty where it has none of vLLM's.

    Raises ValueError for a line of ours that is not of the format.
    """
    found: dict[str, dict[str, float]] = {}
    for sample in engine_samples(text, _WANTED):
        values, name = found.setdefault(sample.engine, {}), sample.name
        seen = values.get(name, 0.0)
        values[name] = max(seen, sample.value) if name.endswith("usage_perc") else seen + sample.value
    figures = {label: _figures(values) for label, values in found.items()}
    return {label: one for label, one in figures.items() if one != EngineFigures()}


def _figures(values: Mapping[str, float]) -> EngineFigures:
    chosen = {
        figure: next((values[name] for name in names if name in values), None) for figure, names in _NAMES.items()
    }
    return EngineFigures(**chosen)


def window_of(scrapes: Sequence[Scrape], start_s: float, end_s: float, missing: str | None = None) -> EngineWindow:
    """Fold the scrapes taken from ``start_s`` to ``end_s`` (``time.perf_counter``).

    Counters are compared with the last scrape before the window, so that the first second is not lost.
    """
    inside = tuple(scrape for scrape in scrapes if start_s <= scrape.at_s <= end_s)
    if not any(scrape.engines for scrape in inside):
        return EngineWindow(missing=missing or "no scrape fell into the window")
    before = [scrape for scrape in scrapes if scrape.at_s < start_s][-1:]
    counted = {name: increase([*before, *inside], name) for name in COUNTERS}
    levels = {name: [v for one in inside if (v := one.total(name)) is not None] for name in LEVELS}
    mean = {name: sum(values) / len(values) if values else None for name, values in levels.items()}
    highest = {name: max(values, default=None) for name, values in levels.items()}
    return EngineWindow(
        scrapes=inside,
        waiting_mean=mean["waiting"],
        waiting_max=highest["waiting"],
        running_mean=mean["running"],
        running_max=highest["running"],
        kv_cache_share_mean=mean["kv_cache_share"],
        kv_cache_share_max=highest["kv_cache_share"],
        preemptions=counted["preemptions"][0],
        prefix_queries_tokens=counted["prefix_queries_tokens"][0],
        prefix_hits_tokens=counted["prefix_hits_tokens"][0],
        restarted=tuple(sorted({engine for _, fell in counted.values() for engine in fell})),
    )


def increase(scrapes: Iterable[Scrape], counter: str) -> tuple[float | None, tuple[str, ...]]:
    """How much a counter grew over all engines, and the engines whose counter fell: those restarted from 0.

    None where no engine has it twice.
    """
    last: dict[str, float] = {}
    grown: float | None = None
    fell: set[str] = set()
    for scrape in scrapes:
        for engine, figures in scrape.engines.items():
            value = getattr(figures, counter)
            if value is None:
                continue
            if engine in last:
                reset = value < last[engine]
                grown = (grown or 0.0) + (value if reset else value - last[engine])
                fell |= {engine} if reset else set()
            last[engine] = value
    return grown, tuple(sorted(fell))


class Scraper:
    """Reads ``urls`` about once a second on a thread of its own while its ``with`` block lasts.

    The thread sleeps or waits for the network nearly all the time, and parses a few lines per scrape. An endpoint
    without metrics is asked once and then left alone; one that fails later is asked again.
    """

    def __init__(
        self,
        urls: Sequence[str],
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._urls, self._headers, self._tls, self._every_s = tuple(urls), dict(headers or {}), tls, every_s
        self._scrapes: list[Scrape] = []
        self._missing: str | None = None if self._urls else "no metrics address is known"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, name="scrape", daemon=True)

    def __enter__(self) -> Scraper:
        self._once()
        if self._scrapes:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(2 * TIMEOUT_S)

    @property
    def latest(self) -> Scrape | None:
        """The newest scrape, None while there is none."""
        return self._scrapes[-1] if self._scrapes else None

    def window(self, start_s: float, end_s: float) -> EngineWindow:
        """What was seen between two instants of ``time.perf_counter``; the end is scraped once more if it is now."""
        if self._scrapes and end_s >= self._scrapes[-1].at_s:
            self._once()
            end_s = self._scrapes[-1].at_s
        return window_of(list(self._scrapes), start_s, end_s, self._missing)

    def _go(self) -> None:
        while not self._stop.wait(self._every_s):
            self._once()

    def _once(self) -> None:
        engines: dict[str, EngineFigures] = {}
        at_s = time.perf_counter()
        for number, url in enumerate(self._urls):
            found, why = fetch(url, self._headers, self._tls)
            self._missing = why if why else self._missing
            engines |= {label if len(self._urls) == 1 else f"{number}/{label}": one for label, one in found.items()}
        if engines:
            self._scrapes.append(Scrape((at_s + time.perf_counter()) / 2, engines))


def fetch(
    url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None
) -> tuple[dict[str, EngineFigures], str | None]:
    """One GET: the figures by engine, or why there are none."""
    text, why = read_text(url, headers, tls)
    if text is None:
        return {}, why
    try:
        found = parse_metrics(text)
    except ValueError as error:
        return {}, f"{url} is not in Prometheus' text format: {error}"
    return found, None if found else f"{url} exposes no metric of vLLM's"
