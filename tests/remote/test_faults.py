"""Whatever a service answers in place of an answer becomes one error with words for a person and no secrets."""

import json
import ssl
from email.utils import formatdate
from time import time
from typing import Any

import aiohttp
import pytest
from app.core.errors import SERVICE_CODES, ServiceError
from app.remote import faults
from hypothesis import given
from hypothesis import strategies as st
from openai_service import refusals

SECRET = "sk-proj-4f5a6b7c8d9e"
SPEECH = "my dog is called Rex"


def refused(status: int, error: object = None, *, service: str = "openai", **headers: str) -> ServiceError:
    body = json.dumps(error).encode() if error is not None else b""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return faults.refusal(service, status, sent, body, model="gpt-5.4-mini")


def of(status: refusals.Status) -> ServiceError:
    return faults.refusal(
        "openai", status.status, dict(status.headers), json.dumps(status.body()).encode(), model="gpt-5.4-mini"
    )


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (refusals.unauthorized(), "key_refused", "OPENAI_API_KEY"),
        (refusals.forbidden(), "key_refused", "gpt-5.4-mini"),
        (refusals.no_quota(), "quota_exceeded", "credit"),
        (refusals.rate_limited(), "rate_limited", "no more requests"),
        (refusals.model_not_found("gpt-5.4-mini"), "model_not_found", "gpt-5.4-mini"),
        (refusals.context_too_long(), "context_too_long", "HISTORY_LIMIT_TOKENS"),
        (refusals.content_refused(), "content_filtered", "rules"),
        (refusals.content_filtered(), "content_filtered", "rules"),
        (refusals.server_error(), "service_failed", "500"),
        (refusals.overloaded(), "service_failed", "503"),
        (refusals.bad_gateway(), "service_failed", "502"),
        (refusals.unknown("verbosity").status, "service_refused", "verbosity"),
    ],
    ids=lambda value: f"{value.status} {value.code}" if isinstance(value, refusals.Status) else "",
)
def test_each_answer_of_openai_has_its_own_code_and_words(answer: refusals.Status, code: str, words: str) -> None:
    error = of(answer)
    assert error.code == code
    assert words in error.message
    assert error.message.startswith(("openai", "The account at openai", "The conversation"))


def test_a_gateway_that_lost_its_server_may_have_had_the_work_done_and_charged() -> None:
    assert not of(refusals.bad_gateway()).refused
    assert not refused(504).refused
    assert of(refusals.overloaded()).refused


@pytest.mark.parametrize("status", [401, 402, 403, 404, 400, 413, 422, 429])
def test_a_request_that_is_turned_down_costs_nothing(status: int) -> None:
    assert refused(status).refused


def test_the_key_to_check_is_that_of_the_service() -> None:
    assert "'groq' in SERVICE_KEYS" in refused(401, service="groq").message


def test_a_service_that_has_moved_is_not_followed_with_the_key() -> None:
    error = refused(301, Location="https://elsewhere.example/")
    assert error.code == "service_answer"
    assert "address" in error.message
    assert "elsewhere" not in error.message


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "", "param": "stream_options", "code": None}}),
        (400, {"error": {"message": "Unknown parameter: 'stream_options'.", "code": "unknown_parameter"}}),
        (400, {"error": {"message": "Unsupported value: 'stream_options'", "code": "unsupported_value"}}),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "input": {}}]}),
        (422, {"message": {"detail": [{"loc": ["body", "stream_options"], "input": SPEECH}]}, "object": "error"}),
        (400, [{"error": {"param": "stream_options"}}]),
        (
            400,
            {
                "object": "error",
                "type": "BadRequestError",
                "message": f"[{{'loc': ('body', 'stream_options'), 'input': '{SPEECH}'}}]",
                "code": 400,
            },
        ),
    ],
)
def test_a_field_that_is_not_taken_is_found_in_the_answers_of_all_kinds_of_servers(status: int, body: object) -> None:
    error = refused(status, body)
    assert (error.code, error.parameter) == ("service_refused", "stream_options")


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
        "the prompt is too long for the available context size",
        "Please reduce the length of the messages or completion.",
    ],
)
def test_a_context_that_is_too_long_is_told_in_many_words(message: str) -> None:
    error = refused(400, {"error": {"message": message, "type": "invalid_request_error", "code": None}})
    assert (error.code, error.refused) == ("context_too_long", True)


@pytest.mark.parametrize("status", [300, 307, 400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504, 529])
def test_no_message_repeats_what_the_service_said(status: int) -> None:
    words = f"Incorrect API key provided: {SECRET}. You said '{SPEECH}', value 'rex'."
    for code in ("invalid_api_key", "unsupported_value", "content_filter", "insufficient_quota", None):
        error = refused(status, {"error": {"message": words, "param": SPEECH, "code": code, "type": SECRET}})
        shown = f"{error.message} {error.parameter}"
        assert SECRET not in shown
        assert SPEECH not in shown
        assert error.code in SERVICE_CODES


@given(
    st.integers(300, 599),
    st.binary()
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["error", "message", "code", "param", "detail", "loc", "type"]), inner)
        ),
    ),
)
def test_no_answer_is_beyond_understanding(status: int, answer: Any) -> None:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    assert faults.refusal("openai", status, {}, body, model="m").code in SERVICE_CODES


def test_how_long_to_wait_is_read_in_seconds_milliseconds_and_as_a_date() -> None:
    assert refused(429, Retry_After="3").retry_after_s == 3
    assert refused(503, retry_after_ms="250", Retry_After="1").retry_after_s == 0.25
    dated = refused(429, Retry_After=formatdate(time() + 30, usegmt=True)).retry_after_s
    assert dated is not None
    assert 25 < dated <= 31
    assert refused(429, Retry_After="-5").retry_after_s == 0
    assert refused(429, Retry_After="inf").retry_after_s == faults.MAX_WAIT_S
    for nothing in ("", "soon", "nan"):
        assert not refused(429, Retry_After=nothing).retry_after_s


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "content_filter"}, "content_filtered"),
        ({"type": "insufficient_quota"}, "quota_exceeded"),
        ({"code": "rate_limit_exceeded"}, "rate_limited"),
        ({"code": 502, "message": SPEECH}, "service_failed"),
        (SPEECH, "service_failed"),
    ],
)
def test_an_error_in_the_midst_of_a_stream_is_not_a_refusal(error: object, code: str) -> None:
    fault = faults.stream_error("openai", error)
    assert (fault.code, fault.refused) == (code, False)
    assert SPEECH not in fault.message


@pytest.mark.parametrize(
    ("error", "refused", "words"),
    [
        (ssl.SSLCertVerificationError("self-signed"), True, "certificate"),
        (ssl.SSLError("wrong version number"), True, "https"),
        (aiohttp.ConnectionTimeoutError(), True, "in time"),
        (TimeoutError(), False, "in time"),
        (aiohttp.ServerDisconnectedError(), False, "broke off"),
        (ConnectionResetError(), False, "broke off"),
        (aiohttp.ClientPayloadError(), False, "broke off"),
    ],
)
def test_only_what_never_reached_the_service_certainly_did_nothing(error: Exception, refused: bool, words: str) -> None:
    fault = faults.unreachable("openai", error)
    assert (fault.code, fault.refused) == ("service_unreachable", refused)
    assert words in fault.message
