"""What may be dialled: a number in any usual spelling, and nothing that only looks like one or costs a fortune."""

import phonenumbers
import pytest
from app.core.config import Settings
from app.core.errors import CallError
from app.twilio.numbers import Home, check_allowed, home, parse_number
from hypothesis import given
from hypothesis import strategies as st


def refusal(text: str, region: str | None = None) -> CallError:
    with pytest.raises(CallError) as refused:
        parse_number(text, region)
    return refused.value


def allowing(*entries: str, own: str = "+15005550006") -> Settings:
    return Settings(outbound_allowed=",".join(entries), twilio_phone_number=own)


def allowed(number: str, *entries: str) -> bool:
    try:
        check_allowed(number, allowing(*entries))
    except CallError as error:
        if (error.code, error.http_status) != ("number_not_allowed", 403):
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("+12025550123", None),
        ("  +1 (202) 555-0123 ", None),
        ("+1.202.555.0123", "DE"),
        ("(+1) 202 555 0123", None),
        ("+1\u00a0202\u2011555\u20110123", None),  # as web pages print it
        ("0012025550123", None),
        ("00 1 202 555 0123", "US"),
        ("(00) 1 202 555 0123", "DE"),
        ("011 1 202 555 0123", "US"),
        ("2025550123", "US"),
        ("1 (202) 555-0123", "CA"),
    ],
)
def test_a_number_may_be_written_in_every_usual_way(text: str, region: str | None) -> None:
    assert parse_number(text, region) == "+12025550123"


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("030 901820", "DE", "+4930901820"),
        ("030/90 18 20", "DE", "+4930901820"),
        ("+44 (0)20 7946 0018", "US", "+442079460018"),
        ("020 7946 0018", "GB", "+442079460018"),
        ("06 1234 5678", "IT", "+390612345678"),
        ("01 53 67 76 00", "FR", "+33153677600"),
        ("8 495 123-45-67", "RU", "+74951234567"),
    ],
)
def test_local_numbers_belong_to_the_region(text: str, region: str, number: str) -> None:
    assert parse_number(text, region) == number


@pytest.mark.parametrize(
    "text",
    [
        "+\u0661\u0662\u0660\u0662\u0665\u0665\u0665\u0660\u0661\u0662\u0663",  # Arabic-Indic digits
        "+1202555012\uff13",  # one full-width digit
        "\uff0b12025550123",  # a full-width plus
        "+1202555012\u00b3",  # a superscript
        "+1202555012\U0001d7d1",  # a mathematical digit
        "\u202e3210555202\u202c1+",  # right-to-left override
        "\u200e+12025550123",
        "+1202\u200b5550123",  # zero width space
        "+1202\u20605550123",
        "\ufeff+12025550123",
        "+12025550123\x00",
        "+12025550123\n",
        "+12025550123\r\nTo: +18765551234",
        "+12025550123;ext=5",
        "+12025550123 x12",
        "+12025550123 ext. 12",
        "+12025550123,123",
        "+12025550123,,1",
        "+12025550123p1",
        "+12025550123w1",
        "+12025550123#12",
        "+12025550123*1",
        "+12025550123&To=+18765551234",
        "1-800-FLOWERS",
        "+1 202 555 O123",  # the letter
        "tel:+12025550123",
        "sip:someone@example.com",
        "sip:+12025550123@example.com",
        "client:someone",
        "sim:DE0123456789abcdef0123456789abcdef",
        "2025550123;phone-context=+1",
        "++12025550123",
        "+1+2025550123",
        "12025550123+",
        "+1202555%30123",
        "+12025550123" + " " * 40 + "1",
        "anonymous",
    ],
)
def test_what_is_not_plainly_a_number_is_refused_and_never_read_as_one(text: str) -> None:
    error = refusal(text, "US")
    assert (error.code, error.http_status) == ("not_a_number", 400)
    assert "5550" not in error.message  # a number is nobody's business but the caller's


@pytest.mark.parametrize(
    "text", ["", "   ", "+", "()", "12", "202555", "+1202555012", "+120255501234", "+999123456789"]
)
def test_numbers_that_do_not_exist_are_refused(text: str) -> None:
    assert refusal(text, "US").code == "not_a_number"


@pytest.mark.parametrize("region", [None, "UK", "XX"])  # the United Kingdom is GB
def test_without_a_region_a_local_number_is_refused_with_what_to_do(region: str | None) -> None:
    error = refusal("020 7946 0018", region)
    assert (error.code, error.http_status) == ("not_a_number", 400)
    assert "PHONE_REGION" in error.message


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("911", "US"),
        ("+1911", None),
        ("001911", None),
        ("011 1 911", "US"),
        ("9 1 1", "US"),
        ("9115550123", "US"),  # a telephone would have connected after three digits
        ("112", "DE"),
        ("110", "DE"),
        ("+49 112", None),
        ("+44999", None),
        ("999", "GB"),
    ],
)
def test_emergency_numbers_are_refused_in_every_spelling(text: str, region: str | None) -> None:
    error = refusal(text, region)
    assert (error.code, error.http_status) == ("number_not_allowed", 403)
    assert "mergency" in error.message


