"""The time of a collective as the engine runs it: topology, properties, reports and measured rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.ask.profile import known_profiles, load_profile
from tuner.cost.collectives import (
    OPERATIONS,
    CollectiveModel,
    CommGroup,
    Fabric,
    collective_report,
    known_fabrics,
    load_fabric,
    predict_collective_rows,
)
from tuner.cost.collectives.fits import fits_of, parse_fits
from tuner.cost.collectives.topology import fabric_from_document, place
from tuner.errors import BadInput

PROFILES = known_profiles()
GROUPS = [CommGroup(2), CommGroup(4), CommGroup(8), CommGroup(16, 2), CommGroup(8, 8), CommGroup(6), CommGroup(12, 4)]


def model(name: str = "h100_sxm", version: str | None = None, fabric: str | None = None) -> CollectiveModel:
    return CollectiveModel.of(load_profile(name), fabric, version)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_profile_prices_every_operation(profile: str, operation: str) -> None:
    for group in GROUPS:
        times_us = model(profile).latency_us(operation, np.array([0.0, 1e3, 1e6, 1e9]), group)
        assert np.isfinite(times_us).all()
        assert (times_us > 0).all()


@pytest.mark.parametrize("profile", PROFILES)
def test_one_rank_costs_nothing(profile: str) -> None:
    for operation in OPERATIONS:
        estimate = model(profile).estimate(operation, np.array([[1e3, 1e6]]), CommGroup(1))
        assert estimate.latency_us.shape == (1, 2)
        assert (estimate.latency_us == 0).all()


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.sampled_from(PROFILES),
    st.sampled_from(OPERATIONS),
    st.sampled_from(GROUPS),
    st.sampled_from(["graph", "eager"]),
    st.sampled_from(["0.24", "0.33"]),
    st.lists(st.floats(0, 4e9), min_size=2, max_size=6),
)
def test_time_rises_with_the_message(
    profile: str, operation: str, group: CommGroup, mode: str, version: str, sizes: list[float]
) -> None:
    times_us = model(profile, version).latency_us(operation, np.array(sorted(sizes)), group, mode)
    assert (np.diff(times_us) >= -1e-9 * times_us[1:]).all()


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.sampled_from(PROFILES),
    st.sampled_from(OPERATIONS),
    st.sampled_from(GROUPS),
    st.sampled_from(["graph", "eager"]),
    st.lists(st.floats(0, 1e9), min_size=1, max_size=5),
)
def test_terms_add_up_and_the_lean_path_agrees(
    profile: str, operation: str, group: CommGroup, mode: str, sizes: list[float]
) -> None:
    pricing, size = model(profile), np.array(sizes)
    estimate = pricing.estimate(operation, size, group, mode=mode)
    assert sum(estimate.terms.values()) == pytest.approx(estimate.latency_us)
    assert pricing.latency_us(operation, size, group, mode) == pytest.approx(estimate.latency_us)
    one_by_one = [float(pricing.latency_us(operation, value, group, mode)) for value in sizes]
    assert one_by_one == pytest.approx(list(estimate.latency_us))
    assert set(np.unique(estimate.algorithm)) == set(estimate.why)


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "cpu"])
@pytest.mark.parametrize("operation", ["allreduce", "allgather", "alltoall"])
def test_nodes_never_help_against_one_of_them(profile: str, operation: str) -> None:
    """A group on two nodes is no quicker than the ranks of one node would be on their own, by the same library."""
    size = np.array([1e3, 1e5, 1e7])
    pricing = model(profile)
    across = pricing.estimate(operation, size, CommGroup(8, 2), "nccl").latency_us
    inside = pricing.estimate(operation, size, CommGroup(4, 1), "nccl").latency_us
    assert (across >= inside).all()


def test_more_ranks_cost_small_messages_more() -> None:
    times_us = [float(model(version="0.24").latency_us("allreduce", 4096.0, CommGroup(ranks))) for ranks in (2, 4, 8)]
    assert times_us == sorted(times_us)
    across = [float(model().latency_us("allreduce", 65536.0, CommGroup(8 * nodes, nodes))) for nodes in (1, 2, 4, 8)]
    assert across == sorted(across)
    assert across[1] > 2 * across[0]


def test_eager_adds_the_copy_and_waits_for_the_host() -> None:
    graph = model(version="0.24").estimate("allreduce", np.array([1024.0, 2.0**28]), CommGroup(8))
    eager = model(version="0.24").estimate("allreduce", np.array([1024.0, 2.0**28]), CommGroup(8), mode="eager")
    assert eager.latency_us[0] == pytest.approx(load_profile("h100_sxm").collectives["eager"]["kernel_us"])
    assert eager.terms["host_launch_us"][0] > 0
    assert eager.terms["host_launch_us"][1] == 0
    assert eager.latency_us[1] - graph.latency_us[1] == pytest.approx(eager.terms["copy_us"][1])


def test_report_for_the_engine_names_the_pick_and_why() -> None:
    report = collective_report("allreduce", 131072, 8, profile="h100_sxm", vllm_version="0.24")
    assert report.algorithm == "one-shot"
    assert report.implementation == "custom"
    assert "0.25 MiB" in report.why
    assert report.latency_us == pytest.approx(sum(report.terms_us.values()))
    assert collective_report("allreduce", 1 << 28, 8, profile="h100_sxm").algorithm == "nccl-nvls"
    assert collective_report("allreduce", 1 << 20, 16, 2, profile="h100_sxm").implementation == "nccl"
    assert collective_report("allreduce", 4096, 2, profile="cpu").implementation == "gloo"


@pytest.mark.parametrize(
    ("algorithm", "ranks", "expected_us"),
    [("nccl-ring-ll", 8, 15.0), ("nccl-tree-ll", 8, 15.2), ("nccl-ring-ll", 2, 7.8), ("nccl-nvls", 8, 25.0)],
)
def test_a_forced_nccl_algorithm_is_nccl_s_own_estimate(algorithm: str, ranks: int, expected_us: float) -> None:
    report = collective_report("allreduce", 0, ranks, profile="h100_sxm", algorithm=algorithm)
    assert report.latency_us == pytest.approx(expected_us)
    assert report.algorithm == algorithm


def test_forced_kernels_differ_where_they_should() -> None:
    def forced(algorithm: str, size: int) -> float:
        return collective_report("allreduce", size, 8, profile="h100_sxm", algorithm=algorithm).latency_us

    assert forced("one-shot", 1024) < forced("two-shot", 1024)
    assert forced("two-shot", 1 << 24) < forced("one-shot", 1 << 24)


@pytest.mark.parametrize(("profile", "nodes"), [("a100_40gb_sxm", 8), ("gh200", 8)])
def test_nvrar_and_mpi_beat_nccl_across_many_nodes(profile: str, nodes: int) -> None:
    """As the NVRAR paper orders them on Slingshot: NCCL trails from 256 KiB to 1 MiB, and NVRAR gains with nodes."""

    def gain(algorithm: str, size: int, count: int) -> float:
        nccl, other = (
            collective_report("allreduce", size, 4 * count, count, profile=profile, algorithm=name).latency_us
            for name in ("nccl", algorithm)
        )
        return float(nccl / other)

    for size in (1 << 18, 1 << 19, 1 << 20):
        assert gain("mpi", size, nodes) > 1.2
        assert gain("nvrar", size, nodes) > 1.2
    assert gain("nvrar", 1 << 19, nodes) > gain("nvrar", 1 << 19, 2)


# -- topology ----------------------------------------------------------------------------------------------------------


def test_every_profile_names_a_known_fabric() -> None:
    assert {load_profile(name).fabric for name in PROFILES} <= set(known_fabrics())
    assert all(load_fabric(name).source for name in known_fabrics())


def test_oversubscription_spares_rails() -> None:
    profile = load_profile("h100_sxm")
    base = {"name": "x", "nic_gb_per_s": 50, "efficiency": 1, "hop_us": 3, "mpi_hop_us": 4, "source": "test"}
    flat, rails = (
        fabric_from_document(base | {"oversubscription": 4, "rail_optimised": rail}, "x") for rail in (False, True)
    )
    group = CommGroup(16, 2)
    assert place(group, profile, flat).inter_bytes_per_s == pytest.approx(50e9 / 4)
    assert place(group, profile, rails).inter_bytes_per_s == pytest.approx(50e9)
    assert place(group, profile, flat, 7e9).inter_bytes_per_s == 7e9
    slow = CollectiveModel.of(profile, flat).latency_us("allreduce", 1e9, group)
    assert slow > CollectiveModel.of(profile, rails).latency_us("allreduce", 1e9, group)


def test_nodes_share_their_nics() -> None:
    profile = load_profile("l40s")
    fabric = load_fabric(profile.fabric)
    expected = profile.nics_per_node / profile.gpus_per_node * fabric.nic_gb_per_s * 1e9 * fabric.efficiency
    got = place(CommGroup(16, 2), profile, fabric).inter_bytes_per_s
    assert got == pytest.approx(expected / fabric.oversubscription)


def test_an_nvlink_domain_may_span_nodes() -> None:
    size = 1 << 20
    inside = collective_report("allreduce", size, 8, 2, profile="b300_sxm", fabric="nvl72")
    outside = collective_report("allreduce", size, 8, 2, profile="b300_sxm", fabric="infiniband_ndr")
    assert inside.implementation == "flashinfer"
    assert outside.implementation == "nccl"
    assert inside.latency_us < outside.latency_us


def test_bad_topologies() -> None:
    with pytest.raises(BadInput, match="infiniband_ndr"):
        load_fabric("token_ring")
    with pytest.raises(BadInput, match="above 0"):
        Fabric("x", 0.0, 1.0, 1.0, 1.0, "test")
    with pytest.raises(BadInput, match="nic_gb_per_s"):
        fabric_from_document({"name": "x"}, "x")
    with pytest.raises(BadInput, match="no NVLink"):
        model("l40s").latency_us("allreduce", 1.0, CommGroup(2, link="nvlink"))
    for bad in ({"ranks": 0}, {"ranks": 2, "nodes": 3}, {"ranks": 2, "link": "string"}):
        with pytest.raises(BadInput):
            CommGroup(**bad)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="graph, eager"):
        model().latency_us("allreduce", 1.0, CommGroup(2), mode="lazy")


def test_pcie_between_nvlink_gpus_is_slower() -> None:
    by_link = [float(model().latency_us("allreduce", 1e8, CommGroup(4, link=link))) for link in ("nvlink", "pcie")]
    assert by_link[0] < by_link[1]


# -- fits and measured rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_have_few_parameters_with_a_source(profile: str) -> None:
    hardware = load_profile(profile)
    assert fits_of(hardware) == parse_fits(hardware.collectives, profile)
    assert sum(len(part) for part in hardware.collectives.values()) <= 25
    assert hardware.sources["collectives"]


@pytest.mark.parametrize("relative", ["a100_40gb_sxm", "gh200", "h20", "mi300x", "generic"])
def test_unmeasured_profiles_say_so(relative: str) -> None:
    assert "nothing measured" in load_profile(relative).sources["collectives"]


def test_a_section_with_a_wrong_field_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"collectives\.host\.alpha_us"):
        parse_fits({"host": {"gb_per_s": 1.0}}, "x")
    with pytest.raises(BadInput, match="at least nccl"):
        parse_fits({}, "x")


# A few points per system from measurements: (system, library, source, operation, ranks, bytes, microseconds).
MEASURED = [
    ("h100_sxm", "vllm-0.24.0", "vLLM_custom_graph", "all_reduce", 2, 256, 4.29),
    ("h100_sxm", "vllm-0.24.0", "vLLM_custom_graph", "all_reduce", 8, 65536, 6.4),
    ("h100_sxm", "vllm-0.24.0", "vLLM_custom_graph", "all_reduce", 8, 4194304, 30.8),
    ("h100_sxm", "vllm-0.24.0", "vLLM_custom_eager", "all_reduce", 2, 8192, 20.6),
    ("h100_sxm", "nccl-2.29.2", "NCCL", "all_reduce", 8, 134217728, 578.7),
    ("h200_sxm", "nccl-2.29.2", "NCCL", "all_gather", 4, 134217728, 344.5),
    ("h200_sxm", "nccl-2.29.2", "NCCL", "alltoall", 8, 268435456, 770.8),
    ("a100_sxm", "vllm-0.14.0", "vLLM_custom_graph", "all_reduce", 8, 2097152, 27.9),
    ("a100_sxm", "nccl-2.27.3", "NCCL", "all_reduce", 8, 134217728, 1169.1),
    ("b200_sxm", "nccl-2.29.2", "NCCL", "reduce_scatter", 8, 8192, 16.8),
    ("l40s", "vllm-0.22.0", "vLLM_custom_graph", "all_reduce", 2, 67108864, 3541.6),
]


@pytest.mark.parametrize("row", MEASURED)
def test_measured_points_are_met_within_fifteen_percent(row: tuple[str, str, str, str, int, int, float]) -> None:
    names = ("system", "library", "kernel_source", "op_name", "num_gpus", "message_bytes")
    columns = {name: np.array([value]) for name, value in zip(names, row[:-1], strict=True)}
    assert predict_collective_rows(columns)[0] == pytest.approx(row[-1], rel=0.15)


def test_rows_are_predicted_in_their_order() -> None:
    names = ("system", "library", "kernel_source", "op_name", "num_gpus", "message_bytes")
    columns = {name: np.array([row[i] for row in MEASURED]) for i, name in enumerate(names)}
    backwards = {name: values[::-1] for name, values in columns.items()}
    assert predict_collective_rows(backwards)[::-1] == pytest.approx(predict_collective_rows(columns))


def test_bad_rows() -> None:
    row = dict(
        zip(("system", "library", "kernel_source", "op_name", "num_gpus", "message_bytes"), MEASURED[0], strict=False)
    )
    with pytest.raises(BadInput, match="column op_name"):
        predict_collective_rows({k: [v] for k, v in row.items() if k != "op_name"})
    with pytest.raises(BadInput, match="all_reduce, all_gather"):
        predict_collective_rows({k: [v] for k, v in (row | {"op_name": "scan"}).items()})
    with pytest.raises(BadInput, match="vLLM_custom_graph"):
        predict_collective_rows({k: [v] for k, v in (row | {"kernel_source": "MSCCL"}).items()})
