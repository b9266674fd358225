"""One server for all tests of the browser's WebSocket that need nothing special of it."""

from collections.abc import Iterator

import pytest
from app_server import AppServer


@pytest.fixture(scope="session")
def shared_server() -> Iterator[AppServer]:
    with AppServer() as server:
        yield server


@pytest.fixture
def server(shared_server: AppServer, caplog: pytest.LogCaptureFixture) -> Iterator[AppServer]:
    """The shared server; after each test nothing of it is left there, and nothing failed that we had not foreseen."""
    yield shared_server
    shared_server.nothing_is_left()
    failures = [record.getMessage() for record in caplog.get_records("call") if record.exc_info]
    assert [failure for failure in failures if "Invalid UTF-8" not in failure] == []
