"""The custom resource: its definition is current, structural and as strict as the request; names; conditions."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from deploy.controller import crd as definitions
from deploy.controller.asking import Runs, order_of
from deploy.controller.conditions import said
from deploy.controller.manifests import holds, ready
from deploy.controller.names import FINALIZER, Key, label_of, owner_of, studies_of, study_of
from deploy.controller.observed import Asked, Observed, Refused, Resource, StudySeen, Verdict
from deploy.controller.reconcile import TEARDOWN_S, Cancel, Hold, Release, Resume, Say, Submit, next_action
from deploy.controller.resource import CONDITIONS, Spec
from deploy.controller.status import status, told
from deploy.controller.structural import INT_OR_STRING, KEEP, structural
from deploy.controller.writing import layout_request_text
from tests import crd
from tests.layout_requests import layout_request, serving_status
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import parse_request
from tuner.study.lifecycle import StudyState
from tuner.study.orders import Wish

NOW = "2026-01-01T00:00:00Z"
SCHEMA = definitions.schema()
STRICT = crd.strict_validator(SCHEMA)


def problems(document: Any) -> list[str]:
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in STRICT.iter_errors(document)]


# The definition


@pytest.mark.slow
def test_the_charts_file_is_current():
    assert definitions.FILE.read_text(encoding="utf-8") == definitions.text(), "python -m deploy.controller.crd"
    assert yaml.safe_load(definitions.text()) == definitions.definition()


def nodes(schema: Any, at: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(at, schema)]
    for name, part in schema.get("properties", {}).items():
        found += nodes(part, f"{at}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += nodes(schema[key], f"{at}[]")
    return found


def test_it_is_structural():
    """The rules of apiextensions.k8s.io/v1 that an API server refuses a schema for."""
    for at, node in nodes(SCHEMA):
        assert not {"$ref", "$defs", "title", "anyOf", "oneOf", "allOf", "not", "const"} & node.keys(), at
        assert ("type" in node) != bool(node.get(INT_OR_STRING) or (node.get(KEEP) and "type" not in node)), at
        assert node.get("additionalProperties") is not False, at
        assert not ("properties" in node and "additionalProperties" in node), at
        assert ("items" in node) == (node.get("type") == "array"), at
        assert isinstance(node.get("exclusiveMinimum", True), bool), at
        assert "default" not in node or at == ".spec.deploy", f"{at}: a default would be written into what is kept"


def test_unknown_keys_are_kept_only_where_a_key_has_several_types():
    kept = {at for at, node in nodes(SCHEMA) if node.get(KEEP)}
    request = ".spec.request"
    assert kept == {f"{request}.cluster", f"{request}.space", f"{request}.engine.extra_args"}


@pytest.mark.parametrize(
    "given",
    [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}],
)
def test_an_integer_or_a_string_is_both(given):
    assert structural(given) == {INT_OR_STRING: True}


def test_every_key_of_a_request_is_there():
    for name in TuneRequest.model_fields:
        assert name in SCHEMA["properties"]["spec"]["properties"]["request"]["properties"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cluster": [{"gpu": "h100_sxm", "gpus_per_node": 8}, {"gpu": "l4", "gpus_per_node": 4}]},
        {"space": {"tp": [1, 2]}},
        {"engine": {"max_model_len": 4096, "extra_args": {"seed": 1}, "env": {"NCCL_DEBUG": "INFO"}}},
        {"attainment": 0.99, "objective": "max_goodput", "second_objective": "min_cost"},
        {"workload.prompt_tokens": {"mean": 100, "min": 50, "max": 150}},
        {"budget": {"launches": 3, "minutes": 10.5, "gpu_hours": 4, "usd": 100}},
    ],
)
def test_a_valid_request_is_valid(changes):
    given = layout_request(changes=changes)
    parse_request(given["spec"]["request"])
    assert problems(given) == []
    whole = parse_request(given["spec"]["request"]).model_dump(mode="json", exclude_none=True)
    assert problems(layout_request(changes={}) | {"spec": {"request": whole}}) == []


@pytest.mark.parametrize(
    ("changes", "spec", "named"),
    [
        ({"slo": []}, {}, "slo"),
        ({"objective": "cheapest"}, {}, "cheapest"),
        ({"slo.0.ms": 0}, {}, "slo/0/ms"),
        ({"slo.0.metric": "latency"}, {}, "latency"),
        ({"budget.launches": "many"}, {}, "budget/launches"),
        ({"sloo": []}, {}, "sloo"),
        ({}, {"deploy": "maybe"}, "maybe"),
        ({}, {"target": {"name": "Not_a_label"}}, "Not_a_label"),
    ],
)
def test_a_wrong_one_is_refused_with_the_place(changes, spec, named):
    found = problems(layout_request(changes=changes, **spec))
    assert any(named in problem for problem in found), found


def test_columns_look_at_what_is_there():
    paths = {at for at, _ in nodes(SCHEMA)} | {".metadata.creationTimestamp"}
    for column in definitions.COLUMNS:
        assert re.sub(r"\[.*?\]", "[]", column["jsonPath"]) in paths, column


# Names


def test_labels_are_short_and_each_names_own():
    names = ["llama", "a" * 60, "a" * 61, "a.b", "a-b", "9b", "-" * 3 + "x"]
    labels = [label_of(name) for name in names]
    assert labels[0] == "llama"
    assert len(set(labels)) == len(names)
    for label in labels:
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", label)


def test_a_study_is_of_what_is_asked():
    key = Key("ns", "a.b")
    assert study_of(key, "u", [1]) == study_of(key, "u", [1])
    assert len({study_of(key, "u", [1]), study_of(key, "u", [2]), study_of(key, "v", [1])}) == 3
    assert study_of(key, "u", [1]).startswith(studies_of(key, "u"))
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", study_of(Key("n" * 63, "x" * 253), "u", [1]))


def test_what_becomes_of_the_winner_is_no_other_study():
    def study(**spec: Any) -> str:
        found = order_of(Resource(_stored(layout_request(**spec))), parse_request, Runs(("simulated",)))
        assert not isinstance(found, Refused)
        return found.asked.study

    assert study() == study(deploy="manual") == study(priority=3) == study(target={"image": "x"})
    assert study() == study(changes={"isolation": "node"})  # as it is by default: a later key will be absent too
    assert study() != study(simulatedSeed=3)
    assert study() != study(changes={"slo.0.ms": 7})


# What is next


def _stored(document: Any, **meta: Any) -> Any:
    more = {"uid": "1-2", "generation": 1, "resourceVersion": "5", "finalizers": [FINALIZER]}
    return document | {"metadata": document["metadata"] | more | meta}


def seen(state: StudyState | None = None, asked: Any = None, **more: Any) -> Observed:
    study = None if state is None else StudySeen("ns.llama.1.2", state)
    given = {"asked": asked or Asked("ns.llama.1.2", True, "llama"), "study": study, **more}
    return Observed(
        more.pop("resource", Resource(_stored(layout_request()))), **{k: v for k, v in given.items() if k != "resource"}
    )


OTHER = StudySeen("ns.llama.1.9", StudyState.RUNNING)
GOING = Resource(_stored(layout_request(), deletionTimestamp=NOW))


def first(observed: Observed) -> Any:
    return next_action(observed, NOW)


def test_nothing_begins_before_it_is_held():
    loose = Resource(_stored(layout_request(), finalizers=[]))
    assert first(seen(resource=loose)) == Hold()
    assert first(seen()) == Submit()


def test_another_study_is_cancelled_once_the_status_names_the_new_one():
    said_first = first(seen(StudyState.QUEUED, others=(OTHER,)))
    assert isinstance(said_first, Say)
    named = Resource(_stored(layout_request()) | {"status": said_first.status})
    assert first(seen(StudyState.QUEUED, others=(OTHER,), resource=named)) == Cancel(OTHER.name)
    asked = StudySeen(OTHER.name, StudyState.RUNNING, Wish.CANCEL)
    assert first(seen(StudyState.QUEUED, others=(asked,), resource=named)) is None


def test_a_cancelled_study_is_resumed_only_if_another_was_asked_for_since():
    def named(study: str) -> Resource:
        return Resource(_stored(layout_request()) | {"status": {"study": study}})

    assert first(seen(StudyState.CANCELLED, resource=named("another"))) == Resume("ns.llama.1.2")
    assert isinstance(first(seen(StudyState.CANCELLED, resource=named("ns.llama.1.2"))), Say)
    ending = StudySeen("ns.llama.1.2", StudyState.RUNNING, Wish.CANCEL)
    waits = first(seen(study=ending, resource=named("another")))
    assert isinstance(waits, Say)
    assert waits.status["study"] == "another"  # until it has ended, so that it is resumed then
    told = Resource(_stored(layout_request()) | {"status": waits.status})
    assert first(seen(study=ending, resource=told, others=(OTHER,))) is None  # nor is what the status names cancelled


def test_a_deleted_one_waits_for_its_studies_but_not_for_ever():
    assert first(seen(StudyState.QUEUED, resource=GOING)) == Cancel("ns.llama.1.2")
    ending = StudySeen("ns.llama.1.2", StudyState.RUNNING, Wish.CANCEL)
    assert isinstance(first(seen(study=ending, resource=GOING)), Say)
    assert first(seen(study=ending, resource=GOING, deleted_s=TEARDOWN_S + 1)) == Release()
    assert first(seen(StudyState.DECIDED, resource=GOING)) == Release()


@pytest.mark.parametrize("state", [None, *StudyState])
@pytest.mark.parametrize("wish", [None, Wish.CANCEL, Wish.PAUSE])
def test_every_status_fits_the_schema_and_has_every_condition(state, wish):
    study = (
        None
        if state is None
        else StudySeen("s", state, wish, "why", "tp=1", {"launches": 1, "minutes": 2.5, "gpuHours": 1})
    )
    verdict = Verdict("tp=1,pp=1,dp=1", 1, 2.5, "it is best", None, Refused("NoManifest", "no Ray"))
    for found in (study, study and StudySeen("s", study.state, wish, verdict=verdict)):
        document = layout_request() | {"status": status(seen(study=found), NOW)}
        assert problems(document) == []
        assert [c["type"] for c in document["status"]["conditions"]] == list(CONDITIONS)
        assert all(re.fullmatch(r"[A-Z][A-Za-z]+", c["reason"]) for c in document["status"]["conditions"])


@given(st.text("ab-", min_size=1, max_size=63), st.text("ab-", min_size=1, max_size=63))
@example("a" * 62 + "a", "a" * 62 + "b")
def test_no_two_namespaces_share_an_account(one, other):
    """A quota is one's own, and so are turns in the queue."""
    owners = {owner_of(Key(namespace, "llama")) for namespace in (one, other)}
    assert len(owners) == len({one, other})
    assert max(map(len, owners)) <= 60


