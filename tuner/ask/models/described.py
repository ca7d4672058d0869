"""What a reader of a family makes of a ``config.json``: the model's blocks, and what lies around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tuner.ask.models.blocks import Block
from tuner.ask.models.config import Config
from tuner.ask.models.matrices import NO_VECTORS, Layer, Matrix, Vectors, stored_elements


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """A vision or audio encoder beside the language model: resident though requests of text skip it.

    ``layers`` are its blocks, ``hidden`` their width; ``around`` what is before and after them (patch embedding,
    merger, projector), ``vectors`` what is no matrix there. ``whole``: on every tensor-parallel rank, uncut.

    An image of ``image`` pixels a side (of a clip: None) is ``crops`` pieces of ``patches`` rows each, which see only
    themselves, and becomes ``tokens`` of the prompt.
    """

    kind: str
    hidden: int
    layers: tuple[Block, ...]
    around: tuple[Matrix, ...] = ()
    vectors: Vectors = NO_VECTORS
    whole: bool = False
    patches: int | None = None
    crops: int = 1
    tokens: int | None = None
    image: int | None = None

    def parts(self, ranks: int) -> int:
        """Into how many parts so many ranks cut it: 1 where heads do not divide, since each then has all of it and
        takes other images (``mm_encoder_tp_mode`` data; ``is_vit_use_data_parallel`` of ``models/vision.py``)."""
        mixers = {block.mixer for block in self.layers if block.mixer is not None}
        return 1 if self.whole or any(one.refuses(ranks) for one in mixers) else ranks

    def elements(self, ranks: int = 1) -> float:
        """Parameters on one of so many tensor-parallel ranks."""
        parts = self.parts(ranks)
        blocks = sum(count * block.elements(self.hidden, parts) for block, count in Counter(self.layers).items())
        return blocks + stored_elements(self.around, parts) + self.vectors.on_rank(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A decoder as it is served. ``layers`` one entry per layer, in order; equal ones may be one object.

    ``vocab`` and ``hidden`` of embedding and LM head, which are one matrix where ``tied``; ``embedding_width`` where
    they are narrower than the layers (OPT-350m). ``max_position``: tokens that the engine takes at most
    (``_get_and_verify_max_len``). ``pipeline_tensors``: tensors between pipeline stages
    (``make_empty_intermediate_tensors_factory``), 0 where the class cannot be cut into stages. ``vectors``: the last
    norm, learned positions. ``outside``: matrices beside the layers, on the first stage. ``head_names``,
    ``embedding_names``: what checkpoints call them, within the model. ``head_bias``: a number per row of the head.
    ``not_priced``: what of it costs time that no term knows, in words. ``fixed_formats``: kinds of layers that are
    stored in one format whatever the quantisation says, a key of ``tuner.ask.formats.weights.USUAL``.
    """

    hidden: int
    vocab: int
    layers: Sequence[Block]
    tied: bool
    max_position: int
    pipeline_tensors: int = 2
    vectors: Vectors = NO_VECTORS
    outside: tuple[Matrix, ...] = ()
    towers: tuple[Tower, ...] = ()
    head_names: tuple[str, ...] = ("lm_head",)
    embedding_names: tuple[str, ...] = ("model.embed_tokens",)
    head_bias: bool = False
    embedding_width: int | None = None
    not_priced: tuple[str, ...] = field(default=())
    fixed_formats: tuple[tuple[Layer, str], ...] = ()


Reader = Callable[[Config, Config], Described]
"""(whole configuration, the language model's part of it) to what it describes; both are one object where the model is
of text alone. Raises BadInput for what it does not understand."""
