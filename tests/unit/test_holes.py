"""Documents with holes: filled from values, and written for Helm, by the same rules."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.specs.holes import Each, Hole, Kind, Merged, When, filled, helm_template, paths

DOCUMENT = {
    "name": Hole("a.name"),
    Hole("a.key"): Hole("a.count", text=True),
    "maybe": When("a.count", Hole("a.count")),
    "either": When("a.count", {"some": True}, {}),
    "list": [
        "first",
        When("a.extra", {"name": "extra", "value": Hole("a.extra")}),
        Each("a.groups", "g", {"name": Hole("g.name"), "of": Hole("a.name")}),
    ],
}
HELM = """\
name: {{ $a.name | toJson }}
{{ $a.key | toJson }}: {{ $a.count | toString | quote }}
{{- if $a.count }}
maybe: {{ $a.count | toJson }}
{{- end }}
{{- if $a.count }}
either:
  some: true
{{- else }}
either: {}
{{- end }}
list:
  - "first"
  {{- if $a.extra }}
  - name: "extra"
    value: {{ $a.extra | toJson }}
  {{- end }}
  {{- range $g := $a.groups }}
  - name: {{ $g.name | toJson }}
    of: {{ $a.name | toJson }}
  {{- end }}
"""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"name": "n", "key": "k", "count": 0, "extra": "", "groups": []},
            {"name": "n", "k": "0", "either": {}, "list": ["first"]},
        ),
        (
            {"name": "n", "key": "k", "count": 2, "extra": {"x": 1}, "groups": [{"name": "g1"}, {"name": "g2"}]},
            {
                "name": "n",
                "k": "2",
                "maybe": 2,
                "either": {"some": True},
                "list": [
                    "first",
                    {"name": "extra", "value": {"x": 1}},
                    {"name": "g1", "of": "n"},
                    {"name": "g2", "of": "n"},
                ],
            },
        ),
    ],
    ids=["empty values", "values"],
)
def test_holes_are_filled_and_what_is_empty_leaves_nothing(values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert filled(DOCUMENT, {"a": values}) == expected


def test_the_same_document_is_a_template_of_helm() -> None:
    assert helm_template(DOCUMENT) == HELM


def test_a_document_says_what_it_asks_for() -> None:
    assert paths(DOCUMENT) == {"a.name", "a.key", "a.count", "a.extra", "a.groups", "g.name"}


def test_a_missing_value_is_no_empty_one() -> None:
    with pytest.raises(KeyError, match="extra"):
        filled(DOCUMENT, {"a": {"name": "n", "key": "k", "count": 0, "groups": []}})


def test_a_filled_document_is_its_own() -> None:
    values = {"a": {"name": {"x": 1}, "key": "k", "count": 1, "extra": "", "groups": []}}
    filled(DOCUMENT, values)["name"]["x"] = 2
    assert values["a"]["name"] == {"x": 1}


KINDS = {
    "list": [
        Each(
            "a.groups",
            "g",
            {
                "labels": Merged(({"n": Hole("g.name")}, "k.labels", "a.labels")),
                "any": When(("g.extra", "k.extra"), True),
                "entries": [Each("k.entries", "e", Hole("e"))],
            },
            ("extra", "kind"),
            Kind("k", "a.kinds", "g.kind", ("labels", "extra", "entries")),
        )
    ]
}


def test_an_element_may_be_of_a_kind_and_mappings_are_merged() -> None:
    kinds = {"big": {"labels": {"x": "kind", "n": "kind"}, "extra": 1, "entries": [{"a": 1}]}}
    groups = [{"name": "g1", "kind": "big"}, {"name": "g2", "kind": "unknown"}, {"name": "g3", "extra": 2}]
    found = filled(KINDS, {"a": {"labels": {"x": "all", "y": "all"}, "kinds": kinds, "groups": groups}})["list"]
    assert found == [
        {"labels": {"n": "g1", "x": "kind", "y": "all"}, "any": True, "entries": [{"a": 1}]},
        {"labels": {"n": "g2", "x": "all", "y": "all"}, "entries": []},
        {"labels": {"n": "g3", "x": "all", "y": "all"}, "any": True, "entries": []},
    ]
    of_groups = {"a.groups", "a.kinds", "g.kind", "g.name", "g.extra"}
    assert paths(KINDS) == of_groups | {"k.labels", "a.labels", "k.extra", "k.entries", "e"}


@pytest.mark.parametrize("gone", ["labels", "kinds"])
def test_what_is_not_optional_is_asked_for_in_these_too(gone: str) -> None:
    values = {"labels": {}, "kinds": {}, "groups": [{"name": "g"}]}
    del values[gone]
    with pytest.raises(KeyError, match=gone):
        filled(KINDS, {"a": values})
