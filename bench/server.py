"""The server that is measured, in a process of its own, with the settings of a benchmark and no others."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping

import httpx
from app.core.config import Settings


def serve(settings: Mapping[str, object], *, core: int | None = None) -> "tuple[subprocess.Popen[bytes], int]":
    """Start it on a free port of loopback, which is given back; on one processor if `core` says which."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    names = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in names}
    said = {name: str(value) for name, value in {"LOG_LEVEL": "warning", **settings, "PORT": port}.items()}
    server = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve"],
        env=kept | said,
        cwd=tempfile.gettempdir(),
        preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 (no threads yet)
    )
    return server, port


async def until_ready(port: int) -> None:
    """Return when it can hold conversations. Raises TimeoutError after a minute."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(600):
            try:
                if (await client.get(f"http://127.0.0.1:{port}/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise TimeoutError("the server does not become ready")
