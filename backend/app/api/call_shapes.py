"""What goes into the telephone's routes and what comes out, as `/openapi.json` shows it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.twilio.calls import CallStatus


class Body(BaseModel):
    """A request's JSON: nothing in it but these fields, each of its own type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewCall(Body):
    """Whom to call."""

    number: str | None = Field(None, description="In any usual spelling.", examples=["+12025550123"])
    idempotency_key: str | None = Field(None, description="As the header Idempotency-Key.")


class NewTransfer(Body):
    """Where to put a call through to."""

    number: str | None = Field(None, description="Without it, TRANSFER_NUMBER.", examples=["+12025550123"])
    warm: bool = Field(True, description="Whoever answers there hears what it is about first.")


class Holding(Body):
    """On hold or not."""

    held: bool = Field(description="true puts the caller on hold, false takes them back.")


class CallLine(BaseModel):
    """Something that was said."""

    who: str = Field(examples=["caller", "assistant"])
    text: str
    final: bool = Field(description="false while it is still being said.")


class Spent(BaseModel):
    """What something has cost."""

    usd: float = Field(description="US dollars, as far as prices are known.", examples=[0.31])
    wasted_usd: float = Field(description="The part that was paid for what was given up.")
    priced: bool = Field(description="Everything has a known price; if not, it cost more than `usd` says.")


class CallSnapshot(BaseModel):
    """A call as it stands."""

    sid: str = Field(examples=["CA" + "0" * 32])
    direction: str = Field(examples=["inbound", "outbound"])
    caller: str = Field(alias="from")
    to: str
    status: CallStatus
    reason: str = Field(description="Why it failed or ended, for a person.")
    answered_by: str = Field(description="human, machine_start, fax, ...; empty while that is not known.")
    on_hold: bool
    duration_s: float
    captions: list[CallLine]
    usage: Spent | None = Field(description="What services have cost for it; null before it is connected.")


class PhoneState(BaseModel):
    """Whether calls can be placed here, and where to."""

    outbound: bool
    reason: str = Field(description="Why not, and what to set; empty when they can.")
    region: str | None = Field(description="Where numbers without a country code belong (ISO 3166).", examples=["US"])
    country_code: int | None = Field(examples=[1])
    allowed: list[str] = Field(description="OUTBOUND_ALLOWED.", examples=[["+1"]])


class ErrorDetails(BaseModel):
    """What went wrong."""

    code: str = Field(description="Stays the same; for programs.", examples=["number_not_allowed"])
    message: str = Field(description="What is wrong and what to do; for people.")
    twilio_code: int | None = Field(None, description="Twilio's own number of the error, if it came from there.")


class ErrorAnswer(BaseModel):
    """Every answer that is not what was asked for."""

    error: ErrorDetails


Answers = dict[int | str, dict[str, Any]]

REFUSED = {401: "The key is missing or wrong.", 403: "Not from here, or not by this page."}
UNKNOWN_CALL = {404: "There is no such call."}
TWILIO_TROUBLE = {
    502: "Twilio cannot be reached, or does not accept the account.",
    504: "Twilio did not answer in time: it may have done what was asked.",
}


def errors(*meanings: dict[int, str]) -> Answers:
    """Descriptions of error answers for a route. `default` stands for all others: FastAPI would describe its own shape,
    which is never sent."""
    described: Answers = {"default": {"model": ErrorAnswer, "description": "Any other trouble."}}
    for meaning in (REFUSED, *meanings):
        described |= {status: {"model": ErrorAnswer, "description": text} for status, text in meaning.items()}
    return described


def takes(body: type[Body], *, required: bool) -> dict[str, Any]:
    """The description of a JSON body that a route reads itself."""
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": body.model_json_schema()}}}
    }
