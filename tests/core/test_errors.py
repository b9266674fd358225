"""Clients and scripts tell errors apart by their codes: each kind has its own, in words that stay."""

import re

import pytest
from app.core import errors
from app.core.errors import AhoyError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AhoyError)]


def test_no_two_kinds_share_a_code_and_codes_are_plain_words() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_its_message_and_may_be_more_exact_without_changing_its_kind(kind: type[AhoyError]) -> None:
    usual = kind.code
    exact = kind("All lines are busy.", code="server_full")
    assert (str(exact), exact.message, exact.code) == ("All lines are busy.", "All lines are busy.", "server_full")
    assert kind("Again.").code == usual
