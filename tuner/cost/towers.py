"""What one image costs before its tokens are a prompt's: the blocks of a vision encoder, on the ranks of one replica.

Products by ``gemm``, attention within the image by ``encoder``, small kernels and two all-reduces a block as in a layer
of the language model. Tokens that come of it are prefilled like any others, which is not part of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block
from tuner.ask.models.described import Tower
from tuner.ask.models.matrices import Matrix, merged
from tuner.cost import compute
from tuner.cost.collectives import CollectiveModel
from tuner.cost.latency import ELEMENTWISE_PASSES
from tuner.cost.rank_placement import even_group


def image_ms(model: ModelShape, tower: Tower, cluster: Cluster, layout: ParallelLayout) -> float | None:
    """Milliseconds that the engine spends on one image of the ``tower``; None where its layers are not described, or it
    sees none."""
    if not tower.layers or tower.patches is None:
        return None
    parts = tower.parts(layout.tp)
    total = sum(count * _block_ms(model, tower, one, cluster, parts) for one, count in Counter(tower.layers).items())
    return total + sum(_product_ms(model, cluster, (one,), _rows(tower), parts) for one in tower.around)


def _rows(tower: Tower) -> int:
    return (tower.patches or 0) * tower.crops


def _block_ms(model: ModelShape, tower: Tower, block: Block, cluster: Cluster, parts: int) -> float:
    profile, rows = cluster.profile, _rows(tower)
    products = merged(block.dense_matrices(tower.hidden))
    total = sum(_product_ms(model, cluster, matrices, rows, parts) for matrices in products)
    mixer = block.mixer
    if isinstance(mixer, Attention):
        seen = min(mixer.chunk or rows, tower.patches or rows)
        terms = compute.encoder_attention_terms(
            profile,
            patches=seen,
            images=rows / seen,
            heads=mixer.heads // (1 if mixer.whole else parts),
            head_dim=mixer.head_dim,
        )
        total += float(terms.total_ms)
    moved = rows * tower.hidden * model.element_bytes
    total += float(compute.elementwise_ms(profile, ELEMENTWISE_PASSES * moved, profile.engine.layer_kernels))
    if parts > 1:
        links = CollectiveModel.of(profile, cluster.fabric, str(cluster.vllm), cluster.inter_node_gb_per_s)
        group = even_group(parts, -(-parts // cluster.gpus_per_node))
        total += 2 * float(links.latency_us("allreduce", float(moved), group)) / 1e3
    return total


def _product_ms(model: ModelShape, cluster: Cluster, matrices: Sequence[Matrix], rows: int, parts: int) -> float:
    """What the engine merges is one product."""
    kind = model.precision if matrices[0].plain else model.weights.tower.main.kind
    width, depth = sum(one.shard(parts)[0] for one in matrices), matrices[0].shard(parts)[1]
    return float(compute.gemm_ms(cluster.profile, kind, rows, width, depth))
