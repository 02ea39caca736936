"""The door, and the CDI files by which containers wait for it."""

from __future__ import annotations

import os

from proxy.cdi import files, messages, spec
from proxy.check.context import DiagnosisContext
from proxy.check.report import Unchecked
from proxy.check.rules.containers import ContainerFacts, HookFile
from proxy.errors import StartError

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
"""Where engines look."""


def read(context: DiagnosisContext) -> ContainerFacts:
    """Of a door's host; in a container these directories are its own."""
    door = context.config.door if context.config is not None else None
    if door is None:
        return ContainerFacts(door=False)
    found = tuple(file for directory in DIRECTORIES if (file := _file(directory)) is not None)
    socket = f"{door.cdi}/{messages.SOCKET}" if door.cdi is not None else ""
    return ContainerFacts(socket=socket, files=found, looked_into=DIRECTORIES)


def _file(directory: str) -> HookFile | Unchecked | None:
    path = os.path.join(directory, spec.FILE)
    try:
        call = files.there(directory)
    except FileNotFoundError:
        return None
    except StartError as error:
        return Unchecked(path, str(error).removeprefix(f"{path}: "))
    if call is None:
        return HookFile(path=path)
    runnable = os.path.isfile(call.program) and os.access(call.program, os.X_OK)
    return HookFile(path=path, program=call.program, runnable=runnable, socket=call.socket, strict=call.strict)
