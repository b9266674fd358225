"""A conversation through the real page in a real browser: what is shown, what is heard, what is sent."""

import numpy as np
import pytest
from page_stage import RATE_HZ, Line, PageServer, in_state, recording, talk, tone, wait_until
from playwright.sync_api import Page, expect

TEXT = "It was the best of times. It was the worst of times."


def lines(page: Page) -> list[str]:
    """The captions, each as "who: what"."""
    shown: list[str] = page.locator("#captions li").evaluate_all(
        "(all) => all.map((one) => `${one.children[0].textContent}: ${one.children[1].textContent}`)"
    )
    return shown


def loud_ms(wave: np.ndarray, rate_hz: int, above: float = 0.01) -> float:
    """How long the recording was not silent."""
    blocks = np.abs(wave[: len(wave) // 80 * 80]).reshape(-1, 80).max(axis=1)
    return float((blocks > above).sum() * 80_000 / rate_hz)


def test_it_greets_and_sends_the_microphone_as_20_ms_frames_of_16_khz(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    assert line.start == {"type": "start", "greeting": True}
    wait_until(lambda: line.frames() > 80, "80 frames")  # 1.6 s: the made microphone beeps once a second
    assert {len(frame) for frame in line.audio} == {640}
    samples = line.samples()
    assert np.abs(samples).max() > 500
    expect(page.locator("#status")).to_have_text("Listening")


def test_captions_grow_and_settle(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.tell("speech.started", turn=1, at_ms=100)
    expect(page.locator("#status")).to_have_text("You are speaking")
    line.tell("transcript.partial", turn=1, text="what is")
    expect(page.locator(".user.partial .said")).to_have_text("what is")
    line.tell("transcript.partial", turn=1, text="what is the time")
    expect(page.locator(".user.partial .said")).to_have_text("what is the time")
    line.tell("transcript.final", turn=1, text="What is the time?")
    expect(page.locator(".user:not(.partial) .said")).to_have_text("What is the time?")
    expect(page.locator("#status")).to_have_text("Thinking")
    line.tell("turn.reopened", turn=1)
    expect(page.locator(".user.partial .said")).to_have_text("What is the time?")
    line.tell("transcript.final", turn=1, text="What is the time in Rome?")
    line.tell("reply.text", turn=1, reply=1, text="It is ")
    line.tell("reply.text", turn=1, reply=1, text="noon.")
    expect(page.locator(".assistant.growing .said")).to_have_text("It is noon.")
    line.tell("reply.done", turn=1, reply=1, text="It is noon.", heard="It is noon.", interrupted=False)
    expect(page.locator(".growing")).to_have_count(0)
    assert lines(page) == ["You: What is the time in Rome?", "Ahoy: It is noon."]
    spoken = page.locator("#spoken-log p").all_text_contents()
    assert spoken[-1] == "Ahoy: It is noon."
    assert "You: what is" not in spoken  # partial words are not read out


def test_what_was_not_heard_of_an_answer_is_greyed(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.tell("reply.text", turn=1, reply=1, text=TEXT)
    line.tell("reply.done", turn=1, reply=1, text=TEXT, heard=TEXT[:25], interrupted=True)
    expect(page.locator(".unheard")).to_contain_text("It was the worst of times.")
    assert "not heard" in lines(page)[0]
    colours = page.evaluate("['.said', '.unheard'].map((one) => getComputedStyle(document.querySelector(one)).color)")
    assert colours[0] != colours[1]


def test_an_answer_to_a_turn_that_went_on_was_never_given(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.tell("transcript.final", turn=1, text="Tell me")
    line.tell("reply.text", turn=1, reply=1, text="What?")
    line.tell("reply.done", turn=1, reply=1, text="What?", heard="", interrupted=True)
    line.tell("turn.reopened", turn=1)
    line.tell("transcript.final", turn=1, text="Tell me more.")
    expect(page.locator(".user .said")).to_have_text("Tell me more.")
    assert lines(page) == ["You: Tell me more."]


def test_text_of_the_server_is_text_and_never_markup(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.tell("transcript.final", turn=1, text="<img src=x onerror=alert(1)>")
    expect(page.locator(".user .said")).to_have_text("<img src=x onerror=alert(1)>")
    assert page.locator("#captions img").count() == 0


def test_all_audio_is_played_once_and_reported(page: Page, server: PageServer) -> None:
    line = talk(page, server, "?record=1")
    line.speak(3, tone(0.9))
    in_state(page, "activity", "speaking")
    expect(page.locator("#status")).to_have_text("Speaking")
    line.expect("playback", reply=3, played_ms=900)
    reports = [report["played_ms"] for report in line.of("playback")]
    assert reports == sorted(reports)
    assert 3 <= len(reports) <= 7
    in_state(page, "activity", "listening")
    page.wait_for_timeout(250)
    wave, rate_hz = recording(page)
    assert loud_ms(wave, rate_hz) == pytest.approx(900, abs=25)
    assert page.evaluate("ahoy.counts.playback") == {"underruns": 0, "dropped": 0}


def test_a_whole_sound_comes_out_at_its_pitch_without_a_gap(page: Page, server: PageServer) -> None:
    line = talk(page, server, "?record=1")
    line.speak(1, tone(1, hz=1000))
    line.expect("playback", played_ms=1000)
    page.wait_for_timeout(250)
    wave, rate_hz = recording(page)
    first = int(np.argmax(np.abs(wave) > 0.1))
    steady = wave[first + rate_hz // 20 : first + rate_hz // 20 + rate_hz * 4 // 5]
    spectrum = np.abs(np.fft.rfft(steady * np.blackman(len(steady)))) ** 2
    peak = int(np.argmax(spectrum))
    assert peak * rate_hz / len(steady) == pytest.approx(1000, abs=2)
    beside = spectrum.sum() - spectrum[peak - 5 : peak + 6].sum()
    assert 10 * np.log10(beside / spectrum.sum()) < -60  # a gap or a click would spread


def test_clear_empties_the_speaker_at_once_and_says_where(page: Page, server: PageServer) -> None:
    line = talk(page, server, "?record=1")
    line.speak(1, tone(5))
    line.expect("playback", reply=1)
    line.tell("clear", reply=1)
    in_state(page, "activity", "listening")
    page.wait_for_timeout(400)
    wave, rate_hz = recording(page)
    heard_ms = line.of("playback")[-1]["played_ms"]
    assert loud_ms(wave, rate_hz) == pytest.approx(heard_ms, abs=25)
    assert heard_ms < 3000
    assert not np.abs(wave[-rate_hz // 5 :]).any()
    line.speak(2, tone(0.2))  # and the next reply is heard
    line.expect("playback", reply=2, played_ms=200)


def test_held_the_answer_is_much_quieter_and_comes_back(page: Page, server: PageServer) -> None:
    line = talk(page, server, "?record=1")
    line.speak(1, tone(1.5, level=0.8))
    line.expect("playback", reply=1)
    line.tell("audio.hold", reply=1)
    page.wait_for_timeout(500)
    line.tell("audio.resume", reply=1)
    line.expect("playback", reply=1, played_ms=1500)
    page.wait_for_timeout(250)
    wave, rate_hz = recording(page)
    blocks = np.abs(wave[: len(wave) // 480 * 480]).reshape(-1, 480).max(axis=1)
    assert (blocks > 0.75).sum() * 480 > 0.3 * rate_hz
    assert ((blocks > 0.15) & (blocks < 0.17)).sum() * 480 > 0.2 * rate_hz


def test_the_stop_button_silences_before_the_server_knows(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.speak(1, tone(5), end=False)
    in_state(page, "activity", "speaking")
    page.get_by_role("button", name="Stop the answer").click()
    line.expect("interrupt")
    in_state(page, "activity", "listening")
    line.connection.send(tone(1).tobytes())  # was still on its way
    page.wait_for_timeout(200)
    assert page.evaluate("ahoy.state.activity") == "listening"


def test_muted_nothing_is_sent(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    wait_until(line.frames, "audio")
    page.get_by_role("button", name="Mute", exact=True).click()
    line.expect("mute", muted=True)
    expect(page.locator("#status")).to_have_text("Muted")
    page.wait_for_timeout(60)
    before = line.frames()
    page.wait_for_timeout(200)
    assert line.frames() == before
    page.get_by_role("button", name="Unmute").click()
    line.expect("mute", muted=False)
    wait_until(lambda: line.frames() > before, "audio again")


def test_full_duplex_hears_during_the_answer_and_half_duplex_does_not(page: Page, server: PageServer) -> None:
    def heard_while_speaking(line: Line, reply: int) -> int:
        line.speak(reply, tone(1.4))
        in_state(page, "activity", "speaking")
        page.wait_for_timeout(100)
        before = len(line.samples())
        in_state(page, "activity", "listening")
        heard = line.samples()[before:]
        assert len(heard) > 0.8 * RATE_HZ  # the server's clock goes on either way
        return int(np.abs(heard).max())

    line = talk(page, server)
    assert heard_while_speaking(line, 1) > 500
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("switch", name="Take turns strictly").check()
    page.get_by_role("button", name="Close the settings").click()
    assert heard_while_speaking(line, 2) == 0


def test_typing_starts_a_conversation_without_microphone_or_greeting(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    field = page.get_by_label("Type instead of talking")
    field.fill("What time is it?")
    field.press("Enter")
    line = server.line()
    assert line.start == {"type": "start", "greeting": False}
    line.expect("text", text="What time is it?")
    line.expect("mute", muted=True)
    field.fill("And in Rome?")
    page.get_by_role("button", name="Send").click()
    line.expect("text", text="And in Rome?")
    expect(field).to_have_value("")
    page.get_by_role("button", name="Turn mic on").click()
    line.expect("mute", muted=False)
    wait_until(line.frames, "audio")


def test_the_last_answers_latency_is_broken_down(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    panel = page.locator("#latency")
    stages = {"endpointing_ms": 480, "stt_ms": 120, "llm_ms": 190, "tts_ms": 60, "engine_ms": 30}
    line.tell("latency", turn=0, reply=1, voice_to_voice_ms=20, speculative=False, stages=stages)
    line.tell("transcript.final", turn=1, text="What time is it?")
    expect(page.locator(".user .said")).to_be_visible()
    expect(panel).to_be_hidden()  # a greeting answers nobody
    line.tell("latency", turn=1, reply=2, voice_to_voice_ms=1240, speculative=True, stages=stages)
    expect(panel.locator(".total")).to_have_text("1.24 s")
    expect(panel.locator(".tag")).to_be_visible()
    panel.locator("summary").click()
    expect(panel.locator(".stages li")).to_have_count(5)
    expect(panel.locator(".stages")).to_contain_text("480 ms")
    typed = {**stages, "endpointing_ms": 0, "stt_ms": 0}
    line.tell("latency", turn=2, reply=3, voice_to_voice_ms=280, speculative=False, stages=typed)
    expect(panel.locator(".total")).to_have_text("280 ms")
    expect(panel.locator(".stages li:visible")).to_have_count(3)  # what was not needed is not there


def test_choices_are_remembered_and_sent(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Voice").select_option("marlene")  # the list comes from the server, before any conversation
    page.get_by_label("Language you speak").select_option(label="German")
    page.get_by_role("radio", name="Dark").check()
    page.keyboard.press("Escape")
    line = talk(page, server)
    assert line.start == {"type": "start", "greeting": True, "voice": "marlene", "language": "de"}
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_button_ends_the_conversation(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    page.get_by_role("button", name="End the conversation").click()
    line.expect("bye")
    expect(page.locator("#status")).to_have_text("Conversation ended")
    expect(page.get_by_role("button", name="Start talking")).to_be_visible()
    assert page.evaluate("ahoy.state.microphone") == "off"


def test_a_noise_that_was_no_words_leaves_it_listening(page: Page, server: PageServer) -> None:
    line = talk(page, server)
    line.tell("speech.started", turn=1, at_ms=0)
    in_state(page, "activity", "hearing")
    line.tell("transcript.final", turn=1, text="")
    in_state(page, "activity", "listening")
