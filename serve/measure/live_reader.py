"""Reads what deployments have counted, from wherever their engines and their ways in tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from serve.measure.exposition import read_text
from serve.measure.live_counts import EngineCounts, parse_counts
from serve.measure.live_ingress import Answered, serve_answers, tells_answers
from serve.measure.live_looks import Reading

MOST_AT_ONCE = 16
Fetch = Callable[[str], tuple[str | None, str | None]]


@dataclass(frozen=True, slots=True)
class Places:
    """Where it is told. ``agents`` are addresses that show several deployments' engines, told apart by ``replicas``:
    the deployment of each of Ray Serve's replica ids. ``direct`` are addresses of one deployment's engines each.
    ``front`` is what stands before a deployment, as it tells it."""

    agents: tuple[str, ...] = ()
    replicas: Mapping[str, str] = field(default_factory=dict)
    direct: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    front: Mapping[str, Answered] = field(default_factory=dict)

    @property
    def deployments(self) -> tuple[str, ...]:
        """All that is told of, by name."""
        return tuple(sorted({*self.replicas.values(), *self.direct, *self.front}))


def fetch_text(url: str) -> tuple[str | None, str | None]:
    """One GET: the text, or why there is none."""
    return read_text(url, {}, None)


def readings(places: Places, at_s: float, fetch: Fetch = fetch_text) -> dict[str, Reading]:
    """A reading of each deployment; addresses are read side by side. What cannot be read is named in each reading that
    it would have been part of."""
    urls = tuple(dict.fromkeys([*places.agents, *(url for urls in places.direct.values() for url in urls)]))
    with ThreadPoolExecutor(max(1, min(MOST_AT_ONCE, len(urls)))) as pool:
        pages = dict(zip(urls, pool.map(lambda url: _page(url, fetch), urls), strict=True))
    return {name: _reading(name, places, pages, at_s) for name in places.deployments}


@dataclass(frozen=True, slots=True)
class _Page:
    engines: Mapping[str, EngineCounts] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tells_answers: bool = False
    read: bool = True


def _page(url: str, fetch: Fetch) -> _Page:
    text, _ = fetch(url)
    if text is None:
        return _Page(read=False)
    try:
        return _Page(parse_counts(text), serve_answers(text), tells_answers(text))
    except ValueError:  # not of the format: as good as not read
        return _Page(read=False)


def _reading(name: str, places: Places, pages: Mapping[str, _Page], at_s: float) -> Reading:
    own = places.direct.get(name, ())
    engines: dict[str, EngineCounts] = {}
    statuses: dict[str, Mapping[str, float]] = {}
    for url in own:
        engines |= {f"{url}|{key}": one for key, one in pages[url].engines.items()}
    for url in places.agents:
        engines |= _engines_of(name, places.replicas, pages[url].engines.items())
        if name in pages[url].answers or pages[url].tells_answers:
            statuses[url] = pages[url].answers.get(name, {})
    unread = tuple(url for url in (*places.agents, *own) if not pages[url].read)
    return Reading(at_s, engines, statuses, places.front.get(name), unread)


def _engines_of(
    name: str, replicas: Mapping[str, str], found: Iterable[tuple[str, EngineCounts]]
) -> dict[str, EngineCounts]:
    return {key: one for key, one in found if replicas.get(one.replica) == name}
