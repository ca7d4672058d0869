"""Archives that people have edited by hand: what is wrong is said with its place, and nothing of it is put back."""

from __future__ import annotations

import copy
import io
import json
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import copy_of_empty_store, make_request
from tests.service_app import work
from tuner.app.service.retention import unpack
from tuner.errors import BadInput
from tuner.rehearse.conditions import SEED_FACT
from tuner.study.orders import Terms
from tuner.study.store import Store

STUDIES, ORDERS, TRIALS, STEPS = (f"parlay_{name}" for name in ("studies", "orders", "trials", "steps"))
LEDGER, EVENTS = "parlay_ledger", "parlay_events"


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """Of a study that a worker has run to its decision."""
    folder = tmp_path_factory.mktemp("archived")
    store = Store(copy_of_empty_store(folder / "store.db"))
    store.orders.submit(
        "s",
        make_request({"space": {"tp": [1, 2]}, "budget.launches": 1, "load.rates_req_per_s": [4, 8]}),
        Terms("me", "simulated", 3, 5),
        "key",
    )
    assert work(store, folder) == 1
    store.logs.keep("s", 0, "log of the first\n")
    found = json.loads(json.dumps(store.archive.document("s")))
    store.close()
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    opened = Store(copy_of_empty_store(tmp_path_factory.mktemp("into") / "store.db"))
    yield opened
    opened.close()


GONE = object()


def edited(document, path, value):
    """With another value at a path, or none."""
    made = copy.deepcopy(document)
    place = made
    for key in path[:-1]:
        place = place[key]
    if value is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return made


