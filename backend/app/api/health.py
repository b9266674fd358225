"""What the server says about itself: `/health` (it runs), `/ready` (it can hold conversations)."""

import time
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from app.engine import Engine

router = APIRouter(tags=["health"])
_STARTED_S = time.monotonic()


def the_engine(request: Request) -> Engine:
    """The engine of the application."""
    engine: Engine = request.app.state.engine
    return engine


def health(engine: Engine) -> dict[str, Any]:
    """The server's state in a few numbers."""
    return {
        "name": "ahoy",
        "status": "ok",
        "version": ahoy_version(),
        "ready": engine.ready,
        "conversations": len(engine.conversations),
        "uptime_s": round(time.monotonic() - _STARTED_S, 1),
    }


def ahoy_version() -> str:
    """The installed version; `dev` when only the source is there."""
    try:
        return version("ahoy")
    except PackageNotFoundError:
        return "dev"


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def get_health(engine: Annotated[Engine, Depends(the_engine)], response: Response) -> dict[str, Any]:
    """200 as long as the server runs."""
    response.headers["Cache-Control"] = "no-store"
    return health(engine)


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses={503: {"description": "Not yet, or never: `reason` says which."}})
async def get_ready(engine: Annotated[Engine, Depends(the_engine)], response: Response) -> dict[str, Any]:
    """200 when all models are loaded, 503 before, and for good when they cannot be."""
    response.headers["Cache-Control"] = "no-store"
    if not engine.ready:
        response.status_code = 503
        return {"ready": False, "reason": engine.problem or "The models are still being loaded."}
    return {"ready": True}
