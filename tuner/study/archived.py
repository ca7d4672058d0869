"""The document of an archived study, checked before any of it is put into a store: people edit files by hand.

Every row has its table's columns, each of its type; all belong to one study; what columns hold as text or JSON can be
read by whoever reads it later. What is wrong is a BadInput with its place, as ``archive: parlay_trials[2].number``.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from tuner.errors import BadInput, ParlayError
from tuner.rehearse.conditions import SEED_FACT, simulated_seed
from tuner.study.lifecycle import StudyState
from tuner.study.orders import order_of
from tuner.study.records import Snapshot
from tuner.study.rows import engines_shared, entry_of, open_trial_of, study_of, trial_of
from tuner.study.schema import EVENTS, LEDGER, ORDERS, ROUNDS, SCHEMA_VERSION, STEPS, STUDIES, TRIALS
from tuner.study.step_rows import load_step
from tuner.study.stored_decision import read_decision
from tuner.trial.results import TrialState

FORMAT = "parlay-study"
ENDED = (StudyState.DECIDED.value, StudyState.FAILED.value, StudyState.CANCELLED.value)
_BEFORE = 5  # the version that has the same of a study, but for its rounds and the cluster of its order
_READ = (_BEFORE, SCHEMA_VERSION)
_WHERE = "archive"
_MOST_INT = 2**31 - 1  # of a column of any database
_UNREADABLE = (ParlayError, ValueError, TypeError, LookupError, AttributeError, RecursionError)  # of hand-made JSON

Row = dict[str, Any]
Found = TypeVar("Found")


def read_archive(document: Mapping[str, Any], parts: Sequence[sa.Table]) -> tuple[str, dict[str, list[Row]]]:
    """The study's name, and the rows of each table of ``parts``; raises BadInput for anything else."""
    if document.get("format") != FORMAT or document.get("schema_version") not in _READ:
        given = f"{_short(document.get('format'))}, schema version {_short(document.get('schema_version'))}"
        raise BadInput(_WHERE, given, f"{FORMAT}, schema version {SCHEMA_VERSION}")
    study = _given(document, "study", f"{_WHERE}: study")
    tables = _given(document, "tables", f"{_WHERE}: tables")
    known = {part.name for part in parts}
    if document["schema_version"] == _BEFORE:
        tables = _brought_up(tables)
    if not isinstance(tables, dict):
        raise BadInput(f"{_WHERE}: tables", _short(tables), "an object")
    if strange := set(tables) - known:
        raise BadInput(f"{_WHERE}: tables", _short(min(strange)), _one_of(known))
    rows = {part.name: _rows_of(part, tables, study) for part in parts}
    if [row["name"] for row in rows[STUDIES.name]] != [study]:
        raise BadInput(
            f"{_WHERE}: {STUDIES.name}", _short(len(rows[STUDIES.name])), f"one row, of study {_short(study)}"
        )
    _read(rows)
    return str(study), rows


def _brought_up(tables: Any) -> Any:
    """Tables of the version before as today's; what is no such table stays, to be refused."""
    orders = tables.get(ORDERS.name) if isinstance(tables, dict) else None
    if not isinstance(orders, list):
        return tables
    clusters = [{"cluster": None} | row if isinstance(row, dict) else row for row in orders]
    return {ROUNDS.name: []} | tables | {ORDERS.name: clusters}


def _rows_of(table: sa.Table, tables: Mapping[str, Any], study: object) -> list[Row]:
    place = f"{_WHERE}: {table.name}"
    rows = _given(tables, table.name, place)
    if not isinstance(rows, list):
        raise BadInput(place, _short(rows), "a list of rows")
    seen = set()
    for number, row in enumerate(rows):
        at = f"{place}[{number}]"
        if not isinstance(row, dict):
            raise BadInput(at, _short(row), "a row: each column with its value")
        if strange := set(row) - set(table.columns.keys()):
            raise BadInput(at, _short(min(strange)), _one_of(table.columns.keys()))
        for column in table.columns:
            _require(column, _given(row, column.name, f"{at}.{column.name}"), f"{at}.{column.name}")
        if row.get("study", study) != study:
            raise BadInput(f"{at}.study", _short(row["study"]), f"{_short(study)}, as in all rows")
        key = tuple(row[column.name] for column in table.primary_key.columns)
        if key in seen:
            raise BadInput(at, _short(key), "no two rows with the same key")
        seen.add(key)
    return rows


