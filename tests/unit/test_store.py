"""The store's promises, as every database must keep them: what was written is there for the next process, and an
unusable store is one clear error."""

import sqlite3
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import NOTHING_SPENT, make_candidate, make_request, make_step
from tests.unit.test_layout import LAYOUTS
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric
from tuner.ask.rules import DropReason
from tuner.ask.slo import Verdict
from tuner.decide.decision import decide
from tuner.errors import BadInput, FailureReason, LeaseLost, StoreError
from tuner.plan.prune import Candidate, DroppedGroup, Prediction
from tuner.stats.intervals import Quantiles
from tuner.study.lifecycle import StudyState
from tuner.study.records import TrialClaim
from tuner.study.store import Store
from tuner.trial.devices import Placement
from tuner.trial.launched import Launched, NoEngine, RayApplication, VllmServer
from tuner.trial.results import LoadStep, Purpose, StepResult, TrialResult, TrialState

REQUEST = make_request()
LAYOUT = ParallelLayout(tp=2, executor="ray")
DROPPED = [DroppedGroup(DropReason.MEMORY, 12, ParallelLayout(), "weights 15.0 GiB exceed ≤ 10")]
TRIALS = (
    TrialResult(0, ParallelLayout(tp=2), TrialState.MEASURED, (make_step(LoadStep(0, 8.0, 1.0, 0), REQUEST, 20.0),)),
    TrialResult(1, LAYOUT, TrialState.FAILED, (), FailureReason.ENGINE_CRASHED, "it died", ("one ≤", "two")),
    TrialResult(
        2, ParallelLayout(tp=4), TrialState.STOPPED, (make_step(LoadStep(0, 8.0, 1.0, 0), REQUEST, 0.0, failed=3),)
    ),
)
_databases = count()


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


@pytest.fixture
def reader(url, store):
    """Another process's eyes: a second connection to the same database."""
    opened = Store(url)
    yield opened
    opened.close()


def begin(store, number, layout=LAYOUT):
    claim = TrialClaim("me", layout, Purpose.EXPLORE, number, 0.0, 2.5, Path("/var/log"))
    return store.claim_trial("s", claim, lambda held: Placement(((0, layout.devices),)), launches=10**6)


def test_a_study_comes_back_as_it_was(store, reader):
    store.create_study("s", REQUEST, {"vllm": "0.29", "host": "a"})
    found = reader.study("s")
    assert (found.name, found.request, found.facts) == ("s", REQUEST, {"vllm": "0.29", "host": "a"})
    assert (found.candidates_total, found.ranked, found.dropped, found.decided) == (None, None, None, False)


def test_a_what_if_is_never_stored_as_a_plan(store):
    store.create_study("s", REQUEST, {})
    supposed = replace(make_candidate(LAYOUT), what_if=("nvrar",))
    with pytest.raises(BadInput, match="nvrar"):
        store.save_plan("s", 1, [supposed], [])
    assert store.study("s").ranked is None


def test_a_plan_comes_back_as_it_was(store, reader):
    ranked = [
        make_candidate("tp=2,pp=1,dp=1"),
        Candidate(ParallelLayout(tp=4, ep=True), Prediction(1.5, 0.1, None, None, 0.0, 0, False, ((None, 3.25),))),
    ]
    dropped = [DroppedGroup(DropReason.MEMORY, 12, ParallelLayout(), "weights 15.0 GiB exceed ≤ 10")]
    store.create_study("s", REQUEST, {})
    store.save_plan("s", 14, ranked, dropped)
    found = reader.study("s")
    assert (found.candidates_total, found.ranked, found.dropped) == (14, tuple(ranked), tuple(dropped))
    store.save_plan("s", 0, [], [])
    again = reader.study("s")
    assert (again.candidates_total, again.ranked, again.dropped) == (0, (), ())


