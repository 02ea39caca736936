"""A disk that a test can fill: a tmpfs in a mount namespace of its own, gone with the process that holds it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_HOLD = 'mount -t tmpfs -o size="$2" none "$1" && echo mounted && exec cat'


class SmallDisk:
    """``with`` mounts it at `place`, an existing directory, for commands that are run by `argv`.

    Args:
        size: bytes, whole pages.
    """

    def __init__(self, place: Path, size: int = 4 << 20) -> None:
        self.place, self._size = place, size
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        argv = ["unshare", "-m", "sh", "-c", _HOLD, "sh", str(self.place), str(self._size)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._holder = subprocess.Popen(argv, text=True, **pipes)  # type: ignore[call-overload]
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "mounted\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._holder is not None
        self._holder.communicate()

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command, where the disk is mounted. (It keeps its process id.)"""
        assert self._holder is not None
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *command]

    def path(self, name: str) -> Path:
        """A file of the disk, for this process."""
        assert self._holder is not None
        return Path(f"/proc/{self._holder.pid}/root{self.place}") / name

    def fill(self) -> None:
        """Leave no room."""
        with open(self.path("filler"), "ab", buffering=0) as file:
            for size in (1 << 16, 4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    pass

    def free(self) -> None:
        """Make room again."""
        self.path("filler").unlink()
