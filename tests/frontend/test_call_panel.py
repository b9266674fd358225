"""The call panel in a real browser: a number is typed, called, followed and hung up."""

import re

import pytest
from page_stage import PageServer, in_state, talk, wait_for, wait_until
from playwright.sync_api import Page, expect

NUMBER = "+1 202 555 0123"


def open_panel(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="Call a phone").click()
    expect(page.get_by_role("dialog", name="Call a phone")).to_be_visible()


def call(page: Page, server: PageServer, number: str = NUMBER) -> None:
    """Open the panel and call, until the server has the call."""
    open_panel(page, server)
    page.get_by_label("Phone number").fill(number)
    page.get_by_role("button", name="Call", exact=True).click()
    expect(page.locator("#call-status")).to_have_text("Queued")


def close(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Close")).click()


def test_nobody_asks_the_server_about_its_telephone_before_it_is_wanted(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    expect(page.get_by_role("button", name="Call a phone")).to_be_visible()
    assert server.phone.asked == []
    page.get_by_role("button", name="Call a phone").click()
    expect(page.get_by_label("Phone number")).to_be_focused()
    assert [one["path"] for one in server.phone.asked] == ["/api/phone"]


def test_a_server_without_a_telephone_says_what_to_set_to_those_who_ask(page: Page, server: PageServer) -> None:
    reason = "Set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN, and start the server again."
    server.phone.about |= {"outbound": False, "reason": reason}
    open_panel(page, server)
    expect(page.locator("#call-closed")).to_contain_text("This server places no calls")
    expect(page.locator("#call-closed")).to_contain_text(reason)
    expect(page.get_by_label("Phone number")).to_be_hidden()
    server.phone.about |= {"outbound": True}
    page.get_by_role("button", name="Look again").click()
    expect(page.get_by_label("Phone number")).to_be_focused()


def test_the_number_goes_to_the_server_as_it_was_typed_with_a_key_of_its_own(page: Page, server: PageServer) -> None:
    call(page, server, " +1 (202) 555-0123 ")
    [request] = server.phone.requests("POST")
    assert request["json"] == {"number": "+1 (202) 555-0123"}
    assert re.fullmatch(r"[0-9a-f]{32}", request["headers"]["idempotency-key"])
    assert "authorization" not in request["headers"]


@pytest.mark.parametrize(
    ("status", "title", "hint"),
    [
        ("queued", "Queued", "put through in a moment"),
        ("initiated", "Dialling", "being called"),
        ("ringing", "Ringing", "Waiting for somebody to answer"),
        ("in-progress", "In conversation", "talking on the phone"),
        ("completed", "Call ended", ""),
        ("busy", "Busy", "on another call"),
        ("no-answer", "No answer", "Nobody picked up"),
        ("canceled", "Call cancelled", "before anybody answered"),
        ("failed", "The call failed", "Check the number"),
        ("of-tomorrow", "Calling", "of-tomorrow"),
    ],
)
def test_every_status_has_its_words_seen_and_read_out(
    page: Page, server: PageServer, status: str, title: str, hint: str
) -> None:
    call(page, server)
    server.phone.tell(status=status)
    expect(page.locator("#call-status")).to_have_text(title)
    expect(page.locator("#call-hint")).to_contain_text(hint)
    expect(page.locator("#call-news")).to_contain_text(title)
    over = status in {"completed", "busy", "no-answer", "canceled", "failed"}
    expect(page.get_by_role("button", name="Hang up")).to_be_visible(visible=not over)
    expect(page.get_by_role("button", name="Call again")).to_be_visible(visible=over)


def test_the_reason_of_the_server_is_shown_as_it_is(page: Page, server: PageServer) -> None:
    call(page, server)
    server.phone.tell(status="failed", reason="<b>The number is not in service</b> (Twilio 13224).")
    expect(page.locator("#call-hint")).to_have_text("<b>The number is not in service</b> (Twilio 13224).")


def test_a_machine_that_answers_and_a_call_on_hold_are_said(page: Page, server: PageServer) -> None:
    call(page, server)
    server.phone.tell(status="in-progress", answered_by="machine_end_beep")
    expect(page.locator("#call-hint")).to_have_text("A machine has answered.")
    server.phone.tell(on_hold=True)
    expect(page.locator("#call-status")).to_have_text("On hold")


def test_the_time_runs_while_they_talk_and_stands_when_it_is_over(page: Page, server: PageServer) -> None:
    page.clock.install()
    call(page, server)
    expect(page.locator("#call-time")).to_have_text("")
    server.phone.tell(status="in-progress", duration_s=58.0)
    expect(page.locator("#call-time")).to_have_text(re.compile("0:5[89]"))
    page.clock.fast_forward(10_000)
    expect(page.locator("#call-time")).to_have_text(re.compile("1:0[89]|1:1."))
    server.phone.tell(status="completed", duration_s=61.4)
    expect(page.locator("#call-time")).to_have_text("1:01")
    page.clock.fast_forward(10_000)
    expect(page.locator("#call-time")).to_have_text("1:01")


def test_both_sides_can_be_read_and_what_still_changes_looks_so(page: Page, server: PageServer) -> None:
    call(page, server)
    greeting = {"who": "assistant", "text": "Ahoy! How can I help?", "final": True}
    server.phone.tell(
        status="in-progress", captions=[greeting, {"who": "caller", "text": "what is <b>", "final": False}]
    )
    lines = page.locator("#call-captions li")
    expect(lines).to_have_text(["AhoyAhoy! How can I help?", "On the phonewhat is <b>"])
    expect(lines.nth(1)).to_have_class("line user partial")
    question = {"who": "caller", "text": "What is the time?", "final": True}
    server.phone.tell(captions=[greeting, question, {"who": "assistant", "text": "It is", "final": False}])
    expect(lines.nth(1)).to_have_class("line user")
    expect(lines.nth(2)).to_have_class("line assistant growing")
    server.phone.tell(captions=[greeting, question, {"who": "assistant", "text": "It is noon.", "final": True}])
    spoken = ["Ahoy: Ahoy! How can I help?", "On the phone: What is the time?", "Ahoy: It is noon."]
    expect(page.locator("#call-log p")).to_have_text(spoken)
    server.phone.tell(captions=[greeting])
    expect(lines).to_have_count(1)


def test_the_newest_words_stay_in_sight_unless_the_reader_went_back(page: Page, server: PageServer) -> None:
    call(page, server)
    said = [{"who": "caller", "text": f"Line {number}", "final": True} for number in range(60)]
    server.phone.tell(status="in-progress", captions=said[:50])
    expect(page.get_by_text("Line 49", exact=True)).to_be_in_viewport()
    page.locator("#call-scroller").evaluate("(one) => { one.scrollTop = 0; }")
    expect(page.get_by_text("Line 0", exact=True)).to_be_in_viewport()
    wait_for(page, "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
    server.phone.tell(captions=said)
    expect(page.locator("#call-captions li")).to_have_count(60)
    expect(page.get_by_text("Line 0", exact=True)).to_be_in_viewport()


def test_a_double_click_places_one_call(page: Page, server: PageServer) -> None:
    open_panel(page, server)
    page.get_by_label("Phone number").fill(NUMBER)
    server.phone.waiting.clear()
    page.get_by_role("button", name="Call", exact=True).dblclick()
    page.locator("#call-form").evaluate("(form) => { form.requestSubmit(); form.requestSubmit(); }")
    expect(page.locator("#call-status")).to_have_text("Calling")
    server.phone.waiting.set()
    expect(page.locator("#call-status")).to_have_text("Queued")
    assert len(server.phone.requests("POST")) == 1


def test_hanging_up_is_seen_to_be_under_way_and_asked_once(page: Page, server: PageServer) -> None:
    call(page, server)
    server.phone.tell(status="in-progress")
    expect(page.locator("#call-status")).to_have_text("In conversation")
    server.phone.waiting.clear()
    button = page.get_by_role("button", name="Hang up")
    button.click()
    expect(page.locator("#call-status")).to_have_text("Hanging up")
    pending = page.locator("#hang-up")
    expect(pending).to_have_text("Hanging up…")
    expect(pending).to_have_attribute("aria-disabled", "true")
    expect(pending).to_be_focused()
    pending.evaluate("(one) => one.click()")
    server.phone.waiting.set()
    expect(page.locator("#call-status")).to_have_text("Call ended")
    expect(page.get_by_role("button", name="Call again")).to_be_focused()
    assert [one["path"] for one in server.phone.requests("DELETE")] == ["/api/call/CA1"]


def test_one_can_hang_up_before_the_server_has_placed_the_call(page: Page, server: PageServer) -> None:
    open_panel(page, server)
    page.get_by_label("Phone number").fill(NUMBER)
    server.phone.waiting.clear()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Hang up").click()
    expect(page.locator("#call-status")).to_have_text("Hanging up")
    server.phone.waiting.set()
    expect(page.locator("#call-status")).to_have_text("Call ended")
    assert server.phone.calls["CA1"]["status"] == "completed"


def test_the_same_number_can_be_called_again_and_then_another(page: Page, server: PageServer) -> None:
    call(page, server)
    server.phone.tell(status="busy")
    page.get_by_role("button", name="Call again").click()
    wait_until(lambda: len(server.phone.calls) == 2, "the second call")
    server.phone.tell("CA2", status="no-answer")
    page.get_by_role("button", name="Another number").click()
    field = page.get_by_label("Phone number")
    expect(field).to_be_focused()
    field.fill("+49 30 23125 010")
    page.keyboard.press("Enter")
    wait_until(lambda: len(server.phone.calls) == 3, "the third call")
    posts = server.phone.requests("POST")
    assert [one["json"]["number"] for one in posts] == [NUMBER, NUMBER, "+49 30 23125 010"]
    assert len({one["headers"]["idempotency-key"] for one in posts}) == 3


def test_closing_the_panel_keeps_the_call_which_the_header_shows(page: Page, server: PageServer) -> None:
    call(page, server)
    page.get_by_role("button", name="Close; the call goes on").click()
    entry = page.get_by_role("button", name="Phone call: Queued. Show it")
    expect(entry).to_have_text("Queued")
    expect(entry).to_be_focused()
    server.phone.tell(status="in-progress", duration_s=61.0)
    entry = page.get_by_role("button", name="Phone call: In conversation. Show it")
    expect(entry).to_have_text(re.compile("1:0."))
    expect(page.locator("#call-announcer")).to_contain_text("In conversation")
    assert server.phone.requests("DELETE") == []
    entry.click()
    expect(page.get_by_role("button", name="Hang up")).to_be_focused()
    page.keyboard.press("Escape")
    server.phone.tell(status="failed", reason="Out of credit.")
    page.get_by_role("button", name="Phone call: The call failed. Show it").click()
    expect(page.locator("#call-hint")).to_have_text("Out of credit.")
    close(page)
    expect(page.get_by_role("button", name="Call a phone")).to_have_text("")
    page.get_by_role("button", name="Call a phone").click()
    expect(page.get_by_label("Phone number")).to_have_value(NUMBER)


def test_a_reloaded_page_still_has_its_call(page: Page, server: PageServer) -> None:
    call(page, server)
    page.reload()
    server.phone.tell(status="ringing")
    page.get_by_role("button", name="Phone call: Ringing. Show it").click()
    expect(page.locator("#call-number")).to_have_text(NUMBER)
    page.get_by_role("button", name="Hang up").click()
    expect(page.locator("#call-status")).to_have_text("Call ended")
    page.reload()
    expect(page.get_by_role("button", name="Call a phone")).to_be_visible()


def test_a_call_of_long_ago_is_forgotten_without_a_word(page: Page, server: PageServer) -> None:
    call(page, server)
    server.phone.forget()
    page.reload()
    expect(page.get_by_role("button", name="Call a phone")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_conversation_in_the_page_and_a_call_go_on_side_by_side(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    page.get_by_role("button", name="Call a phone").click()
    page.get_by_label("Phone number").fill(NUMBER)
    page.keyboard.press("Enter")
    expect(page.locator("#call-status")).to_have_text("Queued")
    page.keyboard.press("m")  # belongs to the conversation behind the drawer
    page.keyboard.press("Escape")
    in_state(page, "phase", "live")
    line.tell("transcript.final", turn=1, text="Still here")
    expect(page.locator("#captions .said")).to_have_text("Still here")
    assert line.of("interrupt") == []
    assert line.of("mute") == []
    page.get_by_role("button", name="End the conversation").click()
    server.phone.tell(status="in-progress")
    expect(page.get_by_role("button", name="Phone call: In conversation. Show it")).to_be_visible()
