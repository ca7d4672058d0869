"""What an axis of the space is. Each is declared once, on its field of ``ParallelLayout``; all lists follow from it.

A declaration says what the axis is, whether it moves prices or memory, which values it has, how they read, which engine
argument it becomes, and what its values may cost in answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass
from enum import StrEnum
from typing import Any

from tuner.errors import BadInput

_NAME = re.compile(r"[A-Za-z0-9._/-]+")


class Role(StrEnum):
    """What an axis is."""

    STRUCTURE = "structure"  # how the model is spread over ranks
    SCHEDULER = "scheduler"  # a limit of the engine's scheduler
    ENGINE = "engine"  # another option of the engine
    FRONT = "front"  # of the path from client to engine: an engine starts alike, whatever its value
    PLACE = "place"  # where the layout lives; the cluster has its values, no space


class Prices(StrEnum):
    """Which times of an engine an axis moves."""

    NONE = "none"
    STEPS = "steps"  # what a step holds or sends, but no layer by itself
    LAYERS = "layers"  # the kernels of a layer


class Memory(StrEnum):
    """What an axis does to the memory that a device needs."""

    NONE = "none"
    SPLITS = "splits"  # of two values the larger needs no more
    SPLITS_EXPERTS = "splits experts"  # so does the product of those that experts may be spread over
    ADDS = "adds"  # of two values the larger needs no less
    UNORDERED = "unordered"  # values do not compare


Chosen = Callable[[Any], bool]  # of a layout, which this module does not know


def always(_layout: Any) -> bool:
    """For an engine argument that is always given."""
    return True


@dataclass(frozen=True, slots=True)
class EngineArgument:
    """The name of ``EngineArgs`` that an axis becomes, and for which layouts it is given.

    ``when`` None: where the value is not the default, which is the engine's as well.
    """

    name: str
    when: Chosen | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: a count (its default is a number), a switch (true or false), a choice of words, or a free name.

    ``least`` is the lowest count, ``words`` are the values of a choice. ``acts`` says for which layouts the value is
    looked at (None: all); elsewhere a layout is written with the default. ``cautions`` say of a layout with a value why
    answers may differ: "stores …".
    """

    name: str
    default: Any
    role: Role
    prices: Prices
    memory: Memory
    words: tuple[str, ...] = ()
    engine: EngineArgument | None = None
    acts: Chosen | None = None
    cautions: Mapping[str, str] | None = None
    least: int = 1

    @property
    def allowed(self) -> str:
        """The values, in words."""
        if self.words:
            return ", ".join(self.words)
        if isinstance(self.default, bool):
            return "true or false"
        return f"a whole number of at least {self.least}" if isinstance(self.default, int) else _NAMES

    def has(self, value: object) -> bool:
        """True for a value of the axis."""
        if self.words:
            return value in self.words
        if isinstance(self.default, bool):
            return isinstance(value, bool)
        if isinstance(self.default, int):
            return isinstance(value, int) and not isinstance(value, bool) and value >= self.least
        return value is None or (isinstance(value, str) and _NAME.fullmatch(value) is not None)

    def read(self, word: str) -> object:
        """The value that was printed as ``word``; raises BadInput for a word of another kind."""
        if isinstance(self.default, bool):
            if word not in ("true", "false"):
                raise BadInput(f"layout.{self.name}", word, self.allowed)
            return word == "true"
        if isinstance(self.default, int):
            if not (word.isascii() and word.isdigit()):
                raise BadInput(f"layout.{self.name}", word, self.allowed)
            return int(word)
        return word

    def shown(self, value: object) -> str:
        """The value as ``read`` takes it."""
        return str(value).lower() if isinstance(value, bool) else str(value)


_NAMES = "a profile's name or path of letters, digits and . _ - /"


def declared(
    role: Role,
    prices: Prices,
    memory: Memory,
    *,
    words: tuple[str, ...] = (),
    engine: EngineArgument | None = None,
    acts: Chosen | None = None,
    cautions: Mapping[str, str] | None = None,
    least: int = 1,
) -> dict[str, Any]:
    """Metadata of a dataclass field: its declaration as an ``Axis``, which takes name and default from the field."""
    return {
        "role": role, "prices": prices, "memory": memory, "words": words, "engine": engine, "acts": acts,
        "cautions": cautions, "least": least,
    }  # fmt: skip


def axis_of(field: Field[Any]) -> Axis:
    """The axis that a field declares."""
    return Axis(field.name, field.default, **field.metadata)
