"""The FastAPI application: settings, life cycle, routes. `uvicorn app.main:app` serves it."""

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, WebSocket
from fastapi.middleware.cors import CORSMiddleware

from app.api import calls, health, page, providers, usage
from app.core.config import TWILIO_STREAM_PATH, Settings, load_settings, unknown_variables
from app.core.errors import AhoyError
from app.core.logs import set_up_logging
from app.engine import Engine
from app.inference.console import fetch_missing
from app.twilio.telephone import Telephone
from app.twilio.voice import voice_routes
from app.websocket.handler import converse
from app.websocket.twilio_handler import TwilioHandler

log = logging.getLogger(__name__)


def create_app(settings: Settings, *, engine: Engine | None = None, address: str = "") -> FastAPI:
    """The application; `address` is where its page is, if that is known, to be told when it is ready.

    Raises ModelError when a model that the settings need is not there.
    """
    engine = engine or Engine(settings)
    telephone = Telephone(settings, engine)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(engine, telephone, address))  # the server answers meanwhile
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            await engine.close()
            await telephone.close()

    # FastAPI's own documentation pages load their scripts from elsewhere: /openapi.json works without a network.
    app = FastAPI(title="Ahoy", version=health.ahoy_version(), lifespan=lifespan, docs_url=None, redoc_url=None)
    if settings.allowed_origins:  # pages from elsewhere may use the telephone too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "idempotency-key"],
        )
    app.state.engine = engine
    app.state.telephone = telephone
    app.include_router(health.router)
    app.include_router(calls.router)
    app.include_router(usage.router)
    app.include_router(providers.provider_routes())
    app.include_router(voice_routes(settings))
    app.include_router(page.router)
    app.mount("/static", page.PageFiles(), name="static")

    @app.websocket(settings.ws_path)
    async def conversation(socket: WebSocket) -> None:
        await converse(socket, engine)

    app.add_api_websocket_route(TWILIO_STREAM_PATH, TwilioHandler(telephone).serve)
    return app


async def _load(engine: Engine, telephone: Telephone, address: str) -> None:
    try:
        await engine.start()
        await telephone.start()
        gc.collect()
        gc.freeze()  # models and modules stay: looking through them again and again would make frames late
        log.info("Ready to talk%s", f": open {address}" if address else "")
    except AhoyError as error:
        log.error("The models could not be loaded: %s", error.message)
    except Exception:
        log.exception("The models could not be loaded")


def build() -> FastAPI:
    """The application for the settings of this process; models that are not here yet are fetched first. Wrong settings,
    or models that cannot be had, end the process with one line for each problem."""
    try:
        settings = load_settings()
        set_up_logging(settings.log_level)
        for line in unknown_variables():
            log.warning("%s", line)
        fetch_missing(settings)
        return create_app(settings)
    except AhoyError as error:
        sys.stderr.write(f"Ahoy cannot start.\n{error.message}\n")
        raise SystemExit(2) from None


def __getattr__(name: str) -> Any:
    """`app` is built when a server asks for it, so that importing this module needs no settings."""
    if name == "app":
        globals()["app"] = build()
        return globals()["app"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
