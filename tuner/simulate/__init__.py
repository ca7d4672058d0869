"""The serving simulator: one layout under a load, step by step as vLLM V1 schedules, in milliseconds of wall time.

Numba is imported at the first run, not with this package: planning alone stays light.
"""

from tuner.simulate.disaggregated import DisaggregatedSimulator, Pool
from tuner.simulate.result import SimulationResult
from tuner.simulate.simulator import ROUTERS, SimulationSettings, Simulator, max_rate, simulate, simulated_requests

__all__ = [
    "ROUTERS",
    "DisaggregatedSimulator",
    "Pool",
    "SimulationResult",
    "SimulationSettings",
    "Simulator",
    "max_rate",
    "simulate",
    "simulated_requests",
]
