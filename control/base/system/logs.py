"""structlog set up once: readable on a terminal, one JSON object a line otherwise, always on stderr.

Modules take their logger with ``structlog.get_logger()``. A call below the level does nothing but return; where calls
are frequent, bind once (``self._log = log.bind(peer=...)``), which spares structlog's lookup. Writing is synchronous,
so nothing on the data's way logs except a failure.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str = "info", style: str = "auto", stream: TextIO | None = None) -> None:
    """Send all logs of this process to ``stream`` (stderr unless given).

    Args:
        level: debug, info, warning or error; what is below it is dropped before any work is done for it.
        style: console, json, or auto: console when the stream is a terminal.

    Call it once, before the first logger is used: loggers keep what they were bound with.
    """
    sink = LineSink(stream if stream is not None else sys.stderr)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = _renderers("console" if style == "auto" and sink.terminal else style, colours=sink.terminal)
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=_Logger,
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=True,
    )
    _take_over_stdlib(sink, shared, renderers)
    set_level(level)


def set_level(level: str) -> None:
    """Drop what is below this level from now on, also in loggers that are in use."""
    # A filter is a class whose methods below the level do nothing; those of the class in use are exchanged.
    wanted = structlog.make_filtering_bound_logger(LEVELS[level])
    for name, method in vars(wanted).items():
        if not name.startswith("__"):
            setattr(_Logger, name, method)
    root = logging.getLogger()
    if any(isinstance(handler, _Handler) for handler in root.handlers):
        # Libraries tell at info level what only their authors want to know.
        root.setLevel(max(LEVELS[level], logging.WARNING))


class _Logger(structlog.BoundLoggerBase):
    """What loggers are; `set_level` gives it its methods."""


class LineSink:
    """Writes lines to a stream and survives the stream: a proxy does not die because nobody reads its log any more.

    Attributes:
        dropped: lines that could not be written (closed pipe, full disk).
        terminal: whether a person is likely to read along.
    """

    def __init__(self, stream: TextIO | None) -> None:
        # sys.stderr is None in a process that was started with descriptor 2 closed.
        self._stream = stream
        self.dropped = 0
        self.terminal = stream is not None and not stream.closed and stream.isatty()

    def msg(self, message: str) -> None:
        """Write one line. Never raises."""
        try:
            if self._stream is None:
                raise ValueError("no stream")
            self._stream.write(message + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped += 1

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _Handler(logging.Handler):
    """Takes what libraries log through the standard library (trio, about a listener out of descriptors) to the sink."""

    def __init__(self, sink: LineSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        # A listener out of descriptors is no bug to trace: the message says everything.
        if record.name == "trio.serve_listeners":
            record.exc_info = None
        try:
            self._sink.msg(self.format(record))
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
    before = [structlog.stdlib.add_logger_name, *shared]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors, foreign_pre_chain=before))
    logging.basicConfig(handlers=[handler], force=True)
