"""The emulator as a whole: an account with numbers, its REST API on a port, and the calls."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Self

from aiohttp import web

from app.emulator.behaviours import Behaviour, Human
from app.emulator.faults import Fault, PhoneError
from app.emulator.legs import Callback, Leg
from app.emulator.line import FINAL, Line
from app.emulator.rest import RestApi
from app.emulator.webhooks import Webhooks

ACCOUNT_SID = "AC" + "0" * 31 + "1"
AUTH_TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 (known to everybody; for tests)
NUMBER = "+15005550006"
PUBLIC_URL = "https://voice.example.com"


class Exchange:
    """Twilio on this machine: use it in `async with`; `server` is where the server under test listens.

    `public_url` is how that server is called outside (PUBLIC_BASE_URL; PUBLIC_URL unless there is no token). Without an
    `auth_token` nothing is signed, the REST API asks for no password, and the server is spoken to directly.
    """

    def __init__(
        self,
        server: str,
        *,
        public_url: str | None = None,
        account_sid: str = ACCOUNT_SID,
        auth_token: str | None = AUTH_TOKEN,
        number: str = NUMBER,
        voice_path: str = "/voice",
        voice_method: str = "POST",
        status_callback: str = "",
        port: int = 0,
        words_per_s: float = 0,
        on_line: Callable[[Line], None] | None = None,
    ) -> None:
        name = public_url or (server if auth_token is None else PUBLIC_URL)
        self.webhooks = Webhooks(server, name, account_sid, auth_token)
        self.account_sid = account_sid
        self.auth_token = auth_token
        self.numbers = [number]
        self.lines: dict[str, Line] = {}
        """Every call of this account by its SID, in the order of their beginnings."""
        self.otherwise: Behaviour = Human()
        """What happens at numbers that nothing is said of."""
        self._behaviours: dict[str, Behaviour] = {}
        self._voice_url = self.webhooks.public_url + voice_path
        self._voice_method = voice_method
        self._status_callback = status_callback
        self._port = port
        self._words_per_s = words_per_s
        self._on_line = on_line
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._answered: asyncio.Queue[Line] = asyncio.Queue()
        self.rest = RestApi(self)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.webhooks.start()
        self._runner = web.AppRunner(self.rest.application(), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            await self.webhooks.close()
            raise PhoneError(
                f"The local phone cannot listen on port {self._port}: {error.strerror}; choose another port."
            ) from None
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        for line in self.lines.values():
            line.hang_up()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.rest.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await self.webhooks.close()
        if self._failures and error is None:
            raise self._failures[0]

    @property
    def errors(self) -> list[Fault]:
        """What Twilio would not have taken, of all calls."""
        return [fault for line in self.lines.values() for fault in line.errors]

    @property
    def api_url(self) -> str:
        """Where the REST API is (TWILIO_API_URL)."""
        return f"http://127.0.0.1:{self._port}"

    async def dial(self, from_: str = "+15005550001", to: str | None = None) -> Line:
        """Somebody at `from_` calls the server's number: the line rings when this returns."""
        line = self.new_line(from_, to or self.numbers[0], "inbound")
        callback = Callback(self._status_callback) if self._status_callback else None
        self.own(self._live(line, Leg(self, line, callback).inbound(self._voice_url, self._voice_method)))
        return line

    def when_called(self, number: str, behaviour: Behaviour) -> None:
        """What happens at a number. Elsewhere somebody answers at once, and is `next_answered()`."""
        self._behaviours[number] = behaviour

    async def next_answered(self, direction: str = "outbound-api", timeout_s: float = 10.0) -> Line:
        """Wait for the next line that is answered and was not handed out yet."""
        async with asyncio.timeout(timeout_s):
            while True:
                line = await self._answered.get()
                if line.direction == direction:
                    return line

    # --- for the parts of the emulator

    def behaviour(self, number: str) -> Behaviour:
        """What happens there."""
        return self._behaviours.get(number, self.otherwise)

    def new_line(self, from_: str, to: str, direction: str, parent: Line | None = None) -> Line:
        """A line that nobody has been told of yet."""
        line = Line("CA" + secrets.token_hex(16), from_, to, direction, parent)
        self.lines[line.sid] = line
        if self._on_line is not None:
            self._on_line(line)
        return line

    def answered(self, line: Line) -> None:
        """A line was picked up."""
        self._answered.put_nowait(line)

    def place(self, line: Line, life: Coroutine[Any, Any, None]) -> None:
        """Let an outbound call live."""
        self.own(self._live(line, life))

    def own(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that ends with the exchange at the latest."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def speaking_s(self, text: str) -> float:
        """How long the voice of <Say> needs for a text."""
        return len(text.split()) / self._words_per_s if self._words_per_s else 0.0

    async def _live(self, line: Line, life: Coroutine[Any, Any, None]) -> None:
        try:
            await life
        finally:
            if line.status not in FINAL:
                line.set_status("failed")
            await self.webhooks.told(line)
            line.finish()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failures.append(failure)
