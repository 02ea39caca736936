"""Containers that call by labels: whether what they use is there before they begin (docs/containers.md)."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proxy.check.report import Finding, Line, Passed, Unchecked


class HookFile(Struct, frozen=True, kw_only=True):
    """A CDI file of Hostlane's.

    Attributes:
        program: the hook that it names; empty: its device has none any more.
        runnable: whether that can be run.
        socket: where the hook reports.
    """

    path: str
    program: str = ""
    runnable: bool = True
    socket: str = ""
    strict: bool = False


class ContainerFacts(Struct, frozen=True, kw_only=True):
    """Attributes:
    door: whether there is one, by the configuration.
    socket: where it listens for hooks; empty: nowhere.
    files: the CDI files there are; looked_into: the directories where engines look for them.
    """

    door: bool = True
    socket: str = ""
    files: tuple[HookFile | Unchecked, ...] = ()
    looked_into: tuple[str, ...] = ()


def judge(facts: ContainerFacts) -> Iterator[Line]:
    """All lines about containers that call by labels."""
    if not facts.door:
        yield Passed("there is no door: labels of containers mean nothing")
    elif not facts.socket:
        yield Finding(
            name="start-race", level="note", where="door.cdi",
            read="it is not set: what containers use is opened when the engine tells of it, 3 to 6 ms after a start",
            cost="an application that connects with its first instruction may be refused",
            mend="hostlane cdi install, door.cdi, and the device hostlane/door=ready in those containers (Docker 25)",
        )  # fmt: skip
    elif not facts.files:
        yield Finding(
            name="no-hook", level="note", where="door.cdi",
            read=f"the door listens for hooks, and there is no hostlane.json in {' or '.join(facts.looked_into)}",
            cost="containers do not wait for it, and those that name the device hostlane/door=ready do not start",
            mend="hostlane cdi install, on the host",
        )  # fmt: skip
    for each in facts.files:
        yield each if isinstance(each, Unchecked) else _file(each, facts.socket)


def _file(item: HookFile, socket: str) -> Line:
    if item.program and not item.runnable:
        return Finding(
            name="broken-hook", level="wrong", where=item.path,
            read=f"the hook {item.program} is not there, or no program",
            cost="no container that names the device hostlane/door=ready starts",
            mend="hostlane cdi install, or hostlane cdi remove",
        )  # fmt: skip
    if not item.program:
        return Passed(f"{item.path}: the device is there without a hook (hostlane cdi remove)")
    if item.socket != socket:
        return Finding(
            name="hook-elsewhere", level="note", where=item.path,
            read=f"the hook reports at {item.socket}, and the door listens {f'at {socket}' if socket else 'nowhere'}",
            cost="those that name the device " + ("do not start" if item.strict else "start without what they use"),
            mend="hostlane cdi install --door with the directory that is door.cdi, as the host sees it",
        )  # fmt: skip
    what = "do not start before the door is ready" if item.strict else "start when the door is ready, or away"
    return Passed(f"{item.path}: containers that name the device {what}")
