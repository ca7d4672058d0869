"""What the types of problem details (RFC 9457) are, that say more than their status."""

from __future__ import annotations

INFEASIBLE = "urn:parlay:problem:no-feasible-layout"  # of the problem that NoFeasibleLayout is
