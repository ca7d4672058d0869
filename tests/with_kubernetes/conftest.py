"""One API server for all tests of this folder, whose name puts them last: until then the server may be built."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api_server import ApiServer
from tests.kube_bench import RealKube, prepare
from tests.tools import ToolMissing


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    try:
        started = ApiServer(tmp_path_factory.mktemp("api-server"))
    except ToolMissing as error:  # it is built from Debian's sources as root, which not every machine can
        pytest.skip(str(error))
    try:
        yield started.start()
    finally:
        started.stop()


@pytest.fixture(scope="session")
def prepared(server: ApiServer) -> RealKube:
    return prepare(server)


@pytest.fixture
def kube(prepared: RealKube) -> Iterator[RealKube]:
    """Whoever may do everything, in an empty namespace."""
    prepared.clean()
    yield prepared
    prepared.clean()
