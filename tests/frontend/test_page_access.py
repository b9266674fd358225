"""The page for everybody: with the keyboard alone, with a screen reader, on a small screen, in both themes."""

import re

import pytest
from page_stage import PageServer, in_state, talk, tone, visitor
from page_usage import CHAT, cost
from playwright.sync_api import Browser, Page, expect

CONTRAST = """() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const paint = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const grounds = (one) => { // every colour that may lie behind, stops of gradients too
    const style = getComputedStyle(one);
    const found = `${style.backgroundImage} ${style.backgroundColor}`.match(/rgba?\\([^)]*\\)/g) ?? [];
    const solid = found.map(rgba).filter((c) => c[3] === 255);
    return solid.length || !one.parentElement ? solid : grounds(one.parentElement);
  };
  const worst = {};
  for (const one of document.querySelectorAll(`
    #status, #hint, .said, .unheard, .who, summary, .tag, .value, .name, .pill .text, .server-name, .field-hint,
    .field > span, .switch small, kbd, .notice p, .footnote, .note p, .note .pill,
    .intro, .call-number, .call-line, .call-hint, .call-asking, #call-button .text, .hang-up .text`)) {
    if (!one.checkVisibility() || one.closest(":disabled")) continue;
    const text = light(rgba(getComputedStyle(one).color));
    for (const ground of grounds(one)) {
      const [a, b] = [text, light(ground)].sort((x, y) => y - x);
      const name = one.id || one.className;
      worst[name] = Math.min(worst[name] ?? 21, (a + 0.05) / (b + 0.05));
    }
  }
  return worst;
}"""

SIDES = ("assistant", "caller")
TONES = {"ringing": "calling", "in-progress": "talking", "failed": "failed"}


def fill(page: Page, server: PageServer) -> None:
    """A conversation with one of everything in it."""
    line = talk(page, server)
    line.tell("transcript.final", turn=1, text="A question with averylongwordthatdoesnotfitanywhere" * 3)
    line.tell("reply.text", turn=1, reply=1, text="An answer that was cut off in the middle.")
    line.tell("reply.done", turn=1, reply=1, text="An answer that was cut off.", heard="An answer", interrupted=True)
    line.tell("transcript.partial", turn=2, text="and then")
    stages = {"endpointing_ms": 480, "stt_ms": 120, "llm_ms": 190, "tts_ms": 60, "engine_ms": 30}
    line.tell("latency", turn=1, reply=1, voice_to_voice_ms=640, speculative=True, stages=stages)
    line.tell("error", code="provider_failed", message="The voice gave nothing.", fatal=False)
    page.locator("#latency summary").click()
    cost(line, CHAT)
    page.locator("#usage summary").click()


def ring(page: Page, server: PageServer) -> None:
    """A call that was placed with the keyboard alone, by somebody who mistyped first."""
    page.get_by_role("button", name="Call a phone").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Phone number")).to_be_focused()
    page.keyboard.type("+1 202 555 012x")
    page.keyboard.press("Enter")
    expect(page.locator("#number-hint")).to_contain_text("only digits")
    page.keyboard.press("Backspace")
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Hang up")).to_be_focused()
    expect(page.locator("#call-status")).to_have_text("Queued")


def converse(page: Page, server: PageServer) -> None:
    """The call is answered, and there is much to read."""
    words = [{"who": who, "text": "A line that is long enough to be read. " * 4, "final": True} for who in SIDES] * 3
    words += [{"who": "caller", "text": "averylongwordthatdoesnotfitanywhere" * 3, "final": False}]
    server.phone.tell(status="in-progress", duration_s=3725.0, captions=words)
    expect(page.locator("#call-status")).to_have_text("In conversation")


def reachable(page: Page, size: tuple[int, int], names: list[str]) -> None:
    """Nothing scrolls sideways, in the drawer neither, and the buttons are in sight and wide enough for a finger."""
    width, height = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert (width, height) == size
    assert page.evaluate("[...document.querySelectorAll('dialog')].every((one) => one.scrollWidth <= one.clientWidth)")
    for name in names:
        button = page.get_by_role("button", name=name, exact=True)
        button.click(trial=True)  # nothing lies over it
        box = button.bounding_box()
        assert box
        assert min(box["width"], box["height"]) >= 44
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size[0]
        assert box["y"] + box["height"] <= size[1]


