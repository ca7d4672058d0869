"""What ``parlay model --json`` prints: what a model is taken for, so that an operator can check it at a glance."""

from __future__ import annotations

from collections import Counter

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape, tower_elements
from tuner.ask.models.blocks import Block
from tuner.ask.models.cache import Cache
from tuner.ask.remote_code import remote_code
from tuner.ask.rules import Drop, engine_refuses
from tuner.cost.stored import weight_bytes_by_format
from tuner.cost.switches import AS_SHIPPED
from tuner.errors import BadInput

MOST_RANKS = 64  # of the tensor-parallel degrees that are tried


class LayersAnswer(Answer):
    """Layers of one kind."""

    kind: str = Field(description="What mixes tokens, and what follows.")
    count: int = Field(description="Layers of it.")


class ExpertsAnswer(Answer):
    """The mixture of experts."""

    count: int = Field(description="Routed experts of a layer.")
    topk: int = Field(description="Of these, chosen per token.")
    width: int = Field(description="Width of one of them.")
    shared_width: int = Field(description="Width of all shared experts together; 0 without any.")
    layers: int = Field(description="Layers that have them.")


class TowerAnswer(Answer):
    """A vision or audio encoder."""

    kind: str = Field(description="vision or audio.")
    parameters: int = Field(description="Its parameters.")
    layers: int = Field(description="Its layers.")
    tokens_per_image: int | None = Field(
        description="Tokens of the prompt that an image of image_pixels a side becomes; null: it depends on more."
    )
    image_pixels: int | None = Field(description="Side of that image, pixels.")


class ModelAnswer(Answer):
    """What a model is taken for; bytes and parameters are of the whole model, or of one rank with a degree."""

    model: str = Field(description="The model as it was named.")
    architecture: str = Field(description="Its architecture, as config.json names it.")
    tp: int | None = Field(description="Tensor-parallel degree whose rank is told; null: the whole model.")
    parameters: int = Field(description="Parameters that the engine holds.")
    active_parameters: int = Field(description="Parameters of the whole model that take part in a token.")
    weight_bytes: int = Field(description="Bytes of the weights as the checkpoint stores them.")
    weight_bytes_by_format: dict[str, int] = Field(description="The same by format, scales included.")
    kv_cache_dtype: str = Field(description="What the engine stores keys and values in by itself.")
    kv_bytes_per_token: float = Field(description="Bytes that one token takes of the KV cache while it is kept.")
    kv_bytes_per_token_growing: float = Field(description="Of these, in layers that keep every token.")
    bounded_bytes_per_sequence: float = Field(description="Most that windows and chunks keep of one sequence.")
    state_bytes_per_sequence: int = Field(description="Bytes that layers with a state keep of one sequence.")
    max_model_len: int = Field(description="Tokens of a sequence that the engine takes at most.")
    layers: list[LayersAnswer] = Field(description="Kinds of layers, in the order in which they first appear.")
    experts: ExpertsAnswer | None = Field(description="The mixture of experts; null without one.")
    towers: list[TowerAnswer] = Field(description="Encoders beside the language model.")
    legal_tp: list[int] = Field(description=f"Tensor-parallel degrees up to {MOST_RANKS} that the engine takes.")
    refused_tp: dict[int, str] = Field(description="Why not, of powers of two.")
    needs: list[str] = Field(description="What an engine must be allowed: trust_remote_code.")
    not_priced: list[str] = Field(description="What costs time that no term of the model knows.")


def model_answer(model: ModelShape, tp: int | None = None) -> ModelAnswer:
    """What a model is taken for; with ``tp`` on one rank of so many. Raises BadInput where the engine refuses that."""
    refusals = {t: drop.figure for t in range(1, MOST_RANKS + 1) if (drop := _refused(model, t))}
    if tp is not None and (figure := refusals.get(tp)):
        raise BadInput("--tp", tp, f"a degree that the engine takes ({figure})")
    ranks = 1 if tp is None else tp
    formats = weight_bytes_by_format(model, ParallelLayout(tp=ranks), 0)
    element_bytes = AS_SHIPPED.on(ParallelLayout(), model).kv_element_bytes
    caches = _caches(model)
    kept = {cache: count * cache.token_bytes(element_bytes, ranks) for cache, count in caches.items()}
    mixers = [(block.mixer, count) for block, count in model.counted if block.mixer is not None]
    return ModelAnswer(
        model=model.name,
        architecture=model.architecture,
        tp=tp,
        parameters=round(model.held_elements(ranks)),
        active_parameters=model.active_parameters,
        weight_bytes=round(sum(formats.values())),
        weight_bytes_by_format={name: round(size) for name, size in sorted(formats.items())},
        kv_cache_dtype=model.cached_dtype,
        kv_bytes_per_token=sum(kept.values()),
        kv_bytes_per_token_growing=sum(size for cache, size in kept.items() if cache.window is None),
        bounded_bytes_per_sequence=sum(size * cache.window for cache, size in kept.items() if cache.window is not None),
        state_bytes_per_sequence=round(
            sum(n * one.state.sequence_bytes(model.element_bytes, ranks) for one, n in mixers if one.state is not None)
        ),
        max_model_len=model.max_position,
        layers=_layers(model),
        experts=_experts(model),
        towers=[
            TowerAnswer(
                kind=one.kind, parameters=round(tower_elements(one, 1)), layers=len(one.layers),
                tokens_per_image=one.tokens, image_pixels=one.image,
            )
            for one in model.towers
        ],
        legal_tp=[t for t in range(1, MOST_RANKS + 1) if t not in refusals],
        refused_tp={t: figure for t, figure in refusals.items() if t & (t - 1) == 0},
        needs=["trust_remote_code"] if remote_code(model.name, model.architecture) else [],
        not_priced=list(model.not_priced),
    )  # fmt: skip


def _refused(model: ModelShape, tp: int) -> Drop | None:
    return engine_refuses(model, ParallelLayout(tp=tp))


def _caches(model: ModelShape) -> Counter[Cache]:
    """Each kind of cache with the layers that have it."""
    found: Counter[Cache] = Counter()
    for block, count in model.counted:
        for cache in block.mixer.caches if block.mixer else ():
            found[cache] += count
    return found


def _layers(model: ModelShape) -> list[LayersAnswer]:
    found: Counter[str] = Counter()
    for block, count in model.counted:
        found[_kind(block)] += count
    return [LayersAnswer(kind=kind, count=count) for kind, count in found.items()]


def _kind(block: Block) -> str:
    parts = [block.mixer.kind] if block.mixer is not None else []
    parts += ["MLP"] if block.mlp is not None else []
    parts += ["mixture of experts"] if block.experts is not None else []
    return " + ".join(parts) or "nothing"


def _experts(model: ModelShape) -> ExpertsAnswer | None:
    found = model.experts
    if found is None:
        return None
    return ExpertsAnswer(
        count=found.count, topk=found.topk, width=found.inter, shared_width=found.shared_inter, layers=model.moe_layers
    )
