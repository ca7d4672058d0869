"""A RayService for each deployment, behind a Gateway: on the API server in memory, with a stand-in for KubeRay."""

from __future__ import annotations

import pytest

from tests.kube_sites import in_memory
from tests.site_contract import SharingSiteContract


class TestKubeRaySite(SharingSiteContract):
    @pytest.fixture
    def bench(self):
        return in_memory()
