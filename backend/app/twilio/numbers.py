"""Which numbers may be dialled. Whoever reaches the REST API tries to call where calls cost most (toll fraud), so:

* A number is written in ASCII digits and punctuation, perhaps with one + in front. Letters (vanity numbers),
  extensions, pauses, digits of other scripts, invisible characters and addresses (`tel:`, `sip:`, `client:`) are
  refused, not read.
* It becomes E.164 once, and everything after that looks at the E.164 form alone.
* Premium-rate, shared-cost, emergency and short numbers are refused whatever the settings allow.

Formats and number types come from Google's libphonenumber, as the package phonenumbers brings it.
"""

import re
from dataclasses import dataclass

import phonenumbers
from phonenumbers import PhoneNumber, PhoneNumberFormat, PhoneNumberType

from app.core.config import Settings
from app.core.errors import CallError

MAX_CHARACTERS = 40
"""15 digits at most (ITU-T E.164) with punctuation between them."""

_TYPOGRAPHY = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-"})
"""Spaces and hyphens as web pages print them."""
_AS_DIALLED = re.compile(r"[ (]*\+?[0-9 ()./-]+")
_COSTLY = {PhoneNumberType.PREMIUM_RATE: "a premium-rate", PhoneNumberType.SHARED_COST: "a shared-cost"}
_NORTH_AMERICA = "+1"
_AREA_CODE_DIGITS, _PERSONAL_DIGITS = 3, 2
_USUAL_NORTH_AMERICA = frozenset({"US", "CA"})
_WORLDWIDE = "001"
"""libphonenumber's region of country codes that belong to no country."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where numbers without a country code belong."""

    region: str | None
    """ISO 3166-1 code."""
    country_code: int | None


def home(settings: Settings) -> Home:
    """PHONE_REGION, else the country of TWILIO_PHONE_NUMBER, else nowhere."""
    region = settings.phone_region
    if region is None and settings.twilio_phone_number:
        own = _parsed(settings.twilio_phone_number, None)
        if own is not None:
            region = phonenumbers.region_code_for_number(own) or _main_region(own)
    if region not in phonenumbers.SUPPORTED_REGIONS:
        return Home(None, None)
    return Home(region, phonenumbers.country_code_for_region(region))


def parse_number(text: str, region: str | None) -> str:
    """The number in E.164, for example +12025550123. Without a country code (+ or 00 in front) it is one of `region`.

    Raises CallError (400) when it is not one that can be dialled, and (403) when it is an emergency number. Neither
    repeats the number.
    """
    plain = text.translate(_TYPOGRAPHY).strip(" ")
    if not plain:
        raise _not_a_number("No number was given: it has + and the country code in front, for example +12025550123")
    if len(plain) > MAX_CHARACTERS:
        raise _not_a_number(f"That is longer than {MAX_CHARACTERS} characters, which no telephone number is")
    if not _AS_DIALLED.fullmatch(plain):
        raise _not_a_number(
            "A number is written with the digits 0 to 9, spaces and - . / ( ), and perhaps a + in front: letters, "
            "extensions, pauses, digits of other scripts and addresses cannot be dialled"
        )
    digits = re.sub("[^0-9]", "", plain)
    international = "+" in plain
    if not international and digits.startswith("00"):  # the ITU's prefix for calls abroad (E.164), whatever the region
        international, digits = True, digits[2:]
    if region not in phonenumbers.SUPPORTED_REGIONS:
        region = None
    if not international and region is None:
        raise _not_a_number(
            "The number has no country code: put + and the code in front, or set PHONE_REGION to your country (US, ...)"
        )
    parsed = _parsed("+" + digits if international else digits, region)
    if (parsed and _is_emergency(parsed)) or (
        region and not international and _reaches_emergency(digits, region, parsed)
    ):
        raise CallError("Emergency services cannot be called from here", code="number_not_allowed", http_status=403)
    if parsed is None or not phonenumbers.is_valid_number(parsed):
        where = "with this country code" if international else f"in {region}"
        raise _not_a_number(f"There is no such number {where}: check its digits")
    return phonenumbers.format_number(parsed, PhoneNumberFormat.E164)


