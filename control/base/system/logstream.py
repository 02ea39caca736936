"""sys.stderr for a process that must not wait for stderr: text goes the way of log lines."""

from __future__ import annotations

import io
from typing import TextIO

from control.base.system.logwriter import LogWriter


class LogStream(io.TextIOBase):
    """Hands whole lines to the writer, as urgent: whoever writes here has seldom something good to tell. The
    interpreter writes tracebacks in pieces, and a piece is no line.

    Args:
        stream: what is stood in for; it stays open, and tells its encoding, descriptor, and whether it is a terminal.
    """

    def __init__(self, writer: LogWriter, stream: TextIO) -> None:
        self._writer, self._stream = writer, stream
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As that of the stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Nothing that is written here fails for its characters."""
        return "backslashreplace"

    def fileno(self) -> int:
        """The descriptor, which child processes inherit."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Whether a person is likely to read along."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Queue the lines that are whole by now. Never waits."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._put(line)
        return len(text)

    def flush(self) -> None:
        """Queue the rest, as a line of its own."""
        rest, self._rest = self._rest, ""
        if rest:
            self._put(rest)

    def _put(self, line: str) -> None:
        self._writer.put(line.encode(self.encoding, "backslashreplace") + b"\n", urgent=True)
