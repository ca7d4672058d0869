"""What a change of layout could bring, by the model and by what was seen."""

from dataclasses import replace

import pytest

from tests.free_path import free_path  # noqa: F401
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric
from tuner.ask.request_document import parse_request
from tuner.errors import BadInput
from tuner.retune.asked_now import asked_now
from tuner.retune.contenders import contenders
from tuner.retune.demand import Demand, LoadRecord
from tuner.retune.evidence import informed, lived_since
from tuner.retune.expected import ExpectedByModel
from tuner.retune.known import Known, Lived
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.outlook import outlook
from tuner.retune.seen import Fingerprint, Look, NodeSeen, Tokens
from tuner.stats.buckets import Within
from tuner.trial.results import LoadStep, StepResult, TrialResult, TrialState

pytestmark = pytest.mark.usefixtures("free_path")

REQUEST = parse_request(
    {
        "model": "meta-llama/Llama-3.1-70B",
        "cluster": {"gpu": "h100_sxm", "nodes": 4, "gpus_per_node": 8},
        "workload": {"prompt_tokens": 1024, "output_tokens": 128, "arrival": {"requests_per_s": 20.0}},
        "slo": [
            {"metric": "ttft", "percentile": 95, "ms": 1000},
            {"metric": "tpot", "percentile": 95, "ms": 40},
        ],
        "space": {"tp": [2, 4, 8], "dp": [1, 2, 3, 4, 6], "max_num_batched_tokens": [2048]},
    }
)
SMALL, LARGE = ParallelLayout(tp=4, dp=3), ParallelLayout(tp=8, dp=4)
PROMPTS, ANSWERS = Tokens(1e4, 1024.0), Tokens(1e4, 128.0)


def nodes(count):
    return Fingerprint(tuple(NodeSeen(f"n{i}", "h100_sxm", 8) for i in range(count)))


def now(count=4, rate=20.0, prompts=PROMPTS):
    return asked_now(REQUEST, Demand(rate, prompts, ANSWERS), nodes(count))


def ask(present, at=None, known=None, **options):
    return outlook(at or now(), present, known or Known(REQUEST), simulate=False, **options)


def trial(layout, *held, ms=30.0):
    """A trial that met the SLO at these rates, or missed it where TPOT takes longer."""
    steps = [
        StepResult(
            LoadStep(i, rate, 30.0, 0), 100, 100, 0, 30.0, {},
            {(Metric.TTFT, 95.0): 500.0, (Metric.TPOT, 95.0): ms}, None, None, None, None, {},
        )
        for i, rate in enumerate(held)
    ]  # fmt: skip
    return TrialResult(0, layout, TrialState.MEASURED, tuple(steps), seconds=600.0, ready_after_s=120.0)


def test_a_smaller_layout_saves_gpus():
    found = ask(LARGE)
    assert found.present.meets
    assert found.best.gpus < LARGE.devices
    assert found.gain == pytest.approx(1 - found.best.gpus / LARGE.devices)
    assert found.gain_per_hour == pytest.approx(found.gain * found.present.usd_per_hour)
    assert not found.regains_slo


def test_what_was_measured_is_believed_before_the_model():
    known = Known(REQUEST, (trial(ParallelLayout(tp=2, dp=4), 10.0, 20.0),))
    found = ask(LARGE, known=known)
    assert found.best.deployment == ParallelLayout(tp=2, dp=4)
    assert found.best.measured
    assert found.best.meets
    assert found.tuning_gpu_hours == 0
    assert found.moving_gpu_hours == pytest.approx(8 * (120 / 3600 + 10 / 60))


@pytest.mark.slow
def test_trials_say_nothing_of_longer_prompts():
    known = Known(REQUEST, (trial(ParallelLayout(tp=2, dp=4), 10.0, 20.0),))
    longer = now(prompts=Tokens(1e4, 4096.0))
    assert not known.shown(longer)
    assert ask(LARGE, longer, known).best.deployment != ParallelLayout(tp=2, dp=4)


def test_a_rate_that_was_held_is_enough_for_a_lower_one():
    known = Known(REQUEST, (trial(SMALL, 10.0, 20.0), trial(LARGE, 10.0, ms=90.0)))
    assert known.shown(now()) == {SMALL: True, LARGE: False}
    assert known.shown(now(rate=40.0)) == {LARGE: False}


@pytest.mark.slow
def test_a_layout_that_was_seen_to_miss_is_not_proposed_and_speaks_against_its_kin():
    missed = Known(REQUEST, lived=(Lived(SMALL, 20.0, 1024.0, 128.0, met=False),))
    found = ask(SMALL, known=missed)
    assert found.present.meets is False
    assert found.regains_slo
    kin = ask(LARGE, known=missed)
    assert kin.best.deployment != SMALL
    assert ask(LARGE).best.chance is not None


