"""The page for everybody: with the keyboard alone, with a screen reader, on a small screen, in both themes."""

import re

import pytest
from page_stage import PageServer, in_state, talk, tone, visitor
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
    .field > span, .switch small, kbd, .notice p, .footnote`)) {
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
        width, height = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        assert (width, height) == size
        for name in ("End the conversation", "Mute", "Send", "Settings"):
            button = page.get_by_role("button", name=name, exact=True)
            button.click(trial=True)  # nothing lies over it
            box = button.bounding_box()
            assert box
            assert min(box["width"], box["height"]) >= 44  # a finger
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size[0]
            assert box["y"] + box["height"] <= size[1]


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
