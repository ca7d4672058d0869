"""The API server in memory keeps what the real one keeps."""

import pytest

from tests.kube_contract import KubeContract
from tests.kube_fake import FakeKube


class TestFakeKube(KubeContract):
    @pytest.fixture
    def kube(self):
        return FakeKube()
