"""Every ordering that the published studies report holds under the cost model, or is a gap with its reason."""

import pytest
from _pytest.mark.structures import ParameterSet

from tests.studies.ordering import Ordering
from tests.studies.report import ORDERINGS


def _case(ordering: Ordering) -> ParameterSet:
    marks = [pytest.mark.xfail(reason=ordering.gap, strict=True, raises=AssertionError)] if ordering.gap else []
    return pytest.param(ordering, id=f"{ordering.study.split(',')[0]}: {ordering.claim}", marks=marks)


@pytest.mark.parametrize("ordering", [_case(ordering) for ordering in ORDERINGS])
def test_the_model_orders_layouts_as_the_study_did(ordering: Ordering) -> None:
    found = ordering.check()
    assert found.holds, found.figures
