"""What the types of problem details (RFC 9457) are, that say more than their status."""

from __future__ import annotations

INFEASIBLE = "urn:parlay:problem:no-feasible-layout"  # of the problem that NoFeasibleLayout is
QUOTA = "urn:parlay:problem:quota"  # of one that says what an account has spent of what it may
