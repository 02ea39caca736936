"""The Docker Engine's answers, from a real server on a real Unix socket that says what the engine says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from proxy.errors import NetError
from proxy.netdev.observe.docker import container

ANSWERS = {
    "web-1": (200, b'{"Id": "f00", "Name": "/web-1", "State": {"Status": "running", "Running": true, "Pid": 4711}}'),
    "ended": (200, b'{"Id": "f01", "Name": "/ended", "State": {"Status": "exited", "Running": false, "Pid": 0}}'),
    "f00": (200, b'{"Id": "f00", "Name": "/web-1", "State": {"Status": "running", "Running": true, "Pid": 4711}}'),
    "odd": (200, b'{"Id": "f02"}'),
    "text": (200, b"no JSON"),
    "broken": (500, b'{"message": "server error"}'),
}
NO_SUCH = (404, b'{"message": "No such container"}')


class Engine(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        _, containers, name, last = self.path.split("/")
        assert (containers, last) == ("containers", "json")
        code, body = ANSWERS.get(name, NO_SUCH)
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None: ...

    def address_string(self) -> str:
        return "unix"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    path = f"{tmp_path}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with ThreadingUnixStreamServer(path, Engine) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("asked", "name", "pid"),
    [
        ("web-1", "web-1", 4711), ("f00", "web-1", 4711), ("ended", "ended", None), ("nobody", "nobody", None),
        ("a/b ?", "a/b ?", None),
    ],
)  # fmt: skip
def test_names_and_pids(engine: str, asked: str, name: str, pid: int | None) -> None:
    assert container(asked) == (name, pid)


@pytest.mark.parametrize("name", ["odd", "text", "broken"])
def test_answers_that_say_nothing(engine: str, name: str) -> None:
    with pytest.raises(NetError, match=f"the Docker Engine at unix://{engine} does not tell about {name}: ") as caught:
        container(name)
    assert "\n" not in str(caught.value)


def test_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/missing.sock")
    with pytest.raises(NetError, match="no Docker Engine at unix:///.*: no such file or directory"):
        container("web-1")


def test_an_engine_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.9:2375")
    with pytest.raises(NetError, match="DOCKER_HOST is tcp://10.0.0.9:2375; allowed: unix:///path, "):
        container("web-1")
