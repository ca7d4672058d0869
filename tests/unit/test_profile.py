"""Hardware profiles: what ships is complete and sourced; what an operator writes is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tuner.ask.compressed_fits import OPTIONAL_SECTIONS
from tuner.ask.latent_fits import LATENT_SECTIONS
from tuner.ask.profile import PROFILE_DIR, known_profiles, load_profile, profile_from_document
from tuner.errors import BadInput

MEASURED = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "l40s")
INHERITING = {
    "a100_40gb_sxm": "a100_sxm", "gh200": "h200_sxm", "b300_sxm": "b200_sxm",
    "gb200": "b200_sxm", "gb300": "b200_sxm", "h20": "h200_sxm", "l4": "l40s", "l40": "l40s", "a10g": "l40s",
    "rtx_pro_6000_server": "l40s", "mi300x": "a100_sxm", "mi325x": "a100_sxm",
}  # fmt: skip
PARAMETERS_PER_OPTIONAL_SECTION = 24
PARAMETERS_PER_PROFILE = 120 + 30  # those of linear attention
SECTIONS = ("gemm", "attention_prefill", "attention_decode", "moe", "elementwise", "engine")


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PROFILE_DIR / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def numbers_in(value: object) -> int:
    if isinstance(value, dict):
        return sum(numbers_in(item) for item in value.values())
    return int(isinstance(value, int | float) and not isinstance(value, bool))


def test_the_devices_that_operators_have_are_known() -> None:
    wanted = {*MEASURED, *INHERITING, "generic", "cpu"}
    assert wanted <= set(known_profiles())


@pytest.mark.parametrize("name", known_profiles())
def test_a_shipped_profile_loads_under_its_own_name_and_sources_every_section(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    for section in (*SECTIONS, "datasheet", "usd_per_hour"):
        assert len(profile.sources[section]) > 20, section


@pytest.mark.parametrize("name", known_profiles())
def test_a_profile_is_compact(name: str) -> None:
    found = document(name)
    for section in (*OPTIONAL_SECTIONS, *LATENT_SECTIONS):
        assert numbers_in(found.pop(section, {})) <= PARAMETERS_PER_OPTIONAL_SECTION
    assert numbers_in(found) <= PARAMETERS_PER_PROFILE


@pytest.mark.parametrize("name", known_profiles())
def test_matrix_products_and_experts_stay_below_the_datasheet(name: str) -> None:
    profile = load_profile(name)
    for fit in (*profile.gemm.values(), *profile.moe.values()):
        assert 0 < fit.compute_efficiency <= 1
        assert 0 < fit.memory_efficiency <= 1


@pytest.mark.parametrize(("name", "relative"), INHERITING.items())
def test_an_unmeasured_device_takes_over_its_relatives_fits_and_says_so(name: str, relative: str) -> None:
    profile = load_profile(name)
    assert profile.gemm == load_profile(relative).gemm
    own, other = (
        (one.memory_bytes, one.memory_bytes_per_s, one.peak_flops_per_s) for one in (profile, load_profile(relative))
    )
    assert own != other
    assert profile.efficiencies_from == relative
    assert f"taken over from {relative}" in profile.sources["gemm"]
    assert "taken over" not in profile.sources["datasheet"]


def test_loading_twice_gives_the_same_object() -> None:
    assert load_profile("h100_sxm") is load_profile("h100_sxm")


def test_an_unknown_device_is_told_which_are_known_and_how_to_make_one() -> None:
    with pytest.raises(BadInput) as error:
        load_profile("h900_sxm")
    for part in ("h900_sxm", "h100_sxm", "generic.yaml", "path"):
        assert part in str(error.value)


def test_a_profile_of_ones_own_is_given_by_its_path(tmp_path: Path) -> None:
    own = document("generic") | {"name": "mine", "memory_bytes": 1.6e10}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(own), encoding="utf-8")
    profile = load_profile(str(path))
    assert (profile.name, profile.memory_bytes) == ("mine", 1.6e10)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"sm_count": 0}, "sm_count"),
        ({"arch": "volta"}, "arch"),
        ({"peak_flops_per_s": {"fp8": 1e15}}, "peak_flops_per_s.bf16"),
        ({"memory_bytes": "a lot"}, "memory_bytes"),
        ({"surprise": 1}, "surprise"),
        ({"gemm": {"bf16": {"kernel": "cublas", "floor_us": 1, "compute_efficiency": 0.7}}}, "memory_efficiency"),
        (
            {"gemm": {"bf16": {"kernel": "magic", "floor_us": 1, "compute_efficiency": 1, "memory_efficiency": 1}}},
            "kernel",
        ),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], place: str) -> None:
    with pytest.raises(BadInput) as error:
        profile_from_document(document("generic") | change, where="mine.yaml")
    assert place in error.value.where
    assert "mine" in error.value.where or "generic" in error.value.where


@pytest.mark.parametrize("text", ["- a list", "a: [unclosed", "just words"])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="YAML"):
        load_profile(str(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="readable"):
        load_profile(str(tmp_path / "absent.yaml"))


def test_relatives_in_a_circle_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    for path, other in ((first, second), (second, first)):
        path.write_text(yaml.safe_dump(document("gh200") | {"efficiencies_from": str(other)}), encoding="utf-8")
    with pytest.raises(BadInput, match="circle"):
        load_profile(str(first))
