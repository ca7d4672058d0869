"""What is said of a LayoutRequest that is watched, and which of its studies are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from deploy.controller.observed import Asked, Observed, Refused, Resource, StudySeen, WatchedSeen
from deploy.controller.resource import Retune, RetuneGateway
from deploy.controller.retuning import held, is_watched, rolled_out, site_of, to_let, watching
from tests.layout_requests import layout_request
from tuner.app.controller.kuberay_place import KubeSite
from tuner.retune.policy import RetunePolicy
from tuner.study.lifecycle import StudyState

POLICY = RetunePolicy()
RETUNE = Retune(policy=POLICY, gateway=RetuneGateway(name="public", url="http://models.example"))
ASKED = Asked("s2", True, "llama", retune=RETUNE)
NEW, OLD = WatchedSeen("s2", POLICY, True), WatchedSeen("s1", POLICY, True)


def observed(asked=ASKED, *, deleting=False, **changes):
    document = layout_request()
    document["metadata"] |= {"uid": "u1"} | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleting else {})
    return Observed(Resource(document), asked, StudySeen("s2", StudyState.DECIDED), **changes)


@pytest.mark.parametrize(
    ("seen", "let"),
    [
        (observed(watched=(NEW,)), None),
        (observed(watched=(OLD,)), None),  # until the new one is watched, what serves is
        (observed(watched=(OLD, NEW)), "s1"),
        (observed(Refused("InvalidSpec", "no"), watched=(OLD,)), None),
        (observed(replace(ASKED, retune=None), watched=(NEW,)), "s2"),
        (observed(replace(ASKED, auto=False), watched=(NEW,)), "s2"),
        (observed(deleting=True, watched=(NEW,)), "s2"),
        (observed(Refused("InvalidSpec", "no"), deleting=True, watched=(OLD,)), "s1"),
        (observed(), None),
    ],
)
def test_which_is_watched_no_more(seen, let):
    found = to_let(seen)
    assert (None if found is None else found.study) == let


SAID = {
    "refused": (observed(Refused("InvalidSpec", "no")), ("False", "Refused"), ("False", "NotWatched")),
    "not asked": (observed(replace(ASKED, retune=None)), ("False", "NotAsked"), ("False", "NotWatched")),
    "manual": (observed(replace(ASKED, auto=False)), ("False", "NotAsked"), ("False", "NotWatched")),
    "not yet": (observed(), ("False", "NotYet"), ("False", "NotWatched")),
    "in another place": (
        observed(refused={"watch": Refused("NotWatched", "elsewhere")}),
        ("False", "NotWatched"),
        ("False", "NotWatched"),
    ),
    "paused": (observed(watched=(replace(NEW, paused=True, state="held"),)), ("False", "Paused"), ("True", "Held")),
    "by nobody": (
        observed(watched=(replace(NEW, attended=False, state="well"),)),
        ("Unknown", "NobodyWatches"),
        ("False", "NotHeld"),
    ),
    "not looked at": (observed(watched=(NEW,)), ("Unknown", "NobodyWatches"), ("False", "NotWatched")),
    "blind": (observed(watched=(replace(NEW, state="blind", text="?"),)), ("True", "Blind"), ("Unknown", "Blind")),
    "held": (observed(watched=(replace(NEW, state="held", text="no room"),)), ("True", "Held"), ("True", "Held")),
    "acting": (observed(watched=(replace(NEW, state="acting"),)), ("True", "Acting"), ("False", "NotHeld")),
    "well": (observed(watched=(replace(NEW, state="well", text="99.1 %"),)), ("True", "Well"), ("False", "NotHeld")),
}


@pytest.mark.parametrize(("seen", "watch", "hold"), SAID.values(), ids=SAID.keys())
def test_what_is_said(seen, watch, hold):
    assert watching(seen)[:2] == watch
    assert held(seen)[:2] == hold


def test_what_is_well_is_said_in_the_same_words_however_the_figures_move():
    """A status that changed at every look would be written at every look."""
    looks = [observed(watched=(replace(NEW, state="well", text=text),)) for text in ("99.1 %", "99.2 %")]
    assert len({watching(one) for one in looks}) == 1


def test_what_is_rolled_out_is_what_serves():
    assert rolled_out(observed(watched=(NEW,)))[:2] == ("False", "RollingOut")
    serving = replace(NEW, serving="s2-d1", layout="tp=2")
    assert rolled_out(observed(watched=(serving,))) == ("True", "Serving", "s2-d1 serves tp=2")


def test_another_policy_is_another_order():
    seen = observed(watched=(NEW,))
    assert is_watched(seen, ASKED)
    other = replace(ASKED, retune=Retune(policy=RetunePolicy(cool_down_hours=1.0)))
    assert not is_watched(seen, other)
    assert not is_watched(observed(watched=(OLD,)), ASKED)


def test_where_it_serves_is_kept_as_the_place_reads_it():
    site = KubeSite.model_validate(site_of(observed(), ASKED))
    assert (site.namespace, site.service, site.watched) == ("serving", "llama", "serving/llama/u1")
    assert site.gateway is not None
    assert site.gateway.url == "http://models.example"
    assert site.carried["ownerReferences"][0]["uid"] == "u1"
    assert KubeSite.model_validate(site.kept()) == site


def test_traffic_is_dealt_in_one_way():
    """One of the two would be passed over without a word."""
    gateway = {"name": "public", "url": "http://models.example"}
    upgrades = {"gatewayClass": "istio", "gatewayUrl": "http://models.example"}
    with pytest.raises(ValidationError, match="either gateway or upgrades"):
        Retune.model_validate({"gateway": gateway, "upgrades": upgrades})
