"""What ``parlay volume --json`` prints: what one request sends, by the paper's formulas and operation by operation."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.cost.paper import PaperVolume, paper_volume
from tuner.cost.transfer import kv_links, kv_transfer_bytes
from tuner.cost.volume import Engine, request_operations, system_totals


class HybridAnswer(Answer):
    """The terms of V_hybrid, bytes."""

    allreduce: int | float = Field(description="Boxed all-reduce term, bytes.")
    allgather: int | float = Field(description="Boxed all-gather term, bytes.")
    gather: int | float = Field(description="Boxed gather term, bytes.")
    p2p: int | float = Field(description="Boxed point-to-point term, bytes.")
    total: int | float = Field(description="Sum of the four boxed terms, bytes.")
    stage0_embedding_allreduce: int | float = Field(description="The embedding's all-reduce, not in the total, bytes.")


class PaperAnswer(Answer):
    """Literal values of the formulas of Xu et al. (arXiv 2507.14392)."""

    v_tp_bytes: int | float = Field(description="V_tp, bytes.")
    v_pp_bytes: int | float = Field(description="V_pp, bytes.")
    v_hybrid_bytes: HybridAnswer = Field(description="V_hybrid by term, bytes.")


class OperationAnswer(Answer):
    """One kind of message of one TP rank of a stage."""

    phase: str = Field(description="prefill or decode.")
    stage: int = Field(description="Pipeline stage, from 0.")
    operation: str = Field(description="The collective.")
    group: str = Field(description="Which ranks take part.")
    ranks: int = Field(description="How many they are.")
    calls: int = Field(description="Calls over the request.")
    shape: list[int] = Field(description="Shape of the tensor.")
    message_bytes: int = Field(description="Bytes of one call.")
    where: str = Field(description="Where in the model.")


class LinkAnswer(Answer):
    """One kind of link between a prefill and a decode pool of the same layout."""

    stage: int = Field(description="Pipeline stage, from 0.")
    links: int = Field(description="Pairs of ranks.")
    link_bytes: int = Field(description="Bytes per request on each of them.")


class TransferAnswer(Answer):
    """The KV cache of the prompt, if prefill and decode are apart."""

    bytes_per_request: int = Field(description="Bytes without copies.")
    links: list[LinkAnswer] = Field(description="Which links carry it, copies included.")


class VolumeAnswer(Answer):
    """What one request sends."""

    model: str = Field(description="The model.")
    layout: str = Field(description="The layout.")
    prompt_tokens: int = Field(description="Tokens of the prompt.")
    output_tokens: int = Field(description="Tokens of the output.")
    engine: str = Field(description="v0 or v1.")
    paper: PaperAnswer = Field(description="The paper's formulas.")
    operations: list[OperationAnswer] = Field(description="What one TP rank of each stage really sends.")
    calls_all_ranks: dict[str, dict[str, int]] = Field(description="Calls by phase and operation over all ranks.")
    sent_bytes_all_ranks: int = Field(description="Bytes sent over all ranks of one replica.")
    kv_transfer: TransferAnswer = Field(description="What disaggregated serving would hand over.")


def volume_answer(
    model: ModelShape, layout: ParallelLayout, prompt_tokens: int, output_tokens: int, engine: Engine
) -> VolumeAnswer:
    """What one request sends: the paper's formulas, and every operation of one TP rank of each stage."""
    operations = request_operations(model, layout, prompt_tokens, output_tokens, engine)
    calls, sent = system_totals(layout, operations)
    return VolumeAnswer(
        model=model.name,
        layout=str(layout),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        engine=engine,
        paper=_paper(paper_volume(model, layout.tp, layout.pp, prompt_tokens, output_tokens)),
        operations=[OperationAnswer(**asdict(one)) for one in operations],
        calls_all_ranks=calls,
        sent_bytes_all_ranks=sent,
        kv_transfer=TransferAnswer(
            bytes_per_request=kv_transfer_bytes(model, layout, prompt_tokens),
            links=[LinkAnswer(**asdict(link)) for link in kv_links(model, layout, prompt_tokens)],
        ),
    )


def _paper(found: PaperVolume) -> PaperAnswer:
    return PaperAnswer(
        v_tp_bytes=found.v_tp_bytes,
        v_pp_bytes=found.v_pp_bytes,
        v_hybrid_bytes=HybridAnswer(
            allreduce=found.hybrid_allreduce_bytes,
            allgather=found.hybrid_allgather_bytes,
            gather=found.hybrid_gather_bytes,
            p2p=found.hybrid_p2p_bytes,
            total=found.hybrid_total_bytes,
            stage0_embedding_allreduce=found.stage0_embedding_allreduce_bytes,
        ),
    )