def _require(column: sa.Column[Any], value: object, where: str) -> None:
    """Raise BadInput unless a column can hold the value."""
    kind = column.type
    if value is None:
        fits, allowed = bool(column.nullable), "a value"
    elif isinstance(kind, sa.JSON):
        fits, allowed = True, ""
    elif isinstance(kind, sa.Boolean):
        fits, allowed = isinstance(value, bool), "true or false"
    elif isinstance(kind, sa.Integer | sa.Float):
        most = _MOST_INT if isinstance(kind, sa.Integer) else sys.float_info.max
        types = int if isinstance(kind, sa.Integer) else int | float
        fits = isinstance(value, types) and not isinstance(value, bool) and abs(value) <= most
        allowed = f"a whole number up to {most}" if isinstance(kind, sa.Integer) else "a number"
    else:
        fits, allowed = isinstance(value, str) and _sound(value), "text"
    if not fits:
        raise BadInput(where, None if value is None else _short(value), allowed)


def _read(rows: Mapping[str, list[Row]]) -> None:
    """Raise BadInput for what nobody could read any more, once it was in the store."""
    (head,) = rows[STUDIES.name]
    at = f"{_WHERE}: {STUDIES.name}[0]"
    if head["state"] not in ENDED:
        raise BadInput(f"{at}.state", _short(head["state"]), _one_of(ENDED))
    if not isinstance(head["facts"], dict):
        raise BadInput(f"{at}.facts", _short(head["facts"]), "an object")
    try:
        simulated_seed(head["facts"])
    except (TypeError, ValueError):
        given = _short(head["facts"][SEED_FACT])
        raise BadInput(f"{at}.facts.{SEED_FACT}", given, "a whole number") from None
    record = _readable(at, study_of, head)
    _each(rows, ORDERS, order_of)
    _each(rows, EVENTS, lambda row: dict(json.loads(row["data"])))
    steps = defaultdict(list)
    for row, result in _each(rows, STEPS, lambda row: load_step(row["result"], record.request.slo)):
        steps[row["trial"]].append(result)
    entries = tuple(entry for _, entry in _each(rows, LEDGER, entry_of))
    device_s = {entry.app: entry.device_s for entry in entries}
    whole = {TRIALS.name: [row | {"device_s": device_s.get(row["app"])} for row in rows[TRIALS.name]]}
    engines = engines_shared(rows[TRIALS.name])
    read = _each(whole, TRIALS, lambda row: trial_of(row, steps[row["number"]], engines))
    trials = tuple(trial for _, trial in read)
    opened = _each(rows, TRIALS, open_trial_of)
    running = tuple(trial for row, trial in opened if row["state"] == TrialState.RUNNING.value)
    if head["decision"] is not None:
        found = Snapshot(record.state, trials, running, entries, ())
        _readable(f"{at}.decision", lambda kept: read_decision(kept, record, found), head["decision"])


def _each(rows: Mapping[str, list[Row]], table: sa.Table, read: Callable[[Row], Found]) -> list[tuple[Row, Found]]:
    """The rows of a table, each with what it stands for."""
    place = f"{_WHERE}: {table.name}"
    return [(row, _readable(f"{place}[{number}]", read, row)) for number, row in enumerate(rows[table.name])]


def _readable(where: str, read: Callable[[Row], Found], row: Row) -> Found:
    try:
        return read(row)
    except _UNREADABLE as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadInput(where, "what cannot be read", f"what Parlay has written there ({why[:200]})") from None


def _given(found: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in found:
        raise BadInput(where, "nothing", "what the archive of a study has there")
    return found[key]


def _sound(text: str) -> bool:
    """Whether any database takes it: half a character of an escape in JSON is none."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def _short(value: object) -> str:
    text = value if isinstance(value, str) and _sound(value) else ascii(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _one_of(known: Any) -> str:
    return f"one of: {', '.join(sorted(known))}"
