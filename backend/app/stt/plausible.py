"""Transcripts that nobody said.

Whisper and its kin have learnt from subtitles. Where there is noise and no word they write what stands under videos at
such a place ("Thank you for watching!"), or the same words over and over. What tells it from speech is how much voice
was heard: to say something takes time. A list of well-known inventions only helps where the voice was short for them,
or the recogniser unsure: people do say "thank you".
"""

import re
import unicodedata
from collections.abc import Sequence

SLACK_S = 0.2
"""A word begins before it is noticed and ends after the last loud window: speech may be so much longer than the voice
measured in it."""
QUICK = 1.15
"""What is on the list is believed if there was voice for it at a quick pace, which takes so much longer than the
quickest. (Read by a synthesiser, "Thank you." holds 510 ms of voice, "Thanks for watching!" 960 ms, "You." 380 ms.)"""
SHORTEST_S = 0.2
"""Nothing on the list is believed with less voice."""
DOUBTFUL_LOGPROB, NO_SPEECH = -1.0, 0.6
"""Whisper's own limits (whisper/transcribe.py): less certain than the one, more probably no speech than the other."""
WORDS_PER_S = 8
LETTERS_PER_S = 25
SYLLABLES_PER_S = (
    ("\u1100", "\u11ff", 25),  # Korean letters
    ("\u1200", "\u139f", 10),  # Ethiopic, a sign for each syllable
    ("\u3040", "\u30ff", 13),  # Japanese syllables
    ("\u3400", "\u9fff", 9),  # Chinese characters
    ("\uac00", "\ud7af", 10),  # Korean syllables
    ("\uf900", "\ufaff", 9),
    ("\U00020000", "\U0003ffff", 9),
)
"""Signs that take longer than a letter: first, last, how many of them somebody can say in a second."""
LONGEST = 4000
"""Nobody says so many characters in one utterance."""
LOOP_WORDS, LOOP_TIMES = 8, 3
"""Up to so many words, this many times in a row, are a loop of the decoder."""
LOOP_SIGNS = 24
"""The same in signs, where no space is put between words."""
OFTEN = 2
"""So many times more before a single word (or three signs) is a loop: "no no no" is something that people say."""
_NOTE = re.compile(r"\[[^\[\]]{0,80}\]|【[^【】]{0,80}】|(?<!\w)\*[^*]{1,80}\*(?!\w)|[♩-♬]+")
_ASIDE = re.compile(r"\([^()]{0,80}\)|（[^（）]{0,80}）")
_SENTENCE = re.compile(r".+?(?:[.!?…]{1,8}(?=\s|\Z)|[。！？]+|\Z)", re.S)
_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"[{_SPACELESS}]|[^\s{_SPACELESS}]+")

