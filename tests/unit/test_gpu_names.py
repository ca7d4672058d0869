"""Other names of devices: understood where one profile is meant, refused with what is near where it is not clear."""

from __future__ import annotations

import pytest

from serve.launch.accelerators import PROFILES, accelerator_type
from tests.fakes import document
from tuner.ask.gpu_names import near_profiles, profile_named, profiles_named
from tuner.ask.profile import canonical_gpu, known_profiles, load_profile
from tuner.ask.request import ClusterSpec
from tuner.ask.request_document import parse_request
from tuner.errors import BadInput

UNDERSTOOD = {
    "h100": "h100_sxm",
    "H100": "h100_sxm",
    "H100_SXM": "h100_sxm",
    "h100-sxm5": "h100_sxm",
    "H100 80GB": "h100_sxm",
    "NVIDIA H100 80GB HBM3": "h100_sxm",
    "NVIDIA-H100-80GB-HBM3": "h100_sxm",
    "h200": "h200_sxm",
    "H20": "h20",
    "a100-80gb": "a100_sxm",
    "A100-40G": "a100_40gb_sxm",
    "NVIDIA-A100-SXM4-80GB": "a100_sxm",
    "NVIDIA A10G": "a10g",
    "l4": "l4",
    "NVIDIA L40": "l40",
    "L40s": "l40s",
    "B200": "b200_sxm",
    "NVIDIA-B300-SXM6-AC": "b300_sxm",
    "GB200 NVL72": "gb200",
    "NVIDIA GH200 480GB": "gh200",
    "RTX PRO 6000": "rtx_pro_6000_server",
    "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition": "rtx_pro_6000_server",
    "MI300X": "mi300x",
    "AMD_Instinct_MI300X_OAM": "mi300x",
    "AMD Instinct MI325X": "mi325x",
    "CPU": "cpu",
}
UNCLEAR = {
    "a100": ("a100_sxm", "a100_40gb_sxm"),
    "NVIDIA A100-SXM4": ("a100_sxm", "a100_40gb_sxm"),
    "NVIDIA-A100-PCIE-40GB": ("a100_sxm", "a100_40gb_sxm"),
    "NVIDIA-H100-PCIe": ("h100_sxm",),
    "NVIDIA-H100-NVL": ("h100_sxm",),
    "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb": ("h100_sxm",),  # a slice of one
    "NVIDIA-L4-SHARED": ("l4",),  # shared in time
    "H20-3e": ("h20",),
    "RTX PRO 6000 Max-Q": ("rtx_pro_6000_server",),
    "h1000": ("h100_sxm",),
    "A10": ("a10g",),
    "mi300": ("mi300x",),
    "h10_sxm": ("h100_sxm",),
}


@pytest.mark.parametrize(("given", "profile"), UNDERSTOOD.items())
def test_a_clear_name_is_the_profile_and_answers_have_that_name(given: str, profile: str) -> None:
    assert load_profile(given) is load_profile(profile)
    assert load_profile(given).name == profile
    assert ClusterSpec(gpu=given, gpus_per_node=1).gpu == profile


@pytest.mark.parametrize(("given", "near"), UNCLEAR.items())
def test_an_unclear_name_is_refused_with_those_that_are_near(given: str, near: tuple[str, ...]) -> None:
    assert profile_named(given) is None
    assert set(near) <= set(near_profiles(given, known_profiles()))
    with pytest.raises(BadInput, match="did you mean") as caught:
        load_profile(given)
    assert caught.value.given == given
    assert all(name in str(caught.value) for name in near)


@pytest.mark.parametrize("given", ["", "nvidia", "T4", "v100", "gpu", "--", "x" * 3000, "häuser"])
def test_what_is_no_device_of_ours_is_refused(given: str) -> None:
    assert profiles_named(given) == ()
    with pytest.raises(BadInput, match=r"generic\.yaml"):
        load_profile(given)


@pytest.mark.parametrize("name", known_profiles())
def test_every_profile_means_itself(name: str) -> None:
    assert canonical_gpu(name) == name
    assert profile_named(name.upper()) in (name, None)


def test_a_path_is_left_as_it_is() -> None:
    assert canonical_gpu("./h100") == "./h100"
    assert canonical_gpu("H100.yaml") == "H100.yaml"


def test_two_names_of_one_device_are_one_node_group_too_many() -> None:
    groups = [{"gpu": gpu, "nodes": 1, "gpus_per_node": 8} for gpu in ("h100", "NVIDIA-H100-80GB-HBM3")]
    with pytest.raises(BadInput, match="each GPU in one node group"):
        parse_request(document({"cluster": groups}))


def test_rays_names_are_of_profiles_that_there_are() -> None:
    assert set(PROFILES.values()) <= set(known_profiles())
    for kind, profile in PROFILES.items():
        if kind not in (
            "A100",
            "AMD-Instinct-MI300X-HF",
        ):  # Ray says no more of the first, and ours is its older meaning
            assert profile_named(kind) == profile
            assert accelerator_type(profile) == kind