def test_what_was_lived_holds_for_lighter_or_heavier_loads():
    met = Lived(SMALL, 20.0, 1024.0, 128.0, met=True)
    assert met.speaks_of(now().request)
    assert not met.speaks_of(now(rate=40.0).request)
    assert not met.speaks_of(now(prompts=Tokens(1e4, 1300.0)).request)
    missed = replace(met, met=False)
    assert missed.speaks_of(now(rate=40.0).request)
    assert not replace(missed, req_per_s=40.0).speaks_of(now().request)


@pytest.mark.slow
def test_the_same_observations_never_ask_for_the_way_back():
    """Moved because the SLO was missed, what was seen of the old layout stays."""
    known = Known(REQUEST, lived=(Lived(SMALL, 20.0, 1024.0, 128.0, met=False),))
    there = ask(SMALL, known=known)
    back = ask(there.best.deployment, known=known)
    assert back.best.deployment != SMALL
    assert not back.regains_slo


@pytest.mark.slow
def test_a_vetoed_layout_and_one_that_the_launcher_refuses_are_never_best():
    first = ask(LARGE).best.deployment
    second = ask(LARGE, vetoed={first}).best.deployment
    assert second != first
    refused = ask(LARGE, refuses=lambda one: "no" if one in (first, second) else None).best.deployment
    assert refused not in (first, second)


EMERGENCIES = {
    "the model's best": ((), None),
    "measured": ((trial(ParallelLayout(tp=4, dp=2), 10.0, 20.0),), ParallelLayout(tp=4, dp=2)),
    "as many of a measured engine as fit": ((trial(LARGE, 10.0, 20.0),), ParallelLayout(tp=8, dp=2)),
}


@pytest.mark.slow
@pytest.mark.parametrize(("trials", "expected"), EMERGENCIES.values(), ids=EMERGENCIES)
def test_in_an_emergency_the_best_that_fits_now(trials, expected):
    found = ask(LARGE, now(count=2, rate=15.0), Known(REQUEST, trials))
    assert found.present is None
    assert found.best.gpus <= 16
    assert found.regains_slo
    assert expected is None or found.best.deployment == expected


def test_nothing_fits_a_cluster_without_nodes():
    assert ask(LARGE, now(count=0)).best is None
    tiny = asked_now(REQUEST, Demand(), Fingerprint((NodeSeen("n", "h100_sxm", 1),)))
    found = ask(LARGE, tiny)
    assert found.present is None
    assert found.best is None


def test_longer_sequences_than_memory_holds_do_not_fit_the_present_layout():
    found = ask(ParallelLayout(tp=2, dp=4), now(prompts=Tokens(1e4, 120_000.0)))
    assert found.present.meets is False


@pytest.mark.slow
def test_a_residual_slows_every_layout():
    slow = Notice(NoticeKind.RESIDUAL, "tpot", "", 1.0, 0.0, {"measured_over_expected_ratio": 1.6})
    known = informed(Known(REQUEST, (trial(SMALL, 20.0),)), [slow], LARGE, now())
    assert known.slower == {Metric.TPOT: pytest.approx(1.6, rel=0.03)}
    assert not known.shown(now())  # trials of before say nothing any more
    assert ask(SMALL, known=known).present.chance < ask(SMALL).present.chance


@pytest.mark.slow
def test_where_all_is_far_slower_than_was_thought_what_does_is_beyond_the_first_of_the_ranking():
    asked = parse_request(
        REQUEST.model_dump(mode="json", exclude_none=True)
        | {"cluster": {"gpu": "h100_sxm", "nodes": 8, "gpus_per_node": 8}}
        | {
            "space": {
                "tp": [2, 4, 8],
                "pp": [1, 2],
                "dp": [1, 2, 3, 4, 5, 6, 8],
                "max_num_batched_tokens": [2048, 8192],
            }
        }
    )
    known = Known(asked, slower={Metric.TTFT: 1.5, Metric.TPOT: 1.5})
    today = asked_now(asked, Demand(20.0, PROMPTS, ANSWERS), nodes(8))
    first = contenders(today.request)
    found = outlook(today, ParallelLayout(tp=8, dp=2), known, simulate=False)
    assert found.best.chance >= 0.8
    assert found.best.gpus > max(one.layout.devices for one in first)


def test_what_serves_in_fewer_replicas_is_better_than_another_kind_that_is_alike_by_the_model():
    """Nodes are gone; a layout that differs in limits alone was measured, and none is expected to do."""
    asked = parse_request(
        REQUEST.model_dump(mode="json", exclude_none=True)
        | {"space": {"tp": [4], "dp": [1, 2, 3, 4], "max_num_batched_tokens": [2048, 8192]}}
    )
    today = asked_now(asked, Demand(40.0, PROMPTS, ANSWERS), nodes(1))
    other = replace(SMALL, dp=2)
    for serves in (replace(SMALL, dp=4), ParallelLayout(tp=4, dp=4, max_num_batched_tokens=8192)):
        known = Known(asked, (trial(other, 10.0), trial(serves, 40.0)))
        found = outlook(today, serves, known, simulate=False)
        assert found.present is None
        assert found.best.deployment == replace(serves, dp=2)


