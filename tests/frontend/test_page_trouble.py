"""The page when something is missing or breaks: said in words, survived where it can be."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from app_server import AppServer, scripted
from page_stage import PageServer, chromium, in_state, page_from_disk, talk, tone, visitor, wait_for, wait_until
from playwright.sync_api import Browser, Page, expect

PROTOCOL = yaml.safe_load((Path(__file__).parents[2] / "docs" / "asyncapi.yaml").read_text())
KEEP_STREAM = """
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => (window.theStream = await open(wanted));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("--host-resolver-rules=MAP elsewhere.test 127.0.0.1") as launched:
        yield launched


def failing_with(name: str) -> str:
    """An init script: the browser answers requests for the microphone with this error."""
    return f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{name}'); }};"


def types_and_hears(page: Page, server: PageServer) -> None:
    """The conversation goes on in writing."""
    line = server.line()
    line.expect("mute", muted=True)
    page.get_by_label("Type instead of talking").fill("Hello")
    page.keyboard.press("Enter")
    line.expect("text", text="Hello")
    line.speak(1, tone(0.2))
    line.expect("playback", reply=1, played_ms=200)


def test_permission_refused_is_explained_and_typing_works(browser: Browser, server: PageServer) -> None:
    with visitor(browser, microphone=False) as page:
        talk(page, server)
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The microphone is not allowed")
        types_and_hears(page, server)
        page.context.grant_permissions(["microphone"])
        alert.get_by_role("button", name="Try again").click()
        server.line().expect("mute", muted=False)
        wait_until(server.line().frames, "audio")
        expect(alert).to_be_hidden()


@pytest.mark.parametrize(
    ("error", "words"),
    [("NotFoundError", "No microphone found"), ("NotReadableError", "The microphone cannot be used")],
)
def test_without_a_microphone_one_can_type(browser: Browser, server: PageServer, error: str, words: str) -> None:
    with visitor(browser, init=failing_with(error)) as page:
        talk(page, server)
        expect(page.get_by_role("alert")).to_contain_text(words)
        types_and_hears(page, server)


def test_a_plain_http_address_gives_text_only_and_says_why(browser: Browser, server: PageServer) -> None:
    with visitor(browser, microphone=False) as page:
        page.goto(f"http://elsewhere.test:{server.port}/")
        page.get_by_role("button", name="Start talking").click()
        expect(page.get_by_role("alert")).to_contain_text("need an https:// address, or localhost")
        expect(page.get_by_role("button", name="Turn mic on")).to_be_hidden()  # it could not work
        line = server.line()
        page.get_by_label("Type instead of talking").fill("Hello")
        page.keyboard.press("Enter")
        line.expect("text", text="Hello")
        line.tell("reply.text", turn=1, reply=1, text="Hello to you.")
        line.speak(1, tone(0.1))
        expect(page.locator(".assistant .said")).to_have_text("Hello to you.")


def test_an_unplugged_microphone_is_noticed(browser: Browser, server: PageServer) -> None:
    with visitor(browser, init=KEEP_STREAM) as page:
        line = talk(page, server)
        page.evaluate("theStream.getTracks()[0].dispatchEvent(new Event('ended'))")
        expect(page.get_by_role("alert")).to_contain_text("The microphone is gone")
        line.expect("mute", muted=True)
        page.get_by_role("alert").get_by_role("button", name="Try again").click()
        line.expect("mute", muted=False)


