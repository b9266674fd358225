"""What is written for the eye is said as a reader would say it, and what is only there for the eye is not said."""

import re
import unicodedata
from itertools import pairwise

import pytest
from app.conversation.chunker import SpeechChunker
from app.conversation.spoken import SpokenText, speakable
from hypothesis import example, given
from hypothesis import strategies as st
from rich._emoji_codes import EMOJI

MARKDOWN = "** * __ _ ` ``` ~~~ ~~ # ## > [ ] ( ) ]( [^1] [x] [1] | || --- -- - = == ^ ; ' 1. snake_case 2*3 \\( \\) \\"
ADDRESSES = (
    "https:// www. example.com /docs ?x=1 @ . , ! ? !! : $ $$ { } \\frac{a}{b} < > <b> </b> <br> <!-- --> &amp; &lt;"
)
SIGNS = "& &nbsp; -> → • … 😀 👩‍🔬 🇩🇪 1️⃣ word Ünï 今日 。 x 7 \ufe0f \u200d \u200b \x00 \ud800"
SPACES = [" ", "\u00a0", "\n", "\n\n", "\t", "- ", "1. ", "\n- ", "\n| "]
PARTS = st.sampled_from([*f"{MARKDOWN} {ADDRESSES} {SIGNS}".split(" "), *SPACES])
texts = st.one_of(st.text(), st.lists(PARTS, max_size=60).map("".join))


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("**Bold** and _italic_ and `code`", "Bold and italic and code"),
        ("***Both***, __bold__, ~~struck~~ and ==marked==.", "Both, bold, struck and marked."),
        ("这是**重要**的。", "这是重要的。"),
        ("Call snake_case_name or __init__.", "Call snake_case_name or init."),
        ("2*3 is 2 * 3 and 2**3 is 8, a * b too.", "2*3 is 2 * 3 and 2**3 is 8, a * b too."),
        ("# A title", "A title"),
        ("## A title ##\nAnd text.", "A title. And text."),
        ("C# and F#, #1 and #hashtag", "C# and F#, #1 and hashtag"),
        ("> quoted\n> and more", "quoted and more"),
        ("> > - deep", "deep"),
        ("- one\n- two", "one, two"),
        ("* one.\n* two.\nAnd then.", "one. two. And then."),
        ("• a bullet", "a bullet"),
        ("1. Take flour\n2. Add water", "1. Take flour. 2. Add water"),
        ("- [ ] buy milk\n- [x] call home", "buy milk, call home"),
        ("---", ""),
        ("* * *", ""),
        ("Title\n=====\nText", "Title Text"),
        ("Use ```pip``` for it", "Use pip for it"),
        ("Read [the manual](https://example.com/a/b?c=d) first", "Read the manual first"),
        ("[A (b)](https://example.com/a_(b)) and [c][1].\n\n[1]: https://example.com/c", "A (b) and c."),
        ('![a cat](cat.png "Cat") and [![logo](l.png)](https://example.com)', "a cat and logo"),
        ("A fact[^1], another[2][3].\n[^1]: Its source[^a]: this.", "A fact, another. Its source: this."),
        ("Said in [[4]](https://example.com/4).", "Said in."),
        ("> [!NOTE]\n> Mind the gap.", "NOTE Mind the gap."),
        ("It is <b>bold</b><br>and H<sub>2</sub>O<!-- hidden -->.", "It is bold and H2O."),
        ("Fish &amp; chips&nbsp;&ndash; &pound;5 &#x26; &quot;more&quot;", 'Fish & chips – £5 & "more"'),
        ("Press <Enter>, if a < b or 5 > 3.", "Press Enter, if a < b or 5 > 3."),
        ("Run it with --verbose -- or not.", "Run it with verbose – or not."),
        ("don't - well - do", "don't - well - do"),
        (r"Not \*starred\*, costs \$5", "Not starred, costs $5"),
        ("今日は。", "今日は。"),
        ("", ""),
        (" \n\t ", ""),
        ("***", ""),
        ("?!", ""),
    ],
)
def test_markup_is_not_read_out(written, spoken):
    assert speakable(written) == spoken


