"""The call panel when the server refuses, wants its key, or is not there: said in words, nothing called twice."""

from typing import Any

import pytest
from app_server import AppServer, scripted
from page_stage import PageServer, page_from_disk, wait_until
from playwright.sync_api import Page, expect

NUMBER = "+1 202 555 0123"
KEY = "a-key-of-the-server"


def open_panel(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="Call a phone").click()


def press_call(page: Page) -> None:
    page.get_by_label("Phone number").fill(NUMBER)
    page.get_by_role("button", name="Call", exact=True).click()


def call(page: Page, server: PageServer) -> None:
    open_panel(page, server)
    press_call(page)
    expect(page.locator("#call-status")).to_have_text("Queued")


def keys_sent(server: PageServer) -> list[str]:
    return [one["headers"]["idempotency-key"] for one in server.phone.requests("POST")]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"code": "bad_number", "message": "“+1 202 555 0123” is not a number that exists."}),
        (403, {"code": "premium_number", "message": "Premium-rate numbers are never called."}),
        (429, {"code": "quota", "message": "10 calls an hour were placed. Try again in 12 minutes."}),
    ],
)
def test_a_refusal_of_the_server_is_shown_and_the_next_try_is_a_new_one(
    page: Page, server: PageServer, status: int, error: dict[str, Any]
) -> None:
    server.phone.refusal = (status, error)
    open_panel(page, server)
    press_call(page)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The call was not placed")
    expect(alert).to_contain_text(error["message"])
    expect(page.get_by_label("Phone number")).to_have_value(NUMBER)
    server.phone.refusal = None
    page.get_by_role("button", name="Call", exact=True).click()
    expect(page.locator("#call-status")).to_have_text("Queued")
    expect(alert).to_be_hidden()
    assert len(set(keys_sent(server))) == 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (503, {"code": "lines_busy", "message": "All lines are busy."}),
        (502, {"code": "twilio_20003", "message": "Twilio refuses: check TWILIO_AUTH_TOKEN.", "twilio_code": 20003}),
    ],
)
def test_trouble_behind_the_server_was_no_call_and_still_the_key_is_kept(
    page: Page, server: PageServer, status: int, error: dict[str, Any]
) -> None:
    server.phone.refusal = (status, error)
    open_panel(page, server)
    press_call(page)
    expect(page.get_by_role("alert")).to_contain_text("The call was not placed")
    expect(page.get_by_role("alert")).to_contain_text(error["message"])
    server.phone.refusal = None
    page.get_by_role("button", name="Call", exact=True).click()
    expect(page.locator("#call-status")).to_have_text("Queued")
    assert len(set(keys_sent(server))) == 1


def test_after_an_answer_that_never_came_trying_again_cannot_dial_twice(page: Page, server: PageServer) -> None:
    server.phone.silent.add("POST")
    open_panel(page, server)
    press_call(page)
    expect(page.get_by_role("alert")).to_contain_text("It is not known whether the call was placed")
    server.phone.silent.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#call-status")).to_have_text("Queued")
    assert len(keys_sent(server)) >= 2
    assert len(set(keys_sent(server))) == 1
    assert list(server.phone.calls) == ["CA1"]


def test_a_server_that_does_not_know_whether_it_dialled_is_asked_with_the_same_key(
    page: Page, server: PageServer
) -> None:
    server.phone.refusal = (504, {"code": "twilio_timeout", "message": "Twilio did not answer in time."})
    open_panel(page, server)
    press_call(page)
    expect(page.get_by_role("alert")).to_contain_text(
        "Twilio did not answer in time. Try again: the number is not called"
    )
    anew = page.get_by_role("button", name="Place a new call all the same")
    expect(anew).to_be_hidden()
    page.get_by_role("button", name="Try again").click()
    wait_until(lambda: len(keys_sent(server)) == 2, "the second request")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    anew.click()  # by somebody who has looked into the console
    wait_until(lambda: len(keys_sent(server)) == 3, "the request for a new call")
    expect(anew).to_be_hidden()
    page.get_by_label("Phone number").fill("+1 202 555 0124")
    page.get_by_role("button", name="Call", exact=True).click()
    wait_until(lambda: len(keys_sent(server)) == 4, "the request for the other number")
    first, again, new, other = keys_sent(server)
    assert first == again
    assert len({first, new, other}) == 3


def test_a_server_that_keeps_silent_is_not_waited_for_forever(page: Page, server: PageServer) -> None:
    page.clock.install()
    open_panel(page, server)
    server.phone.waiting.clear()
    press_call(page)
    expect(page.locator("#call-status")).to_have_text("Calling")
    wait_until(lambda: server.phone.requests("POST"), "the request")
    page.clock.fast_forward(31_000)
    expect(page.get_by_role("alert")).to_contain_text("The server takes too long to answer.")
    server.phone.waiting.set()


