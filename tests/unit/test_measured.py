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
from tuner.ask.linear_fits import RecurrentFit
from tuner.ask.measurable import MEASURABLE
from tuner.ask.measured import _kernel_notes, device_notes, measured_of
from tuner.ask.model import load_model
from tuner.ask.profile import PROFILE_DIR, known_profiles, load_profile, profile_from_document
from tuner.cost.collectives import collective_report
from tuner.cost.stands_on import kernels_of, measured_of_all
from tuner.errors import BadInput
from tuner.search.priors import TERM_SD, UNMEASURED_SD, fresh_sd, unmeasured_terms

MEASURED = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "l40s")
LLAMA = load_model("meta-llama/Llama-3.1-8B")
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
    assert unmeasured_terms(load_profile("h100_sxm"), LLAMA, TERMS) == frozenset()
    assert unmeasured_terms(load_profile("l4"), LLAMA, TERMS) == set(TERMS) - {"host"}
    some = unmeasured_terms(load_profile("b300_sxm"), LLAMA, TERMS)
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
    write_section(path, "linear_attention", {"recurrent": RecurrentFit(floor_us=2.5)}, "fitted, as above")
    path = path.rename(tmp_path / "own-3.yaml")
    assert load_profile(str(path)).measured == ("gemm", "linear_attention")


def test_what_no_table_can_have_measured_is_refused() -> None:
    given = yaml.safe_load((PROFILE_DIR / "generic.yaml").read_text(encoding="utf-8"))
    with pytest.raises(BadInput, match="elementwise"):
        profile_from_document(given | {"measured": ["gemm", "elementwise"]}, where="mine.yaml")


MODELS = {
    "full": LLAMA,
    "latent": load_model("deepseek-ai/DeepSeek-V3"),
    "delta": load_model("Qwen/Qwen3-Next-80B-A3B-Instruct"),
    "mamba": load_model("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"),
}


@pytest.mark.parametrize(
    ("gpu", "kind", "words"),
    [
        ("h100_sxm", "full", ""),
        ("a100_sxm", "full", ""),
        ("h100_sxm", "latent", ""),
        ("h100_sxm", "delta", ""),
        ("a100_sxm", "delta", "Kernels of gated delta net layers were never measured on a100_sxm: priced by physics"),
        ("a100_sxm", "latent", "latent attention layers and products with latent vectors were never measured on a100"),
        ("h100_sxm", "mamba", "Kernels of Mamba-2 layers were never measured on any device: priced by physics"),
        ("l40s", "latent", "Kernels of products with latent vectors were never measured on l40s"),
    ],
)
def test_kernels_of_a_model_that_were_not_measured_are_told(gpu: str, kind: str, words: str) -> None:
    request = make_request({"model": MODELS[kind].name, "cluster": {"gpu": gpu, "gpus_per_node": 8}})
    answer = on_devices(request)
    assert answer.device_measured is (words == "")
    assert len(answer.device_notes) == (words != "")
    assert all(words in note for note in answer.device_notes)


@pytest.mark.parametrize(
    ("gpu", "kind", "doubted"),
    [
        ("h100_sxm", "full", False),
        ("h100_sxm", "latent", False),
        ("a100_sxm", "latent", True),
        ("h100_sxm", "delta", False),
        ("a100_sxm", "delta", True),
        ("h100_sxm", "mamba", True),
        ("gb200", "full", True),  # ordinary attention is taken over from a relative, latent attention is its own
        ("gb200", "latent", False),
        ("l40s", "latent", False),  # but the products with latent vectors, a small part of theirs
    ],
)
def test_attention_is_doubted_by_the_model_and_the_device(gpu: str, kind: str, doubted: bool) -> None:
    assert ("attention" in unmeasured_terms(load_profile(gpu), MODELS[kind], TERMS)) is doubted


def test_what_is_taken_over_names_the_relative() -> None:
    notes = measured_of(make_request({"cluster": {"gpu": "l4", "gpus_per_node": 8}}), kernels_of(MODELS["delta"])).notes
    assert notes == device_notes(load_profile("l4"))  # never measured at all: said once
    changed = {"efficiencies_from": "h100_sxm", "name": "own", "measured": ["gemm"]}
    text = yaml.safe_load((PROFILE_DIR / "h20.yaml").read_text(encoding="utf-8")) | changed
    own = profile_from_document(text, where="own.yaml")
    assert [note for note in _kernel_notes(own, kernels_of(MODELS["delta"])) if "those of h100_sxm" in note]


def test_experts_reached_by_kernels_of_their_own_are_doubted_where_those_were_not_measured() -> None:
    terms = ("alltoall expert in node", "allgather expert in node")
    found = {gpu: unmeasured_terms(load_profile(gpu), LLAMA, terms) for gpu in ("h100_sxm", "a100_sxm")}
    assert found == {"h100_sxm": frozenset(), "a100_sxm": {terms[0]}}


def test_a_model_that_is_gone_leaves_what_is_known_of_its_devices(tmp_path: Path) -> None:
    request = make_request({"cluster": {"gpu": "l4", "gpus_per_node": 8}})
    gone = request.model_copy(update={"model": str(tmp_path / "gone")})
    assert measured_of_all(gone) == measured_of(gone)


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