def test_a_decision_replaces_the_one_before(store, reader):
    store.create_study("s", REQUEST, {})
    store.change_state("s", StudyState.RUNNING)
    for trials in ((), TRIALS):
        decision = decide("s", REQUEST, trials, [make_candidate("tp=2,pp=1,dp=1")], DROPPED, NOTHING_SPENT)
        store.save_decision("s", decision)
        assert reader.study("s").decided
        assert reader.decision("s") == decision


@pytest.mark.slow
def test_a_trial_is_durable_at_every_step(store, reader):
    store.create_study("s", REQUEST, {})
    begin(store, 0)
    assert [(t.number, t.layout, t.app) for t in reader.snapshot("s").open] == [(0, LAYOUT, "parlay-s-0")]
    assert [(t.state, t.steps) for t in reader.trials("s")] == [(TrialState.RUNNING, ())]
    steps = tuple(make_step(LoadStep(i, 4.0 * (i + 1), 1.0, i), REQUEST, 20.0 + i) for i in range(3))
    for upto, step in enumerate(steps, 1):
        store.add_step("s", 0, step, "me")
        assert reader.trials("s")[0].steps == steps[:upto]
    result = TrialResult(0, LAYOUT, TrialState.STOPPED, steps, detail="missed", ready_after_s=12.5, seconds=99.25)
    store.finish_trial("s", result, "me")
    assert reader.trials("s") == [result]
    assert reader.snapshot("s").open == ()


PAYLOADS = [
    RayApplication(
        {"name": "a", "route_prefix": "/a", "args": {"llm_configs": [{"engine_kwargs": {"dtype": "auto"}}]}}
    ),
    VllmServer(("--model", "/m/tiny", "--enforce-eager"), {"OMP_NUM_THREADS": "1"}),
    NoEngine("simulated cluster, seed 3"),
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.kind)
def test_what_was_launched_is_durable_at_once(store, reader, payload):
    store.create_study("s", REQUEST, {})
    begin(store, 0)
    assert reader.trials("s")[0].launched is None
    launched = Launched("ray-serve", {"ray": "2.58.1", "vllm": "0.26.0"}, "/m/tiny", payload)
    store.record_launch("s", 0, launched, "me")
    assert reader.trials("s")[0].launched == launched
    store.finish_trial("s", TrialResult(0, LAYOUT, TrialState.MEASURED, seconds=1.0), "me")
    assert reader.trials("s")[0].launched == launched
    with pytest.raises(LeaseLost):
        store.record_launch("s", 0, launched, "another")


def test_a_failed_trial_keeps_its_reason_and_its_last_log_lines(store, reader):
    store.create_study("s", REQUEST, {})
    begin(store, 0)
    tail = ("one", "two ≤ “three”\x1b[0m")
    result = TrialResult(0, LAYOUT, TrialState.FAILED, (), FailureReason.ENGINE_CRASHED, "it died", tail, None, 3.5)
    store.finish_trial("s", result, "me")
    assert reader.trials("s") == [result]


def test_a_forgotten_trial_leaves_nothing_and_its_number_is_free(store, reader):
    store.create_study("s", REQUEST, {})
    for number in (0, 1):
        begin(store, number)
        store.add_step("s", number, make_step(LoadStep(0, 4.0, 1.0, 0), REQUEST, 20.0), "me")
    store.forget_trial("s", 1, "me", 0.0)
    assert [t.number for t in reader.trials("s")] == [0]
    begin(store, 1)
    assert [len(t.steps) for t in reader.trials("s")] == [1, 0]
    assert [t.number for t in reader.snapshot("s").open] == [0, 1]


def test_when_trials_began(store):
    store.create_study("s", REQUEST, {})
    begin(store, 0)
    begin(store, 1)
    starts_s = store.trial_starts("s")
    assert list(starts_s) == [0, 1]
    assert 0 <= starts_s[0] <= starts_s[1] < 60


