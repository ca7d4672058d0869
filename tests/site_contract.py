"""What every ``Site`` must keep: plain Ray Serve, KubeRay, and one that is only simulated.

A class of tests inherits the contract that its kind can keep; its fixture ``bench`` is a fresh place of that kind with
room for two deployments, and how it is broken, waited for and looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import pytest

from tuner.ask.request import TuneRequest
from tuner.retune.live import LiveDeployment
from tuner.retune.site import DeploymentSeen, Readiness, Site, SiteSeen

GONE = DeploymentSeen(Readiness.ABSENT)


class SiteBench:
    """One place, and a Site on it."""

    site: Site
    request: TuneRequest

    def again(self) -> Site:
        """A Site on the same place, as after a kill of the process that had the one before."""
        raise NotImplementedError

    def live(self, name: str, *, broken: bool = False) -> LiveDeployment:
        """A deployment to start; one that is ``broken`` never comes up. Names are ``one``, ``two`` and ``three``."""
        raise NotImplementedError

    def eventually(self, holds: Callable[[], bool]) -> bool:
        """Whether it comes to hold, in the time that this kind of place takes."""
        raise NotImplementedError

    def kill(self, name: str) -> None:
        """Have the processes of a deployment die, for good."""
        raise NotImplementedError

    def meddle(self, name: str) -> None:
        """Change by hand, past the Site, what serves under that name."""
        raise NotImplementedError

    def hold(self, name: str) -> Callable[[], None] | None:
        """Have one request under way there until the answer is called; None where no request can be sent."""
        return None

    def asked(self, requests: int) -> Counter[str] | None:
        """Which deployment answers how many of so many requests; None where no request can be sent."""
        return None


def seen_of(site: Site, name: str) -> DeploymentSeen:
    return site.see().deployments.get(name, GONE)


def is_ready(site: Site, name: str) -> bool:
    return seen_of(site, name).readiness is Readiness.READY


def shares(seen: SiteSeen) -> dict[str, float]:
    return {name: share for name, share in seen.shares.items() if share > 0}


class SiteContract:
    """What holds of every kind. Each test has a place of its own."""

    def up(self, bench: SiteBench, *names: str) -> None:
        for name in names:
            bench.site.start(bench.live(name), bench.request)
        for name in names:
            assert bench.eventually(partial(is_ready, bench.site, name))
            assert bench.eventually(partial(bench.site.warm, name))

    def routed(self, bench: SiteBench, wanted: Mapping[str, float]) -> None:
        bench.site.route(wanted)
        assert bench.eventually(lambda: shares(bench.site.see()) == pytest.approx(dict(wanted), abs=0.002))

    def test_nothing_is_there_at_first(self, bench: SiteBench) -> None:
        assert isinstance(bench.site, Site)
        assert bench.site.name
        seen = bench.site.see()
        assert not [name for name, one in seen.deployments.items() if one.readiness is not Readiness.ABSENT]
        assert shares(seen) == {}
        assert seen.foreign is None
        assert not bench.site.warm("one")
        bench.site.stop("one")

    def test_one_comes_up_without_traffic_and_is_started_once(self, bench: SiteBench) -> None:
        live = bench.live("one")
        bench.site.start(live, bench.request)
        assert seen_of(bench.site, "one").readiness in (Readiness.STARTING, Readiness.READY)
        bench.site.start(live, bench.request)
        assert bench.eventually(lambda: seen_of(bench.site, "one").readiness is Readiness.READY)
        bench.site.start(live, bench.request)
        assert seen_of(bench.site, "one").readiness is Readiness.READY
        assert shares(bench.site.see()) == {}
        assert bench.eventually(lambda: bench.site.warm("one"))
        assert seen_of(bench.site, "one").in_flight in (0, None)

    def test_what_is_stopped_goes_and_may_be_stopped_again(self, bench: SiteBench) -> None:
        self.up(bench, "one", "two")
        self.routed(bench, {"two": 1.0})
        for _ in range(2):
            bench.site.stop("one")
            assert seen_of(bench.site, "one").readiness in (Readiness.LEAVING, Readiness.ABSENT)
        assert bench.eventually(lambda: seen_of(bench.site, "one").readiness is Readiness.ABSENT)
        bench.site.stop("one")
        assert seen_of(bench.site, "two").readiness is Readiness.READY
        assert shares(bench.site.see()) == {"two": 1.0}

    def test_what_was_stopped_may_be_started_again(self, bench: SiteBench) -> None:
        self.up(bench, "one")
        bench.site.stop("one")
        assert bench.eventually(lambda: seen_of(bench.site, "one").readiness is Readiness.ABSENT)
        self.up(bench, "one")

    def test_one_that_cannot_come_up_says_why(self, bench: SiteBench) -> None:
        bench.site.start(bench.live("one", broken=True), bench.request)
        assert bench.eventually(lambda: seen_of(bench.site, "one").readiness is Readiness.FAILED)
        assert seen_of(bench.site, "one").why
        assert not bench.site.warm("one")
        bench.site.stop("one")
        assert bench.eventually(lambda: seen_of(bench.site, "one").readiness is Readiness.ABSENT)

    def test_whether_there_is_room_is_told_beforehand(self, bench: SiteBench) -> None:
        assert bench.site.no_room_for(bench.live("one"), bench.request) is None
        self.up(bench, "one")
        assert bench.site.no_room_for(bench.live("two"), bench.request) is None
        self.up(bench, "two")
        why = bench.site.no_room_for(bench.live("three"), bench.request)
        assert why
        assert "\n" not in why

    def test_what_somebody_changed_by_hand_is_told_and_left(self, bench: SiteBench) -> None:
        self.up(bench, "one")
        self.routed(bench, {"one": 1.0})
        assert bench.site.see().foreign is None
        bench.meddle("one")
        assert bench.eventually(lambda: bench.site.see().foreign is not None)
        assert bench.again().see().foreign is not None


class SharingSiteContract(SiteContract):
    """What holds of a kind that can give a share of the traffic to each of two."""

    def test_traffic_is_dealt_by_shares_under_one_address(self, bench: SiteBench) -> None:
        self.up(bench, "one", "two")
        self.routed(bench, {"one": 1.0})
        url = bench.site.url
        assert url
        for wanted in ({"one": 0.9, "two": 0.1}, {"one": 0.5, "two": 0.5}, {"two": 1.0}):
            self.routed(bench, wanted)
            assert bench.site.url == url
            if (answered := bench.asked(100)) is not None:
                assert sum(answered.values()) == 100
                assert set(answered) <= set(wanted)
                assert len(wanted) == 1 or answered["two"] < 90
        self.routed(bench, {})
        assert bench.site.see().foreign is None

    def test_a_successor_sees_the_same_and_goes_on(self, bench: SiteBench) -> None:
        self.up(bench, "one", "two")
        self.routed(bench, {"one": 0.75, "two": 0.25})
        url, before = bench.site.url, bench.site.see()
        after = bench.again()
        assert after.url == url
        assert {name: one.readiness for name, one in after.see().deployments.items()} == {
            name: one.readiness for name, one in before.deployments.items()
        }
        assert shares(after.see()) == shares(before)
        assert after.see().foreign is None
        after.start(bench.live("one"), bench.request)
        assert after.warm("one")
        after.route({"two": 1.0})
        assert bench.eventually(lambda: shares(after.see()) == {"two": 1.0})
        after.stop("one")
        assert bench.eventually(lambda: seen_of(after, "one").readiness is Readiness.ABSENT)

    def test_one_that_dies_is_not_ready_any_more_and_the_other_is(self, bench: SiteBench) -> None:
        self.up(bench, "one", "two")
        self.routed(bench, {"one": 0.5, "two": 0.5})
        bench.kill("one")
        assert bench.eventually(lambda: seen_of(bench.site, "one").readiness is not Readiness.READY)
        assert seen_of(bench.site, "two").readiness is Readiness.READY
        self.routed(bench, {"two": 1.0})


class AskedSiteContract(SharingSiteContract):
    """What holds, too, of a kind to which requests can be sent here."""

    def test_a_request_under_way_outlives_a_change_of_shares(self, bench: SiteBench) -> None:
        self.up(bench, "one", "two")
        self.routed(bench, {"one": 1.0})
        release = bench.hold("one")
        assert release is not None
        assert bench.eventually(lambda: seen_of(bench.site, "one").in_flight == 1)
        self.routed(bench, {"two": 1.0})
        assert seen_of(bench.site, "one").in_flight == 1
        release()
        assert bench.eventually(lambda: seen_of(bench.site, "one").in_flight == 0)
