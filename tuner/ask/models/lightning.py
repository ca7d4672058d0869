"""Lightning attention (arXiv 2401.04658): a matrix per head that decays by a fixed rate, no softmax and no convolution
(Ling 2.5; vLLM ``layers/mamba/linear/``)."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.models.blocks import Mixer
from tuner.ask.models.cache import Piece, State
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors

_KIND = Layer.LINEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Lightning(Mixer):
    """``heads`` of ``head_dim``; the output is normed in so many ``groups`` and multiplied by a gate of the input.
    ``norm_elements`` of norms on queries and keys."""

    heads: int
    head_dim: int
    groups: int = 1
    bias: bool = False
    output_bias: bool = False
    norm_elements: int = 0
    place: str = "attention"

    @property
    def kind(self) -> str:
        """As people call it."""
        return "lightning attention"

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Queries, keys and values as one; the gate; the output."""
        width, at = self.heads * self.head_dim, self.place
        return (
            Matrix(_KIND, (f"{at}.query_key_value",), 3 * width, hidden, Cut.OUTPUTS, bias=self.bias),
            Matrix(_KIND, (f"{at}.g_proj",), width, hidden, Cut.OUTPUTS),
            Matrix(_KIND, (f"{at}.dense",), hidden, width, Cut.INPUTS, bias=self.output_bias),
        )

    def vectors(self, hidden: int) -> Vectors:
        """Norms of queries and keys by head, the norm of the output."""
        return Vectors(whole=self.norm_elements, split=self.heads * self.head_dim)

    @property
    def state(self) -> State:
        """A matrix per head."""
        return State((Piece(self.heads * self.head_dim**2),))

    def refuses(self, ranks: int) -> str | None:
        """Heads divide by the ranks, and the groups of the norm."""
        for what, count in (("heads of linear attention", self.heads), ("groups of its norm", self.groups)):
            if count % ranks:
                return f"{count} {what} do not divide by tp={ranks}"
        return None