@given(st.text(max_size=30))
def test_whatever_is_typed_becomes_a_valid_number_in_e164_or_a_refusal(text: str) -> None:
    try:
        number = parse_number(text, "US")
    except CallError:
        return
    assert number.isascii()
    assert number[0] == "+"
    assert phonenumbers.is_valid_number(phonenumbers.parse(number))


@given(st.text("+0123456789 ()-./x,;\u0661\uff11\u200e", min_size=10, max_size=18))
def test_every_spelling_of_a_number_leads_to_one_form_and_that_form_to_itself(text: str) -> None:
    try:
        number = parse_number(text, "US")
    except CallError:
        return
    assert parse_number(number, None) == number
    assert all(c in "+0123456789 ()-./" for c in text)


# --- who may be called


def test_nobody_may_be_called_before_it_is_allowed() -> None:
    with pytest.raises(CallError, match="OUTBOUND_ALLOWED=") as refused:
        check_allowed("+12025550123", allowing())
    assert refused.value.http_status == 403


def test_entries_are_first_digits_or_whole_numbers() -> None:
    assert allowed("+4930901820", "+4930")
    assert allowed("+4930901820", "+49")
    assert allowed("+4930901820", "+44", "+4930901820")
    assert not allowed("+4989901820", "+4930")
    assert not allowed("+493090182000", "+4930901821")
    assert not allowed("+442079460018", "+49", "+1")


def test_plus_one_is_the_united_states_and_canada_and_not_the_islands_that_share_the_code() -> None:
    for home_number in ("+12025550123", "+14165550123", "+18005550199"):
        assert allowed(home_number, "+1")
    islands = {
        "JM": "+18765550123",
        "DO": "+18095550123",
        "BS": "+12424550123",
        "AG": "+12684640123",
        "PR": "+17875550123",
        "VG": "+12842290123",
    }
    for region, number in islands.items():
        assert phonenumbers.region_code_for_number(phonenumbers.parse(number)) == region
        assert not allowed(number, "+1")
        assert not allowed(number, number[:3], number[:4])  # less than an area code is not meant for them
        assert allowed(number, "+1", number[:5])


@pytest.mark.parametrize(
    "number",
    [
        "+19005550123",  # premium rate
        "+448712345678",
        "+499001234567",
        "+979123456789",  # premium rate worldwide
        "+611900123456",
        "+448431234567",  # shared cost
        "+491805123456",
    ],
)
def test_premium_and_shared_cost_numbers_are_never_called_even_when_they_are_listed(number: str) -> None:
    for entry in (number, number[:6], number[:4], number[:2]):
        assert not allowed(number, entry)


def test_satellite_and_other_worldwide_numbers_need_an_entry_with_their_code() -> None:
    for number in ("+881612345678", "+882161234567", "+883510012345678", "+870301234567"):
        assert not allowed(number, "+8")
        assert not allowed(number, number[:3])
        assert allowed(number, number[:4])


def test_personal_numbers_that_forward_anywhere_need_an_entry_beyond_the_country_code() -> None:
    assert not allowed("+447012345678", "+44")
    assert not allowed("+447012345678", "+447")  # meant for mobiles
    assert allowed("+447012345678", "+4470")


def test_the_assistant_does_not_call_itself() -> None:
    with pytest.raises(CallError, match="own number"):
        check_allowed("+15005550006", allowing("+1", own="+15005550006"))


def test_a_number_that_does_not_exist_is_not_called_even_when_it_is_listed() -> None:
    assert not allowed("+4990012345678", "+4990012345678")  # longer than premium-rate numbers are


def test_emergency_numbers_are_not_allowed_by_an_entry() -> None:
    assert not allowed("+1911", "+1", "+1911")
    assert not allowed("+49112", "+49", "+49112")


@pytest.mark.parametrize("text", ["12025550123", "+1 202 555 0123", "002025550123", "+\u06612025550123"])
def test_the_list_is_only_ever_compared_with_e164(text: str) -> None:
    with pytest.raises(ValueError, match=r"E\.164"):
        check_allowed(text, allowing("+1"))


# --- where local numbers belong


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Home(None, None)),
        ({"phone_region": "de"}, Home("DE", 49)),
        ({"twilio_phone_number": "+15005550006"}, Home("US", 1)),
        ({"twilio_phone_number": "+442079460018"}, Home("GB", 44)),
        ({"twilio_phone_number": "+442079460018", "phone_region": "FR"}, Home("FR", 33)),
    ],
)
def test_numbers_without_a_country_code_belong_where_our_own_does_unless_a_region_is_set(
    settings: dict[str, str], expected: Home
) -> None:
    assert home(Settings(**settings)) == expected