def test_why_a_study_is_paused_is_said_and_told():
    """A quota pauses it, and nobody who asks with kubectl sees the store."""
    paused = StudySeen("ns.llama.1.2", StudyState.PAUSED, problem="the quota of kubernetes/ns: 4 of 4 GPU-hours")
    found = status(seen(study=paused), NOW)
    (condition,) = (c for c in found["conditions"] if c["type"] == "Studying")
    assert (condition["status"], condition["reason"]) == ("False", "Paused")
    assert condition["message"].endswith(": the quota of kubernetes/ns: 4 of 4 GPU-hours")
    assert ("Warning", "Paused") in [(event.kind, event.reason) for event in told(seen(study=paused), found)]


def test_a_time_of_transition_stays_while_nothing_changes():
    before = status(seen(StudyState.QUEUED), NOW)
    later = Resource(_stored(layout_request()) | {"status": before})
    after = status(seen(StudyState.RUNNING, resource=later), "2027-01-01T00:00:00Z")
    times = {c["type"]: c["lastTransitionTime"] for c in after["conditions"]}
    assert set(times.values()) == {NOW}  # running is Studying as queued was
    ended = status(seen(StudyState.FAILED, resource=later), "2027-01-01T00:00:00Z")
    assert {c["type"] for c in ended["conditions"] if c["lastTransitionTime"] != NOW} == {"Studying", "Failed"}


