"""A real control server in a thread of its own, for commands that block; and a proxy that answers what a test says."""

from __future__ import annotations

import http.server
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio

from tests.control.server.conftest import PATIENCE, World, record
from tests.control.server.conftest import world as world


@pytest.fixture
def server(world: World) -> Iterator[World]:
    """A control server with two hosts on its map, for commands that block."""
    up, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with world.serving(), world.client("host-a") as a, world.client("host-b") as b:
            await a.register(record("host-a", "redis", address="10.77.0.1:7600"))
            await b.register(record("host-b", "redis", "web", address="10.77.0.2:7600"))
            up.set()
            await trio.to_thread.run_sync(stop.wait)

    thread = threading.Thread(target=trio.run, args=(serve,))
    # Signal handlers are the main thread's.
    with pytest.MonkeyPatch.context() as patch, structlog.testing.capture_logs():
        patch.setattr("control.server.serve.trio.open_signal_receiver", lambda *_: _NoSignals())
        thread.start()
        assert up.wait(PATIENCE)
        yield world
        stop.set()
        thread.join(PATIENCE)


class _NoSignals:
    def __enter__(self) -> _NoSignals:
        return self

    def __exit__(self, *details: object) -> None:
        pass

    async def __anext__(self) -> int:
        await trio.sleep_forever()
        raise AssertionError


class Proxy:
    """Answers as a proxy's admin socket does, by path; None: nobody is there."""

    def __init__(self, path: Path) -> None:
        self.path, self.answers = str(path), dict[str, Any]()
        self._server: socketserver.ThreadingUnixStreamServer | None = None

    def start(self) -> None:
        Path(self.path).unlink(missing_ok=True)
        answers = self.answers

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = answers.get(self.path)
                body = msgspec.json.encode({"error": f"no such path {self.path}"} if found is None else found)
                self.send_response(404 if found is None else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

            def address_string(self) -> str:
                return ""

        self._server = socketserver.ThreadingUnixStreamServer(self.path, Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """A `Proxy` that runs; its socket is ``admin.sock``."""
    made = Proxy(tmp_path / "admin.sock")
    made.start()
    yield made
    made.stop()
