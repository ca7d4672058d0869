"""Correct predicted runs by measured runs of the same layout: a few probes say how far off the prediction is.

Per figure, log(measured / predicted) of a layout's probes is taken as a straight line over the logs of users, prompt
and output tokens, drawn to a constant, and that to zero (ridge regression): one probe shifts the predictions, three
also tilt them, none leaves them as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.validate.points import Points

Floats = NDArray[np.float64]
LAYOUT = (
    "model_path", "system", "precision", "gemm_quant_mode", "moe_quant_mode", "backend_version", "tp_size", "pp_size",
    "attention_dp_size", "moe_tp_size", "moe_ep_size",
)  # fmt: skip
_LOAD = ("concurrency", "prompt_tokens", "output_tokens")
_SHIFT, _TILT = 0.15, 0.08  # log units expected of a layout's shift, and of its change per doubling of a load column
_NOISE = 0.15  # log units by which a measured run differs from any straight line over its layout


def correct(points: Points, predicted: Floats, probes: Points, probe_predicted: Floats, measured: Floats) -> Floats:
    """``predicted`` [row, figure] of ``points``, corrected by the ``probes`` of each row's layout.

    ``probe_predicted`` and ``measured`` are [probe, figure], NaN where there is none.
    """
    found = predicted.copy()
    log_error: Floats = np.log(measured / probe_predicted)
    at, probed_at = _load(points), _load(probes)
    rows, probed = _by_layout(points), _by_layout(probes)
    for layout in rows.keys() & probed.keys():
        for figure in range(predicted.shape[1]):
            known = [probe for probe in probed[layout] if np.isfinite(log_error[probe, figure])]
            if known:
                shift = _ridge(probed_at[known], log_error[known, figure], at[rows[layout]])
                found[rows[layout], figure] *= np.exp(shift)
    return found


def _ridge(known_at: Floats, known: Floats, at: Floats) -> Floats:
    """Expected log error at ``at`` (Bayesian linear regression)."""
    scale = np.array([_SHIFT, *[_TILT] * known_at.shape[1]])
    centre = known_at.mean(axis=0)

    def features(where: Floats) -> Floats:
        return np.asarray(np.column_stack([np.ones(len(where)), where - centre]) * scale)

    seen = features(known_at)
    weights = np.linalg.solve(seen @ seen.T + _NOISE**2 * np.eye(len(known)), known)
    return np.asarray(features(at) @ seen.T @ weights, dtype=np.float64)


def _load(points: Points) -> Floats:
    return np.asarray(np.log2(np.stack([points.numbers(name, least=1) for name in _LOAD], axis=1)))


def _by_layout(points: Points) -> dict[Sequence[str], list[int]]:
    names = [name for name in LAYOUT if name in points.columns]
    found: dict[Sequence[str], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(*(points.columns[name] for name in names), strict=True)):
        found[key].append(row)
    return found
