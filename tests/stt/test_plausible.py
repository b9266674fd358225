"""What nobody said is not answered, and what somebody said is."""

import pytest
from app.stt.plausible import LETTERS_PER_S, SLACK_S, believable, without_loop
from hypothesis import given
from hypothesis import strategies as st

COUGH_MS = 96
SENTENCES = [
    "Thank you. ",
    "You. ",
    "Thanks for watching! ",
    "What time is it? ",
    "Yes. ",
    "ご視聴ありがとうございました。",
    "谢谢观看",
    "Да. ",
]
texts = st.one_of(st.text(), st.lists(st.sampled_from([*SENTENCES, "no ", "so "]), max_size=12).map("".join))


# --- what takes time to say


@pytest.mark.parametrize(
    ("text", "voiced_ms"),
    [
        ("Yes.", 130),
        ("No.", 96),
        ("No, not at all.", 700),
        ("What's the weather like in Paris tomorrow afternoon, and should I take an umbrella?", 3840),
        ("What's the weather like in Paris tomorrow afternoon, and should I take an umbrella?", 2900),
        ("今日の天気はどうですか？", 1000),
        ("今天天气怎么样？", 900),
        ("오늘 날씨가 어때요?", 900),
        ("आज मौसम कैसा है?", 900),
        ("My number is 5 5 5 0 1 0 0.", 2600),
    ],
)
def test_what_there_was_voice_for_is_believed(text: str, voiced_ms: float) -> None:
    assert believable(text, voiced_ms) == text


@pytest.mark.parametrize(
    "text",
    [
        "I'm going to go ahead and do that now.",
        "Let me know what you think in the comments below.",
        "それでは、また明日お会いしましょう。",
        "我们下次再见吧朋友们",
        "여러분 안녕하세요 반갑습니다",
        "И вот тогда мы пошли домой.",
    ],
)
def test_nobody_says_a_sentence_in_the_time_of_a_cough(text: str) -> None:
    assert believable(text, COUGH_MS) == ""


def test_without_any_voice_nothing_was_said() -> None:
    assert believable("Yes.", 0) == ""


@pytest.mark.parametrize("text", ["", " ", "...", "♪", "♪♪♪", "?!"])
def test_a_transcript_without_words_is_none(text: str) -> None:
    assert believable(text, 5000) == ""


# --- what stands under videos


@pytest.mark.parametrize(
    "text",
    [
        "Thank you.",
        "you",
        "Bye!",
        "Thank you for watching!",
        "Thanks for watching, and see you in the next video.",
        "Subtitles by the Amara.org community",
        "Untertitel der Amara.org-Community",
        "Untertitelung des ZDF, 2020",
        "Vielen Dank fürs Zuschauen!",
        "Sous-titres réalisés par la communauté d'Amara.org",
        "Merci d\u2019avoir regardé cette vidéo !",
        "¡Gracias por ver el vídeo!",
        "Subtítulos realizados por la comunidad de Amara.org",
        "Legendas pela comunidade Amara.org",
        "Sottotitoli creati dalla comunità Amara.org",
        "Ondertiteld door de Amara.org gemeenschap",
        "Субтитры сделал кто-то",
        "Продолжение следует...",
        "Napisy stworzone przez społeczność Amara.org",
        "İzlediğiniz için teşekkür ederim.",
        "ご視聴ありがとうございました",
        "チャンネル登録をお願いいたします",
        "字幕由Amara.org社区提供",
        "谢谢大家的观看",
        "請不吝點贊 訂閱 轉發 打賞支持",
        "시청해 주셔서 감사합니다.",
        "اشتركوا في القناة",
        "धन्यवाद",
        "Thank you. Thank you.",
        "谢谢观看！！ ……",
    ],
)
def test_a_noise_is_not_taken_for_what_stands_under_videos(text: str) -> None:
    assert believable(text, 160) == ""
    assert believable(text, 10_000, logprob=-1.3) == "", "nor when the recogniser is unsure"
    assert believable(text, 10_000, logprob=-0.3, no_speech=0.8) == "", "nor when it heard no speech"


@pytest.mark.parametrize(
    ("text", "voiced_ms"),
    [
        ("Thank you.", 512),
        ("You.", 384),
        ("Bye.", 384),
        ("Okay.", 544),
        ("Thanks for watching!", 960),
        ("Please subscribe to my channel.", 1440),
        ("See you next time.", 1088),
        ("ありがとうございました", 1100),
        ("谢谢大家", 700),
    ],
)
def test_people_may_say_so_all_the_same(text: str, voiced_ms: float) -> None:
    assert believable(text, voiced_ms, logprob=-0.3) == text


def test_what_is_invented_behind_a_question_does_not_take_the_question_away() -> None:
    assert believable("What time is it? Thank you for watching!", 700) == "What time is it?"
    assert believable("What time is it? Thank you for watching!", 1800) == "What time is it? Thank you for watching!"
    assert believable("Turn it off. Thanks for watching. Bye.", 3000, logprob=-1.2) == "Turn it off."


