"""What is noticed of what serves: detectors of the deployment that has the traffic, in the state that all of its looks
give them, those before a kill too."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tuner.ask.request import TuneRequest
from tuner.retune.demand import OUTPUT, PROMPT, LoadRecord
from tuner.retune.detect.bins import BIN_SIZE, BinSize
from tuner.retune.detect.burn_rate import SOON, TIERS, Tier
from tuner.retune.detect.detector import Detectors
from tuner.retune.detect.on_end import SLOT_S
from tuner.retune.detect.residual import Expected
from tuner.retune.detect.standard import standard_detectors
from tuner.retune.evidence import ILL
from tuner.retune.live import LiveDeployment
from tuner.retune.notice import Notice
from tuner.retune.seen import Look
from tuner.study.looks import Looks

_KEPT = 240  # looks, for what asks for the last of them
PROVEN_S = 3600.0  # after so long without anything ill, what serves is good, whoever had it deployed
_LEAST_REQUESTS = 8.0  # of a bin, however short windows are


@dataclass(slots=True)
class _Known:
    name: str
    detectors: Detectors
    load: LoadRecord
    looks: deque[Look]
    last_s: float
    well_s: float
    seen_well_s: float = 0.0


class Noticing:
    """Of one watched study. ``shortened``: how many times shorter than they should be the detectors' windows are;
    ``expected`` gives what the model expects of a deployment's latencies, where it can."""

    def __init__(
        self,
        looks: Looks,
        watched: str,
        shortened: float = 1.0,
        expected: Callable[[LiveDeployment], Expected | None] = lambda _: None,
    ) -> None:
        self._looks, self._watched, self._shortened, self._expected = looks, watched, shortened, expected
        self._known: _Known | None = None

    def notices(self, live: LiveDeployment, request: TuneRequest, decided_s: float | None = None) -> tuple[Notice, ...]:
        """All that holds as of the last look that was kept; ``request`` is what its layout was chosen for,
        ``decided_s`` when it was decided again last, and stayed (s since 1970)."""
        known = self._known
        if known is None or known.name != live.name:
            since_s = live.serving_since_s or live.created_s
            known = self._known = _Known(
                live.name, self._detectors(live, request), LoadRecord(), deque(maxlen=_KEPT), since_s, since_s
            )
        for look in self._looks.of(self._watched, live.name, known.last_s):
            self._add(known, look, decided_s)
        return known.detectors.notices

    def _add(self, known: _Known, look: Look, decided_s: float | None) -> None:
        if decided_s is not None and known.last_s < decided_s <= look.at_s:
            known.load.heed(known.detectors.notices)
            known.detectors.decided(decided_s)
        known.detectors.look(look)
        known.load.add(look)
        known.looks.append(look)
        known.last_s = look.at_s
        if any(one.kind in ILL for one in known.detectors.notices):
            known.well_s, known.seen_well_s = look.at_s, 0.0
        else:
            known.seen_well_s += look.seconds

    def glimpse(self, live: LiveDeployment, request: TuneRequest, look: Look) -> None:
        """Take in a look that nobody keeps."""
        self.notices(live, request)
        if self._known is not None:
            self._add(self._known, look, None)

    @property
    def load(self) -> LoadRecord:
        """The load of what serves."""
        return LoadRecord() if self._known is None else self._known.load

    @property
    def well_s(self) -> float | None:
        """Since when nothing ill was noticed of what serves, in s since 1970; None before the first look."""
        return None if self._known is None else self._known.well_s

    @property
    def is_proven(self) -> bool:
        """Whether what serves was seen to serve well for as long as makes it good to go back to."""
        return self._known is not None and self._known.seen_well_s >= PROVEN_S / self._shortened

    @property
    def recent(self) -> tuple[Look, ...]:
        """The last looks at what serves, the oldest first."""
        return () if self._known is None else tuple(self._known.looks)

    def _detectors(self, live: LiveDeployment, request: TuneRequest) -> Detectors:
        load = request.workload
        rate = load.arrival.requests_per_s
        tokens = {PROMPT: float(load.prompt_tokens.mean), OUTPUT: float(load.output_tokens.mean)}
        if self._shortened == 1.0:
            return standard_detectors(
                request.slo,
                live.fingerprint,
                self._expected(live),
                planned_req_per_s=rate,
                planned_tokens=tokens,
            )
        by = self._shortened
        size = BinSize(max(_LEAST_REQUESTS, BIN_SIZE.requests / by), BIN_SIZE.seconds / by)
        tiers = [Tier(one.burn_rate, one.long_s / by, one.short_s / by) for one in (*TIERS, SOON)]
        return standard_detectors(
            request.slo,
            live.fingerprint,
            self._expected(live),
            seasonal=False,
            size=size,
            planned_req_per_s=rate,
            planned_tokens=tokens,
            tiers=tiers,
            slot_s=SLOT_S / by,
        )