_SAID_TOO = """
you | thank you | thanks | thank you very much | thank you so much | thank you all | thanks a lot | bye | bye bye
goodbye | good night | okay | ok | yeah | oh | so | hmm | mm | uh | i'm sorry | i love you | the end | peace | amen
danke | danke schön | vielen dank | tschüss | bis zum nächsten mal | bis bald | das war's
merci | merci beaucoup | au revoir | gracias | muchas gracias | adiós | hasta la próxima
obrigado | obrigada | muito obrigado | tchau | grazie | grazie mille | ciao | grazie a tutti
bedankt | dank u wel | dank je wel | tot de volgende keer | tack | tack så mycket | takk | tak | kiitos | kiitos
спасибо | большое спасибо | пока | до свидания | до новых встреч | всё | дякую | dziękuję | dziękuję bardzo | děkuji
teşekkürler | teşekkür ederim | hoşça kalın | köszönöm | mulțumesc | ευχαριστώ | תודה | תודה רבה | شكرا | धन्यवाद
ありがとう | ありがとうございました | ありがとうございます | おやすみなさい | バイバイ | はい | うん | ではまた
お疲れ様でした
谢谢 | 谢谢大家 | 再见 | 拜拜 | 嗯 | 謝謝 | 謝謝大家 | 감사합니다 | 고맙습니다 | 네 | cảm ơn | terima kasih
"""
"""Whole sentences that are invented out of a cough, and said by people as well."""
_SUBTITLES = """
thanks for watching | thank you( so much| very much)? for (watching|listening|your attention|joining)
see you (in the )?next
(please )?(like and )?subscribe | (please )?(don't|do not) forget to (like|subscribe) | (sub)?titles? by
captions? by
captioning by | closed captioning | (transcribed|transcription|translated|translation|subtitled) by | amara org
i'll see you (in the )?next | we'll be right back | all rights reserved | copyright
untertitel(ung)? (der|von|vom|des|im|mit|ard|zdf|wdr|swr|ndr|br)\\b | untertitel \\w+
(vielen dank|danke) (fürs|für das|für die|für eure) (zu|an|auf)
vielen dank für ihre aufmerksamkeit | abonniert | bis zum nächsten video
sous titr(es|age) | merci d'avoir (regardé|écouté) | abonnez vous | n'oubliez pas de vous abonner
à la prochaine vidéo
subtítulos | subtitulado por | gracias por (ver|mirar|su atención|acompañar) | suscríbe(te|nse)
no olvides suscribirte
legendas? (pela|por|da) | obrigad[oa] por (assistir|ver) | inscreva se | até o próximo vídeo
sottotitoli | grazie per (aver guardato|la visione|l'attenzione|aver visto) | iscri(viti|vetevi) al
ondertitel(d|ing|s)? | bedankt voor het kijken | vergeet niet te abonneren | tv gelderland
undertexter | undertekster | teksting av | tekstet av | danske tekster
tack (till er )?(för|som) (att )?(ni )?(tittat|tittar)
tak (for|fordi) (at )?i så med | tekstitys | kiitos kun katsoit
субтитры | редактор субтитров | корректор | (спасибо за|благодарю за) (просмотр|внимание) | подпис(ывайтесь|аться) на
продолжение следует
ставьте лайк | дякую за перегляд | субтитрування | napisy (stworzone|wykonał|przez|by|od)
dziękuję za (uwagę|oglądanie|obejrzenie)
dziękujemy za | subskrybuj | titulky | děkuji za pozornost | děkujeme za | altyazı | izlediğiniz için | abone ol
feliratok
köszönöm a figyelmet | vă mulțumim pentru | nu uitați să | υπότιτλοι | ευχαριστώ που | תרגום | כתוביות | תודה שצפיתם
اشتركوا في | (شكرا|شكرًا) (لكم )?على (ال)?(مشاهدة|متابعة) | ترجمة | لا تنسوا الاشتراك | सब्सक्राइब
देखने के लिए धन्यवाद
ご視聴 | ご清聴 | ご覧いただき | チャンネル登録 | 高評価 | 字幕 | 次回予告 | 最後までご視聴 | 今日はここまで
(谢谢|谢谢大家|感谢|感谢您|谢谢您)(的)?(观看|收看|收听|聆听) | [请請]不吝 | 点赞 | 订阅 | 中文字幕 | 请订阅
優優獨播劇場 | 优优独播剧场
(謝謝|謝謝大家|感謝|感謝您)(的)?(觀看|收看|收聽|聆聽) | 訂閱 | 詞曲 | 作词 | 下集再见 | 未完待续
시청해 ?주셔서 | 구독(과|을|해) | 좋아요와 구독 | 한글 ?자막 | 자막 | 다음 (영상|시간)에 | 끝까지 시청
(hãy )?(đăng ký|subscribe) (kênh|cho kênh) | cảm ơn (các bạn )?đã (theo dõi|xem)
terima kasih (sudah|telah) (menonton|menyaksikan)
jangan lupa (like|subscribe)
"""
"""How sentences begin that stand under videos, as regular expressions."""


def _plain(text: str) -> str:
    """Its words alone, in small letters."""
    text = unicodedata.normalize("NFC", text).lower().replace("’", "'").replace("i\u0307", "i")
    return " ".join(
        "".join(sign if sign == "'" or unicodedata.category(sign)[0] in "LMN" else " " for sign in text).split()
    )


def _entries(table: str) -> list[str]:
    return [entry.strip() for line in table.split("\n") for entry in line.split(" | ") if entry.strip()]


