"""What may have slowed everything down: every step, or the links alone."""

from dataclasses import replace

import pytest

from tests.unit.test_outlook import ANSWERS, LARGE, REQUEST, SMALL, ask, now
from tuner.ask.request import Metric
from tuner.ask.requested_model import requested_model
from tuner.retune.causes import explained
from tuner.retune.contenders import cluster_of, priced
from tuner.retune.evidence import informed
from tuner.retune.expected import ExpectedByModel
from tuner.retune.known import Known
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Look, Tokens
from tuner.search.priors import is_collective
from tuner.search.term_prices import TermPrices

TWICE = Known(REQUEST, slower={Metric.TPOT: 2.0}, slower_on=LARGE)
MODEL, CLUSTER = requested_model(REQUEST), cluster_of(REQUEST, False)
PRICES = TermPrices.of(REQUEST, [c for c in (priced(REQUEST, MODEL, CLUSTER, LARGE),) if c], MODEL, CLUSTER)


def test_each_cause_explains_what_was_seen():
    steps, links = explained(REQUEST, PRICES, TWICE)
    assert {name for name, (factor, _) in links.factors.items() if factor > 1} == set(
        filter(is_collective, PRICES.terms)
    )
    assert all(factor > 1 for factor, _ in steps.factors.values())
    assert max(factor for factor, _ in links.factors.values()) > max(factor for factor, _ in steps.factors.values())
    look = Look(60.0, 60.0, 14.0 * 60, 0.0, prompt=Tokens(1.0, 1024.0), output=ANSWERS)  # 0.7 of what was asked
    usual = ExpectedByModel(REQUEST, LARGE, Known(REQUEST))(look)[Metric.TPOT]
    for one in (steps, links):
        assert ExpectedByModel(REQUEST, LARGE, one)(look)[Metric.TPOT] == pytest.approx(2 * usual, rel=0.05)


def test_of_an_engine_that_has_no_price_nothing_is_explained():
    other = replace(TWICE, slower_on=SMALL)
    assert explained(REQUEST, PRICES, other) == (other,)
    assert explained(REQUEST, PRICES, Known(REQUEST)) == (Known(REQUEST),)


@pytest.mark.slow
def test_a_layout_is_taken_to_do_what_it_does_either_way():
    both = ask(SMALL, known=TWICE).present
    each = [ask(SMALL, known=replace(one, slower_on=None)).present for one in explained(REQUEST, PRICES, TWICE)]
    assert both.goodput_req_per_s == pytest.approx(min(one.goodput_req_per_s for one in each), rel=0.01)
    assert each[0].goodput_req_per_s != pytest.approx(each[1].goodput_req_per_s, rel=0.05)


def test_it_is_remembered_of_which_layout_that_was():
    slow = Notice(NoticeKind.RESIDUAL, "tpot", "", 1.0, 0.0, {"measured_over_expected_ratio": 1.6})
    first = informed(Known(REQUEST), [slow], LARGE, now())
    assert first.slower_on == LARGE
    assert informed(first, [], SMALL, now()).slower_on == LARGE
