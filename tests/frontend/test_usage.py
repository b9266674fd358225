"""What a conversation costs, on the page: a small line, more when it is opened, nothing while all is free."""

import json
from collections.abc import Callable

import pytest
from page_stage import Line, PageServer, in_state, talk
from page_usage import CHAT, EARS, LOCAL, VOICE, cost
from playwright.sync_api import Page, Route, expect


def day(page: Page, usd: float = 0.314, status: int = 200, priced: bool = True) -> list[str]:
    """The server's account of the day is this; gives the requests for it as they come."""
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        body = (
            {"today": {"usd": usd, "priced": priced}} if status == 200 else {"error": {"code": "no", "message": "No"}}
        )
        route.fulfill(status=status, content_type="application/json", body=json.dumps(body))

    page.route("**/api/usage", answer)
    return asked


def test_the_line_says_what_the_conversation_and_the_day_have_cost(page: Page, server: PageServer) -> None:
    day(page)
    line = talk(page, server)
    cost(line, CHAT, VOICE)
    expect(page.locator("#usage summary")).to_have_text("This conversation: $0.0079 · today $0.31")
    cost(line, CHAT, VOICE, EARS, conversation_usd=1.2345)
    expect(page.locator("#usage .conversation")).to_have_text("$1.23")


def test_there_is_no_line_while_nothing_costs_anything(page: Page, server: PageServer) -> None:
    asked = day(page)
    line = talk(page, server)
    expect(page.locator(".facts")).to_be_hidden()
    cost(line, LOCAL)
    line.tell("transcript.final", turn=1, text="Are you there?")
    expect(page.locator(".user .said")).to_be_visible()
    expect(page.locator("#usage")).to_be_hidden()
    expect(page.locator(".facts")).to_be_hidden()
    assert asked == []


def test_it_opens_to_what_was_used_of_each_model(page: Page, server: PageServer) -> None:
    day(page)
    line = talk(page, server)
    cost(line, EARS, VOICE, CHAT, LOCAL)
    expect(page.locator("#usage .models")).to_be_hidden()
    page.locator("#usage summary").click()
    rows = page.locator("#usage .models li")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("Understanding$0.0090whisper-1, openai · 1.5 min")
    expect(rows.nth(1)).to_contain_text("Voice$0.0048tts-1, openai · 321 characters")
    expect(rows.nth(2)).to_contain_text("12,400 tokens read (1,024 from its cache) · 80 written")
    expect(rows.nth(2)).to_contain_text("1 of 3 given up, $0.0004")
    expect(rows.nth(3)).to_contain_text("Voicefreehibari, on the server itself")
    expect(page.locator("#usage .footnote")).to_contain_text("it is paid for all the same")


def test_what_has_no_price_is_not_shown_as_free(page: Page, server: PageServer) -> None:
    day(page, usd=0.2, priced=False)
    line = talk(page, server)
    unknown = CHAT | {"service": "ollama", "model": "llama3.2:3b", "usd": 0, "wasted_usd": 0, "priced": False}
    cost(line, unknown)
    expect(page.locator("#usage summary")).to_have_text("This conversation: price unknown · today at least $0.20")
    page.locator("#usage summary").click()
    expect(page.locator("#usage .value")).to_have_text("price unknown")
    expect(page.locator("#usage .footnote")).to_contain_text("PRICES")
    cost(line, VOICE, unknown)
    expect(page.locator("#usage .conversation")).to_have_text("at least $0.0048")


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_who_may_not_know_about_the_day_sees_the_conversation_alone(
    page: Page, server: PageServer, status: int
) -> None:
    asked = day(page, status=status)
    line = talk(page, server)
    with page.expect_response("**/api/usage"):
        cost(line, CHAT)
    cost(line, CHAT, VOICE)
    expect(page.locator("#usage summary")).to_have_text("This conversation: $0.0079", use_inner_text=True)
    assert len(asked) == 1, "an answer like this is not asked for again"


def test_the_day_is_not_asked_for_with_every_change(page: Page, server: PageServer) -> None:
    asked = day(page)
    line = talk(page, server)
    for usd in (0.01, 0.02, 0.03):
        cost(line, CHAT, conversation_usd=usd)
        expect(page.locator("#usage .conversation")).to_have_text(f"${usd:.4f}")
        expect(page.locator("#usage .today")).to_be_visible()
    assert len(asked) == 1


