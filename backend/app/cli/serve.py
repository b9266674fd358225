"""`ahoy serve`: the server."""

from typing import Annotated, Any

import typer
import uvicorn

from app.core.config import load_settings, unknown_variables
from app.core.logs import set_up_logging
from app.main import create_app

MAX_MESSAGE_BYTES = 1_048_576
"""Larger WebSocket messages are refused before they are read; the protocol's own limit lies below."""
GRACEFUL_S = 5
"""Time for open requests when the server is told to stop."""


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
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        ws="websockets-sansio",  # the cheapest per message of uvicorn's implementations
        ws_per_message_deflate=False,  # speech does not compress, and trying costs as much as the rest of a frame
        ws_max_size=MAX_MESSAGE_BYTES,
        timeout_graceful_shutdown=GRACEFUL_S,
    )
