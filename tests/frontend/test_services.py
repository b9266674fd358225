"""Who does the work, in the settings of the page: who may be asked, how it stands with each, and a test of all."""

import pytest
from page_services import ALL, BROKE, CHAT, EARS, FOUND, NO_CREDIT, VOICE, finding, provider
from page_stage import PageServer
from playwright.sync_api import Page, expect

SETTINGS = "Settings"


def open_settings(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.get_by_role("button", name=SETTINGS, exact=True).click()


@pytest.fixture
def server_with_services(server: PageServer) -> PageServer:
    server.phone.services = {"providers": ALL, "findings": FOUND}
    return server


def test_everybody_is_there_in_order_with_how_it_stands(page: Page, server_with_services: PageServer) -> None:
    open_settings(page, server_with_services)
    expect(page.get_by_role("heading", name="Services")).to_be_visible()
    expect(page.locator(".work")).to_have_text(["Recognition", "Language model", "Voice"])
    expect(page.get_by_role("list", name="Recognition").get_by_role("listitem")).to_have_text(
        ["OpenAI gpt-transcribein use", "Embedded modelstands by"]
    )
    broke, chat = page.get_by_role("list", name="Language model").get_by_role("listitem").all()
    expect(broke).to_have_text(f"groq llama-3.3-70b-versatileleft alone{NO_CREDIT}")
    expect(chat).to_have_text("ollama llama3.2:3bin useThe last time: ollama gave nothing for 20 s.")
    assert not server_with_services.phone.requests("POST"), "looking costs nothing"


def test_the_test_says_how_soon_each_was_and_what_happened(page: Page, server_with_services: PageServer) -> None:
    open_settings(page, server_with_services)
    page.get_by_role("button", name="Test").click()
    expect(page.locator("#services .result")).to_have_text("1 of 6 failed.")
    expect(page.get_by_text("First words after 310 ms. Answered with 7 words.")).to_be_visible()
    expect(page.get_by_text("First sound after 210 ms. Spoke 2.1 s, 3.4 times as fast as it plays.")).to_be_visible()
    expect(page.get_by_text("Words after 1.24 s. Understood “Hello, this is a test of the voice.”")).to_be_visible()
    broke = page.get_by_role("list", name="Language model").get_by_role("listitem").first
    expect(broke).to_have_text(f"groq llama-3.3-70b-versatilefails{NO_CREDIT}")


def test_when_all_work_it_says_so(page: Page, server: PageServer) -> None:
    server.phone.services = {"providers": [EARS, VOICE], "findings": [FOUND[0], FOUND[4]]}
    open_settings(page, server)
    page.get_by_role("button", name="Test").click()
    expect(page.locator("#services .result")).to_have_text("All of them work.")
    server.phone.services = {"providers": [EARS], "findings": [finding(EARS, "It understood nothing.", None)]}
    page.get_by_role("button", name="Test").click()
    expect(page.locator("#services .result")).to_have_text("None of them works.")


def test_who_fails_in_the_test_is_no_longer_the_one_in_use(page: Page, server: PageServer) -> None:
    two = [provider("llm", "groq", "a", asked=True), provider("llm", "ollama", "b")]
    server.phone.services = {"providers": two}
    open_settings(page, server)
    expect(page.locator(".provider").first).to_have_text("groq ain use")
    after = [{**two[0], "works": False, "problem": NO_CREDIT, "asked": False}, {**two[1], "asked": True}]
    found = [finding(two[0], NO_CREDIT, None), finding(two[1], "Answered with 7 words.")]
    server.phone.services = {"providers": after, "findings": found}
    page.get_by_role("button", name="Test").click()
    expect(page.locator(".provider")).to_have_text(
        [f"groq afails{NO_CREDIT}", "ollama bin useFirst words after 310 ms. Answered with 7 words."]
    )


def test_while_it_runs_the_button_says_so_and_does_nothing_more(page: Page, server_with_services: PageServer) -> None:
    phone = server_with_services.phone
    phone.waiting.clear()
    open_settings(page, server_with_services)
    button = page.locator("#services .test")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_text("Testing…")
    expect(button).to_be_focused()
    expect(page.locator("#services .result")).to_have_text("Testing: this takes some seconds…")
    page.keyboard.press("Enter")
    phone.waiting.set()
    expect(button).to_have_text("Test")
    expect(button).to_be_focused()
    expect(page.locator("#settings")).to_be_visible()
    assert len(phone.requests("POST", "/api/providers/check")) == 1


def test_what_was_tested_before_is_said_to_be_old(page: Page, server_with_services: PageServer) -> None:
    server_with_services.phone.services = {"providers": ALL, "findings": FOUND, "age_s": 6.2}  # type: ignore[dict-item]
    open_settings(page, server_with_services)
    page.get_by_role("button", name="Test").click()
    expect(page.locator("#services .result")).to_have_text(
        "1 of 6 failed. That was tested 6 s ago; a new test can be made every 10 s."
    )


def test_opening_the_settings_again_asks_again(page: Page, server_with_services: PageServer) -> None:
    open_settings(page, server_with_services)
    expect(page.locator(".provider")).to_have_count(6)
    page.get_by_role("button", name="Test").click()
    expect(page.locator("#services .result")).to_have_text("1 of 6 failed.")
    page.get_by_role("button", name="Close the settings").click()
    server_with_services.phone.services = {"providers": [CHAT]}
    page.get_by_role("button", name=SETTINGS, exact=True).click()
    expect(page.locator(".provider")).to_have_count(1)
    expect(page.locator("#services .result")).to_be_empty()


def test_whoever_lacks_the_key_is_told_so_and_can_give_it(page: Page, server_with_services: PageServer) -> None:
    server_with_services.phone.key = "a-key"
    open_settings(page, server_with_services)
    expect(page.locator("#services")).to_contain_text("shown to holders of the server’s API_KEY")
    expect(page.locator("#services .test")).to_be_hidden()
    assert page.locator(".provider").count() == 0
    page.get_by_role("button", name="Give the key").click()
    expect(page.locator("#settings")).to_be_hidden()
    page.get_by_label("The server’s key").fill("a-key")
    page.get_by_role("button", name="Unlock").click()
    expect(page.get_by_label("Phone number")).to_be_visible()
    page.get_by_role("button", name="Close the call panel").click()
    page.get_by_role("button", name=SETTINGS, exact=True).click()
    expect(page.locator(".provider")).to_have_count(6)
    asked = server_with_services.phone.requests("GET", "/api/providers")[-1]
    assert asked["headers"]["authorization"] == "Bearer a-key"


def answer(page: Page, status: int, code: str, message: str) -> None:
    body = f'{{"error": {{"code": "{code}", "message": "{message}"}}}}'
    page.route(
        "**/api/providers", lambda route: route.fulfill(status=status, content_type="application/json", body=body)
    )


def test_whoever_sits_elsewhere_is_told_where_it_can_be_seen(page: Page, server: PageServer) -> None:
    answer(page, 403, "local_only", "Not from here.")
    open_settings(page, server)
    expect(page.locator("#services .result")).to_contain_text("on the server’s own computer, at http://localhost")
    for part in (".test", ".unlock", ".chains", ".about-chains"):
        expect(page.locator(f"#services {part}")).to_be_hidden()


def test_before_the_models_are_there_it_says_what_the_server_says(page: Page, server: PageServer) -> None:
    answer(page, 503, "not_ready", "The models are still being loaded; try again in a moment.")
    open_settings(page, server)
    expect(page.locator("#services .result")).to_have_text("The models are still being loaded; try again in a moment.")
    expect(page.locator("#services .test")).to_be_hidden()


def test_with_a_server_of_an_older_version_there_is_no_such_section(page: Page, server: PageServer) -> None:
    with page.expect_response("**/api/providers"):
        open_settings(page, server)
    expect(page.get_by_label("Server address")).to_be_visible()
    expect(page.locator("#services")).to_be_hidden()


def test_a_test_that_does_not_come_back_leaves_the_list_and_says_why(
    page: Page, server_with_services: PageServer
) -> None:
    open_settings(page, server_with_services)
    expect(page.locator(".provider")).to_have_count(6)
    page.route("**/api/providers/check", lambda route: route.abort())
    page.get_by_role("button", name="Test").click()
    expect(page.locator("#services .result")).to_have_text("The server does not answer.")
    expect(page.locator(".provider")).to_have_count(6)
    expect(page.locator("#services .test")).to_have_text("Test")


def test_another_server_has_services_of_its_own(page: Page, server_with_services: PageServer) -> None:
    with PageServer() as other:
        other.phone.services = {"providers": [BROKE]}
        other.phone.origin = server_with_services.url.rstrip("/")
        open_settings(page, server_with_services)
        expect(page.locator(".provider")).to_have_count(6)
        page.get_by_label("Server address").fill(f"127.0.0.1:{other.port}")
        page.get_by_label("Server address").press("Tab")
        expect(page.locator(".provider")).to_have_count(1)


@pytest.mark.parametrize("width", [320, 390, 1000])
def test_long_names_fit_a_small_phone(page: Page, server_with_services: PageServer, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.emulate_media(reduced_motion="reduce")  # where things are when they have arrived
    model = "a-model/with-an-even-longer-name-of-its-own-large-v3-turbo"
    long = provider("llm", "a-service-with-quite-a-long-name", model, works=False, problem=NO_CREDIT)
    server_with_services.phone.services = {"providers": [long, *ALL]}
    open_settings(page, server_with_services)
    expect(page.locator(".provider")).to_have_count(7)
    rights = page.locator("#services *").evaluate_all("(all) => all.map((one) => one.getBoundingClientRect().right)")
    assert max(rights) <= width
    assert page.evaluate(
        "(settings) => settings.scrollWidth <= settings.clientWidth", page.locator("#settings").element_handle()
    )
