from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from control.base.system import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is one per process, and the other tests have theirs."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json() -> None:
    stream = io.StringIO()
    logs.configure("info", "auto", stream)
    structlog.get_logger(peer="b").info("link up", rtt_ms=1.5, raw=b"\xff", text="a\nb\ud800")
    (event,) = logged(stream)
    assert list(event)[:3] == ["timestamp", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["timestamp"])
    assert abs((datetime.fromisoformat(event.pop("timestamp")) - datetime.now(UTC)).total_seconds()) < 3600
    assert event == {
        "level": "info", "event": "link up", "peer": "b", "rtt_ms": 1.5, "raw": "b'\\xff'", "text": "a\nb\ud800",
    }  # fmt: skip


def test_console_on_a_terminal() -> None:
    stream = Terminal()
    logs.configure("info", "auto", stream)
    structlog.get_logger().info("link up", peer="b\nc")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert plain != stream.getvalue()
    assert re.fullmatch(r"\S+Z \[info +\] link up +peer='b\\nc'\n", plain)


def test_what_is_asked_for_comes_before_the_terminal() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    logs.configure("info", "json", terminal)
    structlog.get_logger().info("one")
    assert logged(terminal)[0]["event"] == "one"
    logs.configure("info", "console", pipe)
    structlog.get_logger().info("two")
    assert re.fullmatch(r"\S+Z \[info +\] two\n", pipe.getvalue()), "no colours in a file"


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(level: str, shown: int) -> None:
    stream = io.StringIO()
    logs.configure(level, "json", stream)
    log = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("event")
    assert [event["level"] for event in logged(stream)] == ["debug", "info", "warning", "error"][4 - shown :]


def test_nothing_is_done_for_an_event_below_the_level() -> None:
    class Untouchable:
        def __str__(self) -> str:
            raise AssertionError

        __repr__ = __str__

    logs.configure("info", "json", io.StringIO())
    log = structlog.get_logger().bind(peer="b")
    log.debug("event", value=Untouchable())
    assert log.debug.__func__.__qualname__.endswith("_nop")


@pytest.mark.parametrize("style", ["json", "console"])
def test_tracebacks(style: str) -> None:
    stream = io.StringIO()
    logs.configure("info", style, stream)
    secret = "a secret"
    try:
        raise LookupError("no such thing")
    except LookupError:
        structlog.get_logger().exception("failed", length=len(secret))
    assert "LookupError: no such thing" in stream.getvalue()
    assert secret not in stream.getvalue(), "local variables are not for the log"
    if style == "json":
        (event,) = logged(stream)
        assert event["traceback"].startswith("Traceback (most recent call last):\n")
        assert set(event) == {"timestamp", "level", "event", "length", "traceback"}


def test_libraries_log_in_the_same_form() -> None:
    stream = io.StringIO()
    logs.configure("debug", "json", stream)
    logging.getLogger("trio.serve_listeners").error("out of %s", "descriptors")
    logging.getLogger("chatty").info("nobody wants to know")
    (event,) = logged(stream)
    del event["timestamp"]
    assert event == {"level": "error", "event": "out of descriptors", "logger": "trio.serve_listeners"}


def test_configured_twice_a_line_appears_once() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", "json", first)
    logs.configure("info", "json", second)
    logging.getLogger("x").error("once")
    structlog.get_logger().info("once")
    assert (len(logged(first)), len(logged(second))) == (0, 2)


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, closed(), Full()], ids=["none", "closed", "full"])
def test_a_log_that_cannot_be_written_ends_nothing(stream: io.StringIO | None) -> None:
    sink = logs.LineSink(stream)
    sink.info("lost")
    sink.error("lost")
    assert (sink.dropped, sink.terminal) == (2, False)


def test_a_log_whose_reader_is_gone_ends_nothing() -> None:
    code = (
        "import structlog; from control.base.system import logs; logs.configure();"
        "[structlog.get_logger().info('event', n=n) for n in range(3)]; print('alive')"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writing, timeout=60, check=False)
    os.close(writing)
    assert done.stdout == b"alive\n"


def test_without_stderr() -> None:
    code = (
        "from control.base.system import logs; logs.configure();"
        " logs.structlog.get_logger().info('x'); print('alive')"
    )
    done = subprocess.run(
        f'{sys.executable} -c "{code}" 2>&-', shell=True, stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"alive\n")


def test_another_level_for_loggers_in_use() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    log = structlog.get_logger()
    bound = log.bind(peer="b")
    for level in ("info", "debug", "error", "info"):
        logs.set_level(level)
        for each in (log, bound):
            each.debug("debug", when=level)
            each.info("info", when=level)
            each.error("error", when=level)
    found = [(event["when"], event["event"]) for event in logged(stream)]
    assert [event for when, event in found if when == "debug"] == ["debug", "info", "error"] * 2
    assert [event for when, event in found if when == "error"] == ["error"] * 2
    assert [event for when, event in found if when == "info"] == ["info", "error"] * 4
