"""Typed access to a ``config.json``: every value that is read is checked, and named where it is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.errors import BadInput

MOST = 2**40  # no size of a model is larger
MOST_LAYERS = 10_000


class Config:
    """One object of a checkpoint's configuration; ``name`` is the model's, ``where`` the keys down to this object.

    ``defaults`` are what the model's class takes for keys that the file leaves out: Transformers writes only what
    differs from them.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        name: str,
        where: str = "",
        defaults: Mapping[str, Any] | None = None,
        older: Mapping[str, str] | None = None,
    ) -> None:
        self.values, self.name, self._where = values, name, where
        self._defaults: Mapping[str, Any] = defaults or {}
        self._older: Mapping[str, str] = older or {}

    def place(self, key: str) -> str:
        """Where a key stands, for people."""
        return f"{self.name}: {self._where}{self._older.get(key, key) if self.values.get(key) is None else key}"

    def having(self, **defaults: Any) -> Config:
        """The same object, read with a class's defaults."""
        return Config(self.values, self.name, self._where, {**self._defaults, **defaults}, self._older)

    def filled(self, **values: Any) -> Config:
        """The same object with values for keys that the file leaves out, which go before any ``defaults``: of a class
        that takes over another's reader."""
        return Config({**values, **self.values}, self.name, self._where, self._defaults, self._older)

    def renamed(self, **older: str) -> Config:
        """The same with names of most families for keys that an older one calls otherwise, where the file has those."""
        found = {new: old for new, old in older.items() if self.has(old)}
        defaults = {**self._defaults, **{new: self.get(old) for new, old in found.items()}}
        return Config(self.values, self.name, self._where, defaults, {**self._older, **found})

    def get(self, key: str) -> Any:
        """The value as it stands, or the default; None where there is neither."""
        value = self.values.get(key)
        return self._defaults.get(key) if value is None else value

    def has(self, key: str) -> bool:
        """True where a value or a default is there and not null."""
        return self.get(key) is not None

    def stated(self, key: str) -> bool:
        """True where the file has the key itself, be its value null: that overrides a class's default."""
        return key in self.values

    def need(self, key: str, *more: str) -> int:
        """A whole number of at least 1, under the first of the keys that is there."""
        found = next((one for one in (key, *more) if self.has(one)), key)
        value = self.get(found)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadInput(self.place(found), value, "a whole number of at least 1")
        most = MOST_LAYERS if found.endswith(("layers", "layer", "depth")) else MOST
        if value > most:
            raise BadInput(self.place(found), value, f"a whole number of at least 1, and at most {most}")
        return value

    def count(self, key: str, *more: str) -> int:
        """The same where the file may leave it out: absent, null and 0 mean 0."""
        found = next((one for one in (key, *more) if self.get(one)), None)
        return self.need(found) if found else 0

    def share(self, key: str, absent: float) -> float:
        """A number above 0."""
        value = self.get(key)
        if value is None:
            return absent
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MOST:
            raise BadInput(self.place(key), value, "a number above 0")
        return float(value)

    def flag(self, key: str, absent: bool = False) -> bool:
        """A truth value."""
        value = self.get(key)
        if value is None:
            return absent
        if not isinstance(value, bool):
            raise BadInput(self.place(key), value, "true or false")
        return value

    def word(self, key: str, absent: str = "") -> str:
        """A text."""
        value = self.get(key)
        if value is None:
            return absent
        if not isinstance(value, str):
            raise BadInput(self.place(key), value, "a text")
        return value

    def whole(self, key: str, absent: int) -> int:
        """A whole number that may be 0 or count from the end."""
        value = self.get(key)
        if value is None:
            return absent
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MOST:
            raise BadInput(self.place(key), value, "a whole number")
        return value

    def numbers(self, key: str, count: int | None = None) -> Sequence[int]:
        """A list of whole numbers of at least 0, ``count`` of them where that is given."""
        found = self.entries(key)
        if any(not isinstance(one, int) or isinstance(one, bool) or not 0 <= one <= MOST for one in found):
            raise BadInput(self.place(key), found, "a list of whole numbers")
        if count is not None and len(found) != count:
            raise BadInput(self.place(key), found, f"{count} whole numbers")
        return found

    def entries(self, key: str) -> Sequence[Any]:
        """A list of numbers, texts, truth values and nulls; empty where there is none."""
        found = self.items(key)
        if any(isinstance(one, list | tuple | Mapping) for one in found):
            raise BadInput(self.place(key), found, "a list without lists and objects in it")
        return found

    def items(self, key: str) -> Sequence[Any]:
        """A list of anything; empty where there is none."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            raise BadInput(self.place(key), value, "a list, or nothing")
        return value

    def part(self, key: str) -> Config:
        """An object inside, empty where there is none."""
        value = self.get(key) or {}
        if not isinstance(value, Mapping):
            raise BadInput(self.place(key), value, "an object, or nothing")
        return Config(value, self.name, f"{self._where}{key}.")

    def one_of(self, key: str, allowed: Mapping[str, Any], absent: str | None = None) -> Any:
        """What a word stands for; refuses words that are not understood."""
        value = self.get(key)
        if value is None and absent is not None:
            value = absent
        if not isinstance(value, str) or value not in allowed:
            raise BadInput(self.place(key), value, ", ".join(allowed))
        return allowed[value]

    def refuse(self, key: str, allowed: str) -> BadInput:
        """What to raise for a value that is not understood."""
        return BadInput(self.place(key), self.get(key), allowed)

    def only(self, key: str, *allowed: Any) -> None:
        """Refuse a value of a key that changes what a layer does in a way that is not understood; absent is allowed."""
        value = self.get(key)
        if value is not None and value not in allowed:
            raise self.refuse(key, " or ".join(_word(one) for one in allowed))


def _word(value: Any) -> str:
    """As a configuration has it; what may only be absent is called so."""
    return "that it is absent" if value is None else value if isinstance(value, str) else json.dumps(value)
