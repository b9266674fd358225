"""Who does the work, over HTTP: who is asked in which order, who is left alone and why, and a test of all of them."""

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.api.call_shapes import errors
from app.api.health import the_engine
from app.checkup import Finding, check
from app.core.access import who_calls
from app.core.errors import AccessError, OverloadedError
from app.engine import Engine
from app.usage.meter import Capability

AGAIN_AFTER_S = 10.0
"""A test costs a little at services that charge: whoever asks sooner is told what the last one has shown."""
ORDER: tuple[Capability, ...] = ("stt", "llm", "tts")
NOT_READY = {503: "The models are still being loaded, or never will be: the message says which."}


class OneProvider(BaseModel):
    """Somebody who may do a work."""

    capability: str = Field(examples=["stt", "llm", "tts"])
    provider: str = Field(description="embedded, openai, or a name from SERVICES.", examples=["openai"])
    model: str = Field(description="Empty for the embedded ones.", examples=["gpt-5.4-mini"])


class Standing(OneProvider):
    """How it stands with one of them."""

    works: bool = Field(description="false while it is left alone, because it failed.")
    problem: str = Field(description="What was wrong the last time, for a person; empty when nothing was.")
    asked: bool = Field(description="It is the one of its capability that would be asked now.")


class WhoWorks(BaseModel):
    """Who may do the work."""

    providers: list[Standing] = Field(description="By capability (stt, llm, tts), in the order they are asked in.")


class Found(OneProvider):
    """What one of them did when it was tried."""

    works: bool
    first_ms: float | None = Field(description="Until the first words or sound came; null when none did.")
    words: str = Field(description="What happened, for a person.", examples=["Answered with 7 words."])


class Checked(BaseModel):
    """What a test has shown."""

    age_s: float = Field(description="How long ago that was; 0 for a test that was made for this request.")
    findings: list[Found] = Field(description="In the order of GET /api/providers.")


class Checks:
    """One test at a time. Whoever asks during one waits, and then shares what it has shown; so do those who ask within
    AGAIN_AFTER_S of its end. It runs in the task of the one who asked first: when that ends, it ends, and the next one
    in the line begins anew."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._one_at_a_time = asyncio.Lock()
        self._findings: list[Finding] = []
        self._made_s = float("-inf")

    async def made(self, engine: Engine) -> dict[str, Any]:
        """The answer; see Checked. Raises OverloadedError before the engine is ready."""
        async with self._one_at_a_time:
            age_s = self._now_s() - self._made_s
            if age_s >= AGAIN_AFTER_S:
                self._findings = await check(engine)
                self._made_s, age_s = self._now_s(), 0.0
        return {"age_s": round(age_s, 1), "findings": [finding.as_json() for finding in self._findings]}


def provider_routes(now_s: Callable[[], float] = time.monotonic) -> APIRouter:
    """The routes of one server."""
    router = APIRouter(prefix="/api/providers", tags=["providers"])
    checks = Checks(now_s)

    @router.get(
        "",
        response_model=WhoWorks,
        responses=errors(NOT_READY),
        response_class=JSONResponse,
        summary="Who does the work",
    )
    async def get_providers(request: Request, engine: Annotated[Engine, Depends(the_engine)]) -> Response:
        """Who may recognise, answer and speak, who would be asked now, and who is left alone and why."""
        return _refused(request, engine) or _answer(who_works(engine))

    @router.post(
        "/check",
        response_model=Checked,
        responses=errors(NOT_READY),
        response_class=JSONResponse,
        summary="Try them all",
    )
    async def post_check(request: Request, engine: Annotated[Engine, Depends(the_engine)]) -> Response:
        """Ask every one of them for a little work, which takes some seconds, and costs a fraction of a cent at services
        that charge. A test that was made less than 10 s ago is not made again."""
        if refused := _refused(request, engine):
            return refused
        try:
            return _answer(await checks.made(engine))
        except OverloadedError as error:  # shut down meanwhile
            return _error(503, "not_ready", error.message)

    return router


def who_works(engine: Engine) -> dict[str, Any]:
    """The answer; see WhoWorks."""
    listed = []
    for capability in ORDER:
        members = engine.provision.members[capability]
        now = next((member for member in members if member.health.admits()), members[0])
        listed += [
            {
                "capability": capability,
                "provider": member.name,
                "model": member.model,
                "works": member.health.works,
                "problem": member.health.problem,
                "asked": member is now,
            }
            for member in members
        ]
    return {"providers": listed}


def _refused(request: Request, engine: Engine) -> Response | None:
    """The answer to somebody who may not ask, or asks too early."""
    try:
        who_calls(request.client.host if request.client else None, request.headers, engine.settings)
        _ = engine.providers
    except AccessError as error:
        return _error(error.http_status, error.code, error.message)
    except OverloadedError as error:
        return _error(503, "not_ready", error.message)
    return None


def _answer(content: dict[str, Any], status: int = 200, **headers: str) -> JSONResponse:
    return JSONResponse(content, status, {"Cache-Control": "no-store", **headers})


def _error(status: int, code: str, message: str) -> JSONResponse:
    challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return _answer({"error": {"code": code, "message": message}}, status, **challenge)
