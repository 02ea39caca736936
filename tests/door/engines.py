"""A container engine of the tests: what the door asks of one, over a real socket. (Real ones are in tests/docker.)"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import Queue
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, Self
from urllib.parse import unquote


class FakeEngine:
    """Listens at `path` inside a ``with`` block.

    Attributes:
        containers: by id, what an inspection says.
        asked: the paths that were asked for.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.containers = path, dict[str, dict[str, Any]]()
        self.asked: list[str] = []
        self.answering = threading.Event()
        self.answering.set()
        self.followers: list[Queue[dict[str, Any] | None]] = []

    def put(self, id: str, namespace: str, labels: dict[str, str], **state: Any) -> None:
        """There is such a container, which runs in the namespace of that file."""
        self.containers[id] = {
            "Id": id,
            "Name": f"/{id}-name",
            "Created": id,
            "State": {"Running": True, "Paused": False, **state},
            "Config": {"Labels": labels},
            "HostConfig": {"NetworkMode": "none"},
            "NetworkSettings": {"SandboxKey": f"/var/run/docker/netns/{namespace}"},
        }

    def hold(self) -> None:
        """Answer no inspection until `release`, as while containers start."""
        self.answering.clear()

    def release(self) -> None:
        """Answer those that wait, too."""
        self.answering.set()

    def happen(self, action: str, id: str) -> None:
        """Tell whoever follows."""
        found = self.containers.get(id)
        labels = {**found["Config"]["Labels"], "name": found["Name"].lstrip("/")} if found else {}
        for follower in self.followers:
            follower.put({"Type": "container", "Action": action, "Actor": {"ID": id, "Attributes": labels}})

    def listed(self, ids: list[str] | None) -> list[dict[str, Any]]:
        """The list of all containers, or of those."""
        return [
            {
                "Id": id,
                "Names": ["/other/link", each["Name"]],
                "Created": 1_700_000_000,
                "Labels": each["Config"]["Labels"],
                "HostConfig": each["HostConfig"],
            }
            for id, each in self.containers.items()
            if ids is None or id in ids
        ]

    def hang_up(self) -> None:
        """The events end, as when the engine stops."""
        followers, self.followers = self.followers, []
        for follower in followers:
            follower.put(None)

    def __enter__(self) -> Self:
        self.path.unlink(missing_ok=True)
        self._server = _Server(str(self.path), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self.hang_up()
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink()


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Who followed has gone."""


def _handler(engine: FakeEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path)
            engine.asked.append(path)
            if path.startswith("/events"):
                return self._events()
            if path.startswith("/containers/json"):
                filters = json.loads(path.partition("&filters=")[2] or "{}")
                return self._answer(200, engine.listed(filters.get("id")))
            engine.answering.wait()
            id = path.split("/")[2]
            if id in engine.containers:
                return self._answer(200, engine.containers[id])
            return self._answer(404, {"message": "no such container"})

        def _answer(self, status: int, what: Any) -> None:
            body = json.dumps(what).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _events(self) -> None:
            queue: Queue[dict[str, Any] | None] = Queue()
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            engine.followers.append(queue)
            while (event := queue.get()) is not None:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    return Handler
