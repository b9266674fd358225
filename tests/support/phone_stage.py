"""The routes of the telephone API on a real socket, with Twilio imitated beside them, and no models to wait for.

Everything that decides about a call is the real thing: the access rule, the numbers, the quotas, the calls, the SDK. In
place of the engine stands what is asked of it: whether there is room.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from app.api import calls
from app.core.config import Settings
from app.emulator import ACCOUNT_SID, AUTH_TOKEN, NUMBER, PUBLIC_URL, Exchange, NoAnswer
from app.twilio.calls import Call
from app.twilio.quotas import Quotas
from app.twilio.telephone import Telephone
from app.twilio.voice import voice_routes
from fastapi import FastAPI

TO, ELSEWHERE = "+12025550123", "+12025550199"
"""Numbers that are allowed; 555-01 is for fiction. Both ring, and nobody answers."""
PATIENCE_S = 10.0


class StandInEngine:
    """An engine that is ready and holds no conversation."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.closing = False
        self.no_room_because = ""
        self.conversations: set[object] = set()

    @property
    def has_room(self) -> bool:
        return not self.no_room_because


def phone_settings(**changes: Any) -> Settings:
    """Settings of a telephone that may call the United States and Canada."""
    usual: dict[str, Any] = {
        "twilio_account_sid": ACCOUNT_SID,
        "twilio_auth_token": AUTH_TOKEN,
        "twilio_phone_number": NUMBER,
        "public_base_url": PUBLIC_URL,
        "outbound_allowed": "+1",
    }
    return Settings(**{**usual, **changes})


class PhoneStage:
    """The API at `url`, asked by `client`; `twilio` is the imitation. Quotas go by `now_s`."""

    def __init__(self, twilio: Exchange, settings: Settings, url: str, client: httpx.AsyncClient) -> None:
        self.twilio = twilio
        self.url = url
        self.client = client
        self.now_s = 1000.0
        self.engine = StandInEngine(settings)
        self.telephone = Telephone(settings, self.engine)  # type: ignore[arg-type]
        self.telephone.quotas = Quotas(settings, lambda: self.now_s)
        self.app = FastAPI()
        self.app.state.telephone = self.telephone
        self.app.include_router(calls.router)
        self.app.include_router(voice_routes(settings))

    async def call(self, number: str = TO, key: str | None = None) -> httpx.Response:
        """Ask for a call."""
        headers = {"Idempotency-Key": key} if key is not None else {}
        return await self.client.post("/api/call", json={"number": number}, headers=headers)

    async def placed(self, number: str = TO) -> Call:
        """A call that was placed."""
        answer = await self.call(number)
        assert answer.status_code == 201, answer.text
        return self.known(answer)

    def known(self, answer: httpx.Response) -> Call:
        """The call of an answer."""
        call = self.telephone.calls.get(answer.json()["sid"])
        assert call is not None
        return call

    @property
    def dialled(self) -> list[str]:
        """The numbers that Twilio was asked to call, whatever came of it."""
        return [
            dict(request.parameters)["To"]
            for request in self.twilio.rest.requests
            if request.method == "POST" and request.path.endswith("/Calls.json")
        ]


@asynccontextmanager
async def phone_stage(**changes: Any) -> AsyncIterator[PhoneStage]:
    """Everything running, for settings with these changes; nothing is left of it at the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with (
        Exchange(url) as twilio,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S) as client,
    ):
        for number in (TO, ELSEWHERE):
            twilio.when_called(number, NoAnswer())
        settings = phone_settings(**{"twilio_api_url": twilio.api_url, **changes})
        stage = PhoneStage(twilio, settings, url, client)
        server = uvicorn.Server(uvicorn.Config(stage.app, log_config=None, timeout_graceful_shutdown=5))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield stage
        finally:
            stage.engine.closing = True
            for line in twilio.lines.values():
                line.hang_up()
            server.should_exit = True
            await client.aclose()  # the server waits for those who are connected
            await serving
            await stage.telephone.close()


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer, which must have the shape of our errors."""
    body = answer.json()
    assert set(body) == {"error"}
    assert {"code", "message"} <= set(body["error"]) <= {"code", "message", "twilio_code"}
    assert body["error"]["message"]
    assert "Traceback" not in answer.text
    return answer.status_code, body["error"]["code"]
