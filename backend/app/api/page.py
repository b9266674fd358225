"""The page, for browsers; at the same address everything else gets the health JSON."""

import os
from html import escape
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from app.api.health import health, the_engine
from app.core.config import REPOSITORY
from app.engine import Engine

FRONTEND = REPOSITORY / "frontend"
router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def root(request: Request, engine: Annotated[Engine, Depends(the_engine)]) -> Response:
    """The page if HTML is wanted, else the health JSON."""
    vary = {"Vary": "Accept"}
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse(health(engine), headers={**vary, "Cache-Control": "no-store"})
    page = (FRONTEND / "index.html").read_text(encoding="utf-8")
    page = page.replace(_WS_PATH.format("/ws"), _WS_PATH.format(escape(engine.settings.ws_path)))
    return HTMLResponse(page, headers={**vary, "Cache-Control": "no-cache", **_SECURITY})


class PageFiles(StaticFiles):
    """The page's other files. Browsers ask each time whether they have changed, so a new version shows at once."""

    def __init__(self, directory: Path = FRONTEND / "static") -> None:
        super().__init__(directory=directory)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, never used from a cache without asking."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


_WS_PATH = '<meta name="ahoy-ws-path" content="{}">'
_SECURITY = {
    # The page may open WebSockets to any server its user names, and runs nothing but its own files.
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss: http: https:; img-src 'self' data:; script-src 'self' blob:; "
        "worker-src 'self' blob:; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