def test_a_restarted_server_is_found_again_without_a_second_greeting(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.tell("transcript.final", turn=1, text="Before")
    line.tell("reply.text", turn=1, reply=1, text="I was saying")
    line.speak(1, tone(5))
    in_state(page, "activity", "speaking")
    server.down()
    expect(page.locator("#status")).to_have_text(re.compile("^Reconnecting"))
    wait_for(page, "ahoy.state.attempt >= 2")
    server.up()
    again = server.line(1)
    in_state(page, "phase", "live")
    assert again.start == {"type": "start", "greeting": False}
    again.tell("transcript.final", turn=1, text="After")
    expect(page.locator(".user .said")).to_have_text(["Before", "After"])
    wait_until(again.frames, "audio")
    again.speak(1, tone(0.2))  # replies are counted from one again
    again.expect("playback", reply=1, played_ms=200)


def test_ending_stops_the_reconnecting(page: Page, server: PageServer) -> None:
    talk(page, server)
    server.down()
    in_state(page, "phase", "reconnecting")
    page.get_by_role("button", name="End the conversation").click()
    expect(page.locator("#status")).to_have_text("Conversation ended")
    server.up()
    page.wait_for_timeout(900)
    assert len(server.lines) == 1


def test_a_full_server_is_tried_again(page: Page, server: PageServer) -> None:
    server.full = True
    page.goto(server.url)
    page.get_by_role("button", name="Start talking").click()
    in_state(page, "phase", "reconnecting")
    expect(page.locator("#hint")).to_contain_text("All lines are busy")
    expect(page.locator("#status")).to_have_text("Connecting")


def test_a_quiet_user_is_told_why_it_ended(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.tell("bye", reason="idle")
    line.connection.close(1000)
    expect(page.locator("#status")).to_have_text("You were quiet for a while")
    expect(page.get_by_role("button", name="Start talking")).to_be_visible()


def test_errors_are_shown_in_words(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.tell("error", code="provider_failed", message="The voice gave nothing within 8 s.", fatal=False)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("A part of the assistant did not answer")
    expect(alert).to_contain_text("The voice gave nothing within 8 s.")
    alert.get_by_role("button", name="Dismiss this message").click()
    expect(alert).to_be_hidden()
    in_state(page, "phase", "live")


def test_a_page_that_does_not_fit_the_server_gives_up(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.connection.close(1008)
    expect(page.locator("#status")).to_have_text("The server ended the conversation")


def test_messages_of_a_newer_server_and_garbage_do_no_harm(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.connection.send("{not json")
    line.connection.send("null")
    line.tell("something.new", turn=1)
    line.tell("transcript.final", turn=1, text="Still here")
    expect(page.locator(".user .said")).to_have_text("Still here")


def test_opened_from_disk_it_talks_to_the_server_that_is_named(page: Page, server: PageServer) -> None:
    with page_from_disk() as address:
        page.goto(f"{address}?record=1&server=ws://127.0.0.1:{server.port}/ws")
        expect(page.locator("#server-name")).to_have_text(f"Talking to 127.0.0.1:{server.port}")
        page.get_by_role("button", name="Start talking").click()
        line = server.line()
        wait_until(lambda: line.frames() > 5, "audio")
        line.speak(1, tone(0.3))
        line.expect("playback", reply=1, played_ms=300)
        in_state(page, "microphone", "on")


def test_the_page_finds_a_websocket_that_was_moved(page: Page) -> None:
    with AppServer(scripted(ws_path="/talk/here", greeting="Ahoy!")) as server:
        page.goto(server.url)
        page.get_by_role("button", name="Start talking").click()
        expect(page.locator(".assistant .said")).to_have_text("Ahoy!")


def test_the_server_address_can_be_set_in_the_settings(page: Page, server: PageServer) -> None:
    with page_from_disk() as address:
        page.goto(address)
        page.get_by_role("button", name="Settings").click()
        field = page.get_by_label("Server address")
        field.fill("ftp://nowhere")
        field.press("Tab")
        expect(page.locator("#server-hint")).to_contain_text("Not an address")
        field.fill(f"127.0.0.1:{server.port}")
        field.press("Enter")
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.get_by_role("button", name="Start talking").click()
        in_state(page, "phase", "live")
        assert server.lines


def test_a_foreign_server_that_never_answers_raises_a_doubt(page: Page, server: PageServer) -> None:
    page.goto(f"{server.url}?server=ws://127.0.0.1:9/ws")  # port 9: discard, nobody listens
    page.get_by_role("button", name="Start talking").click()
    expect(page.get_by_role("alert")).to_contain_text("ALLOWED_ORIGINS")


def test_a_server_that_is_not_there_is_not_said_to_refuse(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    server.down()
    page.get_by_role("button", name="Start talking").click()
    expect(page.locator("#status")).to_have_text(re.compile(r"^Connecting \(try [3-9]\)"))
    expect(page.locator("#hint")).to_have_text("The server does not answer. Trying again by itself.")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_server_that_refuses_the_pages_own_name_is_told_apart(page: Page, server: PageServer) -> None:
    server.refusing = True
    page.goto(f"http://elsewhere.test:{server.port}/")
    page.get_by_role("button", name="Start talking").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server does not know this address")
    expect(alert).to_contain_text(f"ALLOWED_ORIGINS=http://elsewhere.test:{server.port}")
    expect(alert).to_contain_text(f"open http://localhost:{server.port}")
    expect(page.locator("#hint")).to_contain_text("refuses the conversation")
    server.refusing = False
    server.line()
    in_state(page, "phase", "live")
    expect(alert).to_be_hidden()


def test_a_refusal_that_is_not_about_the_name_points_to_the_path_and_the_proxy(page: Page, server: PageServer) -> None:
    server.refusing = True
    page.goto(server.url)
    page.get_by_role("button", name="Start talking").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("WS_PATH")
    expect(alert).to_contain_text("A proxy in between must let WebSockets through.")
    alert.get_by_role("button", name="Settings").click()
    expect(page.get_by_role("textbox", name="Server address")).to_be_visible()


def test_every_error_of_the_protocol_has_its_words(page: Page, server: PageServer) -> None:
    codes = PROTOCOL["components"]["messages"]["error"]["payload"]["properties"]["code"]["enum"]
    page.goto(server.url)
    titles = page.evaluate(
        "(codes) => codes.map((code) => Ahoy.words.problem({ code }).title)", ["of tomorrow", *codes]
    )
    assert len(codes) > 10
    assert [code for code, title in zip(codes, titles[1:], strict=True) if title == titles[0]] == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1001, "The server is restarting."),
        (1012, "The server is restarting."),
        (1011, "The server had a problem."),
        (1013, "The network is too slow for sound"),
        (1009, "The connection was lost."),
    ],
)
def test_why_the_line_went_down_is_said(page: Page, server: PageServer, code: int, words: str) -> None:
    line = talk(page, server)
    line.connection.close(code)
    expect(page.locator("#hint")).to_contain_text(words)
    server.line(1)
    in_state(page, "phase", "live")


def test_a_network_that_takes_nothing_drops_the_oldest_frames(page: Page, server: PageServer) -> None:
    talk(page, server)
    page.evaluate("Object.defineProperty(WebSocket.prototype, 'bufferedAmount', { get: () => 1e6 })")
    wait_for(page, "ahoy.counts.dropped_frames > 3")
    in_state(page, "phase", "live")
