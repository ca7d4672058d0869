"""The service under random requests made from its description; ``tests.benchmarks.service_fuzz`` sends many more."""

from __future__ import annotations

import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_request_breaks_it_and_every_answer_is_described(tmp_path):
    from tests.benchmarks import service_fuzz  # here, as collecting the tests need not wait for its library

    app, store = service_fuzz.service(tmp_path)
    done, failures = service_fuzz.fuzz(app, store, cases=440, start=7)
    store.close()
    assert sum(done.values()) > 300
    assert failures == []