_INVENTIONS = re.compile(
    rf"(?:{'|'.join(re.escape(_plain(said)) for said in _entries(_SAID_TOO))})$|(?:{'|'.join(_entries(_SUBTITLES))})"
)
_SCRIPTS = {
    **{code: {"CYRILLIC"} for code in ("ru", "uk", "be", "bg", "mk", "ky", "mn")},
    **{code: {"ARABIC"} for code in ("ar", "fa", "ur", "ps", "sd", "ug")},
    **{code: {"DEVANAGARI"} for code in ("hi", "mr", "ne", "sa")},
    **{code: {"CJK", "BOPOMOFO"} for code in ("zh", "yue")},
    "ja": {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK"},
    "ko": {"HANGUL", "CJK"},
    **{"el": {"GREEK"}, "he": {"HEBREW"}, "yi": {"HEBREW"}, "th": {"THAI"}, "lo": {"LAO"}, "ka": {"GEORGIAN"}},
    **{"hy": {"ARMENIAN"}, "am": {"ETHIOPIC"}, "bn": {"BENGALI"}, "as": {"BENGALI"}, "ta": {"TAMIL"}, "te": {"TELUGU"}},
    **{"kn": {"KANNADA"}, "ml": {"MALAYALAM"}, "gu": {"GUJARATI"}, "pa": {"GURMUKHI", "ARABIC"}, "si": {"SINHALA"}},
    **{"km": {"KHMER"}, "my": {"MYANMAR"}, "bo": {"TIBETAN"}},
    **{code: {"CYRILLIC", "ARABIC"} for code in ("sr", "bs", "az", "kk", "tg", "tk", "tt", "uz", "ba")},
}
"""What a language is written in beside Latin letters, in the words of Unicode's character names; nothing, if it is not
here."""
_ALL_SCRIPTS = set().union(*_SCRIPTS.values())


def believable(
    text: str,
    voiced_ms: float,
    *,
    language: str | None = None,
    logprob: float | None = None,
    no_speech: float | None = None,
) -> str:
    """What may be believed of a transcript: `text`, a shorter one, or "" if nobody said it.

    `voiced_ms` is the voice measured in the utterance, without pauses. `language` is the ISO 639-1 code of what is
    spoken, `logprob` the mean log probability of a token, `no_speech` the probability that there is no speech at all;
    None if that is not known.
    """
    doubtful = logprob is not None and logprob < DOUBTFUL_LOGPROB
    silent = no_speech is not None and no_speech > NO_SPEECH
    if voiced_ms <= 0 or (doubtful and silent):
        return ""
    voiced_s = voiced_ms / 1000
    text = _without_notes(text)
    once = without_loop(text)
    # Nobody said the loop, if there was no time for it: then there may have been no words at all.
    slack_s = SLACK_S if once == text or _least_s(text) <= voiced_s else 0.0
    if len(once) > LONGEST:
        return ""
    sentences = _SENTENCE.findall(once)
    while sentences and (doubtful or silent or voiced_s < max(SHORTEST_S, QUICK * _least_s("".join(sentences)))):
        if not (_is_invention(sentences[-1]) or _is_foreign(sentences[-1], language)):
            break
        sentences.pop()
    text = "".join(sentences).strip()
    if not any(sign.isalnum() for sign in text) or _least_s(text) > voiced_s + slack_s:
        return ""
    return text


def without_loop(text: str) -> str:
    """`text` with a phrase that is said over and over said once, and what follows it left out. Numbers stay: digits
    are dictated one by one."""
    units = list(_UNIT.finditer(text))
    plain = [unit[0].strip(".,!?;:…").lower() for unit in units]
    spaceless = 2 * sum(re.match(f"[{_SPACELESS}]", unit[0]) is not None for unit in units) > len(units)
    longest, single = (LOOP_SIGNS, 3) if spaceless else (LOOP_WORDS, 1)
    for length in range(1, longest + 1):
        times = LOOP_TIMES if length > single else LOOP_TIMES + OFTEN
        start = _first_loop(plain, length, times)
        if start is not None:
            return text[: units[start + length - 1].end()]
    return text


def _first_loop(units: Sequence[str], length: int, times: int) -> int | None:
    """Where `length` units begin that come this many times in a row."""
    same = 0
    for place in range(length, len(units)):
        same = same + 1 if units[place] == units[place - length] else 0
        if same >= length * (times - 1) and not all(unit.isnumeric() for unit in units[place - length : place]):
            return place + 1 - length * times
    return None


def _least_s(text: str) -> float:
    """How long even a quick speaker needs for it."""
    words = sum(any(map(str.isalnum, unit)) and not re.match(f"[{_SPACELESS}]", unit) for unit in _UNIT.findall(text))
    return max(words / WORDS_PER_S, sum(1 / _per_s(sign) for sign in text if sign.isalnum()))


def _per_s(sign: str) -> int:
    if sign < SYLLABLES_PER_S[0][0]:
        return LETTERS_PER_S
    return next((rate for first, last, rate in SYLLABLES_PER_S if first <= sign <= last), LETTERS_PER_S)


def _without_notes(text: str) -> str:
    """Without what is written about sounds: "[Music]", "*coughs*", and "(applause)" if that is all."""
    text = " ".join(_NOTE.sub(" ", text).split())
    return text if any(sign.isalnum() for sign in _ASIDE.sub(" ", text)) else ""


def _is_invention(sentence: str) -> bool:
    words = _plain(sentence)
    return not words or _INVENTIONS.match(words) is not None


def _is_foreign(sentence: str, language: str | None) -> bool:
    """Most of its letters belong to scripts that the language is not written in. (Names are Latin everywhere.)"""
    if language is None:
        return False
    own = _SCRIPTS.get(language.lower().split("-")[0], set())
    scripts = [unicodedata.name(sign, "").split(" ")[0] for sign in sentence if sign.isalpha()]
    return 2 * sum(script in _ALL_SCRIPTS and script not in own for script in scripts) > len(scripts)
