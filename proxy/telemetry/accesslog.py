"""The access log: a line of JSON for a stream when it is delivered, while it is open, and when it has ended
(docs/access-log.md).

A line is made in the pump's turns, some 10 µs, and queued; a thread writes it (`control.base.system.logwriter`). So
nobody waits for a disk, and what finds no place is lost and counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from random import random
from time import monotonic, time
from typing import TypeVar

import msgspec
import structlog
import trio

from control.api.accessline import AccessLine
from control.base.system.appendedfile import AppendedFile, FileOutput
from control.base.system.logwriter import LogWriter, NoSummaries
from proxy.config.schema import STDERR, AccessConfig
from proxy.errors import OF_APPLICATIONS, CloseReason
from proxy.pump.streamlog import LoggedStream, StreamFacts
from proxy.telemetry.slices import SLICE

log = structlog.get_logger()

L = TypeVar("L", bound=AccessLine)

ROOM = 4 << 20
"""Bytes that wait to be written: some 8,000 lines, more than come in half a second."""
LAST_WORDS = 1.0
"""Seconds that the end of the proxy waits for its last lines."""
FILE_MODE = 0o640
"""Of a file that is made: who calls whom is nobody's business but the administrator's, and a group's that reads logs
for them. logrotate makes its own as it is told (``create``)."""


class AccessLog:
    """Takes what becomes of streams (``pump.streamlog.StreamLog``), from `open` to `close`.

    Args:
        config: with somewhere to write to.
        stderr: the writer of the process's log, for what goes there.
    """

    def __init__(self, config: AccessConfig, stderr: Callable[[], LogWriter | None]) -> None:
        self._config, self._stderr = config, stderr
        self._file: AppendedFile | None = None
        self._writer: LogWriter | None = None
        self._encode = msgspec.json.Encoder().encode
        self._due: dict[LoggedStream, float] = {}
        """Open streams that get lines in between, in the order in which these are due (monotonic seconds)."""
        self._lost_before = 0
        self.adopt(config)

    def adopt(self, config: AccessConfig) -> None:
        """Use other settings from now on, for the same file."""
        self._config = config
        self._opened, self._ended = "opened" in config.events, "ended" in config.events
        self._interval = config.interval if "interval" in config.events else inf
        self._failed = config.only == "failed"
        self._slower = config.only if isinstance(config.only, float) else 0.0
        self._sample = config.sample
        if self._interval == inf:
            self._due.clear()

    def open(self) -> None:
        """Open the file. Raises StartError."""
        if self._config.to == STDERR:
            self._writer = self._stderr()
            return
        assert self._config.to is not None
        self._file = AppendedFile("access.to", self._config.to, FILE_MODE)
        self._file.open()
        output = FileOutput(self._file, self._say)
        self._writer = LogWriter(output, self._lost_line, NoSummaries(), room=ROOM, name="access log")

    @property
    def lost(self) -> int:
        """Lines that found no place, or could not be written, since the start. Of lines to stderr the log tells."""
        return 0 if self._file is None or self._writer is None else self._writer.lost_ever

    def look(self) -> None:
        """Go over to the file that has the name now, even if there is nothing to write."""
        if self._writer is not None:
            self._writer.look()

    def close(self) -> None:
        """Write what waits, for at most LAST_WORDS, and close the file. Idempotent."""
        writer, self._writer = self._writer, None
        file, self._file = self._file, None
        if file is not None and writer is not None and writer.close(LAST_WORDS):
            file.close()

    # StreamLog

    def opened(self, stream: LoggedStream) -> None:
        """A service has taken it (StreamLog)."""
        if self._failed or not self._picks(stream):
            return
        if self._interval != inf:
            self._due[stream] = monotonic() + self._interval
        if self._opened:
            facts = stream.facts()
            if self._is_slow(facts):
                self._put("opened", stream, facts)

    def ended(self, stream: LoggedStream, reason: CloseReason, detail: str) -> None:
        """It has ended (StreamLog)."""
        self._due.pop(stream, None)
        if not self._ended or (self._failed and reason in OF_APPLICATIONS) or not self._picks(stream):
            return
        facts = stream.facts()
        if self._is_slow(facts):
            self._put("ended", stream, facts, reason.label, detail or None)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write the lines in between, until cancelled."""
        task_status.started()
        while True:
            self._write_due(monotonic())
            first = next(iter(self._due.values()), inf)
            # At least once a second, as another one may be due sooner by then; but never without a pause.
            await trio.sleep(min(max(first - monotonic(), 0.001), 1.0))

    def _write_due(self, now: float) -> None:
        """Write at most SLICE of them: others have a turn in between."""
        for stream in [stream for _, (stream, due) in zip(range(SLICE), self._due.items(), strict=False) if due <= now]:
            del self._due[stream]
            self._due[stream] = now + self._interval
            facts = stream.facts()
            if self._is_slow(facts):
                self._put("interval", stream, facts)

    def _picks(self, stream: LoggedStream) -> bool:
        """Whether it is among the sample: by its id, so that both hosts with the same share pick the same ones."""
        if self._sample >= 1.0:
            return True
        found = stream.stream_id
        share = random() if found is None else zlib.crc32(found.encode()) / (1 << 32)
        return share < self._sample

    def _is_slow(self, facts: StreamFacts) -> bool:
        """Whether it took longer than is asked about to be delivered; of one that never was: to end."""
        if not self._slower:
            return True
        return (facts.age if facts.open is None else (facts.wait or 0.0) + facts.open) > self._slower

    def _put(
        self, event: str, stream: LoggedStream, facts: StreamFacts, reason: str | None = None, detail: str | None = None
    ) -> None:
        if self._writer is None:
            return
        self._writer.put(self._encode(line_of(AccessLine, event, stream, facts, reason, detail)) + b"\n")

    def _lost_line(self, lines: int) -> bytes:
        return self._encode({"time": _timestamp(time()), "event": "lost", "lines": lines}) + b"\n"

    def _say(self, stopped: str) -> None:
        """Called in the writer's thread."""
        if stopped:
            log.warning("the access log cannot be written", file=self._config.to, error=stopped)
        else:
            log.info("the access log can be written again", file=self._config.to, lost=self.lost)


def line_of(
    kind: type[L],
    event: str,
    stream: LoggedStream,
    facts: StreamFacts,
    reason: str | None = None,
    detail: str | None = None,
) -> L:
    """The line that says this of a stream."""
    return kind(
        time=_timestamp(time()),
        event=event,
        id=stream.stream_id,
        service=facts.service,
        direction=facts.direction,
        caller=facts.caller or None,
        uid=facts.uid,
        pid=facts.pid,
        peer=facts.peer,
        link=facts.link,
        tries=facts.tries,
        age_s=round(facts.age, 3),
        wait_ms=_ms(facts.wait),
        open_ms=_ms(facts.open),
        first_byte_ms=_ms(facts.first_byte),
        sent=facts.sent,
        received=facts.received,
        stalled_s={cause: round(spent, 3) for cause, spent in facts.stalled._asdict().items() if spent >= 0.0005},
        reason=reason,
        detail=detail,
    )


def _timestamp(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
