"""A browser, the page in it, and a server that says what a test wants."""

from collections.abc import Iterator

import pytest
from page_stage import PageServer, chromium, visitor
from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with visitor(browser) as opened:
        yield opened
