"""`ahoy serve` as a process: how it begins, how it ends, and what it says when it cannot begin."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from real_server import RealServer
from wire_client import WireClient, answered_in_full

AHOY = str(Path(sys.executable).with_name("ahoy"))
SCRIPTED = {
    "STT_PROVIDER": "scripted",
    "LLM_PROVIDER": "scripted",
    "TTS_PROVIDER": "scripted",
    "SCRIPTED_FIRST_TOKEN_MS": "20",
    "SCRIPTED_TOKENS": "6",
    "SCRIPTED_AUDIO_MS": "200",
}


async def test_a_conversation_ends_with_bye_and_the_process_with_it() -> None:
    with RealServer(SCRIPTED) as server:
        async with WireClient(server.ws_url, start={}, origin=server.url.rstrip("/")) as client:
            await answered_in_full(client)
            os.kill(server.pid, signal.SIGTERM)
            assert (await client.expect("bye"))["reason"] == "shutdown"
            assert await client.closed() == 1001
        assert server.stop() in {0, -signal.SIGTERM}
        assert "Traceback" not in server.log_text()
        assert "Tell me more" not in server.log_text(), "what is said is in no log"


@pytest.mark.parametrize("ready_first", [True, False], ids=["when it is ready", "while it loads"])
def test_ctrl_c_ends_it_in_order(ready_first: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as finder:
        port = finder.getsockname()[1]
    process = subprocess.Popen(  # noqa: S603 (our own command)
        [AHOY, "serve", "--port", str(port)], stderr=subprocess.PIPE, text=True, env={**os.environ, **SCRIPTED}
    )
    assert process.stderr
    log = ""
    while (f"http://127.0.0.1:{port}" if not ready_first else "Ready") not in log:
        log += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    log += process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert "Traceback" not in log


def test_a_port_that_is_taken_is_said_in_one_line_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run(  # noqa: S603 (our own command)
            [AHOY, "serve", "--port", str(port)], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.match(f"PORT: another program listens on port {port} already", line)


def test_an_address_that_is_not_here_is_said_in_one_line() -> None:
    done = subprocess.run(  # noqa: S603 (our own command)
        [AHOY, "serve", "--host", "no.such.host.invalid"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("HOST: 'no.such.host.invalid' is not an address of this machine")


def test_it_listens_where_it_is_told_and_on_loopback_only_otherwise() -> None:
    with RealServer(SCRIPTED) as server:
        assert httpx.get(server.url + "health", trust_env=False).status_code == 200
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", server.port), timeout=5).close()


def test_a_server_that_others_can_reach_says_that_it_has_no_login() -> None:
    with RealServer({**SCRIPTED, "HOST": "0.0.0.0"}) as server:  # noqa: S104 (that is what it is about)
        assert "HOST=0.0.0.0: whoever reaches this address may talk to Ahoy, which has no login" in server.log_text()
    with RealServer(SCRIPTED) as server:
        assert "no login" not in server.log_text()