def test_the_servers_key_is_sent_if_the_page_has_it(page: Page, server: PageServer) -> None:
    server.phone.key = "a-key"
    day(page)
    page.goto(server.url)
    page.get_by_role("button", name="Call a phone").click()
    page.get_by_label("The server’s key").fill("a-key")
    page.get_by_role("button", name="Unlock").click()
    expect(page.get_by_label("Phone number")).to_be_visible()
    page.get_by_role("button", name="Close the call panel").click()
    page.get_by_role("button", name="Start talking").click()
    in_state(page, "phase", "live")
    with page.expect_request("**/api/usage") as asking:
        cost(server.line(), CHAT)
    assert asking.value.headers["authorization"] == "Bearer a-key"


def test_a_new_conversation_begins_at_nothing(page: Page, server: PageServer) -> None:
    day(page)
    line = talk(page, server)
    cost(line, CHAT)
    expect(page.locator("#usage")).to_be_visible()
    page.get_by_role("button", name="End the conversation").click()
    in_state(page, "phase", "ended")
    expect(page.locator("#usage .conversation")).to_have_text("$0.0031")  # it is still of interest
    page.get_by_role("button", name="Start talking").click()
    server.line(1)
    expect(page.locator("#usage")).to_be_hidden()


def test_both_facts_stand_in_one_box(page: Page, server: PageServer) -> None:
    day(page)
    line = talk(page, server)
    stages = {"endpointing_ms": 480, "stt_ms": 120, "llm_ms": 190, "tts_ms": 60, "engine_ms": 30}
    line.tell("latency", turn=1, reply=2, voice_to_voice_ms=640, speculative=False, stages=stages)
    cost(line, CHAT)
    latency, usage = (page.locator(f".facts > #{one}").bounding_box() for one in ("latency", "usage"))
    assert latency
    assert usage
    assert latency["x"] == usage["x"]
    assert latency["y"] + latency["height"] <= usage["y"]


def test_one_of_them_is_open_at_a_time_so_that_neither_is_cut_off(page: Page, server: PageServer) -> None:
    page.set_viewport_size({"width": 1080, "height": 680})
    day(page)
    line = talk(page, server)
    stages = {"endpointing_ms": 480, "stt_ms": 120, "llm_ms": 190, "tts_ms": 60, "engine_ms": 30}
    line.tell("latency", turn=1, reply=2, voice_to_voice_ms=640, speculative=False, stages=stages)
    cost(line, EARS, VOICE, CHAT)
    page.locator("#latency summary").click()
    expect(page.locator("#latency .stages")).to_be_visible()
    page.locator("#usage summary").click()
    expect(page.locator("#usage .footnote")).to_be_visible()
    expect(page.locator("#latency .stages")).to_be_hidden()
    assert page.evaluate("document.querySelector('.facts').getBoundingClientRect().bottom <= innerHeight")


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_a_small_phone(page: Page, server: PageServer, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    day(page, usd=12.5)
    line = talk(page, server)
    line.tell("transcript.final", turn=1, text="What is the time?")
    cost(
        line, CHAT, EARS | {"model": "a-model-with-quite-a-long-name-of-its-own-large-v3-turbo"}, conversation_usd=11.1
    )
    page.locator("#usage summary").click()
    expect(page.locator("#usage .models li").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(
        "[...document.querySelectorAll('#usage span')].every((one) => one.getBoundingClientRect().right <= innerWidth)"
    )


# --- the end of it


def ended_for_its_budget(line: Line) -> None:
    line.tell("bye", reason="budget")
    line.connection.close(1000)


def refused_for_the_day(line: Line) -> None:
    line.tell("error", code="budget_spent", message="Come back tomorrow.", fatal=True)
    line.connection.close(1013)


@pytest.mark.parametrize("end", [ended_for_its_budget, refused_for_the_day])
def test_when_the_budget_is_used_up_the_page_says_so_and_does_not_come_back_by_itself(
    page: Page, server: PageServer, end: Callable[[Line], None]
) -> None:
    line = talk(page, server)
    end(line)
    expect(page.locator("#status")).to_have_text("The budget is used up")
    expect(page.locator("#hint")).to_contain_text("may have to wait until tomorrow")
    in_state(page, "phase", "ended")
    expect(page.get_by_role("button", name="Start talking")).to_be_visible()
    assert len(server.lines) == 1


def test_a_refusal_says_what_the_server_says(page: Page, server: PageServer) -> None:
    refused_for_the_day(talk(page, server))
    expect(page.locator("#notice")).to_contain_text("Come back tomorrow.")
