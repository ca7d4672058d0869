"""Options of a command, declared once: the fields of a frozen dataclass are what its command line takes.

A field is annotated as a parameter of a Typer command is, ``Annotated[type, typer.Option(...)]``. A tuple of any length
is an option that may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from inspect import Parameter, Signature, signature
from types import GenericAlias
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

Options = TypeVar("Options")


def takes(kind: type[Options]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command whose parameters are the fields of ``kind`` of a function that takes one ``kind``.

    One that takes a ``context`` beside it gets Typer's.
    """
    hints = get_type_hints(kind, include_extras=True)
    parameters = [
        Parameter(one.name, Parameter.KEYWORD_ONLY, **_parameter(hints[one.name], one.default))
        for one in fields(kind)  # type: ignore[arg-type]  # any dataclass
    ]

    def of(function: Callable[..., None]) -> Callable[..., None]:
        asks = "context" in signature(function).parameters

        def command(**given: Any) -> None:
            more = {"context": given.pop("context")} if asks else {}
            repeated = {name for name, hint in hints.items() if _repeated(hint)}
            function(
                kind(**{name: tuple(value or ()) if name in repeated else value for name, value in given.items()}),
                **more,
            )

        command.__name__, command.__doc__, command.__module__ = function.__name__, function.__doc__, function.__module__
        context = [Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)] if asks else []
        command.__annotations__ = {one.name: one.annotation for one in [*context, *parameters]}
        command.__signature__ = Signature([*context, *parameters])  # type: ignore[attr-defined]
        return command

    return of


def _repeated(hint: Any) -> bool:
    plain = get_args(hint)[0]
    return get_origin(plain) is tuple and get_args(plain)[1:] == (...,)


def _parameter(hint: Any, default: Any) -> dict[str, Any]:
    """Annotation and default of a parameter as Typer understands them; it knows lists, not tuples of any length."""
    if not _repeated(hint):
        return {"annotation": hint, "default": Parameter.empty if default is MISSING else default}
    of = get_args(get_args(hint)[0])[0]
    return {"annotation": Annotated[(GenericAlias(list, (of,)) | None, *hint.__metadata__)], "default": None}
