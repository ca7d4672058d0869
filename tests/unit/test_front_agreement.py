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
def test_it_keeps_up_below_saturation_and_is_late_beyond(cores: tuple[float | None, float]) -> None:
    """Beyond it answers come later and later, but for those whose tokens wait for each other and leave together."""
    for front in FRONTS:
        one = path(front, cores)
        most = one.saturation(64, 20.0)[1]
        late_s = []
        for share in (0.88, 1.12):
            own, seen = simulated(one, share * most, STEPS[0], 25.0, 5)
            begin, end = (float(np.mean(part)) for part in np.array_split(seen.end_s - own.end_s, 4)[::3])
            grows = bool(end - begin > 0.02 * 0.75 * own.arrival_s[-1])
            assert grows == (share > 1 and not (front[1] and one.fit.name == "ray_haproxy"))
            late_s.append(float(np.mean(np.array_split(seen.first_token_s - own.first_token_s, 4)[3])))
        assert late_s[1] > 3 * late_s[0]
