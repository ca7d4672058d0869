"""What was never measured of a device is told, and doubted more: by one owner, for one profile."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.fakes import make_request
from tests.fit.write import write_section
from tuner.app.answers.devices import on_devices
from tuner.ask.cluster import requested_cluster
from tuner.ask.kernel_fits import GemmFit
from tuner.ask.kernel_rules import without_kernel
from tuner.ask.layout import ParallelLayout
from tuner.ask.measured import device_notes, measured_of
from tuner.ask.model import load_model
from tuner.ask.profile import MEASURABLE, PROFILE_DIR, known_profiles, load_profile
from tuner.cost.collectives import collective_report
from tuner.search.priors import TERM_SD, UNMEASURED_SD, fresh_sd, unmeasured_terms

MEASURED = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "l40s")
TERMS = ("gemm", "attention", "experts", "host", "LM head", "allreduce tensor in node", "allgather data between nodes")


@pytest.mark.parametrize("name", known_profiles())
def test_a_section_counts_as_measured_where_the_profile_gives_it_itself(name: str) -> None:
    profile = load_profile(name)
    given = yaml.safe_load((PROFILE_DIR / f"{name}.yaml").read_text(encoding="utf-8"))
    assert set(profile.measured) <= set(given)
    assert all("fit" in profile.sources[section] for section in profile.measured)
    assert not any("nothing measured on this device" in profile.sources[section] for section in profile.measured)
    assert (profile.unmeasured_sections == ()) is (name in MEASURED)


@pytest.mark.parametrize(
    ("gpu", "measured", "words"),
    [
        ("h100_sxm", True, ()),
        ("h20", False, ("h20 was never measured", "h200_sxm")),
        ("rtx_pro_6000_server", False, ("matrix products", "l40s")),
        ("mi300x", False, ("a100_sxm", "launching on ROCm is not tested")),
        ("generic", False, ("estimates",)),
    ],
)
def test_answers_tell_it(gpu: str, measured: bool, words: tuple[str, ...]) -> None:
    answer = on_devices(make_request({"cluster": {"gpu": gpu, "gpus_per_node": 4}}))
    assert answer.device_measured is measured
    assert all(any(word in note for note in answer.device_notes) for word in words)
    assert bool(answer.device_notes) is not measured


def test_what_is_not_known_is_not_claimed(tmp_path: Path) -> None:
    assert measured_of(make_request({"cluster": "ray"})).all is None
    gone = make_request({"cluster": {"gpu": str(tmp_path / "gone.yaml"), "gpus_per_node": 1}})
    assert measured_of(gone) == measured_of(gone.model_copy(update={"cluster": "ray"}))


def test_a_collective_says_so_where_none_was_measured() -> None:
    found = {gpu: collective_report("allreduce", 1 << 20, 4, profile=gpu).notes for gpu in ("h100", "b300", "gb300")}
    assert found == {"h100": (), "b300": (), "gb300": device_notes(load_profile("gb300"))}


def test_of_two_node_groups_the_unmeasured_one_is_named() -> None:
    groups = [{"gpu": gpu, "nodes": 1, "gpus_per_node": 4} for gpu in ("h100", "l4")]
    found = measured_of(make_request({"cluster": groups}))
    assert found.all is False
    assert found.notes == device_notes(load_profile("l4"))


def test_a_term_is_doubted_more_where_its_section_was_not_measured() -> None:
    assert unmeasured_terms(load_profile("h100_sxm"), TERMS) == frozenset()
    assert unmeasured_terms(load_profile("l4"), TERMS) == set(TERMS) - {"host"}
    some = unmeasured_terms(load_profile("b300_sxm"), TERMS)
    assert some == {"gemm", "attention", "experts", "LM head"}
    assert (fresh_sd("gemm", some), fresh_sd("host", some), fresh_sd("gemm")) == (UNMEASURED_SD, TERM_SD, TERM_SD)
    assert fresh_sd("ttft", ["ttft"]) == fresh_sd("ttft")


def test_a_fit_that_is_written_counts_as_measured(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text((PROFILE_DIR / "l4.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    assert load_profile(str(path)).unmeasured_sections == MEASURABLE
    fit = GemmFit("cublas", floor_us=2.0, compute_efficiency=0.7, memory_efficiency=0.8)
    for name in ("own-1.yaml", "own-2.yaml"):
        write_section(path, "gemm", {"bf16": fit}, "fitted to kernels measured on this device")
        path = path.rename(tmp_path / name)
    assert load_profile(str(path)).measured == ("gemm",)


def test_amds_devices_multiply_no_format_that_vllm_only_emulates_there() -> None:
    layout = ParallelLayout(tp=4)
    for name, refused in (
        ("nvidia/MiniMax-M2.5-NVFP4", True),
        ("Qwen/Qwen3-32B-FP8", False),
        ("Qwen/Qwen3-32B", False),
    ):
        figure = without_kernel(load_model(name), layout.tp, layout.ep, load_profile("mi300x"))
        assert (figure is not None) is refused, name
    cluster = requested_cluster(make_request({"cluster": {"gpu": "mi300x", "gpus_per_node": 8}}))
    assert cluster.groups[0].profile.kind.collective_library == "rccl"


@pytest.mark.parametrize("name", known_profiles())
def test_eight_bits_multiply_twice_as_fast_as_sixteen_where_there_are_units(name: str) -> None:
    """A sparse peak that was taken for a dense one, or half of it, would show."""
    peaks = load_profile(name).peak_flops_per_s
    if "fp8" in peaks:
        assert peaks["fp8"] == pytest.approx(2 * peaks["bf16"], rel=0.03)
