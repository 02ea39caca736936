"""structlog set up once: readable on a terminal, one JSON object a line otherwise, always on stderr.

Modules take their logger with ``structlog.get_logger()``. A call below the level does nothing but return; where calls
are frequent, bind once (``self._log = log.bind(peer=...)``), which spares structlog's lookup. No call waits for the log
to be written (`logwriter`), but a line costs as much as a stream does, so nothing on the data's way logs except a
failure.

What a caller or a peer can make happen as often as it likes is logged with ``kind=(...)``, which says what tells it
apart: a service, a peer, a reason. Repetitions are summarised then (`control.base.repeats`), unless the level is debug.
Errors with a traceback always are, by the type of the exception.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from control.base.repeats import Repeats
from control.base.system.logstream import LogStream
from control.base.system.logwriter import DescriptorOutput, LogWriter

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


LAST_WORDS = 1.0
"""Seconds that the end of the process waits for its last lines to be written. A pipe that is read takes them in
milliseconds; a supervisor that has sent SIGTERM waits for seconds."""
LONGEST = 500
"""Characters of one value in a line that others can cause: room for an address, a name of 255 bytes, and the reason."""


def configure(level: str = "info", style: str = "auto", stream: TextIO | None = None) -> None:
    """Send all logs of this process to the descriptor of ``stream`` (stderr unless given), through a thread that ends
    when the process does, or with `close`. sys.stderr, if that is the stream, leads to the same thread: a warning of
    the interpreter's, or the traceback of a crash, must not wait either.

    Args:
        level: debug, info, warning or error; what is below it is dropped before any work is done for it.
        style: console, json, or auto: console when the stream is a terminal. In colours if that has any, and
            NO_COLOR is not set (no-color.org).

    Call it once, before the first logger is used: loggers keep what they were bound with.
    """
    close()
    stream = stream if stream is not None else sys.stderr
    descriptor = _descriptor(stream)
    terminal = descriptor is not None and stream.isatty()
    colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    encoding = (stream.encoding if stream is not None else None) or "utf-8"
    first: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    renderers: list[Processor] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *_renderers("console" if style == "auto" and terminal else style, colours=colours),
    ]
    summaries = _Summaries(renderers, encoding)
    output = None if descriptor is None else DescriptorOutput(descriptor)
    writer = LogWriter(output, summaries.lost, summaries)
    summaries.wake = writer.wake
    sink = LineSink(writer, encoding)
    structlog.configure(
        processors=[*first, summaries, *renderers],
        wrapper_class=_Logger,
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=True,
    )
    _take_over_stdlib(sink, [*first, summaries], renderers)
    set_level(level)
    _Current.writer, _Current.summaries, _Current.stderr = writer, summaries, None
    if stream is sys.stderr and descriptor is not None:
        _Current.stderr = stream
        stream.flush()
        sys.stderr = LogStream(writer, stream)


def writer() -> LogWriter | None:
    """What writes the lines to stderr, for others that are no log messages; None: nothing is configured."""
    return _Current.writer


class _Current:
    """Logging is one per process; this is what `close` ends of it."""

    writer: LogWriter | None = None
    summaries: _Summaries | None = None
    stderr: TextIO | None = None


@atexit.register
def close() -> None:
    """Write what is left to write, for at most LAST_WORDS. Lines after it are lost. Idempotent."""
    writer, _Current.writer = _Current.writer, None
    if writer is None or _Current.summaries is None:
        return
    if isinstance(sys.stderr, LogStream):
        sys.stderr.flush()
    for line in _Current.summaries.rest():
        writer.put(line)
    if writer.close(LAST_WORDS) and _Current.stderr is not None:
        sys.stderr = _Current.stderr


def set_level(level: str) -> None:
    """Drop what is below this level from now on, also in loggers that are in use."""
    # A filter is a class whose methods below the level do nothing; those of the class in use are exchanged.
    wanted = structlog.make_filtering_bound_logger(LEVELS[level])
    for name, method in vars(wanted).items():
        if not name.startswith("__"):
            setattr(_Logger, name, method)
    _Summaries.wanted = level != "debug"
    root = logging.getLogger()
    if any(isinstance(handler, _Handler) for handler in root.handlers):
        # Libraries tell at info level what only their authors want to know.
        root.setLevel(max(LEVELS[level], logging.WARNING))


class _Logger(structlog.BoundLoggerBase):
    """What loggers are; `set_level` gives it its methods."""


class LineSink:
    """Takes rendered lines to the writer. No method raises or waits."""

    def __init__(self, writer: LogWriter, encoding: str) -> None:
        self._writer, self._encoding = writer, encoding

    def msg(self, message: str) -> None:
        """One line."""
        self._writer.put(_encoded(message, self._encoding))

    def error(self, message: str) -> None:
        """One line that finds room when others do not."""
        self._writer.put(_encoded(message, self._encoding), urgent=True)

    debug = info = warning = warn = log = msg
    critical = fatal = exception = error


_NOT_KEPT = ("exc_info", "_record", "_from_structlog")
"""What is not kept of an event that is counted: the traceback, which the first of its kind has shown and which would
keep a stream's objects alive, and what the standard library's events have besides."""


class _Summaries:
    """The step of a line's way on which repetitions are counted, and the lines that tell of them later (``Summaries``
    of the writer). Lines are logged in one thread and written in another.

    Attributes:
        wanted: whether anything is summarised.
        wake: told when `next` has become earlier.
    """

    wanted = True

    def __init__(self, renderers: Sequence[Processor], encoding: str) -> None:
        self._renderers, self._encoding = renderers, encoding
        self._repeats = Repeats()
        self._lock = threading.RLock()  # reentrant: the collector may run anywhere, and log
        self.wake: Callable[[], None] = lambda: None

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        """Let what is news go on, count the rest (structlog's processor)."""
        kind = event.pop("kind", None)
        if kind is None and event.get("exc_info"):
            kind = (_type_raised(event["exc_info"]),)
        if kind is None or not self.wanted:
            return event
        # What a library says may have anything in it; its name is one of few.
        name = str(event.get("logger", event.get("event")))
        with self._lock:
            before = self._repeats.next
            news = self._repeats.is_news(name, kind, event, monotonic())
            sooner = self._repeats.next < before
        if sooner:
            self.wake()
        if news:
            return _shortened(event)
        for key in _NOT_KEPT:
            event.pop(key, None)
        raise structlog.DropEvent

    @property
    def next(self) -> float:
        """When the next lines are due, monotonic seconds."""
        return self._repeats.next

    def due(self) -> list[bytes]:
        """The lines that are due."""
        with self._lock:
            events = self._repeats.due(monotonic())
        return [self._rendered(event) for event in events]

    def rest(self) -> list[bytes]:
        """The lines that would be due later."""
        with self._lock:
            events = self._repeats.rest(monotonic())
        return [self._rendered(event) for event in events]

    def lost(self, lines: int) -> bytes:
        """The line that says how many could not be written."""
        return self._rendered({"level": "error", "event": "log lines were lost", "lines": lines})

    def _rendered(self, event: EventDict) -> bytes:
        found: Any = _shortened(event)
        for renderer in self._renderers:
            found = renderer(None, str(event.get("level")), found)
        return _encoded(found, self._encoding)


class _Handler(logging.Handler):
    """Takes what libraries log through the standard library to the sink."""

    def __init__(self, sink: LineSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            (self._sink.error if record.levelno >= logging.ERROR else self._sink.msg)(self.format(record))
        except structlog.DropEvent:
            pass
        except Exception:
            self.handleError(record)


def _renderers(style: str, *, colours: bool) -> list[Processor]:
    if style == "console":
        # Plain: the pretty tracebacks show local variables, which a log has no business to keep.
        return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]
    return [_traceback_as_text, _event_first, structlog.processors.JSONRenderer()]


def _traceback_as_text(logger: Any, method: str, event: EventDict) -> EventDict:
    if event.get("exc_info"):
        structlog.processors.format_exc_info(logger, method, event)
    if "exception" in event:
        event["traceback"] = event.pop("exception")
    return event


def _event_first(logger: Any, method: str, event: EventDict) -> EventDict:
    """Fixed order of the first keys: lines of a log are compared by eye."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}


def _take_over_stdlib(sink: LineSink, shared: Sequence[Processor], renderers: Sequence[Processor]) -> None:
    handler = _Handler(sink)
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers]
    before = [structlog.stdlib.add_logger_name, _kind_of_record, *shared]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors, foreign_pre_chain=before))
    logging.basicConfig(handlers=[handler], force=True)


def _kind_of_record(logger: Any, method: str, event: EventDict) -> EventDict:
    """Libraries repeat themselves: trio tells ten times a second that there are no descriptors."""
    event["kind"] = ()
    return event


def _type_raised(exc_info: Any) -> str:
    error = exc_info if isinstance(exc_info, BaseException) else sys.exception()
    if isinstance(exc_info, tuple):
        error = exc_info[1]
    return type(error).__name__


def _shortened(event: EventDict) -> EventDict:
    """Who can repeat a line must not choose how long it is either."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > LONGEST and key != "traceback":
            event[key] = value[:LONGEST] + "…"
    return event


def _encoded(line: str, encoding: str) -> bytes:
    return line.encode(encoding, "backslashreplace") + b"\n"


def _descriptor(stream: TextIO | None) -> int | None:
    """None: the process was started with descriptor 2 closed, or the stream is closed or none of the system's."""
    try:
        return stream.fileno() if stream is not None else None
    except (OSError, ValueError):
        return None
