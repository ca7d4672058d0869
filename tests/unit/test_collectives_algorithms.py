"""Textbook algorithms: plain Hockney times against the formulas of MPICH's comments and of the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.cost.collectives import collective_report
from tuner.cost.collectives.algorithms import (
    DEFAULTS,
    STRATEGIES,
    LinkFigures,
    names_of,
    nvrar,
    nvrar_as_transcribed,
    price,
    reducing_rounds,
    strategy,
)
from tuner.cost.collectives.cost import OPERATIONS
from tuner.errors import BadInput

ALPHA_US, GB_PER_S, BYTES = 3.0, 25.0, 1 << 20
BETA_US = BYTES / (GB_PER_S * 1e3)


def plain(algorithm: str, ranks: int, nodes: int = 1, operation: str = "allreduce", size: int = BYTES) -> float:
    report = collective_report(operation, size, ranks, nodes, algorithm=algorithm, alpha_us=ALPHA_US, gb_per_s=GB_PER_S)
    assert report.latency_us == pytest.approx(sum(report.terms_us.values()), rel=1e-12)
    return report.latency_us


ALLREDUCE = [
    ("ring", 8, 14 * ALPHA_US + 2 * 7 / 8 * BETA_US),
    ("ring", 6, 10 * ALPHA_US + 2 * 5 / 6 * BETA_US),
    ("tree", 8, 6 * (ALPHA_US + BETA_US)),
    ("tree", 6, 6 * (ALPHA_US + BETA_US)),
    ("recursive-doubling", 8, 3 * (ALPHA_US + BETA_US)),
    ("recursive-doubling", 6, 4 * (ALPHA_US + BETA_US)),
    ("rabenseifner", 8, 6 * ALPHA_US + 2 * 7 / 8 * BETA_US),
    ("rabenseifner", 6, 6 * ALPHA_US + (2 * 5 / 6 + 2) * BETA_US),
    ("rabenseifner", 12, 8 * ALPHA_US + (2 * 11 / 12 + 2) * BETA_US),
    ("one-shot", 4, ALPHA_US + 3 * BETA_US),
    ("two-shot", 4, 2 * ALPHA_US + 2 * 3 / 4 * BETA_US),
    ("dda-flat", 8, ALPHA_US + 7 * BETA_US),
    ("dda-tree", 8, 2 * ALPHA_US + 2 * 7 / 8 * BETA_US),
    ("mpi", 8, 6 * ALPHA_US + 2 * 7 / 8 * BETA_US),
    ("nccl-ring-ll", 8, 14 * ALPHA_US + 2 * 7 / 8 * BETA_US),
    ("nccl-tree-simple", 8, 14 * ALPHA_US + 2 * BETA_US),
]


@pytest.mark.parametrize(("algorithm", "ranks", "expected_us"), ALLREDUCE)
def test_plain_allreduce_is_the_textbook_formula(algorithm: str, ranks: int, expected_us: float) -> None:
    assert plain(algorithm, ranks) == pytest.approx(expected_us, rel=1e-12)


def test_mpi_doubles_up_to_two_kib() -> None:
    beta_us = 2048 / (GB_PER_S * 1e3)
    assert plain("mpi", 8, size=2048) == pytest.approx(3 * (ALPHA_US + beta_us))
    assert plain("mpi", 8, size=2049) > 6 * ALPHA_US


@pytest.mark.parametrize(
    ("operation", "algorithm", "ranks", "expected_us"),
    [
        ("allgather", "ring", 8, 7 * ALPHA_US + 7 / 8 * BETA_US),
        ("allgather", "recursive-doubling", 8, 3 * ALPHA_US + 7 / 8 * BETA_US),
        ("allgather", "recursive-doubling", 6, 3 * ALPHA_US + 5 / 6 * BETA_US),
        ("reducescatter", "ring", 4, 3 * ALPHA_US + 3 / 4 * BETA_US),
        ("alltoall", "one-shot", 8, ALPHA_US + 7 / 8 * BETA_US),
        ("alltoall", "ring", 8, 7 * ALPHA_US + 7 / 8 * BETA_US),
        ("sendrecv", "one-shot", 2, ALPHA_US + BETA_US),
        ("broadcast", "tree", 8, 3 * (ALPHA_US + BETA_US)),
        ("gather", "tree", 8, 3 * ALPHA_US + 7 / 8 * BETA_US),
    ],
)
def test_other_operations(operation: str, algorithm: str, ranks: int, expected_us: float) -> None:
    assert plain(algorithm, ranks, operation=operation) == pytest.approx(expected_us, rel=1e-12)


@pytest.mark.parametrize("nodes", [2, 4, 8])
def test_nvrar_is_scatter_double_gather(nodes: int) -> None:
    per_node, rounds = 4, int(math.log2(nodes))
    expected_us = (6 + rounds) * ALPHA_US + BETA_US / per_node * (2 * 3 + 2 * rounds)
    assert plain("nvrar", per_node * nodes, nodes) == pytest.approx(expected_us, rel=1e-12)


@pytest.mark.parametrize("nodes", [2, 8, 32])
def test_nvrar_sends_flags_with_small_messages_and_a_signal_after_large_ones(nodes: int) -> None:
    links = LinkFigures(1.0, 450e9, ALPHA_US, GB_PER_S * 1e9)
    sizes = np.array([8 << 10, BYTES, 64 * BYTES], dtype=float)
    flagged = price(strategy("allreduce", "nvrar")(4 * nodes, nodes), links, sizes).latency_us
    found = nvrar(4 * nodes, nodes, links, sizes).latency_us
    assert found[0] == flagged[0]
    rounds, saved_us = math.log2(nodes), math.log2(nodes) * sizes[2] / 4 / (GB_PER_S * 1e3)
    assert found[2] == pytest.approx(flagged[2] - saved_us + rounds * ALPHA_US)
    assert (found <= flagged).all()


@pytest.mark.parametrize(
    ("operation", "ranks", "rounds"), [("allreduce", 8, 3), ("allreduce", 6, 3), ("allgather", 8, 0)]
)
def test_mpi_reduces_once_per_doubling(operation: str, ranks: int, rounds: int) -> None:
    assert reducing_rounds(operation, ranks) == rounds


def test_nvrar_transcription_differs_in_the_network_bytes_alone() -> None:
    textbook, transcribed = strategy("allreduce", "nvrar")(32, 8), nvrar_as_transcribed(32, 8)
    assert (transcribed.intra, transcribed.inter) == (textbook.intra, textbook.inter)
    assert textbook.inter_share / transcribed.inter_share == pytest.approx(3 / (7 / 8))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_rank_costs_nothing(operation: str) -> None:
    for algorithm in STRATEGIES[operation]:
        rounds = strategy(operation, algorithm)(1, 1)
        size = np.array([1e6])
        assert price(rounds, LinkFigures.uniform(1.0, 1e9), size).latency_us == pytest.approx(0.0), algorithm


@pytest.mark.slow
@given(st.sampled_from(["ring", "rabenseifner", "two-shot", "hierarchical"]), st.integers(1, 5), st.integers(0, 4))
def test_bandwidth_optimal_algorithms_send_what_must_be_sent(algorithm: str, lg_nodes: int, lg_per_node: int) -> None:
    """Every byte reduced by all ranks leaves a rank 2(R-1)/R times, on whichever links it goes."""
    nodes, per_node = 2**lg_nodes, 2**lg_per_node
    rounds = strategy("allreduce", algorithm)(nodes * per_node, nodes)
    sent = rounds.intra_share + rounds.inter_share + rounds.pipelined_share
    assert sent == pytest.approx(2 * (nodes * per_node - 1) / (nodes * per_node))


@pytest.mark.slow
@given(st.sampled_from(OPERATIONS), st.integers(2, 64), st.data())
def test_nodes_only_move_rounds_between_links(operation: str, ranks: int, data: st.DataObject) -> None:
    """With one α and one β for both links, spreading the ranks over nodes changes neither rounds nor bytes."""
    algorithm = data.draw(st.sampled_from([DEFAULTS[operation], *STRATEGIES[operation]]))
    if algorithm in ("nvrar", "hierarchical", "nvls", "nccl-tree", "nccl-nvls"):
        return
    nodes = data.draw(st.sampled_from([n for n in range(1, ranks + 1) if ranks % n == 0]))
    make = strategy(operation, algorithm)
    links, size = LinkFigures.uniform(2.0, 1e10), np.array([1e5])
    flat, spread = (price(make(ranks, n), links, size).latency_us for n in (1, nodes))
    assert spread == pytest.approx(flat)


def test_unknown_names_list_what_is_allowed() -> None:
    with pytest.raises(BadInput, match=r"recursive-doubling.*mpi.*nccl-ring-ll128"):
        collective_report("allreduce", BYTES, 8, algorithm="butterfly")
    with pytest.raises(BadInput, match="allreduce, allgather, reducescatter"):
        collective_report("all_reduce", BYTES, 8)
    with pytest.raises(BadInput, match="gb_per_s"):
        collective_report("allreduce", BYTES, 8, alpha_us=1.0)
    with pytest.raises(BadInput, match="alpha_us"):
        collective_report("allreduce", BYTES, 8, gb_per_s=1.0)
    with pytest.raises(BadInput, match="1 to the 4 ranks"):
        collective_report("allreduce", BYTES, 4, 5)
    with pytest.raises(BadInput, match="0 or more"):
        collective_report("allreduce", -1, 4)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_listed_name_has_a_plain_form(operation: str) -> None:
    for name in names_of(operation):
        assert plain(name, 8, 2, operation=operation) > 0
