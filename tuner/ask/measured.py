"""What was never measured of the devices that a request names: told wherever their prices show."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.ask.profile import MEASURABLE, HardwareProfile, load_profile
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
class Measured:
    """``all``: every price of the request's devices stands on measurements of those devices; None where the devices, or
    the profile of one, are not known. ``notes`` are sentences on each device of which that is not so."""

    all: bool | None
    notes: tuple[str, ...]


def measured_of(request: TuneRequest) -> Measured:
    """Of the devices of a request's node groups."""
    try:
        profiles = [load_profile(group.gpu) for group in request.groups]
    except BadInput:  # of an old study, whose profile is gone
        return Measured(None, ())
    notes = [note for profile in profiles for note in device_notes(profile)]
    known = not any(profile.unmeasured_sections for profile in profiles)
    return Measured(known if profiles else None, tuple(notes))


def device_notes(profile: HardwareProfile) -> tuple[str, ...]:
    """What people have to be told of a device wherever its prices show; empty where there is nothing."""
    notes, lacking = [], profile.unmeasured_sections
    if lacking:
        origin = "are estimates" if profile.efficiencies_from is None else f"are those of {profile.efficiencies_from}"
        if len(lacking) == len(MEASURABLE):
            told = f"{profile.name} was never measured: shares of its datasheet's peaks {origin}"
        else:
            told = f"of {profile.name} {_and(lacking)} were never measured: shares of its datasheet's peaks {origin}"
        notes.append(f"{told}; {_LESS_SURE}.")
    if profile.kind.caution is not None:
        notes.append(f"{profile.name}: {profile.kind.caution}.")
    return tuple(notes)


def _and(sections: tuple[str, ...]) -> str:
    words = [_WORDS[section] for section in sections]
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