def test_an_unsure_recogniser_is_believed_if_it_gives_real_words() -> None:
    assert believable("Turn off the light.", 900, logprob=-1.4) == "Turn off the light."
    assert believable("Turn off the light.", 900, no_speech=0.9) == "Turn off the light."


def test_unsure_and_without_speech_there_was_none() -> None:
    assert believable("Turn off the light.", 900, logprob=-1.4, no_speech=0.9) == ""


@pytest.mark.parametrize(
    "text", ["[Music]", "(applause)", "[音楽]【笑】", "*coughs*", "♪ ♪", "[BLANK_AUDIO]", "（笑）"]
)
def test_what_is_written_about_sounds_was_not_said(text: str) -> None:
    assert believable(text, 5000) == ""


def test_words_beside_a_sound_were_said() -> None:
    assert believable("[door closes] Is anybody there?", 1200) == "Is anybody there?"
    assert believable("Is anybody (and I mean anybody) there?", 2500) == "Is anybody (and I mean anybody) there?"


# --- another script


@pytest.mark.parametrize(
    ("text", "language"), [("안녕하세요", "en"), ("Привет всем", "de"), ("你好朋友", "ru"), ("Γεια σου", "en-US")]
)
def test_a_short_noise_is_no_word_of_another_script(text: str, language: str) -> None:
    assert believable(text, 300, language=language) == ""
    assert believable(text, 1500, language=language) == text, "said at length, it may be what was spoken"
    assert believable(text, 1500) == text


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("OpenAI", "ja"),
        ("Привет", "sr"),
        ("はい", "ja"),
        ("네 좋아요", "ko"),
        ("Ja, ja", "de"),
        ("नमस्ते", "hi"),
        ("¿Qué?", "es"),
    ],
)
def test_languages_are_written_as_they_are(text: str, language: str) -> None:
    assert believable(text, 330, language=language) == text


# --- loops


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Try again. Try again. Try again. Try again", "Try again."),
        ("I said so. And then, and then, and then, and then", "I said so. And then,"),
        ("no no no no no no", "no"),
        ("我不知道我不知道我不知道我不知道", "我不知道"),
        ("ご覧ください。ご覧ください。ご覧ください。", "ご覧ください。"),
    ],
)
def test_a_phrase_said_over_and_over_is_said_once(text: str, said: str) -> None:
    assert without_loop(text) == said
    assert believable(text, 4000) == said


@pytest.mark.parametrize(
    "text",
    ["No, no, no!", "Again and again and again.", "Left, right, left, right.", "はいはいはい", "好的好的", "哈哈哈哈"],
)
def test_what_people_do_say_twice_stays(text: str) -> None:
    assert without_loop(text) == text


def test_numbers_are_dictated_digit_by_digit() -> None:
    text = "It is 0 0 0 0 0 0 1 2 1 2 1 2, I think."
    assert believable(text, 5000) == text
    assert believable("5 5 5 5 5 5 5 5 5 5 5 5 5 5 5 5 5 5 5 5", 700) == "", "but not in no time"


def test_a_loop_out_of_a_cough_leaves_nothing() -> None:
    assert believable("I see. " * 30, COUGH_MS) == ""
    assert believable("I see. " * 30, 600) == "I see."


def test_a_transcript_without_end_is_refused_at_once() -> None:
    assert believable("".join(f"word{number} " for number in range(100_000)), 30_000) == ""
    assert believable("You. Bye. So. Okay. " * 20_000, 30_000) == "You. Bye. So. Okay."


# --- laws


@given(text=texts, voiced_ms=st.floats(0, 30_000), logprob=st.none() | st.floats(-3, 0))
def test_nothing_is_added_to_a_transcript(text: str, voiced_ms: float, logprob: float | None) -> None:
    believed = believable(text, voiced_ms, logprob=logprob)
    assert believed == believed.strip()
    left = iter(text)
    assert all(sign in left for sign in believed if not sign.isspace()), "in the order in which it came"
    letters = sum(sign.isalnum() for sign in believed)
    assert letters <= (voiced_ms / 1000 + SLACK_S) * LETTERS_PER_S + 1e-6


@given(text=texts, less_ms=st.floats(0, 3000), more_ms=st.floats(0, 3000), logprob=st.none() | st.floats(-3, 0))
def test_the_more_voice_there_was_the_more_is_believed(
    text: str, less_ms: float, more_ms: float, logprob: float | None
) -> None:
    less = believable(text, less_ms, logprob=logprob)
    more = believable(text, less_ms + more_ms, logprob=logprob)
    assert more.startswith(less)


@given(st.lists(st.sampled_from(["yes", "no", "oh", "well,", "I", "see.", "7"]), max_size=40))
def test_taking_loops_out_only_ever_shortens_and_is_done_once(parts: list[str]) -> None:
    text = " ".join(parts)
    said = without_loop(text)
    assert text.startswith(said)
    assert without_loop(said) == said
