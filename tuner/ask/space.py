"""The search space: axes with their values, read from ``search_spaces/*.yaml`` or given in the request.

A space is a Cartesian product. The scheduler's limits (``KNOB_AXES``) multiply all other axes (``STRUCTURE_AXES``),
whose combinations are priced once, so a million candidates stay a few hundred structures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import yaml

from tuner.ask.axes import Role
from tuner.ask.layout import AXES, FRONT_AXES, SPACE_AXES, ParallelLayout
from tuner.errors import BadInput

SPACES_DIR = Path(__file__).resolve().parents[2] / "search_spaces"
KNOB_AXES = tuple(name for name in SPACE_AXES if AXES[name].role is Role.SCHEDULER)
STRUCTURE_AXES = tuple(name for name in SPACE_AXES if name not in KNOB_AXES)


@dataclass(frozen=True, slots=True)
class Space:
    """Axes and their values; an axis left out has its default alone. ``gpu`` is the node group of all its layouts."""

    name: str
    axes: Mapping[str, tuple[Any, ...]]
    gpu: str | None = None

    def on(self, gpu: str | None) -> Space:
        """The same space on one node group."""
        return replace(self, gpu=gpu)

    @property
    def size(self) -> int:
        """Points of the product, before any rule."""
        return prod(len(values) for values in self.axes.values())

    def values(self, axis: str) -> tuple[Any, ...]:
        """Values of an axis, the default where the space does not name it."""
        return self.axes.get(axis, (AXES[axis].default,))

    @property
    def engines(self) -> Space:
        """The same space with one path to the engines, the default."""
        return replace(self, axes={name: values for name, values in self.axes.items() if name not in FRONT_AXES})

    def fronts(self, engine: ParallelLayout) -> tuple[ParallelLayout, ...]:
        """An engine behind every path of the space, each once."""
        named = [name for name in FRONT_AXES if name in self.axes]
        if not named:
            return (engine,)
        combinations = product(*(self.axes[name] for name in named))
        made = (replace(engine, **dict(zip(named, values, strict=True))).canonical for values in combinations)
        return tuple(dict.fromkeys(made))

    def structures(self) -> Iterator[ParallelLayout]:
        """Every combination of the structure axes, knobs at the first of their values."""
        first = tuple(self.values(axis)[0] for axis in KNOB_AXES)
        combinations = product(*(self.values(axis) for axis in STRUCTURE_AXES))
        axes = (*STRUCTURE_AXES, *KNOB_AXES)
        layouts = (
            ParallelLayout(**dict(zip(axes, (*chosen, *first), strict=True)), gpu=self.gpu) for chosen in combinations
        )
        yield from dict.fromkeys(layout.canonical for layout in layouts)


def load_space(given: str | Mapping[str, Any]) -> Space:
    """A space of ``search_spaces/`` by name, or axes given in place.

    Raises BadInput for an unknown name, an unknown axis, an empty one, or a value that no layout can have.
    """
    if isinstance(given, Mapping):
        return _checked("request", given)
    known = sorted(path.stem for path in SPACES_DIR.glob("*.yaml"))
    if given not in known:
        raise BadInput("space", given, f"one of {', '.join(known)}, or a mapping of axes to lists of values")
    document = yaml.safe_load((SPACES_DIR / f"{given}.yaml").read_text(encoding="utf-8"))
    return _checked(given, document["axes"])


def _checked(name: str, axes: Mapping[str, Any]) -> Space:
    checked: dict[str, tuple[Any, ...]] = {}
    for axis, values in axes.items():
        where = f"space.{axis}"
        if axis not in SPACE_AXES:
            raise BadInput(where, values, "an axis of " + ", ".join(SPACE_AXES))
        listed = values if isinstance(values, list | tuple) else [values]
        if not listed or len({str(value) for value in listed}) < len(listed):
            raise BadInput(where, values, "a list of different values")
        for value in listed:
            ParallelLayout(**{axis: value})  # refuses a value that no layout can have
        checked[axis] = tuple(listed)
    return Space(name, checked)
