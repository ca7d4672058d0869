"""A block of a model: what mixes tokens, what follows it, and the norms around both.

``Mixer`` is what every kind of mixer answers: its matrices, vectors, caches, state, and which tensor-parallel degrees
the engine refuses. Kinds are in ``attention``, ``latent``, ``compressed`` and ``recurrent``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tuner.ask.models.cache import Cache, State
from tuner.ask.models.matrices import NO_VECTORS, Cut, Layer, Matrix, Vectors, stored_elements


class Mixer(ABC):
    """What lets tokens see each other: attention, or a state that is carried along."""

    __slots__ = ()

    @property
    @abstractmethod
    def kind(self) -> str:
        """Its name for people, in the field's words."""

    @abstractmethod
    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Its projections, in the order in which they are multiplied."""

    def vectors(self, hidden: int) -> Vectors:
        """What it has beside its matrices and their biases."""
        return NO_VECTORS

    @property
    def caches(self) -> tuple[Cache, ...]:
        """What grows with a sequence."""
        return ()

    @property
    def state(self) -> State | None:
        """What does not."""
        return None

    @property
    def parts(self) -> tuple[Mixer, ...]:
        """Itself, or those that it has side by side."""
        return (self,)

    @property
    def reductions(self) -> int:
        """All-reduces of a row per token over tensor-parallel ranks that follow it."""
        return 1

    @abstractmethod
    def refuses(self, ranks: int) -> str | None:
        """Why the engine does not cut it over so many tensor-parallel ranks, with figures; None where it does."""


@dataclass(frozen=True, slots=True)
class MlpNames:
    """What checkpoints and vLLM call the matrices of an MLP: apart, and gate and up merged."""

    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    merged: str = "gate_up_proj"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp:
    """A dense MLP of width ``inter``: gate, up and down, or up and down where it is not ``gated``. ``bias`` of all of
    them; ``down_bias`` of the last, where that differs."""

    inter: int
    gated: bool = True
    bias: bool = False
    down_bias: bool | None = None
    place: str = "mlp"
    layer: Layer = Layer.DENSE
    whole: bool = False  # on every rank, uncut
    names: MlpNames = MlpNames()

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Its projections; those of routed experts under their short names too."""
        outputs, inputs = (Cut.NOTHING, Cut.NOTHING) if self.whole else (Cut.OUTPUTS, Cut.INPUTS)
        routed = self.layer is Layer.EXPERTS
        called, merged = self.names, self.names.merged

        def named(name: str, short: str, *more: str) -> tuple[str, ...]:
            own = (name, *((short,) if routed else ()), *more)
            return tuple(f"{self.place}.{one}" if self.place else one for one in own)

        down_bias = self.bias if self.down_bias is None else self.down_bias
        down = Matrix(self.layer, named(called.down, "w2"), hidden, self.inter, inputs, bias=down_bias)
        if not self.gated:
            return Matrix(self.layer, named(called.up, "w3"), self.inter, hidden, outputs, bias=self.bias), down
        gate_names, up_names = named(called.gate, "w1", merged), named(called.up, "w3", merged)
        gate = Matrix(self.layer, gate_names, self.inter, hidden, outputs, merged, bias=self.bias)
        return gate, Matrix(self.layer, up_names, self.inter, hidden, outputs, merged, bias=self.bias), down


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture: ``count`` routed experts of width ``inter``, ``topk`` of them per token, and what all tokens take.

    ``shared_inter`` is the width of all shared experts together; ``shared_gate``: their output is weighed by a gate of
    one row. ``router_bias``: a number per expert. ``width``: of the rows that experts read and write where that is not
    the hidden size (a latent mixture, with a projection down and up around the experts, called ``narrow``;
    ``narrow_plain``: never quantised). ``least``: width of an expert on a rank, to which narrower parts are padded.
    """

    count: int
    topk: int
    inter: int
    shared_inter: int = 0
    gated: bool = True
    bias: bool = False
    shared_gate: bool = False
    router_bias: bool = False
    width: int | None = None
    place: str = "mlp"
    shared_place: str = "mlp.shared_experts"
    zero_experts: int = 0  # that only pass on what they get
    narrow: tuple[str, str] = ("fc1_latent_proj", "fc2_latent_proj")
    narrow_plain: bool = False
    least: int = 0

    def padded(self, ranks: int) -> int:
        """Width of an expert over all of so many ranks that cut it, which pad narrow parts."""
        return max(self.inter, self.least * ranks) if ranks > 1 else self.inter

    def expert(self, hidden: int, ranks: int = 1) -> tuple[Matrix, ...]:
        """Matrices of one routed expert, spoken for by the first of them, as so many ranks cut it."""
        width = hidden if self.width is None else self.width
        found = Mlp(
            inter=self.padded(ranks),
            gated=self.gated,
            bias=self.bias,
            place=f"{self.place}.experts.0",
            layer=Layer.EXPERTS,
        ).matrices(width)
        first = f"{self.place}.experts.0."
        return tuple(
            replace(m, names=(*m.names, *(name.replace(first, f"{self.place}.experts.", 1) for name in m.names)))
            for m in found
        )

    def around(self, hidden: int) -> tuple[Matrix, ...]:
        """Matrices that every token takes: the router, and projections to the experts' width; whole on every rank."""
        router = Matrix(
            Layer.EXPERTS, (f"{self.place}.gate",), self.count + self.zero_experts, hidden, Cut.NOTHING, plain=True
        )
        if self.width is None:
            return (router,)
        first, second = (f"{self.place}.{one}" for one in self.narrow)
        plain = self.narrow_plain
        down = Matrix(Layer.SHARED, (first,), self.width, hidden, Cut.NOTHING, plain=plain)
        up = Matrix(Layer.SHARED, (second,), hidden, self.width, Cut.NOTHING, plain=plain)
        return router, down, up

    def shared(self, hidden: int) -> tuple[Matrix, ...]:
        """Matrices of the shared experts, as one MLP."""
        if not self.shared_inter:
            return ()
        gate = (Matrix(Layer.SHARED, (f"{self.shared_place}_gate",), 1, hidden, Cut.NOTHING, plain=True),)
        mlp = Mlp(inter=self.shared_inter, gated=self.gated, place=self.shared_place, layer=Layer.SHARED)
        return mlp.matrices(hidden) + (gate if self.shared_gate else ())

    def vectors(self) -> Vectors:
        """Biases of the router."""
        return Vectors(whole=self.count if self.router_bias else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One layer of a model, as ``get_pp_indices`` counts them; ``mixer``, ``mlp`` and ``experts`` where it has them.

    Each of the two halves ends in an all-reduce of a row per token over tensor-parallel ranks where these divide it,
    unless they are ``joined``: side by side, their sum reduced at once. ``norms`` are the elements of its norms.
    ``prefix`` is where checkpoints have the list of layers. ``streams``: rows of the residual per token
    (hyper-connections), 1 for all others. ``extra`` are matrices of neither half (per-layer inputs, hyper-connections).
    """

    mixer: Mixer | None
    mlp: Mlp | None = None
    experts: Experts | None = None
    norms: Vectors = NO_VECTORS
    joined: bool = False
    prefix: str = "model.layers"
    streams: int = 1
    extra: tuple[Matrix, ...] = ()

    @property
    def mixes(self) -> int:
        """All-reduces after the mixer."""
        return 0 if self.mixer is None or (self.joined and self.transforms) else self.mixer.reductions

    @property
    def transforms(self) -> int:
        """All-reduces after the MLP and the experts: one each, but for an MLP that every rank has."""
        return int(self.mlp is not None and not self.mlp.whole) + int(self.experts is not None)

    @property
    def halves(self) -> int:
        """What it has of a mixer, an MLP and a mixture of experts."""
        return sum(one is not None for one in (self.mixer, self.mlp, self.experts))

    def dense_matrices(self, hidden: int) -> Iterator[Matrix]:
        """All that every token is multiplied by: all matrices but those of routed experts."""
        if self.mixer is not None:
            yield from self.mixer.matrices(hidden)
        if self.mlp is not None:
            yield from self.mlp.matrices(hidden)
        if self.experts is not None:
            yield from self.experts.around(hidden)
            yield from self.experts.shared(hidden)
        yield from self.extra

    def products(self, hidden: int) -> Iterator[Matrix]:
        """The same but for what mixes streams of the residual, which kernels of their own multiply."""
        mixing = self.extra if self.streams > 1 else ()
        yield from (matrix for matrix in self.dense_matrices(hidden) if matrix not in mixing)

    def vectors(self, hidden: int) -> Vectors:
        """All that is in no matrix."""
        found = self.norms
        if self.mixer is not None:
            found = found + self.mixer.vectors(hidden)
        return found + self.experts.vectors() if self.experts is not None else found

    def elements(self, hidden: int, ranks: int = 1) -> float:
        """Parameters of one of so many tensor-parallel ranks, experts cut like all others."""
        total = stored_elements(self.dense_matrices(hidden), ranks) + self.vectors(hidden).on_rank(ranks)
        if self.experts is not None:
            total += self.experts.count * stored_elements(self.experts.expert(hidden, ranks), ranks)
        return total

    def active_elements(self, hidden: int) -> float:
        """Parameters that take part in one token."""
        total = stored_elements(self.dense_matrices(hidden)) + self.vectors(hidden).on_rank(1)
        if self.experts is not None:
            total += self.experts.topk * stored_elements(self.experts.expert(hidden))
        return total
