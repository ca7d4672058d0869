"""The service under random requests made from its own description: no 5xx, no answer that the description lacks.

    python -m tests.benchmarks.service_fuzz [--cases 20000] [--seed 1]

Every path, with and without a body that fits, on studies in every state; each answer is held against the description.
Prints cases and failures by path, and exits with 1 where there was a failure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy, sampled_from, tuples
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fakes import copy_of_empty_store, make_request
from tuner.app.service.application import application
from tuner.app.service.service import Limits, Settings
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Terms, Wish
from tuner.study.store import Store

# Not: whether a body that fits the description is taken. A model that nobody knows is well-formed, and is refused.
CHECKS: Any = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
LOCAL = {"Host": "localhost"}  # a service that asks for no token answers to no other name
ENDLESS = "/v1/studies/{name}/events"  # of a study that goes on; those that have ended are asked for in the tests


def service(folder: Path) -> tuple[FastAPI, Store]:
    """A service with a study in each state, whose limits do not end the game."""
    store = Store(copy_of_empty_store(folder / "store.db"))
    fill(store)
    limits = Limits(requests_per_s=1e9, burst=1e9, open_studies=10**9)
    return application(store, Settings(("simulated",), folder / "out", limits=limits), open_to_all=True), store


def fill(store: Store) -> None:
    """A study in each state, named after it, where there is none."""
    for state in StudyState:
        if store.find_study(state.value) is not None:
            continue
        store.orders.submit(state.value, make_request(), Terms("", "simulated", 0))
        if state in (StudyState.RUNNING, StudyState.DECIDED, StudyState.FAILED):
            store.change_state(state.value, StudyState.RUNNING)
            store.change_state(state.value, state)
        elif state in (StudyState.PAUSED, StudyState.CANCELLED):
            store.orders.ask(state.value, Wish.PAUSE if state is StudyState.PAUSED else Wish.CANCEL)


def fuzz(app: FastAPI, store: Store, cases: int, start: int) -> tuple[Counter[str], list[str]]:
    """(cases by operation, failures in words)."""
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", app, headers=LOCAL)
    operations = [one.ok() for one in schema.get_all_operations()]
    operations = [one for one in operations if one.path != ENDLESS]
    done, failures = Counter[str](), list[str]()
    for operation in operations:
        name = f"{operation.method.upper()} {operation.path}"
        fill(store)
        drawn = tuples(operation.as_strategy(), sampled_from([*StudyState, None])).map(_named)
        _each(drawn, partial(_once, name, done, failures), max(1, cases // len(operations)), start)
    return done, failures


def _named(drawn: tuple[schemathesis.Case, StudyState | None]) -> schemathesis.Case:
    """Mostly of a study that there is."""
    case, study = drawn
    if study is not None and "name" in (case.path_parameters or {}):
        case.path_parameters["name"] = study.value
    return case


def _once(name: str, done: Counter[str], failures: list[str], case: schemathesis.Case) -> None:
    """One request, and whether its answer is one of those described."""
    done[name] += 1
    response = case.call(headers=LOCAL)
    if response.status_code >= 500:
        failures.append(f"{name}: {response.status_code} {case.as_curl_command()[:600]}")
        return
    try:
        case.validate_response(response, checks=CHECKS)
    except (Exception, BaseExceptionGroup) as error:
        failures.append(f"{name}: {' '.join(str(error).split())[:600]}")


def _each(cases: SearchStrategy[Any], look: Callable[[schemathesis.Case], None], count: int, start: int) -> None:
    quiet: Any = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    seed(start)(
        settings(max_examples=count, phases=[Phase.generate], **quiet)(given(case=cases)(lambda case: look(case)))
    )()


def main(words: Sequence[str]) -> int:
    """Fuzz, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(words)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        app, store = service(Path(folder))
        done, failures = fuzz(app, store, asked.cases, asked.seed)
        store.close()
    for name, count in sorted(done.items()):
        print(f"{count:6d}  {name}")
    print(f"{sum(done.values())} cases in {time.perf_counter() - began:.0f} s, {len(failures)} failures")
    for failure in failures[:20]:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
