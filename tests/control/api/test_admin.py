from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from control.api import admin
from control.api.messages import UpstreamStatus
from tests.tools.privileges import modes_count

UPSTREAM = UpstreamStatus(service="redis", listen="unix:/r", offered_by=["b"])
BODY = msgspec.json.encode(UPSTREAM)


def no_answer(place: object) -> str:
    with pytest.raises(admin.NoAnswer) as caught:
        admin.ask(str(place), "/status", UpstreamStatus)
    text = str(caught.value)
    assert text.startswith(f"{place}: ")
    return text.removeprefix(f"{place}: ")


def test_an_answer(answering: Callable[..., str]) -> None:
    assert admin.ask(answering(BODY), "/status", UpstreamStatus) == (UPSTREAM, BODY)


def test_the_environment_s_proxies_are_not_asked(
    answering: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert admin.ask(answering(BODY), "/status", UpstreamStatus)[0] == UPSTREAM


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"body": b"{}"}, "the answer is not one of a Hostlane proxy of this version"),
        ({"body": b"hello"}, "the answer is not one of a Hostlane proxy of this version"),
        ({"body": b""}, "the answer is not one of a Hostlane proxy of this version"),
        ({"body": b'"\xff"'}, "the answer is not one of a Hostlane proxy of this version"),
        ({"body": b"<html>", "status": 502}, "the answer is not one of a Hostlane proxy of this version"),
        ({"body": b'{"error":"too busy"}', "status": 503}, "the proxy refused: too busy"),
        ({"raw": b""}, "the answer is not HTTP, so not one of a Hostlane proxy"),
        ({"raw": b"SSH-2.0-OpenSSH_9\r\n"}, "the answer is not HTTP, so not one of a Hostlane proxy"),
        ({"raw": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"},
         "the answer is not HTTP, so not one of a Hostlane proxy"),
    ],
)  # fmt: skip
def test_answers_that_are_not_ours(answering: Callable[..., str], answer: dict[str, object], line: str) -> None:
    assert no_answer(answering(**answer)) == line


def test_no_socket(tmp_path: Path) -> None:
    assert no_answer(tmp_path / "x.sock") == "no such socket; is the proxy running?"
    (tmp_path / "file").write_text("")
    assert no_answer(tmp_path / "file") == "nobody listens there; the proxy that made it is gone"
    assert no_answer(tmp_path / "file" / "x") == "not in a directory; allowed: the path of a socket"
    assert no_answer("/" + "x" * 107) == "not the path of a socket, which has at most 107 bytes"


def test_the_socket_of_a_dead_proxy(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "x.sock"))
        server.listen()
    assert no_answer(tmp_path / "x.sock") == "nobody listens there; the proxy that made it is gone"


def test_another_kind_of_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "x.sock"))
        assert no_answer(tmp_path / "x.sock") == "not a stream socket, so not one of a proxy"


def test_a_socket_of_somebody_else(answering: Callable[..., str]) -> None:
    place = answering(BODY)
    Path(place).chmod(0)
    with modes_count():
        assert no_answer(place) == "permission denied; only the socket's owner and group may ask"


def test_permission_denied(monkeypatch: pytest.MonkeyPatch, answering: Callable[..., str]) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert no_answer(answering(BODY)) == "permission denied; only the socket's owner and group may ask"


def test_a_proxy_that_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "TIMEOUT", 0.01)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "x.sock"))
        server.listen()
        assert no_answer(tmp_path / "x.sock") == "no answer for 0 s; the proxy is stopped or overloaded"


def test_socket_from_config(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("host: a\nrun_dir: /tmp/x\nlinks: {anything: else}\n")
    assert admin.socket_from_config(str(file)) == "/tmp/x/admin.sock"
    file.write_text("\ufeffhost: a\n")
    assert admin.socket_from_config(str(file)) == "/run/hostlane/admin.sock"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "run_dir: not an absolute path; see hostlane validate "),
        (b"[]", "run_dir: not an absolute path; see hostlane validate "),
        (b"run_dir: run", "run_dir: not an absolute path; see hostlane validate "),
        (b"run_dir: 5", "run_dir: not an absolute path; see hostlane validate "),
        (b"a: [", "not a YAML file; see hostlane validate "),
        (b"\xff\xfe", "not a YAML file; see hostlane validate "),
        (b"[" * 3000, "not a YAML file; see hostlane validate "),
        (b" " * ((1 << 20) + 1), "found more than 1 MiB; allowed: a YAML file"),
        (None, "no such file"),
    ],
)
def test_a_config_that_does_not_say(tmp_path: Path, content: bytes | None, line: str) -> None:
    file = tmp_path / "f.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(admin.BadConfig) as caught:
        admin.socket_from_config(str(file))
    assert str(caught.value).replace(str(file), "") == f": {line}"