def test_everything_can_be_done_with_the_keyboard(browser: Browser, server: PageServer) -> None:
    with visitor(browser) as page:
        page.goto(server.url)
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Call a phone")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Settings")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Settings")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Settings")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Start talking")).to_be_focused()
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"
        page.keyboard.press("Space")
        line = server.line()
        in_state(page, "phase", "live")
        page.keyboard.press("m")
        line.expect("mute", muted=True)
        page.keyboard.press("m")
        line.expect("mute", muted=False)
        line.speak(1, tone(5))
        in_state(page, "activity", "speaking")
        page.keyboard.press("Escape")
        line.expect("interrupt")
        in_state(page, "activity", "listening")
        field = page.get_by_label("Type instead of talking")
        field.focus()
        page.keyboard.type("mmm")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("more")
        page.keyboard.press("Enter")
        line.expect("text", text="mmm\nmore")
        assert len(line.of("mute")) == 2  # an m that is written does not mute


def test_every_control_has_a_name_and_the_page_a_language(browser: Browser, server: PageServer) -> None:
    with visitor(browser) as page:
        fill(page, server)
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("Server address").wait_for()
        tree = page.locator("body").aria_snapshot()
        for role in ("button", "textbox", "combobox", "switch", "radio"):
            unnamed = re.findall(rf"^\s*- {role}(?: \[[a-z]+\])*:?$", tree, re.MULTILINE)
            assert not unnamed, tree
        assert page.evaluate("document.documentElement.lang") == "en"
        for name in ("Voice", "Language you speak", "Microphone"):
            expect(page.get_by_role("combobox", name=name, exact=True)).to_be_visible()
        expect(page.get_by_role("textbox", name="Server address", exact=True)).to_be_visible()


def test_a_screen_reader_hears_the_line_but_not_every_breath(browser: Browser, server: PageServer) -> None:
    with visitor(browser) as page:
        line = talk(page, server)
        status = page.locator("#announcer")
        expect(status).to_have_text("Listening. Just talk.")
        line.tell("speech.started", turn=1, at_ms=0)
        line.tell("transcript.partial", turn=1, text="one two")
        expect(page.locator("#status")).to_have_text("You are speaking")
        page.wait_for_timeout(800)
        expect(status).to_have_text("Listening. Just talk.")
        assert page.locator("[aria-live], [role=status], [role=log], [role=alert]").locator("#captions").count() == 0
        server.down()
        expect(status).to_contain_text("Reconnecting")


