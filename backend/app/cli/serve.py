"""`ahoy serve`: the server."""

import asyncio
import contextlib
import errno
import logging
import socket
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import FastAPI

from app.core.config import Settings, load_settings, unknown_variables
from app.core.errors import SettingsError
from app.core.logs import set_up_logging
from app.engine import Engine
from app.inference.console import fetch_missing
from app.main import create_app
from app.twilio.telephone import Telephone
from app.websocket.server import WebSocketProtocol

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1_048_576
"""Larger WebSocket messages are refused before they are read; the protocol's own limit lies below."""
GRACEFUL_S = 5
"""Time for open requests when the server is told to stop."""
GOODBYE_S = 1.0
"""Time for conversations to say bye before that."""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; PORT, else 8000.")] = None,
) -> None:
    """Run the server with the page, until it is stopped with Ctrl-C."""
    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = load_settings(**given)
    set_up_logging(settings.log_level)
    for line in unknown_variables():
        typer.echo(line, err=True)
    check_address(settings.host, settings.port)
    if not settings.local_only:
        log.warning("HOST=%s: whoever reaches this address may talk to Ahoy, which has no login", settings.host)
    if settings.twilio_api_url:
        log.warning("TWILIO_API_URL=%s: calls are placed there, and not by Twilio", settings.twilio_api_url)
    fetch_missing(settings)
    server = make_server(create_app(settings, address=settings.local_url), settings)
    with contextlib.suppress(KeyboardInterrupt):  # the server raises Ctrl-C again when it has ended
        server.run()
    if not server.started:
        raise typer.Exit(1)


def make_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """The server as it has to be for conversations: cheap per message, bounded, and polite at its end."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        ws=WebSocketProtocol,
        ws_per_message_deflate=False,  # speech does not compress, and trying costs as much as the rest of a frame
        ws_max_size=MAX_MESSAGE_BYTES,
        timeout_graceful_shutdown=GRACEFUL_S,
    )
    return _Server(config, app.state.engine, app.state.telephone)


def check_address(host: str, port: int) -> None:
    """Find out before the models are loaded whether the server can listen there. Raises SettingsError if it cannot."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise _no_address(host, error) from None
    failures = [fault for *kind, _, address in found if (fault := _cannot_bind(address, *kind))]
    for failure in failures:
        if failure.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"PORT: another program listens on port {port} already; stop it, or choose another port; "
                f"example: PORT={port % 65535 + 1}"
            )
        if failure.errno == errno.EACCES:
            raise SettingsError(f"PORT: this user may not listen on port {port}; example: PORT=8000")
    if len(failures) == len(
        found
    ):  # one of several may fail: a name often stands for IPv6 too, which is not everywhere
        raise _no_address(host, failures[0])


def _cannot_bind(address: Any, family: int, kind: int, protocol: int) -> OSError | None:
    """Why nothing can listen at this address."""
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(address)
    except OSError as error:
        return error
    return None


def _no_address(host: str, error: OSError) -> SettingsError:
    fault = f"'{host}' is not an address of this machine ({error.strerror})"
    return SettingsError(f"HOST: {fault}; example: HOST=127.0.0.1")


class _Server(uvicorn.Server):
    """uvicorn cuts its WebSockets when it is told to stop, and only then ends the application. Here the conversations
    end first, so that each client is told why (`bye`, close code 1001)."""

    def __init__(self, config: uvicorn.Config, engine: Engine, telephone: Telephone) -> None:
        super().__init__(config)
        self._engine = engine
        self._telephone = telephone

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the conversations, then the rest."""
        self._engine.closing = True
        for conversation in list(self._engine.conversations):
            conversation.end("shutdown")
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=GOODBYE_S)
        await self._telephone.dismiss(GOODBYE_S)
        await super().shutdown(sockets)