def test_refused_says_why():
    words = said(seen(asked=Refused("InvalidRequest", "spec.request: no")))
    assert words["Accepted"] == ("False", "InvalidRequest", "spec.request: no")
    assert words["RolledOut"][:2] == ("False", "Refused")


# What is there


@pytest.mark.parametrize(
    ("found", "wanted", "so"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [{"name": "x", "v": 1, "more": 2}, {"name": "y"}]}, {"a": [{"name": "x", "v": 1}]}, True),
        ({"a": [{"name": "y"}]}, {"a": [{"name": "x"}]}, False),
        ({"a": []}, {"a": []}, True),
        ({}, {"a": []}, False),
        (None, {"a": 1}, False),
    ],
)
def test_what_is_wanted_is_there(found, wanted, so):
    assert holds(found, wanted) is so


def test_ready_is_what_kuberay_says_of_the_newest_generation():
    service: dict[str, Any] = {"metadata": {"generation": 2}}
    now = service | {"status": serving_status(service)}
    assert ready(now)
    assert not ready(service)
    assert not ready(now | {"metadata": {"generation": 3}})
    upgrading = [{"type": "Ready", "status": "True"}, {"type": "UpgradeInProgress", "status": "True"}]
    assert not ready(now | {"status": {**now["status"], "conditions": upgrading}})
    before_1_3 = {"observedGeneration": 2, "serviceStatus": "Running"}
    assert ready(now | {"status": before_1_3})
    assert not ready(now | {"status": before_1_3 | {"serviceStatus": "WaitForServeDeploymentReady"}})


def test_the_models_are_those_of_the_definition():
    assert set(SCHEMA["properties"]["spec"]["properties"]) == {
        field.alias or name for name, field in Spec.model_fields.items()
    }


# Written


def test_the_one_that_the_page_shows_is_valid():
    page = (definitions.FILE.parents[3] / "docs" / "layoutrequest.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
    assert problems(yaml.safe_load(shown)) == []


@pytest.mark.parametrize("seed", [None, 3])
def test_what_is_written_asks_for_the_same_study(seed):
    changes = {"engine": {"env": {"NCCL_DEBUG": "INFO"}}, "space": {"tp": [1]}, "objective": ["min_cost", "min_gpus"]}
    request = parse_request(layout_request(changes=changes)["spec"]["request"])
    text = layout_request_text("Llama 3.1", request, seed, image="registry/vllm:1", rayVersion=None)
    found = yaml.safe_load(text)
    assert problems(found) == []
    assert found["spec"]["target"] == {"image": "registry/vllm:1"}
    assert parse_request(found["spec"]["request"]) == request
    assert found["spec"].get("simulatedSeed") == seed
    assert re.fullmatch("llama-3-1-[0-9a-f]{8}", found["metadata"]["name"])
