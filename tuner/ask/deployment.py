"""What is deployed: one engine group, or two pools of which one reads prompts and the other writes the answers.

Whatever is launched, measured, stored or emitted names a ``Deployment``; only what prices or runs engines looks inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import total_ordering

from tuner.ask.layout import ParallelLayout
from tuner.errors import BadInput

UNLAUNCHED = "two pools are simulated, not launched yet"  # what every launcher says of them
BETWEEN_POOLS = " -> "  # the KV cache passes from the first pool to the second


@total_ordering
@dataclass(frozen=True, slots=True)
class TwoPools:
    """Engines of ``prefill`` compute the prompts, those of ``decode`` all tokens after the first.

    It prints as ``tp=2,pp=1,dp=1 -> tp=1,pp=1,dp=2``, and orders after layouts of as many devices.
    """

    prefill: ParallelLayout
    decode: ParallelLayout

    @property
    def devices(self) -> int:
        """Devices of both pools."""
        return self.prefill.devices + self.decode.devices

    @property
    def gpu(self) -> str | None:
        """The node group where both live; None where the cluster has one, or they live apart."""
        return self.prefill.gpu if self.prefill.gpu == self.decode.gpu else None

    @property
    def shape(self) -> TwoPools:
        """The degrees of parallelism and the node groups alone, as ``ParallelLayout.shape``."""
        return TwoPools(self.prefill.shape, self.decode.shape)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What their settings may do to answers, each once."""
        return tuple(dict.fromkeys((*self.prefill.cautions, *self.decode.cautions)))

    def __str__(self) -> str:
        return f"{self.prefill}{BETWEEN_POOLS}{self.decode}"

    def __lt__(self, other: object) -> bool:
        if isinstance(other, ParallelLayout):
            return self.devices < other.devices
        if not isinstance(other, TwoPools):
            return NotImplemented
        return (self.devices, self.prefill, self.decode) < (other.devices, other.prefill, other.decode)


Deployment = ParallelLayout | TwoPools


def pools_of(deployment: Deployment) -> dict[str, ParallelLayout]:
    """The engine groups by what they do: ``serve`` alone, or ``prefill`` and ``decode``."""
    if isinstance(deployment, TwoPools):
        return {"prefill": deployment.prefill, "decode": deployment.decode}
    return {"serve": deployment}


def one_group(deployment: Deployment, where: str = "layout") -> ParallelLayout:
    """The layout of a deployment that is one engine group; raises BadInput for two pools, where those cannot be."""
    if isinstance(deployment, TwoPools):
        raise BadInput(where, str(deployment), f"one engine group; {UNLAUNCHED}")
    return deployment


def parse_deployment(text: str) -> Deployment:
    """Read what ``str`` printed; raises BadInput as ``ParallelLayout.parse`` does, and for more than two pools."""
    parts = [ParallelLayout.parse(part) for part in text.split(BETWEEN_POOLS.strip())]
    if len(parts) > 2:
        raise BadInput("layout", text, "one layout, or two: of the prefill pool and of the decode pool")
    return parts[0] if len(parts) == 1 else TwoPools(*parts)
