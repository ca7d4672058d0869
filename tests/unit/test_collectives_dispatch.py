"""vLLM's gates, cell by cell, and the order in which they are asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ask.profile import load_profile
from tuner.cost.collectives import CollectiveModel, CommGroup
from tuner.cost.collectives.dispatch import Choice, Site, choose, choose_fused, parse_version, segments
from tuner.errors import BadInput

MIB, KIB = 1 << 20, 1 << 10
NEW, OLD = (0, 33), (0, 24)


def site(
    capability: int | None, ranks: int, version: tuple[int, ...] = OLD, nvlink: bool = True, hosts: int = 1
) -> Site:
    return Site(capability, ranks, hosts, nvlink, hosts == 1, version)


def picked(choice: Choice) -> tuple[str, str]:
    return choice.implementation, choice.algorithm


# (capability, ranks, MiB): the first size that custom all-reduce refuses.
CUSTOM = [
    *[(90, 2, 8), (90, 4, 8), (90, 6, 0.5), (90, 8, 0.25)],
    *[(100, 2, 2), (100, 4, 2), (100, 6, 1), (100, 8, 1)],
    *[(103, 2, 4), (103, 4, 4), (103, 6, 8), (103, 8, 4)],
    *[(80, 2, 8), (80, 4, 8), (80, 6, 8), (80, 8, 8)],
]


@pytest.mark.parametrize(("capability", "ranks", "mib"), CUSTOM)
def test_custom_allreduce_limit_is_exclusive(capability: int, ranks: int, mib: float) -> None:
    here = site(capability, ranks)
    assert choose(here, int(mib * MIB) - 1).implementation == "custom"
    assert choose(here, int(mib * MIB)).implementation != "custom"


# (capability, ranks, MiB): the largest size that symmetric memory takes.
SYMMETRIC = [
    *[(90, 2, 64), (90, 4, 32), (90, 6, 64), (90, 8, 64)],
    *[(100, 2, 8), (100, 4, 32), (100, 6, 128), (100, 8, 128)],
    *[(103, 4, 32), (103, 6, 32), (103, 8, 64)],
]


@pytest.mark.parametrize(("capability", "ranks", "mib"), SYMMETRIC)
def test_symmetric_memory_limit_is_inclusive(capability: int, ranks: int, mib: int) -> None:
    here = site(capability, ranks)
    multimem = ranks in ({4, 6, 8} if capability == 90 else {6, 8})
    expected = ("symmetric-memory", "nvls" if multimem else "two-shot")
    assert picked(choose(here, mib * MIB)) == expected
    assert picked(choose(here, mib * MIB + 1)) == ("nccl", "nccl")


def test_symmetric_memory_of_sm103_at_two_ranks_takes_the_one_size_that_custom_leaves() -> None:
    here = site(103, 2)
    assert choose(here, 4 * MIB - 1).implementation == "custom"
    assert choose(here, 4 * MIB).implementation == "symmetric-memory"
    assert choose(here, 4 * MIB + 1).implementation == "nccl"


# (capability, ranks, MiB): the largest size of FlashInfer's standalone all-reduce in 0.33 on one host.
FLASHINFER = [(90, 2, 64), (90, 4, 2), (90, 8, 0.5), (100, 2, 64), (100, 4, 32), (103, 2, 64)]


@pytest.mark.parametrize(("capability", "ranks", "mib"), FLASHINFER)
def test_flashinfer_comes_first_since_0_29(capability: int, ranks: int, mib: float) -> None:
    limit = int(mib * MIB)
    for version in ((0, 29), (0, 30), NEW):
        here = site(capability, ranks, version)
        assert choose(here, limit).implementation == "flashinfer"
        assert choose(here, limit + 1).implementation != "flashinfer"
    assert choose(site(capability, ranks, (0, 28)), limit).implementation != "flashinfer"


@pytest.mark.parametrize(
    ("capability", "ranks", "hosts", "version", "first_refused"),
    [
        (100, 8, 1, (0, 30), 1 * MIB + 1),
        (100, 8, 1, NEW, 128 * MIB),
        (103, 4, 1, (0, 30), 80 * MIB),
        (103, 8, 1, (0, 30), 64 * MIB),
        (103, 8, 2, NEW, 64 * MIB),
        (103, 16, 4, NEW, 8 * MIB),
        (100, 16, 4, NEW, 64 * MIB + 1),
    ],
)
def test_multi_node_nvlink_limits_are_pinned_per_version(
    capability: int, ranks: int, hosts: int, version: tuple[int, ...], first_refused: int
) -> None:
    here = Site(capability, ranks, hosts, True, True, version)
    assert choose(here, first_refused - 1).implementation == "flashinfer"
    assert choose(here, first_refused).implementation != "flashinfer"


@pytest.mark.parametrize(
    ("ranks", "size", "algorithm"),
    [
        (2, 8 * MIB - 1, "one-shot"),
        (4, 512 * KIB - 1, "one-shot"),
        (4, 512 * KIB, "two-shot"),
        (6, 256 * KIB - 1, "one-shot"),
        (8, 256 * KIB, "two-shot"),
    ],
)
def test_custom_shots(ranks: int, size: int, algorithm: str) -> None:
    assert picked(choose(site(80, ranks), size)) == ("custom", algorithm)


def test_eight_h100_never_take_two_custom_shots() -> None:
    kinds = {picked(segment.choice) for segment in segments(site(90, 8))}
    assert kinds == {("custom", "one-shot"), ("symmetric-memory", "nvls"), ("nccl", "nccl")}


@pytest.mark.parametrize(("ranks", "last_one_shot"), [(2, 512 * KIB), (4, 256 * KIB), (8, 128 * KIB)])
def test_flashinfer_goes_in_one_shot_while_ranks_times_bytes_stay_within_a_mib(ranks: int, last_one_shot: int) -> None:
    here = site(90, ranks, NEW)
    assert choose(here, last_one_shot).algorithm == "one-shot"
    assert choose(here, last_one_shot + 1).algorithm == "two-shot"


@pytest.mark.parametrize(
    ("capability", "ranks", "fused_mib", "one_shot_mib"),
    [(90, 2, 64, 32), (90, 4, 2, 2), (90, 8, 0.5, 0.5), (100, 4, 32, 4), (100, 8, 1, 1), (103, 8, 4, 2)],
)
def test_fused_with_norm(capability: int, ranks: int, fused_mib: float, one_shot_mib: float) -> None:
    here = site(capability, ranks, NEW)
    at_limit, at_one_shot = (choose_fused(here, int(mib * MIB)) for mib in (fused_mib, one_shot_mib))
    assert at_limit is not None
    assert at_one_shot is not None
    assert at_one_shot.algorithm == "one-shot"
    assert choose_fused(here, int(fused_mib * MIB) + 1) is None


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (site(90, 16, hosts=2), "spans 2 nodes"),
        (site(89, 4, nvlink=False), "two PCIe-only GPUs"),
        (site(90, 3), "no custom kernel"),
        (site(80, 16), "no custom kernel"),
    ],
)
def test_nccl_alone(here: Site, reason: str) -> None:
    choice = choose(here, 1024)
    assert choice.implementation == "nccl"
    assert reason in choice.why


def test_two_pcie_gpus_use_custom_allreduce_below_eight_mib() -> None:
    here = site(89, 2, NEW, nvlink=False)
    assert picked(choose(here, 8 * MIB - 1)) == ("custom", "one-shot")
    assert choose(here, 8 * MIB).implementation == "nccl"


def test_why_names_the_gate() -> None:
    assert "0.25 MiB" in choose(site(90, 8), 1024).why
    assert "64 MiB" in choose(site(90, 8), MIB).why
    assert "64 MiB" in choose(site(90, 8), 128 * MIB).why
    assert "0.29" in choose(site(90, 8, NEW), 1024).why


@given(
    st.sampled_from([None, 80, 89, 90, 100, 103]),
    st.integers(2, 17),
    st.booleans(),
    st.integers(1, 2),
    st.sampled_from([OLD, (0, 30), NEW]),
    st.integers(0, 1 << 28),
)
def test_segments_agree_with_asking_gate_by_gate(
    capability: int | None, ranks: int, nvlink: bool, hosts: int, version: tuple[int, ...], size: int
) -> None:
    here = site(capability, ranks, version, nvlink, hosts)
    found = next(part.choice for part in segments(here) if part.up_to_bytes is None or size <= part.up_to_bytes)
    assert found == choose(here, size)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.33", (0, 33)),
        ("vllm-0.24.0", (0, 24, 0)),
        ("v0.30.1rc2", (0, 30, 1)),
        (None, (0, 33)),
        ("0.29.0+cpu", (0, 29, 0)),
    ],
)
def test_versions(text: str | None, expected: tuple[int, ...]) -> None:
    assert parse_version(text) == expected


def test_a_version_that_is_none() -> None:
    with pytest.raises(BadInput, match="vllm_version"):
        parse_version("latest")


@pytest.mark.parametrize(("version", "implementation"), [((0, 14, 0), "nccl"), ((0, 18), "symmetric-memory")])
def test_releases_up_to_0_14_leave_symmetric_memory_off(version: tuple[int, ...], implementation: str) -> None:
    for ranks in (2, 4, 8):
        assert choose(site(90, ranks, version), 16 * MIB).implementation == implementation
        assert choose(site(90, ranks, version), 128 * KIB).implementation == "custom"


def test_hosts_with_a_slower_processor_launch_later() -> None:
    slow, quick = (
        float(CollectiveModel.of(load_profile(name)).latency_us("allreduce", 1024.0, CommGroup(2), "eager"))
        for name in ("gb200", "b200_sxm")
    )
    assert slow > 2 * quick
