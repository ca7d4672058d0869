"""The launchers of a service or a worker, as a word of the command line."""

from __future__ import annotations

from tuner.errors import BadInput


def launchers_of(words: str) -> tuple[str, ...]:
    """Names between commas, each once and in their order; raises BadInput for one that does not exist."""
    from tuner.app.tune.bench import LAUNCHERS

    found = tuple(dict.fromkeys(word.strip() for word in words.split(",")))
    for name in found:
        if name not in LAUNCHERS:
            raise BadInput("--launchers", words, ", ".join(LAUNCHERS) + ", or several of them between commas")
    return found
