"""The CDI file (Container Device Interface) that tells container engines of the hook (sans-IO)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

__all__ = ["DEVICE", "FILE", "KIND", "PROGRAM", "HookCall", "read", "without_hooks", "write"]

KIND = "hostlane/door"
NAME = "ready"
DEVICE = f"{KIND}={NAME}"
"""What containers name."""
FILE = "hostlane.json"
PROGRAM = "hostlane-hook"
"""File name of the hook, where it is installed."""
VERSION = "0.3.0"
"""Of the CDI specification: the first that Docker takes. An engine refuses files of a version that it does not know."""
SECONDS, STRICT_SECONDS = 2, 10
"""That the hook waits for the door at most. Where a container would not start, it waits for a door that is starting."""
REMOVED = {"env": ["HOSTLANE_HOOK=removed"]}
"""A device must change something."""


@dataclass(frozen=True)
class HookCall:
    """What the engine is to call for a container that names the device.

    Attributes:
        program: path of the hook on the host; socket: the door's.
        strict: a container whose listeners are not there does not start.
    """

    program: str
    socket: str
    strict: bool = False


def write(call: HookCall) -> bytes:
    """The file with both hooks."""
    seconds = str(STRICT_SECONDS if call.strict else SECONDS)
    hooks = [
        _hook(call, "createRuntime", "start", seconds, *(["strict"] if call.strict else [])),
        _hook(call, "poststop", "stop", str(SECONDS)),
    ]
    return _file({"hooks": hooks})


def without_hooks() -> bytes:
    """The file with a device that does nothing, for containers that still name it."""
    return _file(REMOVED)


def read(content: bytes) -> HookCall | None:
    """What a file says; None: it has the device without hooks. Raises ValueError for a file that is somebody else's."""
    try:
        found = msgspec.json.decode(content, type=_Spec)
    except msgspec.MsgspecError:
        raise ValueError(f"found no CDI file of {KIND}") from None
    if found.kind != KIND:
        raise ValueError(f"found the CDI file of {found.kind}, not of {KIND}")
    for device in found.devices:
        for hook in device.containerEdits.hooks:
            if hook.hookName == "createRuntime" and len(hook.args) >= 3:
                return HookCall(hook.path, hook.args[2], hook.args[-1] == "strict")
    return None


def _hook(call: HookCall, when: str, *words: str) -> dict[str, object]:
    what, *rest = words
    return {"hookName": when, "path": call.program, "args": [PROGRAM, what, call.socket, *rest]}


def _file(edits: Mapping[str, object]) -> bytes:
    content = {"cdiVersion": VERSION, "kind": KIND, "devices": [{"name": NAME, "containerEdits": edits}]}
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


class _Hook(msgspec.Struct):
    hookName: str
    path: str
    args: list[str] = []


class _Edits(msgspec.Struct):
    hooks: list[_Hook] = []


class _Device(msgspec.Struct):
    containerEdits: _Edits


class _Spec(msgspec.Struct):
    kind: str
    devices: list[_Device] = []
