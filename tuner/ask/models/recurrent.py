"""Mixers that carry a state along instead of a cache: delta nets, state spaces, short convolutions.

State shapes: ``model_executor/layers/mamba/mamba_utils.py`` of vLLM 0.29. Keys of a state grow with no token.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.models.blocks import Mixer
from tuner.ask.models.cache import Piece, State
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors

_KIND = Layer.LINEAR


def _not_divided(what: str, count: int, ranks: int) -> str | None:
    return f"{count} {what} do not divide by tp={ranks}" if count % ranks else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDelta(Mixer):
    """Gated delta net (Qwen3-Next, arXiv 2412.06464): heads and their sizes; ``conv``: taps of the convolution.

    ``state_dtype`` of the delta rule's state (None: the model's). ``split_gates``: the checkpoint has the four
    projections of Qwen3.5 apart, not the two of Qwen3-Next.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv: int
    state_dtype: str | None = None
    split_gates: bool = False
    place: str = "linear_attn"

    @property
    def kind(self) -> str:
        """As people call it."""
        return "gated delta net"

    @property
    def channels(self) -> int:
        """Of the convolution: queries, keys, values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Queries, keys, values and gate as one; beta and alpha as one; the output."""
        values = self.value_heads * self.value_dim
        qkvz = ("in_proj_qkv", "in_proj_z", "in_proj_qkvz") if self.split_gates else ("in_proj_qkvz",)
        ba = ("in_proj_b", "in_proj_a", "in_proj_ba") if self.split_gates else ("in_proj_ba",)
        return (
            Matrix(_KIND, self._named(*qkvz), self.channels + values, hidden, Cut.OUTPUTS),
            Matrix(_KIND, self._named(*ba), 2 * self.value_heads, hidden, Cut.OUTPUTS),
            Matrix(_KIND, self._named("out_proj"), hidden, values, Cut.INPUTS),
        )

    def _named(self, *names: str) -> tuple[str, ...]:
        return tuple(f"{self.place}.{name}" for name in names)

    def vectors(self, hidden: int) -> Vectors:
        """The convolution, decay rates and time steps by head, the gated norm."""
        return Vectors(whole=self.value_dim, split=self.conv * self.channels + 2 * self.value_heads)

    @property
    def state(self) -> State:
        """The convolution's last inputs, and a matrix per value head."""
        memory = Piece(self.value_heads * self.value_dim * self.key_dim, self.state_dtype)
        return State((Piece((self.conv - 1) * self.channels), memory))

    def refuses(self, ranks: int) -> str | None:
        """Both kinds of heads divide by the ranks."""
        keys = _not_divided("key heads of linear attention", self.key_heads, ranks)
        return keys or _not_divided("value heads of linear attention", self.value_heads, ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class KimiDelta(Mixer):
    """Kimi delta attention (arXiv 2510.26692): as a gated delta net, with a decay per channel. Gate and decay come
    through low ranks of ``head_dim``, whole on every rank on their way down."""

    heads: int
    head_dim: int
    conv: int
    gate_bias: bool = True
    full_gate: bool = False  # the output gate is one matrix of full rank
    bounded_gate: bool = False  # decay has a lower bound, so that the quicker kernels run
    full_decay: bool = False  # so is the decay
    place: str = "self_attn"

    @property
    def kind(self) -> str:
        """As people call it."""
        return "Kimi delta attention"

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Queries, keys, values; beta; decay and gate through low ranks; the output."""
        width = self.heads * self.head_dim

        def named(name: str) -> tuple[str, ...]:
            return (f"{self.place}.{name}",)

        def low_rank(name: str, bias: bool) -> tuple[Matrix, Matrix]:
            return (
                Matrix(_KIND, named(f"{name}_a_proj"), self.head_dim, hidden, Cut.NOTHING),
                Matrix(_KIND, named(f"{name}_b_proj"), width, self.head_dim, Cut.OUTPUTS, bias=bias),
            )

        gate = (
            (Matrix(_KIND, named("g_proj"), width, hidden, Cut.OUTPUTS),)
            if self.full_gate
            else low_rank("g", self.gate_bias)
        )
        qkv = tuple(Matrix(_KIND, named(f"{one}_proj"), width, hidden, Cut.OUTPUTS, "qkv_proj") for one in "qkv")
        beta = Matrix(_KIND, named("b_proj"), self.heads, hidden, Cut.OUTPUTS)
        out = Matrix(_KIND, named("o_proj"), hidden, width, Cut.INPUTS)
        decay = (
            (Matrix(_KIND, named("f_proj"), width, hidden, Cut.OUTPUTS),) if self.full_decay else low_rank("f", False)
        )
        return *qkv, *decay, beta, *gate, out

    def vectors(self, hidden: int) -> Vectors:
        """Three convolutions, decay rates, time steps, the gated norm."""
        width = self.heads * self.head_dim
        return Vectors(whole=self.head_dim, split=3 * self.conv * width + self.heads + width)

    @property
    def state(self) -> State:
        """Three convolutions' last inputs, a matrix per head in float32."""
        width = self.heads * self.head_dim
        return State((Piece((self.conv - 1) * 3 * width), Piece(width * self.head_dim, "float32")))

    def refuses(self, ranks: int) -> str | None:
        """Heads divide by the ranks."""
        return _not_divided("heads of linear attention", self.heads, ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2(Mixer):
    """A Mamba-2 mixer (arXiv 2405.21060): ``heads`` of ``head_dim``, ``groups`` of ``state_size``; ``chunk``: tokens
    that the scan takes at once in prefill."""

    heads: int
    head_dim: int
    groups: int
    state_size: int
    conv: int
    chunk: int = 256
    conv_bias: bool = True
    bias: bool = False
    state_dtype: str | None = None
    norm: bool = True
    place: str = "mixer"

    @property
    def kind(self) -> str:
        """As people call it."""
        return "Mamba-2"

    @property
    def inner(self) -> int:
        """Channels of the heads."""
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """Of the convolution: the heads', and two per group and state."""
        return self.inner + 2 * self.groups * self.state_size

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Gate, input, groups and time steps as one; the output. One group is repeated on every rank."""
        name, at = f"{self.place}.in_proj", self.place
        split = 2 * self.inner + self.heads
        grouped = 2 * self.groups * self.state_size
        if self.groups > 1:
            whole = Matrix(_KIND, (name,), split + grouped, hidden, Cut.OUTPUTS, bias=self.bias)
            parts: tuple[Matrix, ...] = (whole,)
        else:
            parts = (
                Matrix(_KIND, (name,), split, hidden, Cut.OUTPUTS, name, bias=self.bias),
                Matrix(_KIND, (name,), grouped, hidden, Cut.NOTHING, name, bias=self.bias),
            )
        return *parts, Matrix(_KIND, (f"{at}.out_proj",), hidden, self.inner, Cut.INPUTS, bias=self.bias)

    def vectors(self, hidden: int) -> Vectors:
        """The convolution, decay rates, skips and time steps by head, the gated norm."""
        taps = self.conv + self.conv_bias
        grouped = 2 * self.groups * self.state_size * taps
        split = self.inner * taps + 3 * self.heads + (self.inner if self.norm else 0)
        return Vectors(whole=grouped, split=split) if self.groups == 1 else Vectors(split=split + grouped)

    @property
    def state(self) -> State:
        """The convolution's last inputs, and ``head_dim`` × ``state_size`` per head."""
        rows = self.conv - 1
        grouped = 2 * self.groups * self.state_size * rows
        one = self.groups == 1
        convolution = Piece(rows * self.inner + (0 if one else grouped), None, grouped if one else 0)
        return State((convolution, Piece(self.inner * self.state_size, self.state_dtype)))

    def norms_over(self, ranks: int) -> bool:
        """Do so many ranks add up variances of the gated norm? Where a group's channels lie on several of them."""
        return self.norm and ranks > 1 and self.groups % ranks != 0

    def refuses(self, ranks: int) -> str | None:
        """Heads divide by the ranks, groups too unless there is one."""
        if self.groups > 1 and self.groups % ranks:
            return _not_divided("groups of the state space", self.groups, ranks)
        return _not_divided("heads of the state space", self.heads, ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba1(Mixer):
    """A Mamba mixer (arXiv 2312.00752): ``inner`` channels of ``state_size``; time steps come through ``time_rank``."""

    inner: int
    state_size: int
    conv: int
    time_rank: int
    conv_bias: bool = True
    bias: bool = False
    norms: bool = False
    state_dtype: str | None = None
    place: str = "mixer"

    @property
    def kind(self) -> str:
        """As people call it."""
        return "Mamba"

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Input and gate; time steps and the two state vectors; time steps up; the output."""

        def named(name: str) -> tuple[str, ...]:
            return (f"{self.place}.{name}",)

        narrow = self.time_rank + 2 * self.state_size
        return (
            Matrix(_KIND, named("in_proj"), 2 * self.inner, hidden, Cut.OUTPUTS, bias=self.bias),
            Matrix(_KIND, named("x_proj"), narrow, self.inner, Cut.INPUTS),
            Matrix(_KIND, named("dt_proj"), self.inner, self.time_rank, Cut.OUTPUTS, bias=True),
            Matrix(_KIND, named("out_proj"), hidden, self.inner, Cut.INPUTS, bias=self.bias),
        )

    def vectors(self, hidden: int) -> Vectors:
        """The convolution, decay rates by channel and state, skips, norms of the narrow vectors."""
        taps = self.conv + self.conv_bias
        norms = self.time_rank + 2 * self.state_size if self.norms else 0
        return Vectors(whole=norms, split=self.inner * (taps + self.state_size + 1))

    @property
    def state(self) -> State:
        """The convolution's last inputs, and ``state_size`` per channel."""
        return State((Piece((self.conv - 1) * self.inner), Piece(self.inner * self.state_size, self.state_dtype)))

    def refuses(self, ranks: int) -> str | None:
        """Channels divide by the ranks."""
        return _not_divided("channels of the state space", self.inner, ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConvolution(Mixer):
    """A gated convolution over ``conv`` tokens of ``width`` channels (LFM2, ``layers/mamba/short_conv.py``)."""

    width: int
    conv: int
    bias: bool = False
    place: str = "conv"

    @property
    def kind(self) -> str:
        """As people call it."""
        return "short convolution"

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """Three gates and inputs as one; the output."""
        return (
            Matrix(_KIND, (f"{self.place}.in_proj",), 3 * self.width, hidden, Cut.OUTPUTS, bias=self.bias),
            Matrix(_KIND, (f"{self.place}.out_proj",), hidden, self.width, Cut.INPUTS, bias=self.bias),
        )

    def vectors(self, hidden: int) -> Vectors:
        """The convolution."""
        return Vectors(split=self.width * (self.conv + self.bias))

    @property
    def state(self) -> State:
        """The last inputs."""
        return State((Piece((self.conv - 1) * self.width),))

    def refuses(self, ranks: int) -> str | None:
        """Channels divide by the ranks."""
        return _not_divided("channels of the convolution", self.width, ranks)
