"""The path in closed form against the simulated one (``python -m tests.benchmarks.front_agreement``): waits, and
saturation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tests.benchmarks.front_agreement import CORES, FRONTS, STEPS, apart, path, simulated


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
def test_ttft_is_that_of_the_simulator_over_rates_and_cores(front: tuple[str, int, int]) -> None:
    for cores, share in product(CORES, (0.2, 0.5)):
        one = path(front, cores)
        rate = share * one.saturation(64, 20.0)[1]
        assert apart(one, rate, STEPS[0], 20.0, 2) == pytest.approx(1.0, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("cores", CORES)
def test_it_keeps_up_below_saturation_and_piles_up_beyond(cores: tuple[float | None, float]) -> None:
    for front in FRONTS:
        one = path(front, cores)
        most = one.saturation(64, 20.0)[1]
        for share in (0.88, 1.12):
            own, seen = simulated(one, share * most, STEPS[0], 25.0, 5)
            late_s = (seen.first_token_s - own.first_token_s) / one.fit.passes
            begin, end = (float(np.mean(part)) for part in np.array_split(late_s, 4)[::3])
            assert bool(end - begin > 0.02 * 0.75 * own.arrival_s[-1]) == (share > 1)