def check_allowed(number: str, settings: Settings) -> None:
    """Raises CallError (403) unless this E.164 number may be called: OUTBOUND_ALLOWED has an entry that it begins with.

    An entry is taken at its word where it is exact enough to be meant. `+1`, or with less than an area code behind it,
    stands for the United States and Canada only: the other countries that share it (Jamaica is +1876, the Dominican
    Republic +1809, ...) are where fraud calls go, and need an entry with their area code. Satellite and other worldwide
    codes (+870, +881, +882, +883, ...) need one with that code, personal numbers, which forward anywhere, one that goes
    two digits beyond the country code (+4470).
    """
    parsed = _parsed(number, None)
    if parsed is None or phonenumbers.format_number(parsed, PhoneNumberFormat.E164) != number:
        raise ValueError("not a number in E.164")
    if number == settings.twilio_phone_number:
        raise _not_allowed("That is this assistant's own number")
    kind = phonenumbers.number_type(parsed)
    if kind in _COSTLY:
        raise _not_allowed(f"That is {_COSTLY[kind]} number, which is never called")
    if _is_emergency(parsed):
        raise _not_allowed("Emergency services cannot be called from here")
    if phonenumbers.is_valid_short_number(parsed):
        raise _not_allowed("That is a short number, which is never called")
    if not phonenumbers.is_valid_number(parsed):  # what it costs is not known either
        raise _not_allowed("There is no such number")
    if not settings.outbound_allowed:
        raise _not_allowed("No number may be called: set OUTBOUND_ALLOWED, for example OUTBOUND_ALLOWED=+1,+4930")
    entries = [entry for entry in settings.outbound_allowed if number.startswith(entry)]
    if not entries:
        raise _not_allowed("Numbers that begin so may not be called: add their first digits to OUTBOUND_ALLOWED")
    needed = _exactness(parsed, kind)
    if max(map(len, entries)) < needed:
        raise _not_allowed(
            f"OUTBOUND_ALLOWED does not name these numbers exactly enough: they need an entry with the first "
            f"{needed - 1} digits at least"
        )


def _exactness(parsed: PhoneNumber, kind: int) -> int:
    """How many characters (the + and digits) an entry needs to stand for numbers like this one."""
    code = len(f"+{parsed.country_code}")
    region = phonenumbers.region_code_for_number(parsed)
    if f"+{parsed.country_code}" == _NORTH_AMERICA:
        return 0 if region in _USUAL_NORTH_AMERICA else code + _AREA_CODE_DIGITS
    if _main_region(parsed) == _WORLDWIDE:
        return code
    return code + _PERSONAL_DIGITS if kind == PhoneNumberType.PERSONAL_NUMBER else 0


def _parsed(text: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def _main_region(parsed: PhoneNumber) -> str:
    return str(phonenumbers.region_code_for_country_code(parsed.country_code or 0))


def _is_emergency(parsed: PhoneNumber) -> bool:
    """What follows the country code is an emergency number there (+1 911, +44 999)."""
    national = phonenumbers.national_significant_number(parsed)
    regions = phonenumbers.region_codes_for_country_code(parsed.country_code or 0)
    return any(phonenumbers.is_emergency_number(national, region) for region in regions)


def _reaches_emergency(digits: str, region: str, parsed: PhoneNumber | None) -> bool:
    """Dialled on a telephone there, this reaches an emergency service: exactly, or with digits too many behind it."""
    if phonenumbers.is_emergency_number(digits, region):
        return True
    valid = parsed is not None and phonenumbers.is_valid_number(parsed)
    return not valid and bool(phonenumbers.connects_to_emergency_number(digits, region))


def _not_a_number(message: str) -> CallError:
    return CallError(message, code="not_a_number", http_status=400)


def _not_allowed(message: str) -> CallError:
    return CallError(message, code="number_not_allowed", http_status=403)
