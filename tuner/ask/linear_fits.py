"""Fits of linear attention and state-space kernels: what a profile's section ``linear_attention`` holds.

Efficiencies are shares of the datasheet's bandwidth, so that they carry over to a relative (``efficiencies_from``).
What a profile leaves out is assumed: the defaults here are rounded from the measured devices, launch floors included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tuner.ask.strict import Strict

LINEAR = "linear_attention"


@dataclass(frozen=True, slots=True)
class ConvolutionFit(Strict):
    """Triton's causal convolution over prompts (``tuner.cost.compute.causal_convolution``).

    A program covers 8 tokens of 256 channels, which takes ``program_us`` of a multiprocessor. ``host_us`` is what a
    call by itself spends on the host to lay it out; an engine does that once a step.
    """

    floor_us: float = 1.9
    program_us: float = 0.25
    memory_efficiency: float = 0.65
    cache_gain: float = 0.0
    host_us: float = 140.0


@dataclass(frozen=True, slots=True)
class ChannelConvolutionFit(Strict):
    """A causal convolution with one block per sequence and channel, 512 tokens at a time (not vLLM's).

    ``block_us`` of a multiprocessor's time per block with its first step.
    """

    floor_us: float = 4.5
    block_us: float = 0.11
    memory_efficiency: float = 0.7
    cache_gain: float = 0.0


@dataclass(frozen=True, slots=True)
class UpdateFit(Strict):
    """A kernel that reads and writes the convolution's state of every sequence once.

    ``alone_us`` is what a launch by itself takes longer than one in a CUDA graph; ``cache_gain`` by how much states
    that lie in the L2 cache beat memory.
    """

    floor_us: float = 2.0
    memory_efficiency: float = 0.5
    cache_gain: float = 0.0
    alone_us: float = 1.5


@dataclass(frozen=True, slots=True)
class RecurrentFit(Strict):
    """A kernel that reads and writes the recurrent state of every sequence and head once.

    ``floor_us`` to launch it, ``latency_us`` is the least time of the rest, which grows into that of the bytes.
    ``fused_us`` is what the convolution and the norm add where one kernel does all, ``drafts_us`` the check of several
    tokens a sequence; ``cache_gain`` by how much states that lie in the L2 cache beat memory.
    """

    floor_us: float = 1.5
    latency_us: float = 3.0
    memory_efficiency: float = 0.75
    cache_gain: float = 0.0
    fused_us: float = 2.0
    drafts_us: float = 2.0


@dataclass(frozen=True, slots=True)
class ChunkFit(Strict):
    """The delta rule over prompts in chunks (``tuner.cost.compute.delta_rule``).

    ``kernel`` says whose: FlashInfer's does all in one launch, FlashKDA's and Triton's pass intermediate values
    between stages through memory: ``fill_us`` is what those take for a first full chunk. A unit is a sequence and value
    head, on one multiprocessor: ``unit_us`` each and ``chunk_us`` per chunk of 64 tokens, one after the other.
    """

    kernel: Literal["flashinfer", "flashkda", "triton"] = "triton"
    floor_us: float = 9.0
    fill_us: float = 0.0
    unit_us: float = 6.0
    chunk_us: float = 1.5
    memory_efficiency: float = 0.7
    cache_gain: float = 0.0


@dataclass(frozen=True, slots=True)
class LinearAttentionFits(Strict):
    """Every kernel of the section; one that a profile leaves out has the assumed values."""

    convolution: ConvolutionFit = field(default_factory=ConvolutionFit)
    channel_convolution: ChannelConvolutionFit = field(default_factory=ChannelConvolutionFit)
    convolution_update: UpdateFit = field(default_factory=UpdateFit)
    gdn_chunk: ChunkFit = field(default_factory=lambda: ChunkFit(fill_us=8.0, cache_gain=2.0))
    kda_chunk: ChunkFit = field(default_factory=lambda: ChunkFit(fill_us=3.0, unit_us=17.0, cache_gain=2.0))
    recurrent: RecurrentFit = field(default_factory=RecurrentFit)
