"""Every value says what it is, and the page says the same."""

from __future__ import annotations

import yaml

from tests.helm.values_table import PAGE, SCHEMA, VALUES, described, values, with_table


def test_the_page_has_the_table_of_the_present_values() -> None:
    """Renewed by ``python -m tests.helm.values_table``."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page)


def test_the_schema_says_of_each_value_what_it_is() -> None:
    """Renewed as the page is."""
    text = SCHEMA.read_text(encoding="utf-8")
    assert text == described(text)
    assert text.count('"description":') > 150


def test_every_value_is_in_it() -> None:
    known = {value.path for value in values(VALUES.read_text(encoding="utf-8"))}

    def walk(node: object, way: tuple[str, ...] = ()) -> None:
        assert not way or ".".join(way) in known or "/" in way[-1]
        if isinstance(node, dict):
            for name, inner in node.items():
                walk(inner, (*way, name))

    walk(yaml.safe_load(VALUES.read_text(encoding="utf-8")))
