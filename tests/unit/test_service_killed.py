"""A service whose processes are killed at random instants while studies run: they end as undisturbed ones do."""

import pytest

from tests.service_process import (
    Essence,
    KilledService,
    essence,
    launched_twice,
    lost,
    names,
    submit,
    undisturbed,
)
from tuner.study.store import Store

STUDIES, LAUNCHES = 3, 8


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), STUDIES, LAUNCHES)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_studies_of_a_service_that_is_killed_end_as_undisturbed_ones(url, tmp_path, expected):
    store = Store(url)
    service = KilledService(url, tmp_path / "out", 2, tmp_path / "log")
    submit(store, STUDIES, LAUNCHES)
    service.start()
    try:
        service.disturb(store, STUDIES, kills=4, every_s=(1, 5), seed=1, most_s=400)
    finally:
        left = service.stop()
    assert left == []
    assert len(service.killed) >= 2
    for name in names(STUDIES):
        assert expected[name].kept_by(essence(store, name))
        found = store.snapshot(name)
        assert launched_twice(found) == []
        assert lost(found) <= len(service.killed)
        assert (tmp_path / "out" / name / "decision.json").exists()
    store.close()


def test_only_a_second_window_may_be_lost():
    first, again, other = ("a", 0, "measured"), ("a", 1, "measured"), ("b", 0, "measured")
    whole = Essence("a", (first, again, other), "why")
    assert whole.kept_by(whole)
    assert whole.kept_by(Essence("a", (first, other, again), "another why"))
    assert not whole.kept_by(Essence("b", (first, other), "why"))
    assert not whole.kept_by(Essence("a", (first, again), "why"))
    assert not whole.kept_by(Essence("a", (("a", 0, "stopped"), again, other), "why"))
    assert not whole.kept_by(Essence("a", (first, again, other), "another why"))