def test_a_server_that_is_not_there_is_said_and_tried_again_on_demand(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    server.down()
    page.get_by_role("button", name="Call a phone").click()
    box = page.locator("#call-closed")
    expect(box).to_contain_text("The telephone cannot be reached")
    expect(box).to_contain_text("The server does not answer.")
    server.up()
    box.get_by_role("button", name="Try again").click()
    expect(page.get_by_label("Phone number")).to_be_focused()


def test_a_device_without_a_network_says_so(page: Page, server: PageServer) -> None:
    open_panel(page, server)
    expect(page.get_by_label("Phone number")).to_be_focused()
    page.context.set_offline(True)
    press_call(page)
    expect(page.get_by_role("alert")).to_contain_text("This device is offline.")
    page.context.set_offline(False)


def test_a_broken_stream_is_taken_up_again(page: Page, server: PageServer) -> None:
    call(page, server)
    wait_until(lambda: server.phone.requests("GET", "/api/call/CA1/events"), "the stream")
    server.phone.cut()
    wait_until(lambda: len(server.phone.requests("GET", "/api/call/CA1/events")) == 2, "the second stream")
    server.phone.tell(status="ringing")
    expect(page.locator("#call-status")).to_have_text("Ringing")
    assert server.phone.requests("GET", "/api/call/CA1/events")[-1]["headers"]["accept"] == "text/event-stream"


def test_a_server_that_goes_away_during_a_call_is_said_and_found_again(page: Page, server: PageServer) -> None:
    call(page, server)
    server.down()
    expect(page.locator("#call-hint")).to_contain_text("The call may be going on. Trying again by itself.")
    server.up()
    server.phone.tell(status="in-progress")
    expect(page.locator("#call-status")).to_have_text("In conversation")
    expect(page.locator("#call-hint")).to_have_text("Ahoy is talking on the phone.")


def test_a_server_that_stays_away_is_given_up_and_can_be_looked_for_again(page: Page, server: PageServer) -> None:
    page.clock.install()
    call(page, server)
    server.down()
    expect(page.locator("#call-hint")).to_contain_text("Trying again by itself.")
    page.clock.fast_forward(125_000)
    expect(page.locator("#call-status")).to_have_text("Out of sight")
    expect(page.get_by_role("button", name="Another number")).to_be_visible()
    server.up()
    server.phone.tell(status="ringing")
    page.get_by_role("button", name="Look again").click()
    expect(page.locator("#call-status")).to_have_text("Ringing")


def test_a_restarted_server_that_knows_nothing_of_the_call_ends_the_waiting(page: Page, server: PageServer) -> None:
    call(page, server)
    server.phone.forget()
    expect(page.locator("#call-status")).to_have_text("Out of sight")
    expect(page.locator("#call-hint")).to_contain_text("The server no longer knows this call.")
    expect(page.get_by_role("button", name="Call again")).to_be_visible()


@pytest.mark.parametrize("streams", ["missing", "full"])
def test_where_nothing_streams_the_page_asks_again_and_again(page: Page, server: PageServer, streams: str) -> None:
    server.phone.streams = streams
    call(page, server)
    wait_until(lambda: any(one["path"] == "/api/call/CA1" for one in server.phone.requests("GET")), "a poll")
    server.phone.tell(status="ringing")
    expect(page.locator("#call-status")).to_have_text("Ringing")
    server.phone.tell(status="busy")
    expect(page.locator("#call-status")).to_have_text("Busy")
    assert len(server.phone.requests("GET", "/api/call/CA1/events")) == 1


def test_a_stream_that_a_proxy_holds_back_is_replaced_by_asking(page: Page, server: PageServer) -> None:
    page.clock.install()
    server.phone.streams = "held back"
    call(page, server)
    wait_until(lambda: server.phone.requests("GET", "/api/call/CA1/events"), "the stream")
    server.phone.tell(status="ringing")
    page.clock.fast_forward(5_500)
    expect(page.locator("#call-status")).to_have_text("Ringing")


def test_a_hang_up_that_does_not_arrive_can_be_repeated(page: Page, server: PageServer) -> None:
    call(page, server)
    server.phone.silent.add("DELETE")
    page.get_by_role("button", name="Hang up").click()
    expect(page.get_by_role("alert")).to_contain_text("The call may still be going on")
    expect(page.locator("#call-status")).to_have_text("Queued")
    server.phone.silent.clear()
    page.get_by_role("button", name="Hang up").click()
    expect(page.locator("#call-status")).to_have_text("Call ended")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_call_that_does_not_end_though_it_was_hung_up_can_be_hung_up_again(page: Page, server: PageServer) -> None:
    page.clock.install()
    call(page, server)
    server.phone.stubborn = True
    page.get_by_role("button", name="Hang up").click()
    wait_until(lambda: server.phone.requests("DELETE"), "the hang-up")
    expect(page.locator("#hang-up")).to_have_text("Hanging up…")
    wait_until(lambda: page.clock.fast_forward(11_000) or page.get_by_role("alert").is_visible(), "the message")
    expect(page.get_by_role("button", name="Hang up", exact=True)).to_be_visible()


def test_the_key_is_asked_for_sent_and_kept_in_this_tab_alone(page: Page, server: PageServer) -> None:
    server.phone.key = KEY
    open_panel(page, server)
    field = page.get_by_label("The server’s key")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("type", "password")
    expect(page.locator("#key-hint")).to_have_text("This server wants its key.")
    expect(page.get_by_label("Phone number")).to_be_hidden()
    field.fill("not the key")
    page.keyboard.press("Enter")
    expect(page.locator("#key-hint")).to_contain_text("Copy it once more")
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-hint")).to_have_class("field-hint wrong")
    expect(field).to_have_value("")
    field.fill(KEY)
    page.get_by_role("button", name="Unlock").click()
    expect(page.get_by_label("Phone number")).to_be_focused()
    press_call(page)
    expect(page.locator("#call-status")).to_have_text("Queued")
    wait_until(lambda: server.phone.requests("GET", "/api/call/CA1/events"), "the stream")
    for request in (*server.phone.requests("POST"), *server.phone.requests("GET", "/api/call")):
        assert request["headers"]["authorization"] == f"Bearer {KEY}"
        assert KEY not in request["path"]
    assert KEY not in page.evaluate("JSON.stringify({ ...localStorage })")
    assert KEY in page.evaluate("JSON.stringify({ ...sessionStorage })")
    assert KEY not in page.content()
    page.reload()
    server.phone.tell(status="ringing")
    expect(page.get_by_role("button", name="Phone call: Ringing. Show it")).to_be_visible()


def test_a_key_is_never_sent_to_another_server(page: Page, server: PageServer) -> None:
    server.phone.key = KEY
    open_panel(page, server)
    page.get_by_label("The server’s key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Phone number")).to_be_focused()
    with PageServer() as other, page_from_disk() as address:
        other.phone.origin = "null"
        page.goto(f"{address}?server=ws://127.0.0.1:{other.port}/ws")
        page.get_by_role("button", name="Call a phone").click()
        expect(page.get_by_label("Phone number")).to_be_focused()
        assert all("authorization" not in one["headers"] for one in other.phone.asked)


