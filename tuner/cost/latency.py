"""What a layout's steps cost in milliseconds, and what follows for one request and for a steady load.

A step is priced as a sum of named terms (``gemm``, ``attention``, ``experts``, ``elementwise``, ``allreduce tp``, …,
``host``), so that a breakdown always adds up to the total. All functions are vectorised: over chunk sizes for prefill
steps, over batch sizes for decode steps. Layer costs are cached per shard, so layouts that differ in depth, replicas or
scheduler limits share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter

import numpy as np

from tuner.ask.axes import Prices
from tuner.ask.cluster import Cluster
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.models.blocks import Block, Mixer
from tuner.ask.models.compressed import CompressedAttention
from tuner.ask.models.latent import LatentAttention
from tuner.ask.models.matrices import Cut, Matrix, merged
from tuner.cost import compute
from tuner.cost.collectives import CollectiveModel, CommGroup
from tuner.cost.collectives.exchange import exchange_of
from tuner.cost.mixers import Where, absorbed_ms, core_ms
from tuner.cost.rank_placement import group_of
from tuner.cost.sequence_memory import SequenceMemory, sequence_memory
from tuner.cost.stages import Stage, launched_layers, layers_of, moe_layers_of, stage_blocks
from tuner.cost.step_batch import Floats, StepShape, Terms, total
from tuner.cost.switches import AS_SHIPPED, EngineSwitches
from tuner.cost.techniques import NONE, Hardware, Techniques
from tuner.cost.volume import PassOperation, Phase, pass_operations

__all__ = ["EngineSwitches", "StepCosts", "StepShape", "Terms", "total"]

ELEMENTWISE_PASSES = 12  # reads and writes of an activation row per layer: two norms with residual, rotary, activation
SUSTAINED_TOKENS = 512.0  # tokens of a step at which half of the slowdown is felt
DRIFT_TOKENS = 1024.0  # tokens of a step between whose all-reduces ranks drift half as far apart as they ever do
CROWDED_ROWS = 64.0  # rows per expert at which crowding is half felt: a tile
LEAN_RELEASE = (0, 18)  # of vLLM: launches fewer and cheaper kernels around the experts than those before
_MIDDLING = StepShape("decode", np.ones(1), np.full(1, 2048.0), np.full(1, 32.0))
_layer_axes = attrgetter(*(n for n, axis in AXES.items() if axis.prices is Prices.LAYERS and n != "dp"))
_LINKS = {
    "tp": "tensor",
    "tp-rows": "tensor rows",
    "tp-columns": "tensor columns",
    "pp": "pipeline",
    "ep": "expert",
    "dcp": "decode context",
    "pcp": "prefill context",
}


class StepCosts:
    """Prices steps of one model on one cluster. Not thread-safe: it caches layer costs between calls.

    ``switches`` hold for all layouts; what a layout sets itself goes before, in the kernels of its layers.
    ``techniques`` change prices to what they would be if the engine had them. ``vllm_version`` None: the cluster's.
    """

    def __init__(
        self,
        model: ModelShape,
        cluster: Cluster,
        vllm_version: str | None = None,
        switches: EngineSwitches = AS_SHIPPED,
        techniques: Techniques = NONE,
    ) -> None:
        self.model, self.cluster, self._switches, self.techniques = model, cluster, switches, techniques
        vllm_version = str(cluster.vllm) if vllm_version is None else vllm_version
        lean = tuple(map(int, vllm_version.split(".")[:2])) >= LEAN_RELEASE
        engine = cluster.profile.engine
        self._launch_share = (engine.lean_launch if lean else 1.0) * engine.launch_scale
        self._collectives = CollectiveModel.of(
            cluster.profile, cluster.fabric, vllm_version, cluster.inter_node_gb_per_s, switches.custom_allreduce
        )
        self._hardware = Hardware(model, cluster, self._collectives)
        self._layers: dict[object, Terms] = {}
        self._heads: dict[tuple[int, StepShape], Terms] = {}
        self._messages: dict[object, Floats] = {}

    def stages(self, layout: ParallelLayout, step: StepShape) -> list[Terms]:
        """Terms of each pipeline stage for one step, in ms, each array of the step's broadcast shape.

        Stages that do and send the same are one object.
        """
        messages: list[list[PassOperation]] = [[] for _ in range(layout.pp)]
        for operation in self.techniques.operations(self.model, layout, pass_operations(self.model, layout)):
            if operation.phase in (None, step.phase) and operation.operation != "recv":
                messages[operation.stage].append(operation)
        known: dict[object, Terms] = {}
        found = []
        for stage, blocks in enumerate(stage_blocks(self.model, layout.pp)):
            sent = [(operation, group_of(self.cluster, layout, operation)) for operation in messages[stage]]
            counts = tuple((id(block), count) for block, count in blocks)
            alike = (counts, *((op.operation, op.where, op.calls, group) for op, group in sent))
            last = stage == layout.pp - 1
            if last or alike not in known:
                terms = self._stage_terms(blocks, layout, step)
                if last:
                    terms |= self._head_terms(layout, step)
                for operation, group in sent:
                    self._add_message(terms, layout, operation, group, step)
                terms["host"] = self._host_ms(terms, launched_layers(blocks), moe_layers_of(blocks), step)
                known[alike] = terms
            found.append(known[alike])
        return found

    def _stage_terms(self, blocks: Stage, layout: ParallelLayout, step: StepShape) -> Terms:
        terms: Terms = {}
        for block, count in blocks:
            for name, ms in self._block_terms(block, layout, step).items():
                terms[name] = terms.get(name, np.zeros(1)) + count * ms
        return terms

    def _block_terms(self, block: Block, layout: ParallelLayout, step: StepShape) -> Terms:
        """Terms of one layer of a kind."""
        key: tuple[object, ...] = (id(block), *_layer_axes(layout), layout.dp if layout.ep else 1, step)
        if self.techniques:  # theirs depend on where the ranks lie and on how tokens travel, too
            key = (*key, layout.pp, layout.all2all)
        if key not in self._layers:
            has_experts = block.experts is not None
            terms = self._dense_terms(block, layout, step)
            if has_experts:
                terms["experts"] = self._experts_ms(layout, step)
            if self.techniques:
                terms = self.techniques.layer_terms(self._hardware, layout, step, terms, has_experts)
            self._layers[key] = terms
        return self._layers[key]

    def _sustained(self, gemm_ms: Floats, tokens: Floats) -> Floats:
        """Matrix products of a step: with many tokens they run for so long that clocks drop."""
        slowdown = self.cluster.profile.engine.prefill_slowdown
        if slowdown == 1:
            return gemm_ms
        return np.asarray(gemm_ms * (1 + (slowdown - 1) * tokens / (tokens + SUSTAINED_TOKENS)))

    def _dense_terms(self, block: Block, layout: ParallelLayout, step: StepShape) -> Terms:
        """What every token is multiplied by, what mixes tokens, and the small kernels around both."""
        model, profile = self.model, self.cluster.profile
        n = np.maximum(step.tokens / layout.pcp, 1.0)
        halves = block.halves / 2
        row_bytes = ELEMENTWISE_PASSES * model.hidden * float(model.element_bytes) * halves
        kernels = profile.engine.layer_kernels * halves
        if self._quantises_output(block, layout):
            kernels *= profile.engine.fp8_cache_kernels
        products = self._products_ms(block, layout, n, step)
        terms = {"gemm": self._sustained(products, step.tokens / layout.pcp)}
        if block.mixer is not None:
            seen, times = self.techniques.attention_step(layout, step)
            terms["attention"] = np.asarray(times * self._core_ms(block.mixer, layout, seen))
        terms["elementwise"] = np.asarray(compute.elementwise_ms(profile, n * row_bytes, kernels))
        if block.streams > 1:
            terms["hyper-connections"] = self._streams_ms(block, n)
        return terms

    def _quantises_output(self, block: Block, layout: ParallelLayout) -> bool:
        """Does attention write what the product after it reads? That over a compressed cache never does."""
        if isinstance(block.mixer, CompressedAttention) or not self._switches.on(layout, self.model).fp8_cache:
            return False
        return compute.quantises_output(self.cluster.profile)

    def _streams_ms(self, block: Block, n: Floats) -> Floats:
        """Mixing a residual of several streams before and after each half of a layer."""
        sides = [
            compute.hyper_connection_terms(self.cluster.profile, side, n, self.model.hidden, block.streams).total_ms
            for side in ("pre", "post")
        ]
        return np.asarray(2 * (sides[0] + sides[1]))

    def _products_ms(self, block: Block, layout: ParallelLayout, n: Floats, step: StepShape) -> Floats:
        """Matrix products of ``n`` rows; what the engine merges into one is one."""
        total: Floats = np.zeros(1)
        for matrices in _products(block, self.model.hidden):
            ms = self._product_ms(matrices, layout, n, getattr(self.model.weights, matrices[0].layer).main.kind)
            if isinstance(block.mixer, LatentAttention) and matrices[0].names[0].endswith(".kv_b_proj"):
                plain = self._product_ms(matrices, layout, n, self.model.precision)
                ms = absorbed_ms(block.mixer, self._where(layout, step), plain, ms)
            total = total + ms
        return np.asarray(total)

    def _product_ms(self, matrices: Sequence[Matrix], layout: ParallelLayout, n: Floats, kind: str) -> Floats:
        """One product in a precision, and what quantises its rows."""
        rows, columns = self.techniques.grid(layout)
        first, profile = matrices[0], self.cluster.profile
        width = float(sum(one.shard(columns)[0] * one.copies for one in matrices))
        depth = float(first.shard(columns)[1])
        if first.cut is Cut.OUTPUTS:
            depth = float(first.inputs // rows)
        elif first.cut is Cut.INPUTS:
            width = float(first.outputs // rows)
        if first.plain:
            return compute.gemm_ms(profile, self.model.precision, n, width, depth)
        product = compute.gemm_ms(profile, kind, n, width, depth)
        return np.asarray(product + compute.quantise_ms(profile, kind, n * depth))

    def sequence(self, layout: ParallelLayout) -> SequenceMemory:
        """What one sequence takes of the cache of one replica."""
        return sequence_memory(self.model, layout, self._switches.on(layout, self.model).kv_element_bytes)

    def attention_ms(self, layout: ParallelLayout, step: StepShape) -> Floats:
        """Attention of one layer on one rank, or what is in its place, in ms: the mean over all layers."""
        seen, times = self.techniques.attention_step(layout, step)
        total: Floats = np.zeros(1)
        for block, count in self.model.counted:
            if block.mixer is not None:
                total = total + count / self.model.layers * self._core_ms(block.mixer, layout, seen)
        return np.asarray(times * total)

    def attention_layers(self, layout: ParallelLayout) -> Floats:
        """[stage]: its layers, as many as cost what its own do at the mean over all layers (``attention_ms``); where
        kinds differ, of a decode step of a middling batch."""
        blocks = stage_blocks(self.model, layout.pp)
        if layout.pp == 1 or all(block.mixer == self.model.kinds[0].mixer for block in self.model.kinds):
            return np.array([float(layers_of(one)) for one in blocks])
        own = np.array([sum(n * self._middling_ms(block, layout) for block, n in one) for one in blocks])
        return np.asarray(self.model.layers * own / max(float(own.sum()), 1e-12))

    def _middling_ms(self, block: Block, layout: ParallelLayout) -> float:
        if block.mixer is None:
            return 0.0
        return float(np.max(self._core_ms(block.mixer, layout, _MIDDLING)))

    def _core_ms(self, mixer: Mixer, layout: ParallelLayout, step: StepShape) -> Floats:
        return core_ms(mixer, self._where(layout, step))

    def _where(self, layout: ParallelLayout, step: StepShape) -> Where:
        return Where(self.cluster.profile, layout, step, self._switches.on(layout, self.model).kv_cache_dtype)

    def _experts_ms(self, layout: ParallelLayout, step: StepShape) -> Floats:
        """Routed experts of one layer."""
        model, profile, experts = self.model, self.cluster.profile, self.model.experts
        assert experts is not None
        shared_tokens = layout.dp if layout.ep else 1  # data-parallel ranks step together when they share experts
        tokens = np.maximum(step.tokens, 1.0) * shared_tokens
        moe_tp, moe_ep = (1, layout.tp * layout.pcp * layout.dp) if layout.ep else (layout.tp, 1)
        routed = compute.moe_ms(
            profile,
            model.expert_dtype,
            tokens,
            experts.width or model.hidden,
            experts.padded(moe_tp),
            experts.topk,
            experts.count,
            moe_tp,
            moe_ep,
        )
        served = self._served_share(tokens * experts.topk / experts.count, moe_ep > 1) * routed
        if step.phase == "prefill" and model.expert_dtype == "fp8_block":
            served = served * profile.engine.block_experts
        return np.asarray(served + profile.engine.expert_layer_ms)

    def _served_share(self, rows_per_expert: Floats, spread: bool) -> Floats:
        """Time of experts under a real router, per time in tables of their kernels; ``spread``: over devices."""
        engine = self.cluster.profile.engine
        crowded = rows_per_expert / (rows_per_expert + CROWDED_ROWS)
        few = engine.expert_share * (engine.expert_spread if spread else 1.0)
        return np.asarray(few + (engine.expert_crowding - few) * crowded)

    def _head_terms(self, layout: ParallelLayout, step: StepShape) -> Terms:
        """LM head and sampling on the last stage: one row per sequence."""
        key = (layout.tp, step)
        if key not in self._heads:
            model, profile = self.model, self.cluster.profile
            rows = np.asarray(step.sequences, dtype=float)
            kind, vocab = model.weights.head.main.kind, model.padded_vocab // layout.tp
            head = compute.gemm_ms(profile, kind, rows, vocab, model.table_width)
            sampling = compute.sampling_ms(profile, rows, model.vocab)
            self._heads[key] = {"LM head": np.asarray(head), "sampling": np.asarray(sampling)}
        return self._heads[key]

    def _add_message(
        self, terms: Terms, layout: ParallelLayout, operation: PassOperation, group: CommGroup, step: StepShape
    ) -> None:
        exchange = exchange_of(layout.all2all, operation.where) if operation.operation == "alltoall" else None
        key = (
            operation.operation, operation.columns, operation.element_bytes, operation.per_row, group, step, exchange,
        )  # fmt: skip
        if key not in self._messages:
            tokens = step.tokens if operation.group == "pcp" else np.maximum(step.tokens / layout.pcp, 1.0)
            size = np.asarray(operation.message_bytes(1.0, 1.0) * (step.sequences if operation.per_row else tokens))
            kind = {"send": "sendrecv"}.get(operation.operation, operation.operation)
            if exchange is None:
                us = self._collectives.latency_us(kind, size, group)
            else:
                us = self._collectives.exchange_us(*exchange, size, group)
            us = self.techniques.collective_us(self._hardware, kind, size, group, us)
            if group.ranks > 1 and not (self._switches.fused_allreduce and kind == "allreduce"):
                us = us + self.cluster.profile.engine.collective_wait_us
            if group.ranks > 1 and kind != "sendrecv" and step.phase == "prefill":
                us = us + self.cluster.profile.engine.prompt_wait_us * tokens / (tokens + DRIFT_TOKENS)
            self._messages[key] = us / 1e3
        where = "between nodes" if group.nodes > 1 else "in node"
        name = f"{operation.operation} {_LINKS[operation.group]} {where}"
        terms[name] = terms.get(name, np.zeros(1)) + operation.calls * self._messages[key]

    @property
    def sequence_ms(self) -> float:
        """Host milliseconds per sequence and step that nothing hides."""
        engine = self.cluster.profile.engine
        return engine.sequence_ms + (0.0 if self._switches.asynchronous else self._exposed_sequence_ms)

    @property
    def hidden_sequence_ms(self) -> float:
        """Host milliseconds per sequence and step that asynchronous scheduling hides behind the GPU."""
        return self._exposed_sequence_ms if self._switches.asynchronous else 0.0

    @property
    def _exposed_sequence_ms(self) -> float:
        engine = self.cluster.profile.engine
        return engine.exposed_sequence_ms * engine.launch_scale

    def _one_thread(self, layers: float) -> bool:
        """Does what launches these layers schedule as well? The stages of a pipeline are processes of their own."""
        return layers == launched_layers(self.model.counted)

    @property
    def graph_tokens(self) -> int:
        """The largest step in tokens that replays CUDA graphs when it holds prefill chunks."""
        return self._switches.graph_tokens if self._switches.cuda_graphs else 0

    @property
    def graph_sequences(self) -> float:
        """The largest decode batch that replays CUDA graphs."""
        largest = self._switches.largest_graph
        return 0.0 if not self._switches.cuda_graphs else np.inf if largest is None else float(largest)

    def host_parts(
        self, phase: Phase, layers: float, moe_layers: int = 0, in_graph: bool = False, beyond_graphs: bool = False
    ) -> tuple[float, float]:
        """Host milliseconds of a step on a stage of that many ``launched_layers``, and ``moe_layers`` with experts:
        what is added to it, apart from its sequences, and what it takes to launch its kernels beside the GPU: one by
        one, or, ``in_graph``, as graphs that every layer's attention interrupts (0 where one graph holds all).
        Asynchronous scheduling hides the rest of a step's host time as well, on the same thread (``_one_thread``). A
        decode step ``beyond_graphs`` has more sequences than any graph."""
        engine, switches = self.cluster.profile.engine, self._switches
        exposed = engine.exposed_step_ms * engine.launch_scale
        fixed, beside = (engine.step_ms, exposed) if switches.asynchronous else (engine.step_ms + exposed, 0.0)
        beside *= self._one_thread(layers)
        pieces = engine.graph_layer_launch_ms * layers * engine.launch_scale
        apart = engine.prefill_layer_launch_ms * layers
        if phase == "prefill":
            apart = (apart + engine.expert_layer_launch_ms * moe_layers) * (1 + switches.custom_ops)
            return fixed, beside + (pieces if in_graph else apart * self._launch_share)
        if beyond_graphs or not switches.cuda_graphs:
            return fixed, beside + apart * engine.launch_scale
        return fixed + engine.decode_layer_ms * layers, beside + (0.0 if switches.full_graphs else pieces)

    def host_sides(self, layout: ParallelLayout, step: StepShape) -> list[tuple[Floats, Floats]]:
        """Of each stage, the host milliseconds that are added to a step, and those of launching, of which only what
        lasts longer than the GPU's work counts; both of the step's broadcast shape."""
        return [
            self._host_sides(launched_layers(blocks), moe_layers_of(blocks), step)
            for blocks in stage_blocks(self.model, layout.pp)
        ]

    def _host_ms(self, terms: Terms, layers: float, moe_layers: int, step: StepShape) -> Floats:
        """Engine overhead of a step: of launching and computing, the slower counts."""
        added_ms, launch_ms = self._host_sides(layers, moe_layers, step)
        return np.asarray(added_ms + np.maximum(launch_ms - total(terms), 0.0))

    def _host_sides(self, layers: float, moe_layers: int, step: StepShape) -> tuple[Floats, Floats]:
        fixed, launch = self.host_parts(step.phase, layers, moe_layers)
        fixed_ms, launch_ms = np.full(step.tokens.shape, fixed), np.full(step.tokens.shape, launch)
        if step.phase == "prefill":
            in_graph = self.host_parts(step.phase, layers, moe_layers, in_graph=True)[1]
            launch_ms = np.where(step.tokens <= self.graph_tokens, in_graph, launch)
        elif np.any(beyond := np.asarray(step.sequences) > self.graph_sequences):
            eager, apart = self.host_parts(step.phase, layers, moe_layers, beyond_graphs=True)
            fixed_ms, launch_ms = np.where(beyond, eager, fixed_ms), np.where(beyond, apart, launch_ms)
        sequences = np.asarray(step.sequences, dtype=float)
        launch_ms = launch_ms + self.hidden_sequence_ms * sequences * self._one_thread(layers)
        return fixed_ms + self.sequence_ms * sequences, launch_ms


@lru_cache(maxsize=1024)
def _products(block: Block, hidden: int) -> tuple[tuple[Matrix, ...], ...]:
    return merged(block.products(hidden))
