"""A deployment is one engine group or two pools; whatever is launched, stored or decided can name either."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import copy_of_empty_store, make_candidate, make_request, make_step
from tests.unit.test_layout import LAYOUTS
from tuner.app.cli.tables import short_names
from tuner.ask.cluster import usd_per_hour
from tuner.ask.deployment import UNLAUNCHED, TwoPools, one_group, parse_deployment, pools_of
from tuner.ask.layout import ParallelLayout
from tuner.decide.layout_summary import layout_summaries
from tuner.errors import BadInput
from tuner.rehearse.cluster import SimulatedCluster
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.search.lessons import doomed
from tuner.study.records import TrialClaim
from tuner.study.store import Store
from tuner.trial.devices import Placement
from tuner.trial.results import LoadStep, Purpose, TrialResult, TrialState

POOLS = TwoPools(ParallelLayout(tp=2), ParallelLayout(dp=2, max_num_seqs=64))
REQUEST = make_request()
DEPLOYMENTS = LAYOUTS | st.builds(TwoPools, LAYOUTS, LAYOUTS)


@pytest.mark.slow
@given(DEPLOYMENTS)
def test_it_reads_back_from_what_it_prints(deployment):
    assert parse_deployment(str(deployment)) == deployment
    assert sum(layout.devices for layout in pools_of(deployment).values()) == deployment.devices


@pytest.mark.slow
@given(st.lists(DEPLOYMENTS, max_size=8))
def test_deployments_have_one_order(deployments):
    ordered, turned = sorted(deployments), list(reversed(deployments))
    assert sorted(turned) == ordered
    assert [one.devices for one in ordered] == sorted(one.devices for one in deployments)


def test_it_prints_prefill_before_decode():
    assert str(POOLS) == "tp=2,pp=1,dp=1 -> tp=1,pp=1,dp=2,max_num_seqs=64"
    assert pools_of(POOLS) == {"prefill": POOLS.prefill, "decode": POOLS.decode}
    assert pools_of(POOLS.prefill) == {"serve": POOLS.prefill}


@pytest.mark.parametrize("text", ["tp=1 -> tp=1 -> tp=1", "tp=2 -> ", "tp=2 -> x=1"])
def test_anything_else_is_refused(text):
    with pytest.raises(BadInput):
        parse_deployment(text)


def test_who_handles_one_group_alone_refuses_two_pools():
    with pytest.raises(BadInput, match="one engine group"):
        one_group(POOLS)
    with pytest.raises(BadInput, match="one engine group"):
        _ = TrialResult(0, POOLS, TrialState.MEASURED).layout


def test_no_launcher_runs_two_pools_yet():
    cluster = SimulatedCluster.__new__(SimulatedCluster)
    assert SimulatedLauncher(cluster).refuses(POOLS, REQUEST) == UNLAUNCHED


def test_its_price_is_that_of_both_pools():
    both = [usd_per_hour(REQUEST, layout) for layout in pools_of(POOLS).values()]
    assert usd_per_hour(REQUEST, POOLS) == sum(both)


def test_a_store_keeps_it_in_claim_trial_and_plan(tmp_path):
    store = Store(copy_of_empty_store(tmp_path / "store.db"))
    store.create_study("s", REQUEST, {})
    candidates = [make_candidate(POOLS), make_candidate(POOLS.prefill)]
    store.save_plan("s", 2, candidates, [])
    assert store.study("s").ranked == tuple(candidates)
    claim = TrialClaim("me", POOLS, Purpose.EXPLORE, 0, 0.0, None, tmp_path)
    opened = store.claim_trial("s", claim, lambda held: Placement(()), launches=1)
    assert opened.deployment == POOLS
    assert store.snapshot("s").open[0].deployment == POOLS
    store.finish_trial("s", TrialResult(0, POOLS, TrialState.MEASURED, seconds=1.0), "me")
    assert store.snapshot("s").trials[0].deployment == POOLS


def test_it_is_decided_upon_and_named_beside_layouts():
    step = make_step(LoadStep(0, 4.0, 1.0, 0), REQUEST, 20.0)
    trials = [TrialResult(i, one, TrialState.MEASURED, (step,)) for i, one in enumerate((POOLS, ParallelLayout(tp=8)))]
    assert [summary.deployment for summary in layout_summaries(REQUEST, trials)] == [POOLS, ParallelLayout(tp=8)]
    names, common = short_names([POOLS, ParallelLayout(tp=4, max_num_seqs=64)])
    assert names[POOLS] == str(POOLS)
    assert common == ""


def test_failures_of_layouts_say_nothing_of_two_pools():
    failed = TrialResult(0, ParallelLayout(tp=2), TrialState.FAILED)
    assert doomed(POOLS, [failed]) is None
    assert doomed(ParallelLayout(tp=4), [TrialResult(0, POOLS, TrialState.FAILED)]) is None
