"""How deployed winners hold the SLO of their decisions: what their engines say is read, and counted, all the time.

Which addresses are read says whoever starts the service, never a request.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from serve.launch.engine import served_model_id
from serve.measure.engine_latencies import EngineLatencies, fetch_latencies
from tuner.ask.request import SloTarget, TargetKey
from tuner.decide.attainment import Attainment
from tuner.errors import BadInput, ParlayError
from tuner.stats.buckets import NOTHING, Within
from tuner.study.store import Store

EVERY_S = 15.0
RECENT_S = 300.0
Fetch = Callable[[str], tuple[Mapping[str, EngineLatencies] | None, str | None]]


class Blind(StrEnum):
    """Why nothing, or not all, is seen of a deployed winner."""

    NO_WINNER = "no_winner"  # no such study, no decision, or none with a winner
    UNREACHABLE = "unreachable"  # an address that cannot be read
    NO_METRICS = "no_metrics"  # no histogram of vLLM's, or none for one of the targets
    OTHER_MODEL = "other_model"  # engines, but of other models


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a deployed winner. ``counts`` are since the service looked first, ``recent`` of the last
    minutes: by target, absent where nothing is seen."""

    study: str
    slo: tuple[SloTarget, ...] = ()
    blind: frozenset[Blind] = frozenset()
    counts: Mapping[TargetKey, Within] | None = None
    recent: Mapping[TargetKey, Within] | None = None
    why: str = ""


def deployed_at(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Addresses by study, of words such as ``STUDY=http://host:8000``; ``/metrics`` where a path is missing.

    Raises BadInput for a word of another form, and for an address with a user or a password in it.
    """
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        study, _, url = word.partition("=")
        try:
            parts = urlsplit(url)
            sound = bool(study and parts.hostname and parts.port != 0) and "@" not in parts.netloc
        except ValueError:
            sound = False
        if not sound or parts.scheme not in ("http", "https"):
            raise BadInput("--deployed", word, "STUDY=URL such as llama-70b=http://10.0.0.7:8000/metrics")
        found[study] = (*found.get(study, ()), parts._replace(path=parts.path.rstrip("/") or "/metrics").geturl())
    return found


class DeployedWinner:
    """The winner of one study, served at some addresses."""

    def __init__(self, study: str, urls: Sequence[str], fetch: Fetch = fetch_latencies) -> None:
        self._study, self._urls, self._fetch = study, tuple(urls), fetch
        self._model, self._attainment = "", Attainment(())
        self._past: deque[tuple[float, Mapping[TargetKey, Within]]] = deque()
        self.seen = Seen(study, blind=frozenset({Blind.NO_WINNER}), why="nobody has looked yet")

    def look(self, store: Store, at_s: float) -> None:
        """Read all addresses once; ``at_s`` in seconds of a clock that only rises. A store that is down, or a study
        that is gone a moment later, changes nothing of what is known already."""
        try:
            why = self._find_winner(store)
        except ParlayError as error:
            why = "" if self._attainment.slo else str(error)
        except ValueError:  # of an older Parlay
            why = f"study {self._study} cannot be read by this version"
        if why:
            self.seen = Seen(self._study, blind=frozenset({Blind.NO_WINNER}), why=why)
            return
        blind, whys, shown = set(), [], False
        for url in self._urls:
            reason, text = self._read(url)
            shown |= reason is None
            blind |= {reason} if reason else set()
            whys += [text] if text else []
        counts = self._attainment.counts
        if shown:  # nodes without an engine of this model are nothing to wonder about, as long as others have one
            blind &= {Blind.UNREACHABLE}
            blind |= set() if len(counts) == len({one.key for one in self._attainment.slo}) else {Blind.NO_METRICS}
        recent = self._recent(at_s, counts) if shown else None
        self.seen = Seen(self._study, self._attainment.slo, frozenset(blind), counts, recent, "; ".join(whys))

    def _find_winner(self, store: Store) -> str:
        """Whose SLO is to be held; why that is not known, empty where it is."""
        if store.listing.state(self._study) is None:
            self._attainment = Attainment(())
            return f"there is no study {self._study}"
        if not self._attainment.slo:
            decision, request = store.decision(self._study), store.study(self._study).request
            if decision is None or decision.winner is None:
                return f"study {self._study} has no winner"
            self._model, self._attainment = served_model_id(request), Attainment(request.slo)
            self._past.clear()
        return ""

    def _read(self, url: str) -> tuple[Blind | None, str]:
        """One address; why it shows nothing of the winner."""
        engines, why = self._fetch(url)
        if engines is None:
            return Blind.UNREACHABLE, why or url
        ours = {name: one.latencies for name, one in engines.items() if one.model == self._model}
        self._attainment.add(url, ours)
        if ours:
            return None, ""
        models = ", ".join(sorted({one.model for one in engines.values()}))
        if models:
            return Blind.OTHER_MODEL, f"{url} serves {models}, not {self._model}"
        return Blind.NO_METRICS, f"{url} shows no latencies of vLLM's"

    def _recent(self, at_s: float, counts: Mapping[TargetKey, Within]) -> Mapping[TargetKey, Within]:
        """What came since the last look that is old enough, or since the first."""
        self._past.append((at_s, counts))
        while len(self._past) > 2 and self._past[1][0] <= at_s - RECENT_S:
            self._past.popleft()
        before = self._past[0][1]
        return {key: count - before.get(key, NOTHING) for key, count in counts.items()}


class DeployedWinners:
    """All of them, looked at on a thread of its own while its ``with`` block lasts."""

    def __init__(
        self, store: Store, winners: Iterable[DeployedWinner], tell: Callable[[str], None], every_s: float = EVERY_S
    ) -> None:
        self._store, self._winners, self._tell, self._every_s = store, tuple(winners), tell, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, name="deployed", daemon=True)

    def __enter__(self) -> DeployedWinners:
        if self._winners:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._winners:
            self._thread.join()

    @property
    def seen(self) -> tuple[Seen, ...]:
        """What is known of each."""
        return tuple(winner.seen for winner in self._winners)

    def _go(self) -> None:
        told: dict[str, frozenset[Blind]] = {}
        while True:
            for winner in self._winners:
                winner.look(self._store, time.monotonic())
                seen = winner.seen
                if seen.blind != told.get(seen.study, frozenset()):
                    self._tell(f"parlay: the deployed winner of {seen.study}: {seen.why or 'it is seen again'}")
                told[seen.study] = seen.blind
            if self._stop.wait(self._every_s):
                return