def test_a_key_that_is_asked_for_during_a_call_brings_the_call_back(page: Page, server: PageServer) -> None:
    call(page, server)
    server.phone.key = KEY
    server.phone.cut()
    expect(page.get_by_label("The server’s key")).to_be_focused()
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    server.phone.tell(status="ringing")
    expect(page.locator("#call-status")).to_have_text("Ringing")
    expect(page.get_by_label("The server’s key")).to_be_hidden()


def test_opened_from_disk_it_calls_through_the_server_that_is_named(page: Page, server: PageServer) -> None:
    server.phone.origin = "null"
    with page_from_disk() as address:
        page.goto(f"{address}?server=ws://127.0.0.1:{server.port}/ws")
        page.get_by_role("button", name="Call a phone").click()
        press_call(page)
        expect(page.locator("#call-status")).to_have_text("Queued")
        server.phone.tell(status="ringing")
        expect(page.locator("#call-status")).to_have_text("Ringing")
        page.get_by_role("button", name="Hang up").click()
        expect(page.locator("#call-status")).to_have_text("Call ended")


def test_a_server_from_elsewhere_that_does_not_know_the_page_raises_the_doubt(page: Page, server: PageServer) -> None:
    with page_from_disk() as address:
        page.goto(f"{address}?server=ws://127.0.0.1:{server.port}/ws")
        page.get_by_role("button", name="Call a phone").click()
        expect(page.locator("#call-closed")).to_contain_text("list this page in ALLOWED_ORIGINS")


def test_the_real_server_says_what_to_set(page: Page) -> None:
    with AppServer(scripted()) as server:
        page.goto(server.url)
        page.get_by_role("button", name="Call a phone").click()
        expect(page.locator("#call-closed")).to_contain_text("TWILIO_ACCOUNT_SID")


def test_an_older_server_is_said_to_have_no_telephone(page: Page, server: PageServer) -> None:
    server.phone.about = {}
    open_panel(page, server)
    expect(page.locator("#call-closed")).to_contain_text("This server has no telephone")


@pytest.mark.parametrize(
    ("setting", "base"),
    [
        ("", ""),
        ("wss://example.org/voice/ws", "https://example.org/voice/"),
        ("localhost:8000", "http://localhost:8000/"),
    ],
)
def test_the_api_is_beside_the_page_or_the_websocket_that_was_named(
    page: Page, server: PageServer, setting: str, base: str
) -> None:
    page.goto(f"{server.url}?record=1")
    assert page.evaluate("(setting) => Ahoy.address.apiBase(setting)", setting) == (base or server.url)


@pytest.mark.parametrize(
    ("pieces", "events"),
    [
        (["data: one\n\ndata: two\n\n"], ["one", "two"]),
        (["da", "ta: on", "e\r", "\n\r\n"], ["one"]),
        (["data: a\ndata:b\n\n"], ["a\nb"]),
        ([": still here\n\n", "id: 4\nevent: call\ndata: one\r\r", "data: half"], ["one"]),
    ],
)
def test_an_event_stream_is_read_in_any_pieces(
    page: Page, server: PageServer, pieces: list[str], events: list[str]
) -> None:
    page.goto(server.url)
    read = "(pieces) => { const all = new Ahoy.EventStream(); return pieces.flatMap((one) => all.push(one)); }"
    assert page.evaluate(read, pieces) == events