@pytest.mark.parametrize("size", [(360, 640), (390, 844), (844, 390), (768, 1024), (1280, 720)])
def test_nothing_is_cut_off_sideways(browser: Browser, server: PageServer, size: tuple[int, int]) -> None:
    with visitor(browser, viewport={"width": size[0], "height": size[1]}) as page:
        fill(page, server)
        reachable(page, size, ["End the conversation", "Mute", "Send", "Call a phone", "Settings"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, server: PageServer, scheme: str) -> None:
    with visitor(browser, color_scheme=scheme, reduced_motion="reduce") as page:
        fill(page, server)
        page.wait_for_timeout(100)
        worst = page.evaluate(CONTRAST)
        page.get_by_role("button", name="Settings").click()
        worst |= page.evaluate(CONTRAST)
        assert len(worst) >= 12
        assert {name: ratio for name, ratio in worst.items() if ratio < 4.5} == {}


def test_with_reduced_motion_nothing_moves_by_itself(browser: Browser, server: PageServer) -> None:
    with visitor(browser, reduced_motion="reduce") as page:
        fill(page, server)
        assert page.evaluate("document.getAnimations().length") == 0


def test_the_newest_line_is_shown_unless_the_reader_went_back(browser: Browser, server: PageServer) -> None:
    with visitor(browser) as page:
        line = talk(page, server)
        for turn in range(1, 230):
            line.tell("transcript.final", turn=turn, text=f"Turn {turn}")
        newest = page.get_by_text("Turn 229", exact=True).first
        expect(newest).to_be_in_viewport()
        expect(page.locator("#captions li")).to_have_count(200)  # old ones go
        page.locator("#scroller").evaluate("(one) => { one.scrollTop = 0; }")
        expect(page.get_by_role("button", name="Newest")).to_be_visible()
        line.tell("transcript.final", turn=230, text="Turn 230")
        expect(page.locator("#captions li").last).to_have_text("YouTurn 230")
        expect(page.locator("#captions li").last).not_to_be_in_viewport()
        page.get_by_role("button", name="Newest").click()
        expect(page.locator("#captions li").last).to_be_in_viewport()


def test_a_line_that_comes_while_it_scrolls_does_not_count_as_going_back(browser: Browser, server: PageServer) -> None:
    with visitor(browser) as page:
        line = talk(page, server)
        line.tell("transcript.final", turn=1, text="A question")
        expect(page.locator("#captions li")).to_have_count(1)
        page.evaluate(
            """() => { // the end moves away between the page's own scrolling and the event that tells of it
              document.querySelector("#captions li").style.paddingBottom = "3000px";
              document.querySelector("#scroller").dispatchEvent(new Event("scroll"));
            }"""
        )
        line.tell("reply.text", turn=1, reply=1, text="An answer")
        expect(page.locator(".assistant .said")).to_be_in_viewport()
        expect(page.get_by_role("button", name="Newest")).to_be_hidden()


def test_a_call_can_be_made_and_ended_with_the_keyboard(browser: Browser, server: PageServer) -> None:
    with visitor(browser) as page:
        page.goto(server.url)
        ring(page, server)
        converse(page, server)
        page.keyboard.press("Escape")
        entry = page.get_by_role("button", name="Phone call: In conversation. Show it")
        expect(entry).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Hang up")).to_be_focused()
        page.keyboard.press("Shift+Tab")
        expect(page.get_by_role("region", name="What is said on the phone")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        expect(page.get_by_role("button", name="Call again")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Phone number")).to_be_focused()
        assert len(server.phone.calls) == 1


def test_the_call_panel_tells_a_screen_reader_what_is_what(browser: Browser, server: PageServer) -> None:
    with visitor(browser) as page:
        page.goto(server.url)
        page.get_by_role("button", name="Call a phone").click()
        field = page.get_by_role("textbox", name="Phone number", exact=True)
        field.fill("+49 30")
        expect(field).to_have_accessible_description(re.compile(r"Germany \+49 This server calls numbers"))
        field.fill("")
        page.keyboard.press("Escape")
        ring(page, server)
        converse(page, server)
        news = page.locator("#call-news")
        expect(news).to_have_text("In conversation. Ahoy is talking on the phone.")
        expect(news).to_have_attribute("role", "status")
        expect(page.get_by_role("timer", name="Duration")).to_have_text(re.compile("1:02:0."))
        tree = page.get_by_role("dialog", name="Call a phone").aria_snapshot()
        for role in ("button", "textbox", "region", "timer"):
            assert not re.findall(rf"^\s*- {role}(?: \[[a-z]+\])*:?$", tree, re.MULTILINE), tree
        live = page.locator("[aria-live], [role=status], [role=log], [role=alert]")
        assert live.locator("#call-captions, #call-time").count() == 0  # neither every word nor every second


@pytest.mark.parametrize("size", [(320, 568), (390, 844), (844, 390), (1280, 720)])
def test_the_call_panel_fits_and_its_buttons_can_be_reached(
    browser: Browser, server: PageServer, size: tuple[int, int]
) -> None:
    view = {"width": size[0], "height": size[1]}
    # The page's policy lets it ask no other server over HTTP.
    with visitor(browser, viewport=view, reduced_motion="reduce", bypass_csp=True) as page:
        page.goto(f"{server.url}?server=ws://localhost:{server.port}/ws")  # its name takes room in the header
        server.phone.origin = server.url.rstrip("/")
        ring(page, server)
        reachable(page, size, ["Hang up"])
        converse(page, server)
        reachable(page, size, ["Hang up"])
        server.phone.tell(status="completed")
        reachable(page, size, ["Call again", "Another number"])
        page.keyboard.press("Escape")
        ring(page, server)
        page.keyboard.press("Escape")
        reachable(page, size, ["Phone call: Queued. Show it", "Settings"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_call_panel_stands_out_from_its_ground(browser: Browser, server: PageServer, scheme: str) -> None:
    with visitor(browser, color_scheme=scheme, reduced_motion="reduce") as page:
        page.goto(server.url)
        page.get_by_role("button", name="Call a phone").click()
        field = page.get_by_label("Phone number")
        worst: dict[str, float] = {}
        for number in ("+1 2", "+44 2", "x"):  # a country, one that is not allowed, a mistake
            field.fill(number)
            worst |= {f"{name} {number}": ratio for name, ratio in page.evaluate(CONTRAST).items()}
        server.phone.refusal = (403, {"code": "not_allowed", "message": "That is not allowed."})
        field.fill("+1 202 555 0123")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        worst |= page.evaluate(CONTRAST)
        server.phone.refusal = None
        page.keyboard.press("Enter")
        expect(page.locator("#call-status")).to_have_text("Queued")
        for status in ("ringing", "in-progress", "failed"):
            server.phone.tell(status=status)
            expect(page.locator("#call-view")).to_have_attribute("data-tone", TONES[status])
            worst |= {f"{name} {status}": ratio for name, ratio in page.evaluate(CONTRAST).items()}
        assert len(worst) >= 20
        assert {name: ratio for name, ratio in worst.items() if ratio < 4.5} == {}
        assert page.evaluate("document.getAnimations().length") == 0  # motion was asked to be little
