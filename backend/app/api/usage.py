"""What the work of providers costs, over HTTP: today, the days before, and the conversations that go on."""

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.api.call_shapes import Spent, errors
from app.api.health import the_engine
from app.core.access import who_calls
from app.core.errors import AccessError
from app.engine import Engine

SHOWN_DAYS = 30

router = APIRouter(prefix="/api", tags=["usage"])


class Used(Spent):
    """What was used, and what that cost."""

    requests: int
    given_up: int = Field(description="Requests that were stopped before their end.")
    estimated: bool = Field(description="Some amounts are estimates, because the service did not tell them.")
    input_tokens: int
    cached_tokens: int = Field(description="Those of the input tokens that the service had in its cache.")
    output_tokens: int
    audio_s: float = Field(description="Seconds of audio that were listened to, or made.")
    characters: int = Field(description="Characters that were spoken.")


class UsedOfModel(Used):
    """What was used of one model."""

    capability: str = Field(examples=["stt", "llm", "tts"])
    service: str = Field(examples=["openai"])
    model: str = Field(examples=["gpt-5.4-mini"])


class Today(Used):
    """The day so far, by the server's clock and time zone."""

    date: date
    services: list[UsedOfModel] = Field(description="The dearest first.")


class OneDay(Used):
    """A day that anything was used on."""

    date: date


class Budgets(BaseModel):
    """What may be spent, in US dollars; null where there is no limit."""

    conversation_usd: float | None = Field(description="BUDGET_PER_CONVERSATION_USD")
    day_usd: float | None = Field(description="BUDGET_PER_DAY_USD")
    speculation_usd: float | None = Field(description="SPECULATION_BUDGET_USD")
    day_over: bool = Field(description="The budget of the day is used up: no conversation begins until tomorrow.")


class UsageNow(BaseModel):
    """What it costs."""

    today: Today
    budgets: Budgets
    days: list[OneDay] = Field(description=f"The latest {SHOWN_DAYS} days, the latest first.")
    conversations: list[Spent] = Field(description="Those that go on now, without names.")


@router.get("/usage", response_model=UsageNow, responses=errors(), response_class=JSONResponse, summary="What it costs")
async def get_usage(request: Request, engine: Annotated[Engine, Depends(the_engine)]) -> Response:
    """What was used today and on the days before, and what that cost."""
    headers = {"Cache-Control": "no-store"}
    try:
        who_calls(request.client.host if request.client else None, request.headers, engine.settings)
    except AccessError as error:
        if error.http_status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": {"code": error.code, "message": error.message}}, error.http_status, headers)
    return JSONResponse(usage_now(engine), headers=headers)


def usage_now(engine: Engine) -> dict[str, Any]:
    """The answer; see UsageNow."""
    settings, day = engine.settings, engine.day
    totals = day.totals(SHOWN_DAYS)
    today = next(iter(totals))
    return {
        "today": {"date": today.isoformat(), **totals[today].shown(), "services": day.ledger.shown()},
        "budgets": {
            "conversation_usd": settings.budget_per_conversation_usd or None,
            "day_usd": settings.budget_per_day_usd or None,
            "speculation_usd": settings.speculation_budget_usd or None,
            "day_over": day.over,
        },
        "days": [{"date": of.isoformat(), **amounts.shown()} for of, amounts in totals.items()],
        "conversations": [conversation.account.summary() for conversation in engine.conversations],
    }
