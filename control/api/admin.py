"""The client of a proxy's admin socket: one question, one decoded answer, or one line that says why there is none."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import httpx
import msgspec

from control.api.messages import AdminErrorBody, HealthAnswer
from control.base.reading.addresses import (
    ADMIN_SOCKET,
    DEFAULT_CONFIG,
    DEFAULT_CONTROL_RUN_DIR,
    DEFAULT_RUN_DIR,
    UNIX_PATH_BYTES,
)
from control.base.reading.files import MAX_FILE_BYTES
from control.base.reading.yamlmap import Document, Problem, read
from control.base.unixhttp import unix_client
from control.base.wholefile import read_file

T = TypeVar("T")

TIMEOUT = 10.0
"""Seconds without a byte, as long as a proxy gives its client; one that is alive needs milliseconds."""

_REASONS = {
    errno.ENOENT: "no such socket; is the proxy running?",
    errno.ECONNREFUSED: "nobody listens there; the proxy that made it is gone",
    errno.EACCES: "permission denied; only the socket's owner and group may ask",
    errno.ENOTDIR: "not in a directory; allowed: the path of a socket",
    errno.EPROTOTYPE: "not a stream socket, so not one of a proxy",
    errno.EAGAIN: "too many clients wait there; is the proxy stopped?",
}


_OTHER_VERSION = "the answer is not one of a Hostlane proxy of this version"


class NoAnswer(Exception):
    """There is no answer to show; ``str()`` is the line that says why."""


class Refused(NoAnswer):
    """The proxy answers, but not to this process."""


class BadConfig(Exception):
    """The file does not say where the socket is; ``str()`` is the line that says why."""


def ask(socket_path: str, path: str, kind: type[T], timeout: float | None = None) -> tuple[T, bytes]:
    """The answer of the proxy behind ``socket_path`` to ``GET path``: decoded, and as it came.

    Raises NoAnswer when nobody answers, within so many seconds (default: TIMEOUT), or not with a ``kind``.
    """
    return _answer(socket_path, "GET", path, kind, TIMEOUT if timeout is None else timeout)


def health(socket_path: str, question: str) -> tuple[HealthAnswer, bytes]:
    """The answer to ``alive``, ``ready`` or ``mesh``, which is one also if it is no. Raises NoAnswer."""
    with _talking(socket_path) as client:
        response = client.request("GET", f"http://hostlane/{question}")
    try:
        return msgspec.json.decode(response.content, type=HealthAnswer), response.content
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _refused(socket_path, response)


def order(socket_path: str, path: str, kind: type[T]) -> tuple[T, bytes]:
    """The same for ``POST path``, which has the proxy do something first."""
    return _answer(socket_path, "POST", path, kind)


def follow(socket_path: str, path: str, kind: type[T]) -> Iterator[T]:
    """What the proxy tells, one ``kind`` after the other, while it carries out ``POST path``.

    Raises NoAnswer when it refuses, or when it is gone before it has said everything.
    """
    yield from filter(None, _lines(socket_path, "POST", path, kind))


def listen(socket_path: str, path: str, kind: type[T]) -> Generator[T | None, None, None]:
    """What the proxy tells as it happens, after ``GET path``; None each time it says that it is there, with nothing
    new: that comes first. Ends when the proxy ends the answer. Raises NoAnswer.
    """
    return _lines(socket_path, "GET", path, kind)


def _lines(socket_path: str, method: str, path: str, kind: type[T]) -> Generator[T | None, None, None]:
    with _talking(socket_path) as client, client.stream(method, f"http://hostlane{path}") as response:
        if response.status_code != 200:
            response.read()
            _refused(socket_path, response)
        try:
            for line in response.iter_lines():
                yield msgspec.json.decode(line, type=kind) if line else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise NoAnswer(f"{socket_path}: {_OTHER_VERSION}") from None


def _answer(
    socket_path: str, method: str, path: str, kind: type[T], timeout: float = TIMEOUT
) -> tuple[T, bytes]:
    with _talking(socket_path, timeout) as client:
        response = client.request(method, f"http://hostlane{path}")
    if response.status_code != 200:
        _refused(socket_path, response)
    try:
        return msgspec.json.decode(response.content, type=kind), response.content
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NoAnswer(f"{socket_path}: {_OTHER_VERSION}") from None


def _refused(socket_path: str, response: httpx.Response) -> NoReturn:
    try:
        error = msgspec.json.decode(response.content, type=AdminErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NoAnswer(f"{socket_path}: {_OTHER_VERSION}") from None
    raise Refused(f"{socket_path}: the proxy refused: {error}")


def socket_of(config: str | None, socket_path: str | None) -> str:
    """The socket that the options --config and --socket of a command name, or the default one.

    Raises BadConfig when they do not say which.
    """
    if config is not None and socket_path is not None:
        raise BadConfig("--config and --socket both say which proxy to ask; use one of them")
    if config is not None:
        return socket_from_config(config)
    return f"{usual_run_dir()}/{ADMIN_SOCKET}" if socket_path is None else socket_path


def usual_run_dir() -> str:
    """Where a proxy has its sockets that runs with the configuration that the unit and the image use: as that says, if
    it can be read.
    """
    try:
        return run_dir_from_config(DEFAULT_CONFIG)
    except BadConfig:
        return DEFAULT_RUN_DIR


def socket_from_config(file: str) -> str:
    """The admin socket of the proxy that runs with this configuration. Raises as `run_dir_from_config` does."""
    return os.path.join(run_dir_from_config(file), ADMIN_SOCKET)


def run_dir_from_config(file: str) -> str:
    """Where a proxy or control server that runs with this configuration has the sockets that command it; nothing else
    is looked at. It is a proxy's if it names a `host`.

    Raises BadConfig when the file does not give one. ``hostlane validate`` says the rest.
    """
    try:
        content = read_file(file, MAX_FILE_BYTES, "a YAML file")
    except ValueError as error:
        raise BadConfig(f"{file}: {error}") from None
    try:
        document = read(content.decode("utf-8-sig"))
    except ValueError:
        document = Document(problems=[Problem(1, (), "not text")])
    data = document.data
    if data is None and document.problems:
        raise BadConfig(f"{file}: not a YAML file; see hostlane validate {file}")
    run_dir = None
    if isinstance(data, dict):
        run_dir = data.get("run_dir", DEFAULT_RUN_DIR if "host" in data else DEFAULT_CONTROL_RUN_DIR)
    if not isinstance(run_dir, str) or not os.path.isabs(run_dir):
        raise BadConfig(f"{file}: run_dir: not an absolute path; see hostlane validate {file}")
    return run_dir


@contextmanager
def _talking(socket_path: str, timeout: float = TIMEOUT) -> Iterator[httpx.Client]:
    """A client for the socket, inside of which whatever goes wrong is NoAnswer."""
    client = _client(socket_path, timeout)
    try:
        with client:
            yield client
    except httpx.TimeoutException:
        raise NoAnswer(f"{socket_path}: no answer for {timeout:.0f} s; the proxy is stopped or overloaded") from None
    except httpx.HTTPError:
        raise NoAnswer(f"{socket_path}: the answer is not HTTP, so not one of a Hostlane proxy") from None


def _client(socket_path: str, timeout: float) -> httpx.Client:
    """Raises NoAnswer, which says why, when nobody listens there."""
    # The kernel's own refusal of such a path has no errno to tell it by.
    if len(os.fsencode(socket_path)) > UNIX_PATH_BYTES or "\0" in socket_path:
        raise NoAnswer(f"{socket_path}: not the path of a socket, which has at most {UNIX_PATH_BYTES} bytes")
    try:
        return unix_client(socket_path, timeout)
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, (error.strerror or "cannot connect").lower())
        raise NoAnswer(f"{socket_path}: {reason}") from None
