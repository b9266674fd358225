"""What the call panel says about a number while it is being typed; the server has the last word."""

from collections.abc import Iterator
from typing import Any

import pytest
from page_stage import PageServer, visitor
from playwright.sync_api import Browser, Page, expect

GERMAN = {"region": "DE", "country_code": 49}
AMERICAN = {"region": "US", "country_code": 1}


@pytest.fixture(scope="module")
def still_page(browser: Browser) -> Iterator[Page]:
    """For what is computed without a server."""
    with PageServer() as server, visitor(browser) as opened:
        opened.goto(server.url)
        yield opened


@pytest.fixture
def panel(page: Page, server: PageServer) -> Page:
    server.phone.about |= {"allowed": ["+1", "+4930"]}
    page.goto(server.url)
    page.get_by_role("button", name="Call a phone").click()
    expect(page.get_by_label("Phone number")).to_be_focused()
    return page


def looked(page: Page, text: str, phone: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("([text, phone]) => Ahoy.phoneNumber.look(text, phone)", [text, phone or {}])
    return found


@pytest.mark.parametrize(
    ("typed", "country"),
    [
        ("+49 30 23125 010", "Germany +49"),
        ("+1 (202) 555-0123", "United States or Canada +1"),
        ("+1 876 555 0123", "Jamaica +1876"),
        ("+7 495 1234567", "Russia +7"),
        ("+7 701 1234567", "Kazakhstan +77"),
        ("+44", "United Kingdom +44"),
        ("\uff0b49\u00a030", "Germany +49"),
        ("+3", None),
        ("+999 1234567", None),
    ],
)
def test_the_country_is_known_from_the_first_digits(still_page: Page, typed: str, country: str | None) -> None:
    found = looked(still_page, typed)
    assert found["wrong"] is None
    said = found["country"] and f"{found['country']['name']} +{found['country']['code']}"
    assert said == country


@pytest.mark.parametrize(
    ("typed", "phone", "name", "assumed"),
    [
        ("030 23125", GERMAN, "Germany", True),
        ("0044 20 7946 0123", GERMAN, "United Kingdom", False),
        ("202 555 0123", AMERICAN, "United States", True),
        ("011 49 30 23125", AMERICAN, "Germany", False),
    ],
)
def test_without_a_plus_the_servers_country_counts(
    still_page: Page, typed: str, phone: dict[str, Any], name: str, assumed: bool
) -> None:
    found = looked(still_page, typed, phone)
    assert (found["country"]["name"], found["country"]["assumed"]) == (name, assumed)


@pytest.mark.parametrize(
    ("typed", "phone", "wrong"),
    [
        ("1-800-PHONE", AMERICAN, "characters"),
        ("+49 30 +1", {}, "characters"),
        ("030 23125", {}, "region"),
        ("+030 23125", {}, "zero"),
        ("+1234567890123456", {}, "long"),
        ("+123456789012345", {}, None),
        ("\u0660\u0663\u0660 \u0662\u0663", GERMAN, None),  # the server reads the digits of every script
        ("+49/30–23125.010", {}, None),
        ("", {}, None),
    ],
)
def test_only_what_cannot_be_a_number_is_wrong(
    still_page: Page, typed: str, phone: dict[str, Any], wrong: str | None
) -> None:
    assert looked(still_page, typed, phone)["wrong"] == wrong


@pytest.mark.parametrize(
    ("typed", "outside"),
    [("+", False), ("+4", False), ("+49 30 1", False), ("+49 89", True), ("+44", True), ("+1 2", False)],
)
def test_a_number_that_cannot_come_to_be_allowed_is_noticed(still_page: Page, typed: str, outside: bool) -> None:
    assert looked(still_page, typed, {"allowed": ["+1", "+4930"]})["outside"] is outside


@pytest.mark.parametrize(
    ("number", "shown"),
    [("+12025550123", "+1 202 555 0123"), ("+493023125010", "+49 3023125010"), ("anonymous", "anonymous")],
)
def test_a_number_is_shown_in_parts(still_page: Page, number: str, shown: str) -> None:
    assert still_page.evaluate("(number) => Ahoy.phoneNumber.forReading(number)", number) == shown


def test_what_is_wrong_is_said_at_once_with_an_example(panel: Page, server: PageServer) -> None:
    field, hint = panel.get_by_label("Phone number"), panel.locator("#number-hint")
    field.press_sequentially("+49 30")
    expect(hint).to_have_text("Germany +49")
    expect(field).to_have_attribute("aria-invalid", "false")
    field.press_sequentially("x")
    expect(hint).to_contain_text("only digits")
    expect(hint).to_contain_text("like +1 202 555 0123")
    expect(field).to_have_attribute("aria-invalid", "true")
    panel.keyboard.press("Enter")
    expect(field).to_be_focused()
    assert server.phone.requests("POST") == []


def test_an_unfinished_number_is_wrong_only_when_it_is_called(panel: Page, server: PageServer) -> None:
    field, hint = panel.get_by_label("Phone number"), panel.locator("#number-hint")
    field.fill("+49 30")
    expect(hint).to_have_text("Germany +49")
    panel.get_by_role("button", name="Call", exact=True).click()
    expect(hint).to_contain_text("Write the whole number")
    expect(field).to_be_focused()
    field.press_sequentially("1")
    expect(hint).to_have_text("Germany +49")
    assert server.phone.requests("POST") == []


def test_local_numbers_are_taken_for_the_servers_country(page: Page, server: PageServer) -> None:
    server.phone.about |= GERMAN
    page.goto(server.url)
    page.get_by_role("button", name="Call a phone").click()
    page.get_by_label("Phone number").fill("030 23125 010")
    expect(page.locator("#number-hint")).to_have_text("Without a +, a number in Germany (+49)")
    page.keyboard.press("Enter")
    expect(page.locator("#call-status")).to_have_text("Queued")
    assert server.phone.requests("POST")[0]["json"] == {"number": "030 23125 010"}


def test_the_allowed_prefixes_are_a_hint_and_the_server_decides(panel: Page, server: PageServer) -> None:
    hint = panel.locator("#allowed-hint")
    expect(hint).to_have_text("This server calls numbers that begin with +1 or +4930.")
    server.phone.refusal = (403, {"code": "not_allowed", "message": "Calls to +44 are not allowed here."})
    panel.get_by_label("Phone number").fill("+44 20 7946 0123")
    expect(hint).to_have_class("field-hint doubt")
    panel.keyboard.press("Enter")
    expect(panel.get_by_role("alert")).to_contain_text("Calls to +44 are not allowed here.")
    assert len(server.phone.requests("POST")) == 1
