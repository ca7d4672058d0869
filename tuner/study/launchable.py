"""The paths from client to engine that a launcher has, of those in a space: told before anything is ranked.

A plan ranks an engine behind its best path. Were that refused only later, the engine would be lost with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tuner.ask.layout import FRONT_AXES, ParallelLayout
from tuner.ask.rules import DropReason
from tuner.ask.space import Space
from tuner.plan.prune import DroppedGroup

Refuses = Callable[[ParallelLayout], str | None]
# What an axis needs to be looked at.
_ACTS: Mapping[str, Mapping[str, Any]] = {"request_router": {"dp": 2}, "api_servers": {"front": "vllm"}}


def launchable(space: Space, gpu: str | None, refuses: Refuses) -> tuple[Space, tuple[DroppedGroup, ...]]:
    """The space without values of a path's axes that are refused for themselves, and what is dropped so.

    Each is asked of the smallest engine on the node group ``gpu``. An axis all of whose values are refused stays.
    """
    axes, dropped = dict(space.axes), list[DroppedGroup]()
    for axis in FRONT_AXES:
        engine = ParallelLayout(gpu=gpu, **_ACTS.get(axis, {}))
        if len(space.values(axis)) == 1 or refuses(engine) is not None:
            continue
        said = {value: refuses(replace(engine, **{axis: value})) for value in space.values(axis)}
        kept = tuple(value for value, why in said.items() if why is None)
        if not kept:
            continue
        size = replace(space, axes=axes).size // len(axes[axis])
        axes[axis] = kept
        for value, why in said.items():
            if why is not None:
                example = replace(engine, **{axis: value})
                dropped.append(DroppedGroup(DropReason.LAUNCHER, size, example, why))
    return replace(space, axes=axes), tuple(dropped)