def test_a_table_becomes_a_sentence_for_each_row():
    written = "| Name | Age |\n|:-----|----:|\n| Ann | **5** |\n| Bob | |\n"
    assert speakable(written) == "Name, Age. Ann, 5. Bob."
    assert speakable("Name | Age\n---|---\nAnn | 5") == "Name, Age Ann, 5"


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        (r"So \(x^2 + y_1\) is it.", "So x² + y 1 is it."),
        (r"\[ \frac{a}{b} \times \pi \approx 3 \]", "a / b × π ≈ 3"),
        ("$$E = mc^2$$", "E = mc²"),
        (r"With $\alpha$ and $n$ at $20^\circ$.", "With alpha and n at 20°."),
        (r"\text{speed} = \sqrt{2}", "speed = √ 2"),
        ("It costs $5 or $6, in US$ or in $US.", "It costs $5 or $6, in US$ or in $US."),
        (r"$\frac{1}{2}$ of it", "1 / 2 of it"),
    ],
)
def test_formulas_lose_what_only_sets_them(written, spoken):
    assert speakable(written) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("See https://www.example.com/docs/index.html?x=1 now", "See example.com slash docs now"),
        ("See https://www.example.com/a/b?c=d now", "See example.com slash a slash b now"),
        ("(https://example.com/getting-started/)", "(example.com slash getting started)"),
        ("http://example.com:8080/one/two/three#four.", "example.com:8080."),
        ("https://example.com/p/1234567890abcdef!", "example.com!"),
        ("www.example.com, www.example.com/news?", "example.com, example.com slash news?"),
        ("<https://example.com>", "example.com"),
        ("[https://example.com/x](https://example.com/x)", "example.com slash x"),
        ("https://en.example.org/wiki/A_(b)", "en.example.org"),
        ("请看https://example.com/docs。谢谢", "请看example.com slash docs。谢谢"),
        ("Mail jane.doe@example.com.", "Mail jane dot doe at example dot com."),
        ("<mailto:info@example.co.uk>", "info at example dot co dot uk"),
        ("At 5.30 p.m. it is 3.14, or -5 degrees; 1,000.50 €", "At 5.30 p.m. it is 3.14, or -5 degrees; 1,000.50 €"),
    ],
)
def test_addresses_are_read_as_people_read_them(written, spoken):
    assert speakable(written) == speakable(written, "en") == spoken


def test_no_english_words_are_put_into_other_languages():
    written = "Siehe https://www.example.com/hilfe oder hilfe@example.com."
    assert speakable(written, "de") == "Siehe example.com oder hilfe@example.com."


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Great 🎉! Let's go 🚀🚀", "Great! Let's go"),
        ("Yes👍🏽and👨‍👩‍👧‍👦no", "Yes and no"),
        ("Flags: 🇩🇪🏴󠁧󠁢󠁥󠁮󠁧󠁿 here", "Flags: here"),
        ("1️⃣ Preheat\n2️⃣ Bake", "1 Preheat 2 Bake"),
        ("① one ❷ two", "1 one 2 two"),
        ("✅ Done\n❌ Not done", "Done, Not done"),
        ("Hi :) how are you ;-)", "Hi how are you"),
        ("Settings → Privacy -> Delete ⇒ OK", "Settings, Privacy, Delete, OK"),
        ("a • b · c", "a, b, c"),
        ("col·lecció", "col·lecció"),
        ("Acme® makes Foo™ at 20 °C, № 5", "Acme makes Foo at 20 °C, № 5"),
        ("What?!?! No!!! Hmm...... so,, yes……", "What?! No! Hmm... so, yes…"),
        ("a\u00a0b\u202fc\u3000d\u200be\ufefff\u00adg\x07h", "a b c defgh"),
        ("𝐁𝐨𝐥𝐝 letters", "Bold letters"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("क्\u200dष", "क्\u200dष"),
        ("👋", ""),
        ("(😀)", ""),
    ],
)
def test_pictures_are_left_out_and_signs_are_made_plain(written, spoken):
    assert speakable(written) == spoken


@pytest.mark.parametrize("ending", ["", "\ufe0f", "!"])
def test_no_emoji_is_ever_read_out(ending):
    said = {name: speakable(f"Well {emoji}{ending}") for name, emoji in EMOJI.items()}
    keycaps = {name for name, emoji in EMOJI.items() if emoji[0].isdigit()}
    assert len(said) > 3000
    assert {text.rstrip("!? ") for name, text in said.items() if name not in keycaps} == {"Well"}
    assert {text.rstrip("!?") for name, text in said.items() if name in keycaps} <= {f"Well {n}" for n in range(10)}


# --- a reply in chunks


def say(reply: str, language: str | None = None) -> list[str]:
    """What is said of a reply, chunk by chunk."""
    chunker, spoken = SpeechChunker(), SpokenText(language)
    chunks = [chunk for sign in reply for chunk in chunker.push(sign)] + chunker.flush()
    return [words for chunk in chunks if (words := spoken.say(chunk))]


