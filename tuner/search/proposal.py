"""What a search proposes."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.deployment import Deployment, one_group
from tuner.ask.layout import ParallelLayout
from tuner.trial.results import Purpose


@dataclass(frozen=True, slots=True)
class Proposal:
    """The next layout to launch, and why it is its turn. ``repeat`` counts the earlier trials of the layout;
    ``rate_req_per_s`` is of the one load step that is worth measuring, None for all.

    ``engine_of`` is the trial whose engine runs, where that is measured again, behind another path or for another
    window: nothing is launched.
    """

    deployment: Deployment
    why: str
    purpose: Purpose = Purpose.EXPLORE
    repeat: int = 0
    engine_of: int | None = None
    rate_req_per_s: float | None = None

    @property
    def layout(self) -> ParallelLayout:
        """The layout of a deployment that is one engine group; raises BadInput of two pools."""
        return one_group(self.deployment)
