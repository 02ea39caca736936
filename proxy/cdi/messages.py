"""What the hook and the door say to each other: one message each way, a packet of JSON (hook.c writes it by hand)."""

from __future__ import annotations

import msgspec

__all__ = ["SOCKET", "FromHook", "Ready", "Refused", "Starting", "Stopped"]

SOCKET = "hook.sock"
"""Name of the door's socket in `door.cdi`."""


class Starting(msgspec.Struct, frozen=True, tag="starting"):
    """A container's namespaces are there, and its application has not begun; with descriptors of its network namespace
    and of its first process (pidfd). ``id``: the engine's.
    """

    id: str


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """A container's processes have ended."""

    id: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """All that the container's labels ask for is open; or closed, when it has stopped."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It is not; the hook prints ``why`` as it is in JSON."""

    why: str


FromHook = Starting | Stopped