@pytest.mark.parametrize("fence", ["```", "~~~", "````"])
def test_a_code_block_is_not_read_out_however_long_it_is(fence):
    code = "".join(f"print({number}, 'a sentence. Or two!')  # [x]\n\n" for number in range(30))
    reply = f"Here is the code:\n\n{fence}python\n{code}{fence}\n\nThat is all. It works."
    assert say(reply) == ["Here is the code:", "That is all.", "It works."]
    assert speakable(reply) == "Here is the code: That is all. It works."


def test_a_code_block_within_a_list_is_none_of_it():
    assert say("1. Run this:\n   ```\n   ls. Or so.\n   ```\n2. Wait.") == ["1. Run this:", "2. Wait."]


def test_a_code_block_that_is_never_closed_is_not_read_out_either():
    assert say("So:\n```js\nlet x = 1; // One. Two. Three.\nlet y") == ["So:"]


def test_code_within_a_line_is_read_out_and_ends_where_it_ends():
    assert " ".join(say("```pip install one two, three``` does it. Then go on.")) in (
        "pip install one two, three does it. Then go on.",
        "does it. Then go on.",
    )
    assert say("Type `ls -l`. Then go on.") == ["Type ls -l.", "Then go on."]


def test_a_table_that_comes_in_rows_is_read_row_by_row():
    assert say("| Name | Age |\n|---|---|\n| Ann | 5 |\n") == ["Name, Age.", "Ann, 5."]


def test_a_dash_in_the_middle_of_a_line_begins_no_list_with_the_next_chunk():
    spoken = SpokenText()
    assert spoken.say("It is so, ") == "It is so,"
    assert spoken.say("- well, almost.\n") == "- well, almost."
    assert spoken.say("- an item\n") == "an item"


def test_an_address_longer_than_a_chunk_is_not_read_out_to_its_end():
    assert say(f"Look: https://example.com/{'a1' * 400}, and come back. Yes.") == [
        *["Look:", "example.com", "and come back.", "Yes."]
    ]


def test_a_link_that_is_cut_in_two_keeps_its_words_only():
    assert say("Read it in [the old, and the new one](https://example.com/x), if you like.") == [
        *["Read it in the old,", "and the new one, if you like."]
    ]


# --- laws


@given(text=texts)
@example(text="&amp;amp;amp;amp;amp;amp;lt;b>")
@example(text="((((((((((x))))))))))()")
@example(text="www.www.www.www.www.www.www.example.com")
def test_what_is_said_of_what_is_said_is_the_same(text):
    spoken = speakable(text)
    assert speakable(spoken) == spoken


@given(text=texts)
def test_what_is_said_is_one_tidy_line_of_no_more_than_was_written(text):
    spoken = speakable(text)
    assert spoken == " ".join(spoken.split())
    assert len(spoken) <= 5 * len(text)
    assert not spoken or re.search(r"[^\W_]", spoken)
    assert not {unicodedata.category(sign) for sign in spoken} & {"Cc", "Cs", "Co", "Zl", "Zp"}
    spoken.encode()


@given(words=st.lists(st.from_regex(r"[A-Za-z0-9']{1,8}", fullmatch=True), max_size=20))
def test_plain_words_are_all_spoken(words):
    said = " ".join(words)
    assert speakable(said) == (said if any(map(str.isalnum, said)) else "")


@given(words=st.lists(st.text(st.characters(categories=["Lu", "Ll", "Lo"]), min_size=1), min_size=1, max_size=20))
def test_words_of_any_language_are_all_spoken(words):
    said = unicodedata.normalize("NFKC", " ".join(words)).split()
    assert speakable(" ".join(said)).split() == said


@given(text=texts, cuts=st.lists(st.integers(0, 200), max_size=10))
def test_chunks_are_said_without_trouble_wherever_they_are_cut(text, cuts):
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    spoken = SpokenText()
    for start, end in pairwise(borders):
        assert len(spoken.say(text[start:end])) <= 5 * (end - start)


HOSTILE = r"""* [ < ]( ` _ $ \( \[ ( >_ -_ # | www. http:// a. &amp; ! ](a( a@ ~ ^ [! 【 ![ <a_ <!-- \frac{ { [^ x*
.. ...x $a www.a/ ][ [[1]]( : http://a@ 😀 1._ - = " , ?! \text ]: <"""


@pytest.mark.parametrize("hostile", HOSTILE.split())
def test_hostile_text_is_said_like_any_other(hostile):
    """With a pattern that looks at everything again and again, each of these takes minutes."""
    spoken = speakable(f"Well. {hostile.replace('_', ' ') * (100_000 // len(hostile))} yes.")
    assert spoken.startswith("Well")
    assert speakable(spoken) == spoken
