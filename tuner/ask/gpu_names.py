"""Which hardware profile a device's name means, however it is written: by people, by Ray, or on a Kubernetes node.

    h100, H100_SXM, NVIDIA H100 80GB HBM3, NVIDIA-H100-80GB-HBM3 (nvidia.com/gpu.product) → h100_sxm

A name is a chip and words about its build. The profile is the one of that chip which has all of the words; where
several have, as of ``a100`` (40 or 80 GB), or none, as of an H100 with PCIe, no profile is meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

_MAKERS = re.compile(r"^(nvidia|amd|tesla|instinct|geforce|corporation)+")
_PART = re.compile(r"(shared|mig\w*)$")  # of a device that is shared in time, or of a slice of one


@dataclass(frozen=True, slots=True)
class _Device:
    """A profile's device: its chip, and what else a name of it may say."""

    profile: str
    chip: str
    words: str


_DEVICES = (
    _Device("a100_sxm", "a100", "sxm4?|80gb?"),
    _Device("a100_40gb_sxm", "a100", "sxm4?|40gb?"),
    _Device("a10g", "a10g", "24gb?"),
    _Device("l4", "l4", "24gb?"),
    _Device("l40", "l40", "48gb?"),
    _Device("l40s", "l40s", "48gb?"),
    _Device("h100_sxm", "h100", "sxm5?|80gb?|hbm3"),
    _Device("h200_sxm", "h200", "sxm5?|141gb?|hbm3e"),
    _Device("h20", "h20", "sxm5?|96gb?|hbm3"),
    _Device("gh200", "gh200", "480gb?|96gb?|hbm3"),
    _Device("b200_sxm", "b200", "sxm6?|18[03]gb?|192gb?|hbm3e"),
    _Device("b300_sxm", "b300", "sxm6?|ac|288gb?|hbm3e"),
    _Device("gb200", "gb200", "nvl72|18[69]gb?|192gb?|hbm3e"),
    _Device("gb300", "gb300", "nvl72|288gb?|hbm3e"),
    _Device("rtx_pro_6000_server", "rtxpro6000", "blackwell|server|edition|96gb?"),
    _Device("mi300x", "mi300x", "oam|192gb?|hbm3"),
    _Device("mi325x", "mi325x", "oam|256gb?|hbm3e"),
    _Device("cpu", "cpu", ""),
    _Device("generic", "generic", ""),
)


def profiles_named(name: str) -> tuple[str, ...]:
    """Profiles that a name may mean: one where it is clear, several where it says too little, none otherwise."""
    text = _MAKERS.sub("", _letters(name))
    chips = {one.chip for one in _DEVICES if text.startswith(one.chip)}
    chip = max(chips, key=len, default=None)  # l40s is no l4
    if chip is None or _PART.search(text):
        return ()
    build = text.removeprefix(chip)
    return tuple(one.profile for one in _DEVICES if one.chip == chip and re.fullmatch(f"({one.words})*", build))


def profile_named(name: str) -> str | None:
    """The profile that a name means; None where that is not clear."""
    found = profiles_named(name)
    return found[0] if len(found) == 1 else None


def near_profiles(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Profiles that somebody may have meant by a name that means none: of the same chip, else spelt alike."""
    if found := profiles_named(name):
        return found
    text = _MAKERS.sub("", _letters(name))
    chips = {one.chip for one in _DEVICES if text.startswith(one.chip)}
    if chips:
        chip = max(chips, key=len)
        return tuple(one.profile for one in _DEVICES if one.chip == chip)
    names = {_letters(one): one for one in known} | {one.chip: one.profile for one in _DEVICES}
    alike = (names[text] for text in difflib.get_close_matches(text, names, n=3, cutoff=0.6))
    return tuple(dict.fromkeys(alike))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
