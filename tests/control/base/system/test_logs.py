from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from control.base import repeats
from control.base.system import logs
from tests.tools.sockets import eventually

PATIENCE = 60


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is one per process, and the other tests have theirs."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs.close()
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[TextIO]:
    with open(tmp_path / "log", "a+", encoding="utf-8") as stream:
        yield stream


def text(stream: TextIO) -> str:
    """What was logged; nothing can be logged any more."""
    logs.close()
    stream.seek(0)
    return stream.read()


def logged(stream: TextIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text(stream).splitlines()]


def test_json(stream: TextIO) -> None:
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
    found = on_a_terminal("logs.configure()")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", found)
    assert plain != found
    assert re.fullmatch(r"\S+Z \[info +\] link up +peer='b\\nc'\r\n", plain)


def test_what_is_asked_for_comes_before_the_terminal(stream: TextIO) -> None:
    assert json.loads(on_a_terminal("logs.configure('info', 'json')"))["event"] == "link up"
    logs.configure("info", "console", stream)
    structlog.get_logger().info("two")
    assert re.fullmatch(r"\S+Z \[info +\] two\n", text(stream)), "no colours in a file"


@pytest.mark.parametrize("wish", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours(wish: dict[str, str]) -> None:
    assert re.fullmatch(r"\S+Z \[info +\] link up +peer='b\\nc'\r\n", on_a_terminal("logs.configure()", wish))


def on_a_terminal(configure: str, settings: dict[str, str] | None = None) -> str:
    """What a process writes whose stderr is a terminal, with colours unless `settings` say otherwise."""
    environment = os.environ | {"TERM": "xterm", "NO_COLOR": ""} | (settings or {})
    code = (
        f"from control.base.system import logs; {configure}; logs.structlog.get_logger().info('link up', peer='b\\nc')"
    )
    master, slave = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", code], stderr=slave, env=environment, timeout=PATIENCE, check=True)
        return os.read(master, 65536).decode()
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(level: str, shown: int, stream: TextIO) -> None:
    logs.configure(level, "json", stream)
    log = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("event")
    assert [event["level"] for event in logged(stream)] == ["debug", "info", "warning", "error"][4 - shown :]


def test_nothing_is_done_for_an_event_below_the_level(stream: TextIO) -> None:
    class Untouchable:
        def __str__(self) -> str:
            raise AssertionError

        __repr__ = __str__

    logs.configure("info", "json", stream)
    log = structlog.get_logger().bind(peer="b")
    log.debug("event", value=Untouchable())
    assert log.debug.__func__.__qualname__.endswith("_nop")


@pytest.mark.parametrize("style", ["json", "console"])
def test_tracebacks(style: str, stream: TextIO) -> None:
    logs.configure("info", style, stream)
    secret = "a secret"
    try:
        raise LookupError("no such thing")
    except LookupError:
        structlog.get_logger().exception("failed", length=len(secret))
    found = text(stream)
    assert "LookupError: no such thing" in found
    assert secret not in found, "local variables are not for the log"
    if style == "json":
        event = json.loads(found)
        assert event["traceback"].startswith("Traceback (most recent call last):\n")
        assert set(event) == {"timestamp", "level", "event", "length", "traceback"}


def test_libraries_log_in_the_same_form(stream: TextIO) -> None:
    logs.configure("debug", "json", stream)
    logging.getLogger("trio.abc").error("out of %s", "descriptors")
    logging.getLogger("chatty").info("nobody wants to know")
    (event,) = logged(stream)
    del event["timestamp"]
    assert event == {"level": "error", "event": "out of descriptors", "logger": "trio.abc"}


def test_configured_twice_a_line_appears_once(stream: TextIO, tmp_path: Path) -> None:
    with open(tmp_path / "first", "a+", encoding="utf-8") as first:
        logs.configure("info", "json", first)
        logs.configure("info", "json", stream)
        logging.getLogger("x").error("once")
        structlog.get_logger().info("once")
        assert (len(logged(stream)), text(first)) == (2, "")


def test_a_log_that_is_closed_ends_nothing(stream: TextIO) -> None:
    stream.close()
    logs.configure("info", "json", stream)
    structlog.get_logger().info("lost")
    structlog.get_logger().error("lost")


@pytest.mark.failure("27")
def test_failures_of_one_kind_are_a_number(stream: TextIO) -> None:
    logs.configure("info", "json", stream)
    log = structlog.get_logger()
    for number in range(28):
        log.warning("stream ended", kind=("redis", "b"), service="redis", number=number)
    log.warning("stream ended", kind=("web", "b"), service="web")
    log.warning("stream ended", service="web")
    first, web, plain, more = logged(stream)
    assert (first["number"], first["service"]) == (0, "redis")
    assert web["service"] == plain["service"] == "web"
    assert more.pop("in_s") < PATIENCE
    assert more.pop("timestamp") >= first["timestamp"]
    assert more == {"level": "warning", "event": "stream ended", "service": "redis", "number": 27, "more": 27}


@pytest.mark.failure("27")
def test_the_number_is_told_while_the_process_runs(stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "WINDOW", 0.05)
    logs.configure("info", "json", stream)
    for _ in range(3):
        structlog.get_logger().warning("failed", kind=())
    eventually(lambda: b'"more"' in Path(stream.name).read_bytes(), "a summary")


def test_at_level_debug_everything_is_told(stream: TextIO) -> None:
    logs.configure("debug", "json", stream)
    for _ in range(3):
        structlog.get_logger().warning("failed", kind=("redis",))
    found = logged(stream)
    assert [set(event) for event in found] == [{"timestamp", "level", "event"}] * 3


@pytest.mark.failure("27")
def test_tracebacks_and_libraries_repeat_themselves_too(stream: TextIO) -> None:
    logs.configure("info", "json", stream)
    for number in range(10):
        try:
            raise [LookupError, ValueError][number % 2](f"number {number}")
        except Exception:
            structlog.get_logger().exception("unexpected error in a stream", peer="b")
        logging.getLogger("trio.abc").error("accept failed %s", number)
    found = logged(stream)
    assert [event["event"] for event in found if "more" not in event] == [
        "unexpected error in a stream",
        "accept failed 0",
        "unexpected error in a stream",
    ]
    assert [event["traceback"].splitlines()[-1] for event in found if "traceback" in event] == [
        "LookupError: number 0",
        "ValueError: number 1",
    ]
    assert sorted((event["event"], event["more"]) for event in found if "more" in event) == [
        ("accept failed 9", 9),
        ("unexpected error in a stream", 4),
        ("unexpected error in a stream", 4),
    ]


@pytest.mark.failure("27")
def test_who_repeats_a_line_does_not_choose_its_length(stream: TextIO) -> None:
    logs.configure("info", "json", stream)
    for _ in range(2):
        structlog.get_logger().warning("failed", kind=(), detail="ä" * 100_000)
    assert [event["detail"] for event in logged(stream)] == ["ä" * logs.LONGEST + "…"] * 2


@pytest.mark.failure("27")
@pytest.mark.parametrize("end", ["raise LookupError('the end')", "import os; sys.exit('the end')"])
def test_last_words_come_through_the_same_way(end: str) -> None:
    code = (
        "import sys; from control.base.system import logs; logs.configure();"
        f" logs.structlog.get_logger().info('before', n=1); {end}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=PATIENCE, check=False, text=True
    )
    first, *rest = done.stderr.splitlines()
    assert (done.returncode, json.loads(first)["event"]) == (1, "before")
    assert "the end" in rest[-1]


@pytest.mark.failure("27")
@pytest.mark.parametrize(
    "write",
    [
        "log.info('event', text='x' * 1000)",
        "warnings.warn(f'no {n} ' + 'x' * 1000)",
        "print('x' * 1000, file=sys.stderr)",
        "click.echo('x' * 1000, err=True)",
        "library.error('x' * 1000 + str(n))",
    ],
)
def test_nothing_that_is_said_on_stderr_waits_for_its_reader(write: str) -> None:
    code = f"""if True:
        import logging, sys, warnings, click
        from control.base.system import logs
        logs.configure()
        log, library = logs.structlog.get_logger(), logging.getLogger("library")
        for n in range(2000):
            {write}
        print("alive", flush=True)
    """
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writing, timeout=PATIENCE, check=False
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.stdout, done.returncode) == (b"alive\n", 0)


def test_a_log_whose_reader_is_gone_ends_nothing() -> None:
    code = (
        "import structlog; from control.base.system import logs; logs.configure();"
        "[structlog.get_logger().info('event', n=n) for n in range(3)]; print('alive')"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writing, timeout=PATIENCE, check=False
    )
    os.close(writing)
    assert done.stdout == b"alive\n"


def test_without_stderr() -> None:
    code = (
        "from control.base.system import logs; logs.configure(); logs.structlog.get_logger().info('x'); print('alive')"
    )
    done = subprocess.run(
        f'{sys.executable} -c "{code}" 2>&-', shell=True, stdout=subprocess.PIPE, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"alive\n")


def test_another_level_for_loggers_in_use(stream: TextIO) -> None:
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