def row(table, column, number=0):
    return ("tables", table, number, column)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "where", "words"),
    [
        (("format",), GONE, "archive", "None, schema version"),
        (("format",), "tar", "archive", "parlay-study, schema version"),
        (("schema_version",), 99, "archive", "schema version 99"),
        (("schema_version",), None, "archive", "schema version"),
        (("study",), GONE, "archive: study", "nothing"),
        (("study",), "another", f"archive: {ORDERS}[0].study", "as in all rows"),
        (("study",), 5, "archive: ", "5"),
        (("tables",), GONE, "archive: tables", "nothing"),
        (("tables",), [], "archive: tables", "an object"),
        (("tables", "parlay_tokens"), [], "archive: tables", "parlay_tokens"),
        (("tables", TRIALS), GONE, f"archive: {TRIALS}", "nothing"),
        (("tables", TRIALS), {"0": {}}, f"archive: {TRIALS}", "a list of rows"),
        (("tables", TRIALS, 0), "row", f"archive: {TRIALS}[0]", "a row"),
        (("tables", STUDIES), [], f"archive: {STUDIES}", "one row"),
        (row(STUDIES, "name"), "t", f"archive: {STUDIES}", "one row"),
        (row(STUDIES, "created_at"), GONE, f"archive: {STUDIES}[0].created_at", "nothing"),
        (row(STUDIES, "created_at"), "today", f"archive: {STUDIES}[0].created_at", "a number"),
        (row(STUDIES, "created_at"), float("nan"), f"archive: {STUDIES}[0].created_at", "a number"),
        (row(STUDIES, "created_at"), 10**400, f"archive: {STUDIES}[0].created_at", "a number"),
        (row(STUDIES, "kept"), True, f"archive: {STUDIES}[0].kept", "a whole number"),
        (row(STUDIES, "kept"), 2**40, f"archive: {STUDIES}[0].kept", "a whole number"),
        (row(STUDIES, "state"), "running", f"archive: {STUDIES}[0].state", "cancelled, decided, failed"),
        (row(STUDIES, "state"), None, f"archive: {STUDIES}[0].state", "a value"),
        (row(STUDIES, "facts"), ["x"], f"archive: {STUDIES}[0].facts", "an object"),
        ((*row(STUDIES, "facts"), SEED_FACT), "x", f"archive: {STUDIES}[0].facts.{SEED_FACT}", "a whole number"),
        ((*row(STUDIES, "facts"), SEED_FACT), [1], f"archive: {STUDIES}[0].facts.{SEED_FACT}", "a whole number"),
        (row(STUDIES, "request"), "{", f"archive: {STUDIES}[0]", "cannot be read"),
        (row(STUDIES, "request"), {"model": "x"}, f"archive: {STUDIES}[0].request", "text"),
        (row(STUDIES, "ranked"), "[{}]", f"archive: {STUDIES}[0]", "cannot be read"),
        (row(STUDIES, "decision"), {"shape": 2}, f"archive: {STUDIES}[0].decision", "KeyError"),
        (row(STUDIES, "decision"), "won", f"archive: {STUDIES}[0].decision", "AttributeError"),
        (row(STUDIES, "kin"), "\ud800", f"archive: {STUDIES}[0].kin", "text"),
        (row(STUDIES, "extra"), 1, f"archive: {STUDIES}[0]", "extra"),
        (row(ORDERS, "wish"), "fly", f"archive: {ORDERS}[0]", "fly"),
        (row(ORDERS, "discovers"), 1, f"archive: {ORDERS}[0].discovers", "true or false"),
        (row(TRIALS, "study"), "t", f"archive: {TRIALS}[0].study", "as in all rows"),
        (row(TRIALS, "number"), "0", f"archive: {TRIALS}[0].number", "a whole number"),
        (row(TRIALS, "layout"), "tp=x", f"archive: {TRIALS}[0]", "tp"),
        (row(TRIALS, "state"), "won", f"archive: {TRIALS}[0]", "won"),
        (row(TRIALS, "log_tail"), 5, f"archive: {TRIALS}[0]", "TypeError"),
        (row(TRIALS, "launched"), {"launcher": 1}, f"archive: {TRIALS}[0]", "launcher"),
        (row(TRIALS, "placement"), [[1]], f"archive: {TRIALS}[0]", "unpack"),
        (row(STEPS, "result"), "{}", f"archive: {STEPS}[0]", "cannot be read"),
        (row(STEPS, "index", 1), 0, f"archive: {STEPS}[1]", "same key"),
        (row(LEDGER, "outcome"), "won", f"archive: {LEDGER}[0]", "won"),
        (row(EVENTS, "data"), "[1]", f"archive: {EVENTS}[0]", "cannot be read"),
        (row(EVENTS, "data"), "[" * 100_000, f"archive: {EVENTS}[0]", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(document, store, path, value, where, words):
    with pytest.raises(BadInput) as caught:
        store.archive.restore(edited(document, path, value))
    assert caught.value.where.startswith(where)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 600
    assert store.study_names() == []


@pytest.mark.slow
def test_what_was_not_edited_goes_back(document, store):
    assert store.archive.restore(copy.deepcopy(document)) == "s"
    assert store.archive.document("s") == document
    with pytest.raises(BadInput, match="whose name this store does not have"):
        store.archive.restore(document)
    store.delete_study("s")


def places(found, path=()):
    """Every place in a document, from the root."""
    inside = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in inside:
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_however_it_is_edited_it_goes_back_or_is_bad_input(document, store, data):
    path = data.draw(st.sampled_from([path for path in places(document) if len(path) <= 5]))
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    value = data.draw(
        st.just(GONE) | scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=5), scalars)
    )
    try:
        name = store.archive.restore(edited(document, path, value))
    except BadInput:
        assert store.study_names() == []
    else:  # whoever reads it can
        assert store.find_study(name) is not None
        store.snapshot(name)
        store.decision(name)
        store.orders.find(name)
        store.delete_study(name)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '{"study":', "\x00", "[" * 100_000])
def test_a_file_with_anything_else_in_it_is_no_archive(tmp_path, text):
    file = tmp_path / "s.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        member = tarfile.TarInfo("study.json")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    with pytest.raises(BadInput, match="an archive of a study"):
        unpack(file)
