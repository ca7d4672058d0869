"""The page shows every figure that is drawn, and a row for every ordering."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.studies.ordering import Finding
from tests.studies.report import ORDERINGS, page


def test_the_page_has_a_row_for_every_ordering_and_a_reason_for_every_gap() -> None:
    text = page([(ordering, Finding(ordering.gap is None, "1 ms")) for ordering in ORDERINGS])
    rows = [line for line in text.splitlines() if line.endswith("| 1 ms |")]
    assert len(rows) == len(ORDERINGS) == len({(ordering.study, ordering.claim) for ordering in ORDERINGS})
    for ordering in ORDERINGS:
        assert ordering.gap is None or ordering.gap in text


def test_figures_are_drawn_for_the_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from tests.studies.figures import draw_all

    paths = draw_all(tmp_path)
    text = page([])
    for path in paths:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert f"({path.name})" in text
    assert text.count(".svg)") == len(paths)