def test_studies_do_not_see_each_other(store, reader):
    for name in ("older", "s"):
        store.create_study(name, REQUEST, {})
    begin(store, 0)
    assert reader.trials("older") == []
    assert reader.study_names() == ["s", "older"]  # newest first


def test_a_taken_name_is_refused(store):
    store.create_study("s", REQUEST, {})
    with pytest.raises(BadInput, match="--resume goes on with a study that is") as caught:
        store.create_study("s", make_request({"slo.0.ms": 7}), {})
    assert (caught.value.where, caught.value.given) == ("--study", "s")
    assert store.study("s").request == REQUEST


def test_an_unknown_study_is_refused_with_those_there_are(store):
    assert store.find_study("x") is None
    with pytest.raises(BadInput, match="the store is empty"):
        store.study("x")
    store.create_study("s", REQUEST, {})
    with pytest.raises(BadInput, match="one of: s"):
        store.study("x")


def _raw(url):
    import sqlalchemy as sa

    return sa.create_engine(url).begin()


def test_a_lost_table_is_a_store_error_in_one_line(url, store):
    store.create_study("s", REQUEST, {})
    with _raw(url) as db:
        db.exec_driver_sql("DROP TABLE parlay_orders")
        db.exec_driver_sql("DROP TABLE parlay_steps")
        db.exec_driver_sql("DROP TABLE parlay_trials")
        db.exec_driver_sql("DROP TABLE parlay_studies")
    for attempt in (
        lambda: store.save_decision("s", decide("s", REQUEST, (), (), (), NOTHING_SPENT)),
        lambda: store.decision("s"),
        lambda: store.create_study("t", REQUEST, {}),
        lambda: store.study("s"),
        store.study_names,
        lambda: store.trials("s"),
        lambda: store.snapshot("s"),
        lambda: store.trial_starts("s"),
    ):
        with pytest.raises(StoreError) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_a_layout_is_claimed_once_for_a_repeat(store, reader):
    store.create_study("s", REQUEST, {})
    assert begin(store, 0).number == 0
    assert begin(store, 0) is None
    assert len(reader.trials("s")) == 1


