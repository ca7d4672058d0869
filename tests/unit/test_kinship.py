"""Which earlier studies a new one learns of: the newest that are akin, whatever else the store holds."""

import sqlalchemy as sa

from tests.fakes import make_request
from tuner.decide.decision import decide
from tuner.study.lifecycle import StudyState
from tuner.study.schema import STUDIES
from tuner.study.store import Store
from tuner.trial.ledger import Spent

FACTS = {"vllm": "0.29.0"}


def decided(store, name, request, facts):
    store.create_study(name, request, facts)
    store.change_state(name, StudyState.RUNNING)
    store.save_decision(name, decide(name, request, (), (), (), Spent(0, 0.0, 0.0, 0.0)))


def test_the_newest_decided_studies_that_are_akin(url):
    store, request = Store(url), make_request()
    for number in range(4):
        decided(store, f"akin-{number}", request, FACTS)
        decided(store, f"other-{number}", make_request({"cluster.gpu": "a100_sxm"}), FACTS)
        decided(store, f"simulated-{number}", request, FACTS | {"simulated seed": str(number)})
    store.create_study("undecided", request, FACTS)
    store.create_study("own", make_request({"budget.launches": 3}), FACTS)
    decided(store, "later", request, FACTS)
    assert store.kinship.earlier("own", 3) == ("akin-3", "akin-2", "akin-1")
    with sa.create_engine(url).begin() as db:  # as an older Parlay left them
        db.execute(sa.update(STUDIES).values(kin=None))
        db.execute(sa.update(STUDIES).where(STUDIES.c.name == "akin-2").values(request="{}"))
    assert store.kinship.earlier("own", 3) == ("akin-3", "akin-1", "akin-0")
    store.close()
