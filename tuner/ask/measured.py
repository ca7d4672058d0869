"""What was never measured of the devices that a request names, or of a model's kernels on them: told wherever their
prices show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuner.ask.measurable import MEASURABLE
from tuner.ask.profile import HardwareProfile, load_profile
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput

_WORDS = {
    "gemm": "matrix products",
    "attention_prefill": "attention over prompts",
    "attention_decode": "attention over the cache",
    "moe": "experts",
    "collectives": "collectives",
}
_LESS_SURE = "prices there are less sure, and a search begins with more doubt of them"


@dataclass(frozen=True, slots=True)
class Kernels:
    """What some models need: its ``name`` for people, the ``sections`` of a profile on which its price stands (empty:
    no table of any device has them), and the cost ``term`` that its price is most of, if there is one."""

    name: str
    sections: tuple[str, ...]
    term: str | None = None

    def measured_on(self, profile: HardwareProfile) -> bool:
        """Was the device's profile fitted to measurements of them there?"""
        return bool(self.sections) and set(self.sections) <= set(profile.measured)


@dataclass(frozen=True, slots=True)
class Measured:
    """``all``: every price of the request's devices stands on measurements of those devices; None where the devices, or
    the profile of one, are not known. ``notes`` are sentences on kernels and on each device of which that is not so."""

    all: bool | None
    notes: tuple[str, ...]


def measured_of(request: TuneRequest, kernels: Iterable[Kernels] = ()) -> Measured:
    """Of the devices of a request's node groups, and of its model's ``kernels`` on them
    (``tuner.cost.stands_on.measured_of_all`` knows which those are)."""
    kernels = tuple(kernels)
    try:
        profiles = [load_profile(group.gpu) for group in request.groups]
    except BadInput:  # of an old study, whose profile is gone
        return Measured(None, ())
    notes = _never_notes(kernels) if profiles else []
    notes += [note for one in profiles for note in (*device_notes(one), *_kernel_notes(one, kernels))]
    known = all(not one.unmeasured_sections and all(each.measured_on(one) for each in kernels) for one in profiles)
    return Measured(known if profiles else None, tuple(notes))


def device_notes(profile: HardwareProfile) -> tuple[str, ...]:
    """What people have to be told of a device wherever its prices show; empty where there is nothing."""
    notes, lacking = [], profile.unmeasured_sections
    if lacking:
        origin = "are estimates" if profile.efficiencies_from is None else f"are those of {profile.efficiencies_from}"
        if not profile.measured:
            told = f"{profile.name} was never measured: shares of its datasheet's peaks {origin}"
        else:
            words = [_WORDS[section] for section in lacking]
            told = f"of {profile.name} {_and(words)} were never measured: shares of its datasheet's peaks {origin}"
        notes.append(f"{told}; {_LESS_SURE}.")
    if profile.kind.caution is not None:
        notes.append(f"{profile.name}: {profile.kind.caution}.")
    return tuple(notes)


def _never_notes(kernels: Iterable[Kernels]) -> list[str]:
    """Of kernels that no table of any device has."""
    names = [one.name for one in kernels if not one.sections]
    if not names:
        return []
    return [f"Kernels of {_and(names)} were never measured on any device: priced by physics; {_LESS_SURE}."]


def _kernel_notes(profile: HardwareProfile, kernels: Iterable[Kernels]) -> list[str]:
    """Of kernels that were measured on other devices, where the device's own note does not tell it."""
    if not profile.measured:
        return []
    taken: list[str] = []
    assumed: list[str] = []
    for one in kernels:
        lacking = set(one.sections) - set(profile.measured) - set(MEASURABLE)
        if lacking:
            has = profile.efficiencies_from is not None and lacking <= set(profile.sources)
            (taken if has else assumed).append(one.name)
    origins = (
        (taken, f"shares of its datasheet's peaks are those of {profile.efficiencies_from}"),
        (assumed, "priced by physics and by what other kernels reach there"),
    )
    return [
        f"Kernels of {_and(names)} were never measured on {profile.name}: {origin}; {_LESS_SURE}."
        for names, origin in origins
        if names
    ]


def _and(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