@pytest.mark.parametrize("place", ["", "not/a/dir", "."])
def test_a_place_that_is_no_database_is_a_store_error(tmp_path, place):
    (tmp_path / "not").write_text("a file")
    path = tmp_path / place if place else tmp_path / "text.db"
    if not place:
        path.write_text("no database at all, but long enough to be read as one" * 20)
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        Store(f"sqlite:///{path}")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql+psycopg://me:s3cret@127.0.0.1:1/db", StoreError),
        ("nosuchdb://me:s3cret@host/db", StoreError),
        ("sqlite+nodriver:///x.db", StoreError),
        ("postgresql://me:s3cret@host:port/db", BadInput),
        ("postgresql//me:s3cret@host/db", BadInput),
        ("me:s3cret@host", BadInput),
        ("parlay.db", BadInput),
        ("", BadInput),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url, error):
    if "psycopg" in url:
        pytest.importorskip("psycopg")
    with pytest.raises(error) as caught:
        Store(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in str(getattr(caught.value, "given", ""))
    assert caught.value.__cause__ is None
    assert "\n" not in str(caught.value)


OLD_STEP = """{"step":{"index":0,"rate_req_per_s":4.0,"duration_s":1.0,"seed":7,"warmup":false},"sent":4,"completed":4,
"failed":0,"wall_s":1.0,"latency":{},"slo_values_ms":[40.0,null],"attainment":1.0,"goodput_req_per_s":4.0,
"output_tok_per_s":64.0,"schedule_lag_p99_ms":0.5,"errors":{},"client_bound":false,"slo_intervals_ms":[[35.0,44.5],null],
"attainment_interval":[0.5,1.0],"offered_s":0.75,"ended_early":"met","invalid":null,"engine":{"waiting_mean":0.5}}"""


@pytest.mark.parametrize("intervals", ["[[35.0,44.5],null]", "[]"])
def test_a_step_of_schema_version_2_is_read_with_its_values_by_target(intervals, tmp_path):
    """It kept them in the order of the request's targets."""
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.create_study("s", REQUEST, {})
    begin(store, 0)
    with sqlite3.connect(tmp_path / "store.db") as db:
        row = ("s", 0, 0, OLD_STEP.replace("[[35.0,44.5],null]", intervals))
        db.execute('INSERT INTO parlay_steps (study, trial, "index", result) VALUES (?, ?, ?, ?)', row)
    db.close()
    ((found,),) = (trial.steps for trial in store.trials("s"))
    ttft, tpot = REQUEST.slo
    assert found.slo_values_ms == {ttft.key: 40.0, tpot.key: None}
    known = {ttft.key: (35.0, 44.5), tpot.key: None}
    assert found.slo_intervals_ms == (known if intervals != "[]" else {})
    assert (found.ended_early, found.engine) == (Verdict.MET, {"waiting_mean": 0.5})
    assert found.verdict(REQUEST) is Verdict.UNKNOWN
    assert found.shown_ms(REQUEST) == (40.0, None)


def test_a_killed_writer_leaves_the_last_finished_write(tmp_path):
    """A file copied while the writer still has it open, as a crash would leave it: main file and write-ahead log."""
    path = tmp_path / "store.db"
    store = Store(f"sqlite:///{path}")
    store.create_study("s", REQUEST, {})
    begin(store, 0)
    copied = tmp_path / "copy.db"
    for suffix in ("", "-wal"):
        source = tmp_path / f"store.db{suffix}"
        if source.exists():
            (tmp_path / f"copy.db{suffix}").write_bytes(source.read_bytes())
    assert [t.number for t in Store(f"sqlite:///{copied}").snapshot("s").open] == [0]
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
SOME_MS = st.none() | FINITE
STEPS = st.builds(
    StepResult,
    step=st.builds(
        LoadStep, index=st.integers(0, 50), rate_req_per_s=FINITE, duration_s=FINITE, seed=st.integers(0, 2**53)
    ),
    sent=st.integers(0, 10**9),
    completed=st.integers(0, 10**9),
    failed=st.integers(0, 10**9),
    wall_s=FINITE,
    latency=st.dictionaries(
        st.sampled_from(Metric),
        st.builds(Quantiles, st.integers(1, 10**6), FINITE, FINITE, FINITE, FINITE, FINITE),
    ),
    slo_values_ms=st.dictionaries(st.tuples(st.sampled_from(Metric), FINITE), SOME_MS, max_size=3),
    slo_intervals_ms=st.dictionaries(
        st.tuples(st.sampled_from(Metric), FINITE), st.none() | st.tuples(FINITE, FINITE), max_size=3
    ),
    ended_early=st.none() | st.sampled_from([Verdict.MET, Verdict.MISSED]),
    attainment=st.none() | FINITE,
    goodput_req_per_s=st.none() | FINITE,
    output_tok_per_s=st.none() | FINITE,
    schedule_lag_p99_ms=SOME_MS,
    errors=st.dictionaries(st.text(max_size=8), st.integers(0, 10**6), max_size=3),
)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(layout=LAYOUTS, step=STEPS)
def test_any_layout_and_any_step_come_back_as_they_were(shared_sqlite, layout, step):
    number = next(_databases)
    number = begin(shared_sqlite, number, layout).number
    shared_sqlite.add_step("s", number, step, "me")
    (found,) = [t for t in shared_sqlite.trials("s") if t.number == number]
    shared_sqlite.forget_trial("s", number, "me", 0.0)
    assert found.layout == layout
    assert found.steps == (step,)


@pytest.fixture(scope="module")
def shared_sqlite(tmp_path_factory):
    opened = Store(f"sqlite:///{tmp_path_factory.mktemp('shared')}/store.db")
    opened.create_study("s", REQUEST, {})
    yield opened
    opened.close()
