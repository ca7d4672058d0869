"""What a layout's steps cost in milliseconds, and what follows for one request and for a steady load.

A step is priced as a sum of named terms (``gemm``, ``attention``, ``experts``, ``elementwise``, ``allreduce tp``, …,
``host``), so that a breakdown always adds up to the total. All functions are vectorised: over chunk sizes for prefill
steps, over batch sizes for decode steps. Layer costs are cached per shard, so layouts that differ in depth, replicas or
scheduler limits share them.
"""

from __future__ import annotations

from operator import attrgetter

import numpy as np

from tuner.ask.axes import Prices
from tuner.ask.cluster import Cluster
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.model import ModelShape
from tuner.cost import compute
from tuner.cost.collectives import CollectiveModel, CommGroup
from tuner.cost.rank_placement import group_of
from tuner.cost.step_batch import Floats, StepShape, Terms, total
from tuner.cost.switches import AS_SHIPPED, EngineSwitches
from tuner.cost.techniques import NONE, Hardware, Techniques
from tuner.cost.volume import PassOperation, Phase, pass_operations, stage_layers, stage_moe_layers

__all__ = ["EngineSwitches", "StepCosts", "StepShape", "Terms", "total"]

ELEMENTWISE_PASSES = 12  # reads and writes of an activation row per layer: two norms with residual, rotary, activation
SUSTAINED_TOKENS = 512.0  # tokens of a step at which half of the slowdown is felt
DRIFT_TOKENS = 1024.0  # tokens of a step between whose all-reduces ranks drift half as far apart as they ever do
CROWDED_ROWS = 64.0  # rows per expert at which crowding is half felt: a tile
LEAN_RELEASE = (0, 18)  # of vLLM: launches fewer and cheaper kernels around the experts than those before
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
        self._layers: dict[object, tuple[Terms, Terms]] = {}
        self._heads: dict[tuple[int, StepShape], Terms] = {}
        self._messages: dict[object, Floats] = {}

    def stages(self, layout: ParallelLayout, step: StepShape) -> list[Terms]:
        """Terms of each pipeline stage for one step, in ms, each array of the step's broadcast shape.

        Stages that do and send the same are one object.
        """
        dense, moe = self._layer_terms(layout, step)
        messages: list[list[PassOperation]] = [[] for _ in range(layout.pp)]
        for operation in self.techniques.operations(self.model, layout, pass_operations(self.model, layout)):
            if operation.phase in (None, step.phase) and operation.operation != "recv":
                messages[operation.stage].append(operation)
        counts = zip(stage_layers(self.model.layers, layout.pp), stage_moe_layers(self.model, layout.pp), strict=True)
        known: dict[object, Terms] = {}
        found = []
        for stage, (layers, moe_layers) in enumerate(counts):
            sent = [(operation, group_of(self.cluster, layout, operation)) for operation in messages[stage]]
            alike = (layers, moe_layers, *((op.operation, op.where, op.calls, group) for op, group in sent))
            last = stage == layout.pp - 1
            if last or alike not in known:
                terms = self._block_terms(dense, moe, layers, moe_layers)
                if last:
                    terms |= self._head_terms(layout, step)
                for operation, group in sent:
                    self._add_message(terms, layout, operation, group, step)
                terms["host"] = self._host_ms(terms, layers, moe_layers, step)
                known[alike] = terms
            found.append(known[alike])
        return found

    @staticmethod
    def _block_terms(dense: Terms, moe: Terms, layers: int, moe_layers: int) -> Terms:
        terms: Terms = {}
        for name in dense | moe:  # in a fixed order: a sum must not depend on how names hash
            value = (layers - moe_layers) * dense.get(name, np.zeros(1)) + moe_layers * moe.get(name, np.zeros(1))
            terms[name] = np.asarray(value)
        return terms

    def _layer_terms(self, layout: ParallelLayout, step: StepShape) -> tuple[Terms, Terms]:
        """Terms of one layer with a dense MLP, and of one with experts."""
        key: tuple[object, ...] = (*_layer_axes(layout), layout.dp if layout.ep else 1, step)
        if self.techniques:  # theirs depend on where the ranks lie and on how tokens travel, too
            key = (*key, layout.pp, layout.all2all)
        if key not in self._layers:
            attention = self._attention_terms(layout, step)
            dense = attention | self._with_gemm(
                attention, self._mlp_ms(self.model.inter, self.model.linear_dtype, layout, step)
            )
            moe = self._expert_terms(attention, layout, step)
            for terms in (dense, moe):
                if terms:
                    terms["gemm"] = self._sustained(terms["gemm"], step.tokens / layout.pcp)
            if self.techniques:
                dense = self.techniques.layer_terms(self._hardware, layout, step, dense, False)
                moe = self.techniques.layer_terms(self._hardware, layout, step, moe, True) if moe else moe
            self._layers[key] = (dense, moe)
        return self._layers[key]

    @staticmethod
    def _with_gemm(terms: Terms, extra: Floats) -> Terms:
        return {"gemm": np.asarray(terms["gemm"] + extra)}

    def _sustained(self, gemm_ms: Floats, tokens: Floats) -> Floats:
        """Matrix products of a step: with many tokens they run for so long that clocks drop."""
        slowdown = self.cluster.profile.engine.prefill_slowdown
        if slowdown == 1:
            return gemm_ms
        return np.asarray(gemm_ms * (1 + (slowdown - 1) * tokens / (tokens + SUSTAINED_TOKENS)))

    def _attention_terms(self, layout: ParallelLayout, step: StepShape) -> Terms:
        model, profile = self.model, self.cluster.profile
        n = np.maximum(step.tokens / layout.pcp, 1.0)
        rows, columns = self.techniques.grid(layout)
        dtype, heads, hidden = model.attention_dtype, max(1, model.heads // columns), model.hidden // rows
        if model.latent:
            projections = self._latent_projections_ms(n, heads, step.phase)
        else:
            kv_heads = max(1, model.kv_heads // columns)
            width = (heads + 2 * kv_heads) * model.head_dim
            projections = self._product_ms(dtype, n, width, hidden)
            projections = projections + self._product_ms(dtype, n, hidden, heads * model.head_dim)
        row_bytes = ELEMENTWISE_PASSES * model.hidden * float(model.element_bytes)
        kernels = profile.engine.layer_kernels
        if self._switches.on(layout, self.model).fp8_cache and compute.quantises_output(profile):
            kernels *= profile.engine.fp8_cache_kernels
        return {
            "gemm": np.asarray(projections),
            "attention": self.attention_ms(layout, step),
            "elementwise": np.asarray(compute.elementwise_ms(profile, n * row_bytes, kernels)),
        }

    def _product_ms(self, dtype: str, n: Floats, width: float, depth: float) -> Floats:
        """A projection of ``n`` rows, and what quantises them."""
        profile = self.cluster.profile
        product = compute.gemm_ms(profile, dtype, n, width, depth)
        return np.asarray(product + compute.quantise_ms(profile, dtype, n * depth))

    def _latent_projections_ms(self, n: Floats, heads: int, phase: Phase) -> Floats:
        """MLA: down-projections are replicated; decode absorbs the up-projections into per-head products."""
        model, lat = self.model, self.model.latent
        assert lat is not None
        dtype, qk = model.attention_dtype, lat.qk_nope + lat.qk_rope
        q_in = lat.q_rank or model.hidden
        down = lat.kv_rank + lat.qk_rope + (lat.q_rank or 0)
        ms = self._product_ms(dtype, n, down, model.hidden) + self._product_ms(dtype, n, heads * qk, q_in)
        up = heads * (lat.qk_nope + lat.v_head)
        ms = ms + self._product_ms(dtype if phase == "prefill" else model.precision, n, up, lat.kv_rank)
        return np.asarray(ms + self._product_ms(dtype, n, model.hidden, heads * lat.v_head))

    def attention_ms(self, layout: ParallelLayout, step: StepShape) -> Floats:
        """Attention of one layer on one rank, in ms: the mean over layers with and without a window."""
        seen, times = self.techniques.attention_step(layout, step)
        windowed = self.model.window_layers / self.model.layers
        attention: Floats = np.zeros(1)
        if windowed < 1:
            attention = (1 - windowed) * self._attention_ms(layout, seen, None)
        if windowed:
            attention = attention + windowed * self._attention_ms(layout, seen, self.model.window)
        return np.asarray(times * attention)

    def _attention_ms(self, layout: ParallelLayout, step: StepShape, window: int | None) -> Floats:
        model, profile = self.model, self.cluster.profile
        kv_dtype = self._switches.on(layout, self.model).kv_cache_dtype
        heads, kv_heads = max(1, model.heads // layout.tp), max(1, model.kv_heads // layout.tp)
        head_dim, value_dim = model.head_dim, model.head_dim
        if model.latent:
            lat = model.latent
            if step.phase == "decode":  # every head reads the one latent vector of each token
                kv_heads, head_dim, value_dim = 1, lat.kv_rank + lat.qk_rope, lat.kv_rank
            else:
                kv_heads, head_dim, value_dim = heads, lat.qk_nope + lat.qk_rope, lat.v_head
        if step.phase == "decode":
            context = np.maximum(step.context_tokens / layout.dcp, 1.0)
            return np.asarray(
                compute.decode_attention_ms(
                    profile, batch=step.sequences, context_tokens=context, heads=heads * layout.dcp, kv_heads=kv_heads,
                    head_dim=head_dim, value_dim=value_dim, window=window, kv_dtype=kv_dtype,
                )
            )  # fmt: skip
        new = np.maximum(step.new_tokens / layout.pcp, 1.0)
        context = step.context_tokens + (step.new_tokens - new) / 2
        return np.asarray(
            compute.prefill_attention_ms(
                profile, new_tokens=new, context_tokens=context, batch=step.sequences, heads=heads, kv_heads=kv_heads,
                head_dim=head_dim, value_dim=value_dim, window=window, kv_dtype=kv_dtype,
            )
        )  # fmt: skip

    def _mlp_ms(self, width: int, dtype: str, layout: ParallelLayout, step: StepShape) -> Floats:
        model = self.model
        n = np.maximum(step.tokens / layout.pcp, 1.0)
        rows, columns = self.techniques.grid(layout)
        shard, hidden = max(1, width // columns), model.hidden // rows
        up = self._product_ms(dtype, n, 2 * shard, hidden)
        return np.asarray(up + self._product_ms(dtype, n, hidden, shard))

    def _expert_terms(self, attention: Terms, layout: ParallelLayout, step: StepShape) -> Terms:
        model, profile, experts = self.model, self.cluster.profile, self.model.experts
        if experts is None:
            return {}
        shared_tokens = layout.dp if layout.ep else 1  # data-parallel ranks step together when they share experts
        tokens = np.maximum(step.tokens, 1.0) * shared_tokens
        moe_tp, moe_ep = (1, layout.tp * layout.pcp * layout.dp) if layout.ep else (layout.tp, 1)
        routed = compute.moe_ms(
            profile,
            model.expert_dtype,
            tokens,
            model.hidden,
            experts.inter,
            experts.topk,
            experts.count,
            moe_tp,
            moe_ep,
        )
        router = compute.gemm_ms(
            profile, model.precision, np.maximum(step.tokens / layout.pcp, 1.0), experts.count, model.hidden
        )
        if experts.shared_inter:
            router = router + self._mlp_ms(experts.shared_inter, model.weights.shared.main.kind, layout, step)
        served = self._served_share(tokens * experts.topk / experts.count, moe_ep > 1) * routed
        if step.phase == "prefill" and model.expert_dtype == "fp8_block":
            served = served * profile.engine.block_experts
        served = served + profile.engine.expert_layer_ms
        return attention | self._with_gemm(attention, np.asarray(router)) | {"experts": np.asarray(served)}

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
            head = compute.gemm_ms(profile, kind, rows, vocab, model.hidden)
            sampling = compute.sampling_ms(profile, rows, model.vocab)
            self._heads[key] = {"LM head": np.asarray(head), "sampling": np.asarray(sampling)}
        return self._heads[key]

    def _add_message(
        self, terms: Terms, layout: ParallelLayout, operation: PassOperation, group: CommGroup, step: StepShape
    ) -> None:
        key = (operation.operation, operation.columns, operation.element_bytes, operation.per_row, group, step)
        if key not in self._messages:
            tokens = step.tokens if operation.group == "pcp" else np.maximum(step.tokens / layout.pcp, 1.0)
            size = np.asarray(operation.message_bytes(1.0, 1.0) * (step.sequences if operation.per_row else tokens))
            kind = {"send": "sendrecv"}.get(operation.operation, operation.operation)
            us = self._collectives.latency_us(kind, size, group)
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

    def _one_thread(self, layers: int) -> bool:
        """Does what launches these layers schedule as well? The stages of a pipeline are processes of their own."""
        return layers == self.model.layers

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
        self, phase: Phase, layers: int, moe_layers: int = 0, in_graph: bool = False, beyond_graphs: bool = False
    ) -> tuple[float, float]:
        """Host milliseconds of a step on a stage of that many layers, ``moe_layers`` of them with experts: what is
        added to it, apart from its sequences, and what it takes to launch its kernels beside the GPU: one by one, or,
        ``in_graph``, as graphs that every layer's attention interrupts (0 where one graph holds all). Asynchronous
        scheduling hides the rest of a step's host time as well, on the same thread (``_one_thread``). A decode step
        ``beyond_graphs`` has more sequences than any graph."""
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

    def _host_ms(self, terms: Terms, layers: int, moe_layers: int, step: StepShape) -> Floats:
        """Engine overhead of a step: of launching and computing, the slower counts."""
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
        return np.asarray(fixed_ms + self.sequence_ms * sequences + np.maximum(launch_ms - total(terms), 0.0))