@pytest.mark.slow
def test_what_a_layout_carries_is_said_with_the_prices_that_are_known():
    usual, slow = ask(SMALL).present, ask(SMALL, known=Known(REQUEST, slower={Metric.TPOT: 1.5})).present
    assert slow.goodput_req_per_s < 0.75 * usual.goodput_req_per_s


@pytest.mark.slow
def test_where_even_one_request_is_too_slow_everywhere_the_larger_layout_still_carries_more():
    found = ask(SMALL, known=Known(REQUEST, slower={Metric.TPOT: 50.0}))
    assert 0 < found.present.goodput_req_per_s < found.best.goodput_req_per_s
    assert found.best.chance < 0.5


def test_a_burning_budget_speaks_against_the_present_layout_and_what_may_burn_does_not():
    burn = Notice(NoticeKind.SLO_BURN, "tpot p95", "", 0.99, 0.0)
    assert informed(Known(REQUEST), [burn], SMALL, now()).shown(now()) == {SMALL: False}
    assert not informed(Known(REQUEST), [replace(burn, confidence=0.5)], SMALL, now()).shown(now())


def test_targets_that_are_missed_just_now_speak_against_what_is_slower_than_it_was():
    slow = Notice(NoticeKind.VERSION_CHANGED, "vllm", "", 1.0, 0.0)
    shift = Notice(NoticeKind.WORKLOAD_SHIFT, "rate", "", 1.0, 0.0)
    assert informed(Known(REQUEST), [slow], SMALL, now(), missing=True).shown(now()) == {SMALL: False}
    assert not informed(Known(REQUEST), [shift], SMALL, now(), missing=True).shown(now())
    assert not informed(Known(REQUEST), [slow], SMALL, now(), missing=False).shown(now())


def test_what_is_missed_just_now_is_more_than_chance():
    record, key = LoadRecord(), (Metric.TPOT, 95.0)
    for minute, good in enumerate([950.0] * 10 + [900.0] * 6):
        record.add(Look((minute + 1) * 60.0, 60.0, 1000.0, within={key: Within(1000.0, good, good, good)}))
        assert record.missing is (minute >= 12)


def test_a_day_without_trouble_shows_that_a_layout_does():
    record = LoadRecord()
    for i in range(1, 300):
        record.add(Look(i * 300.0, 300.0, 6000.0, 0.0, prompt=PROMPTS, output=ANSWERS))
    assert lived_since(record, SMALL, 10_000.0, 80_000.0) is None
    found = lived_since(record, SMALL, 0.0, 89_700.0)
    assert found == Lived(SMALL, 20.0, 1024.0, 128.0, met=True)


def test_what_is_expected_follows_rate_and_lengths():
    expected = ExpectedByModel(REQUEST, SMALL, Known(REQUEST))

    def at(rate, prompt=1024.0):
        return expected(Look(60.0, 60.0, rate * 60, 0.0, prompt=Tokens(1.0, prompt), output=ANSWERS))

    assert at(5.0)[Metric.TPOT] < at(10.0)[Metric.TPOT]
    assert at(5.0)[Metric.TTFT] < at(5.0, 2048.0)[Metric.TTFT]
    assert not at(500.0)
    assert not expected(Look(60.0, 60.0))


@pytest.mark.slow
def test_of_several_kinds_of_nodes_the_last_is_still_named_by_its_layouts():
    groups = [{"gpu": gpu, "nodes": 4, "gpus_per_node": 8} for gpu in ("h100_sxm", "a100_sxm")]
    asked = parse_request(REQUEST.model_dump(mode="json", exclude_none=True) | {"cluster": groups})
    left = asked_now(asked, Demand(20.0, PROMPTS, ANSWERS), nodes(4))
    present = replace(LARGE, gpu="h100_sxm")
    found = ask(present, left, Known(asked))
    assert (found.present.meets, found.best.deployment.gpu) == (True, "h100_sxm")
    gone = ask(replace(LARGE, gpu="a100_sxm"), left, Known(asked))
    assert (gone.present, gone.best.deployment.gpu) == (None, "h100_sxm")


def test_a_round_on_other_nodes_than_what_serves_says_nothing_of_it():
    with pytest.raises(BadInput, match="a node group that the last round was asked of"):
        ask(replace(LARGE, gpu="a100_sxm"))


@pytest.mark.slow
def test_what_is_asked_again_with_every_look_is_simulated_once(monkeypatch):
    asked = []
    monkeypatch.setattr("tuner.retune.contenders.presimulate", lambda _, found, *__: asked.extend(found) or {})
    for _ in range(2):
        outlook(now(rate=23.5), LARGE, Known(REQUEST))
    assert asked
    assert len(asked) == len(set(asked))
