"""The detectors of a live deployment, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tuner.ask.request import SloTarget
from tuner.retune.detect.bins import BIN_SIZE, BinSize
from tuner.retune.detect.blind import Blind
from tuner.retune.detect.burn_rate import SOON, TIERS, BurnRate, Tier
from tuner.retune.detect.cluster_change import ClusterChange
from tuner.retune.detect.detector import Detectors
from tuner.retune.detect.drifted import Drifted
from tuner.retune.detect.on_end import SLOT_S, OnEnd
from tuner.retune.detect.residual import Expected, Residual
from tuner.retune.detect.straggler import Straggler
from tuner.retune.detect.surge import Surge
from tuner.retune.detect.workload_shift import WorkloadShift, signals
from tuner.retune.seen import Fingerprint


def standard_detectors(
    slo: Sequence[SloTarget],
    before: Fingerprint | None = None,
    expected: Expected | None = None,
    *,
    seasonal: bool = True,
    size: BinSize = BIN_SIZE,
    planned_req_per_s: float | None = None,
    planned_tokens: Mapping[str, float] = MappingProxyType({}),
    tiers: Sequence[Tier] = (*TIERS, SOON),
    slot_s: float = SLOT_S,
) -> Detectors:
    """All there are. ``before`` is what the decision rests on (None: what is seen first), ``expected`` what its layout
    should take by load (None: what it takes at first); ``seasonal``: load follows days and weeks. The load that the
    layout was chosen for is held against a plan where it is given: ``planned_req_per_s``, and ``planned_tokens`` by
    ``prompt_tokens`` and ``output_tokens``. ``slot_s``: a quarter of what is missed on end."""
    return Detectors(
        [
            Blind(slo),
            ClusterChange(before),
            BurnRate(slo, tiers),
            OnEnd(slo, slot_s),
            *([] if planned_req_per_s is None else [Surge(planned_req_per_s, seasonal)]),
            Drifted(planned_tokens),
            WorkloadShift(signals(seasonal=seasonal, size=size)),
            Residual(expected, size),
            Straggler(),
        ]
    )
