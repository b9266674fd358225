"""Text that is written becomes text that can be spoken.

Language models write for the eye: Markdown, tables, code, formulas, addresses, emojis. A voice gets the words of it.
Numbers, money, dates and units are left to the voice, which knows how they are said; code blocks are not said at all.

No input takes long: every pattern either ends within a bounded number of signs or cannot begin inside itself.
"""

import html
import re
import unicodedata
from functools import lru_cache

from app.conversation.chunker import CHUNK_MAX_CHARACTERS

_PAUSE, _STOP, _GONE = "\ufff9", "\ufffa", "\ufffc"
"""What becomes a comma, a full stop or nothing, depending on what stands around it. No text has these signs of its own
by then."""
_PASSES = 4
"""So often is looked whether taking something away has made something else appear."""

# --- signs

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_CITATION = re.compile("【[^【】]{0,100}】|\ue200[^\ue200\ue201]{0,200}\ue201")
"""How some services mark a source."""
_ODD = re.compile(r"[^\n -~]")
_JOINERS = re.compile("(?<![\u0600-\u1aff])[\u200c\u200d]")
"""In Arabic and Indic scripts they belong to the spelling."""
_BECOMES = {
    **dict.fromkeys("\t\r\x0b\x0c\x85", " "),
    **dict.fromkeys("\u200c\u200d", None),
    **dict.fromkeys("\u2028\u2029", "\n"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("℃℉№♭♮♯", None),
    **dict.fromkeys("ℹ〰〽㊗㊙©®¦", _GONE),
    **{"\u203c": "!", "\u2047": "?", "\u2048": "?!", "\u2049": "!?", "\u20e3": ""},
}
"""Signs that are not what their category says; None for those that stay."""
_RANGES = (
    ("\u2190", "\u21ff", _PAUSE),  # arrows
    ("\u2794", "\u27bf", _PAUSE),
    ("\u27f0", "\u27ff", _PAUSE),
    ("\u2900", "\u297f", _PAUSE),
    ("\u2b00", "\u2b11", _PAUSE),
    ("\u25a0", "\u25ff", _GONE),  # shapes
    ("\u3200", "\u33ff", None),  # units and words of one sign each
    ("\ufe00", "\ufe0f", ""),  # variation selectors
    ("\U0001f3fb", "\U0001f3ff", _GONE),  # skin colours
    ("\U0001f800", "\U0001f8ff", _PAUSE),
    ("\U000e0100", "\U000e01ef", ""),
)

# --- what stands within lines

_TAGS = (
    "a|abbr|audio|b|big|blockquote|body|br|button|center|cite|code|dd|del|details|dfn|div|dl|dt|em|figure|font|footer|"
    "h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|li|main|mark|nav|ol|p|pre|q|s|samp|script|section|"
    "small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|td|tfoot|th|thead|tr|tt|u|ul|var|video|wbr"
)
_COMMENT = re.compile(r"<!--[^<>]{0,400}-->")
_LINE_TAG = re.compile(r"<(?:br|hr)\s?/?>|</(?:p|li|h[1-6]|tr|dt|dd|div|summary|blockquote)>", re.I)
_CELL_TAG = re.compile(r"</t[dh]>", re.I)
_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]{{0,400}}|/)?>", re.I)
_MATH = re.compile(
    r"\$\$([^$]{1,1000})\$\$|\\[(\[]((?:[^\\]|\\[^()\[\]]){1,1000})\\[)\]]"
    r"|(?<![\w$\\])\$(?![\s$])([^$\n]{1,300})(?<![\s\\])\$(?![\w$])"
)
_FRACTION = re.compile(r"\\[dt]?frac\s?\{([^{}]{0,200})\}\s?\{([^{}]{0,200})\}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[^{}]{0,40}\}|\\[,;:!]|&")
_DEGREES = re.compile(r"\^\s?\{?\\circ\}?")
_POWER = re.compile(r"\^\{?([23])\}?(?!\d)")
_COMMAND = re.compile(r"\\([a-zA-Z]{1,30})")
_COMMANDS = {
    **{"times": "×", "cdot": "×", "div": "÷", "pm": "±", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠"},
    **{
        "neq": "≠",
        "approx": "≈",
        "infty": "∞",
        "pi": "π",
        "degree": "°",
        "sqrt": "√",
        "to": _PAUSE,
        "n": " ",
        "t": " ",
    },
    **dict.fromkeys(("rightarrow", "Rightarrow", "implies"), _PAUSE),
    **dict.fromkeys(("ldots", "cdots", "dots"), "…"),
    **dict.fromkeys(("left", "right", "big", "quad", "qquad", "text", "textbf", "textit", "mathrm", "mathbf"), " "),
    **dict.fromkeys(("mathbb", "mathcal", "operatorname", "boxed", "displaystyle", "limits"), " "),
}
"""Formulas are left to the voice as well, but it knows no names of signs. Other names are said as they are."""
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_SOURCE = re.compile(
    r"\[\[?\d{1,3}\]?\]\([^()\s]{0,2000}\)|\[\^[^\[\]\s]{1,60}\](?!:)"
    r"|(?<=\w)\[\^[^\[\]\s]{1,60}\]|(?<=[\w.,;:!?)\"'])(?:\[\d{1,3}\]){1,20}(?!\()"
)
"""Footnote marks, and links whose only word is a number."""
_TARGET = re.compile(
    r"\]\(\s?<?[^\s()<>]*(?:\([^\s()]{0,200}\)[^\s()<>]{0,500}){0,4}>?(?:\s\"[^\"\n]{0,200}\"|\s'[^'\n]{0,200}')?\s?\)?"
    r"|\]\[[^\[\]\n]{0,100}\]"
)
_IMAGE_OR_NOTE = re.compile(r"!(?=\[)|\[!(?=[A-Z])")
_EMAIL = re.compile(
    r"(?<![\w.+%-])(?:mailto:)?([\w+%-]{1,64}(?:\.[\w+%-]{1,64}){0,5})@([\w-]{1,63}(?:\.[\w-]{1,63}){1,5})", re.A
)
_URL = re.compile(
    r"(?<![a-z0-9])(?:(?:https?|ftp|wss?|file)://(?:[^\s/@]{1,100}@)?|www\.(?=[a-z0-9]))(?:www\.)*"
    "([a-z0-9_.\u00c0-\u04ff-]{0,255}(?::[0-9]{1,5})?)((?:[/?#][!-;=?-Z_a-z~%]*)?)",
    re.I,
)
_URL_END = ".,;:!?'\"*_~)"
_PATH_WORD = re.compile(r"[a-zA-Z][a-zA-Z_-]{0,19}")
_PAGE = re.compile(r"(?:index|default)\.\w{1,5}$|\.(?:html?|php|aspx?|md)$", re.I)
_EMOTICON = re.compile("(?<![^\\s.,!?])[:;]['\u2019]?-?[)(DPpOo|/](?![^\\s.,!?])")
_ARROW = re.compile(r"(?<!\S)(?:<[-=]{1,3}>?|[-=]{1,3}>)(?!\S)|(?<!\S)[•‣⁃∙·](?!\S)")

# --- lines

_FENCE = re.compile(r"\s*(?:(?:[-*+>]|\d{1,3}[.)])\s+)?(`{3,}|~{3,})")
_INFO = re.compile(r"[\w+#-]{0,20}\s*")
_PREFIX = re.compile(
    rf"\s*(?:>|[-*+–—•‣⁃∙·](?=\s|$)|(#{{1,6}})(?=\s|$)|\[[ xX]\](?=\s|$)|\[\^[^\[\]]{{1,60}}\]:|[{_PAUSE}{_GONE}])"
)
_DEFINITION = re.compile(r"^ {0,3}\[[^\[\]^][^\[\]]{0,100}\]: ?<?(?:https?:|www\.|[/#.]).*$", re.M)
_NUMBERED = re.compile(r"\s*\(?\d{1,4}[.)]\s")

# --- what marks words

_STARS = re.compile(r"\*+")
_MARKS = re.compile(
    r"`|~~+|~(?!\d)|(?<![^\W_])_+|_+(?![^\W_])|(?<![A-Za-z])#(?!\d)|#(?=#)|(?<![\w)])\^|\^(?![\w(+-])|[\[\]{}\\]|\$\$+"
    r"|<(?![\s\d=])|(?<![\s\d)=])>(?![\d=])|>$|={3,}|(?<![^\s(])==(?=\S)|(?<=\S)==(?![^\s.,!?;:)])|(?<!\S)--+(?=\w)"
)
_DASHES = re.compile(r"-{2,}")
_EMPTY = re.compile(rf"\([ {_PAUSE}{_GONE}]?\)")
_SAME_AGAIN = re.compile(r"([!?！？,;、，。；…])\1+|([!?]{2})[!?]+|(\.{3})\.+")
_SPACE = re.compile(rf"[ {_PAUSE}{_STOP}{_GONE}]+")
_OPENS, _ENDS = "([{«“‘„¿¡「『（", ".,;:!?…。、，！？：；—–"
_CLOSES = f"{_ENDS})]}}»”’」』）"


def speakable(text: str, language: str | None = None) -> str:
    """What is said of `text`, in one line; "" if there is nothing to say. For a reply in chunks see SpokenText.

    Addresses are read out in English if `language` (ISO 639-1) is that, or not known; in other languages a link is its
    host, and an e-mail address is left to the voice.
    """
    return SpokenText(language).say(text)


class SpokenText:
    """What is said of a reply that comes in chunks, such as SpeechChunker gives: a code block, or an address, may go
    on from one to the next."""

    def __init__(self, language: str | None = None) -> None:
        self._english = language is None or language.lower().startswith("en")
        self._fence = ""
        """What began the code block that we are in; empty outside."""
        self._fence_line = False
        """We are still in the line that it began."""
        self._fresh = True
        """The next chunk begins a line."""
        self._in_address = False

    def say(self, chunk: str) -> str:
        """What is said of the next chunk, as one line; "" if there is nothing to say."""
        if self._in_address:
            address = re.match(r"[!-~]*", chunk)
            chunk = chunk[address.end() if address else 0 :]
            self._in_address = not chunk
        else:
            self._in_address = len(chunk) >= CHUNK_MAX_CHARACTERS and _ends_in_address(chunk)
        fresh = self._fresh
        text = self._without_code(chunk)
        for _ in range(_PASSES):
            before, text = text, _once(text, fresh, self._english)
            if text == before:
                return text
        return _bare(text)

    def _without_code(self, chunk: str) -> str:
        lines = chunk.split("\n")
        kept = []
        for number, line in enumerate(lines):
            begins = self._fresh if number == 0 else True
            kept.append(self._outside(line, begins, ends=number < len(lines) - 1))
        self._fresh = not lines[-1].strip() and (self._fresh or len(lines) > 1)
        return "\n".join(kept)

    def _outside(self, line: str, begins: bool, *, ends: bool) -> str:
        """What of a line, or of a part of it, stands outside code blocks."""
        if self._fence:
            if begins and line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
                self._fence = ""
            elif self._fence_line and not begins and self._fence in line:  # it was code within a line
                fence, self._fence = self._fence, ""
                return line.partition(fence)[2]
            self._fence_line = self._fence_line and not ends
            return ""
        opening = _FENCE.match(line) if begins else None
        if opening and "`" not in line[opening.end() :]:
            self._fence, self._fence_line = opening[1], not ends
            return ""
        before, mark, info = line.rpartition("```")
        if mark and ends and before.count(mark) % 2 == 0 and _INFO.fullmatch(info):
            self._fence = mark
            return before
        return line


def _ends_in_address(chunk: str) -> bool:
    return any(found.end() == len(chunk) for pattern in (_URL, _TARGET) for found in pattern.finditer(chunk))


def _once(text: str, fresh: bool, english: bool) -> str:
    text = _CITATION.sub(_GONE, _ENTITY.sub(lambda entity: html.unescape(entity[0]), text))
    text = _ODD.sub(lambda sign: _sign(sign[0]), _JOINERS.sub("", text))
    text = _LINE_TAG.sub("\n", _COMMENT.sub("", text))
    text = _TAG.sub("", _CELL_TAG.sub(_PAUSE, text))
    text = _without_latex(text)
    text = _IMAGE_OR_NOTE.sub("", _TARGET.sub("", _SOURCE.sub(_GONE, _DEFINITION.sub("", text))))
    text = _EMAIL.sub(lambda found: _email(found, english), text)
    text = _URL.sub(lambda found: _address(found, english), text)
    text = _ARROW.sub(_PAUSE, _EMOTICON.sub(_GONE, text))
    text = _in_one_line(text, fresh)
    text = _STARS.sub(_star, text)
    text = _DASHES.sub("–", _MARKS.sub("", text))
    text = _EMPTY.sub(_GONE, text)
    text = _SAME_AGAIN.sub(lambda run: run[1] or run[2] or run[3], text)
    text = _SPACE.sub(_space, " ".join(text.split())).strip()
    return text if any(map(str.isalnum, text)) else ""


def _bare(text: str) -> str:
    """Letters, digits and full stops alone, of what seems to be made to confuse."""
    kept = (sign if sign.isalnum() or sign in ".,!?'" or unicodedata.category(sign)[0] == "M" else " " for sign in text)
    return " ".join("".join(kept).split())


@lru_cache(maxsize=4096)
def _sign(sign: str) -> str:
    """What becomes of a sign that is no printable ASCII."""
    if sign in _BECOMES:
        special = _BECOMES[sign]
        return sign if special is None else special
    category = unicodedata.category(sign)
    for first, last, becomes in _RANGES:
        if first <= sign <= last:
            return sign if becomes is None else becomes
    if "\U0001d400" <= sign <= "\U0001d7ff" or (category == "No" and "\u2460" <= sign <= "\u24ff"):
        return unicodedata.normalize("NFKC", sign)  # letters in bold, digits in circles
    if category == "No" and "\u2776" <= sign <= "\u2793":
        return str(int(unicodedata.numeric(sign)))
    if category == "Zs":
        return " "
    if category == "So":
        return _GONE if sign >= "\u2000" else sign
    if category in ("Cc", "Cf", "Cs", "Co", "Cn"):
        if category == "Cn" and sign >= "\U0001f000":  # emojis and characters younger than this Unicode table
            return _GONE if sign < "\U00020000" else sign
        return ""
    return sign


def _without_latex(text: str) -> str:
    if "$" in text or "\\" in text:
        text = _FRACTION.sub(r"\1 / \2", _MATH.sub(_formula, text))
        text = _COMMAND.sub(lambda command: f" {_COMMANDS.get(command[1], command[1])} ", text)
        text = _ESCAPED.sub(r"\1", text)
    return text


def _formula(found: re.Match[str]) -> str:
    formula = found[1] or found[2] or found[3]
    if found[3] and (found[3][0].isdigit() or len(found[3].split()) > 1) and not re.search(r"[\\^_=+]", found[3]):
        return found[0]  # an amount of money, and another one
    formula = _DEGREES.sub("°", _ENVIRONMENT.sub(" ", formula.replace("\\\\", _PAUSE)))
    formula = _POWER.sub(lambda power: "²" if power[1] == "2" else "³", formula)
    return formula.replace("_", " ")


def _email(found: re.Match[str], english: bool) -> str:
    if not english:
        return f"{found[1]}@{found[2]}"
    return f"{found[1]} at {found[2]}".replace(".", " dot ")


def _address(found: re.Match[str], english: bool) -> str:
    """The host, and the path if it is short and made of words; then what stood behind the address."""
    host, path = found[1], found[2]
    link = (host + path).rstrip(_URL_END)
    behind = (host + path)[len(link) :]
    host, path = link[: len(host)], link[len(host) :]
    if "(" in path:
        behind = behind.replace(")", "", 1)
    words = [_PAGE.sub("", word) for word in re.split("[?#]", path)[0].split("/")]
    words = [word for word in words if word]
    if english and len(words) <= 2 and all(map(_PATH_WORD.fullmatch, words)):
        host = " slash ".join([host, *(re.sub("[_-]+", " ", word).strip() for word in words)])
    return host + behind


def _in_one_line(text: str, fresh: bool) -> str:
    """The lines behind each other, without what begins them, and with pauses where the eye would have them."""
    said: list[str] = []
    was_apart = was_item = False
    for number, line in enumerate(text.split("\n")):
        start, heading, item = 0, False, False
        begins = fresh or number > 0
        if begins and not line.strip("-=*_~:|+ "):
            continue
        while begins and (prefix := _PREFIX.match(line, start)):
            start = prefix.end()
            heading = heading or prefix[1] is not None
            item = item or line[start - 1] != ">"
        row = begins and line[start:].lstrip().startswith("|")
        words = _PAUSE.join(cell for cell in line[start:].split("|") if cell.strip()).strip()
        if not words:
            continue
        apart = heading or row or _NUMBERED.match(line, start) is not None
        if was_item and not item and not line.startswith(" "):  # the list is over
            apart = True
        if said:
            said.append(_STOP if apart or was_apart else _PAUSE if item else " ")
        said.append(f"{words}." if row and words[-1].isalnum() else words)
        was_apart, was_item = heading or row, item
    return "".join(said)


def _star(stars: re.Match[str]) -> str:
    """Stars stay where they multiply: "2*3", "2 * x", "2**3"."""
    text, start, end = stars.string, stars.start(), stars.end()
    if end - start == 1 and text[start - 1 : start] == " " == text[end : end + 1]:
        start, end = start - 1, end + 1
    before, after = text[max(0, start - 2) : start][::-1], text[end : end + 2]
    return stars[0] if len(stars[0]) <= 2 and _is_operand(before, ")") and _is_operand(after, "(") else ""


def _is_operand(signs: str, bracket: str) -> bool:
    """The first sign is a digit, a bracket or a letter that stands alone."""
    sign, beyond = signs[:1], signs[1:]
    return sign.isdigit() or sign == bracket or (sign.isascii() and sign.isalpha() and not beyond.isalpha())


def _space(run: re.Match[str]) -> str:
    """What comes between two signs, at the place of spaces and of what was taken away."""
    if run[0] == " ":
        return " "
    text, start, end = run.string, run.start(), run.end()
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    if not before or not after or after in _CLOSES or before in _OPENS:
        return ""
    if before in _ENDS:
        return " "
    return ". " if _STOP in run[0] else ", " if _PAUSE in run[0] else " "
