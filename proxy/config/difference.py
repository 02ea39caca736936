"""What is different between two configurations of one host, and what of it a running proxy can take over (sans-IO).

Cheap where little is different: values that are the same object are not looked into, so that a configuration made from
another one (`msgspec.structs.replace`) costs a glance at each peer, upstream and service.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from control.base.reading.addresses import TcpAddress, UnixAddress
from proxy.config.schema import Config

What = Literal["added", "removed", "changed"]

SECTIONS = ("peers", "upstreams", "services", "connect")
"""Keys of what comes and goes in a running proxy."""

IDLE = frozenset({"containers", "segments"})
"""Keys that a running proxy does not use (``hostlane net`` does)."""

FIXED = (
    "host", "mesh", "run_dir", "admin", "takeover", "telemetry", "door", "control", "links.listen", "links.address",
    "links.segment", "links.interface", "links.security", "links.tls", "interfaces", "pool.record", "pool.record_limit",
    "log.format", "access.to",
)  # fmt: skip
"""Keys, with all that is below them, that a proxy reads once, when it starts: its name, its place, its sockets."""

RESTART = "cannot change while the proxy runs: restart it (docs/upgrade.md: without losing a connection)"


class ConfigChange(msgspec.Struct, frozen=True):
    """One key that differs; of one that has changed, what it was and what it shall be, as a person reads it."""

    key: str
    what: What
    old: str | None = None
    new: str | None = None

    @property
    def found(self) -> str:
        """As an error says it."""
        if self.what == "changed":
            return f"{self.key}: found {self.new}, running with {self.old}"
        return f"{self.key}: found {'this, running without' if self.what == 'added' else 'nothing, running with it'}"

    def __str__(self) -> str:
        if self.what == "changed":
            return f"{self.key}: {self.old} → {self.new}"
        return f"{self.key}: {self.what}"


@dataclass(frozen=True, slots=True)
class ConfigDifference:
    """From one configuration to another one, in the order of their keys.

    Attributes:
        changes: every key that differs.
        peers, upstreams, services: the names of those that are not the same in both.
        connect: whether the CONNECT socket is not the same.
        settings: whether anything else is different.
    """

    changes: tuple[ConfigChange, ...]
    peers: frozenset[str]
    upstreams: frozenset[str]
    services: frozenset[str]
    connect: bool
    settings: bool

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def fixed(self) -> list[str]:
        """A line for each change that no running proxy can follow: key, old and new value, what to do."""
        return [f"{change.found}; {RESTART}" for change in self.changes if is_fixed(change.key)]


def between(old: Config, new: Config) -> ConfigDifference:
    """The difference."""
    changes = tuple(change for change in _compare(old, new, "") if change.key.partition(".")[0] not in IDLE)
    return ConfigDifference(
        changes,
        peers=_touched(old.peers, new.peers),
        upstreams=_touched(old.upstreams, new.upstreams),
        services=_touched(old.services, new.services),
        connect=old.connect != new.connect,
        settings=any(change.key.partition(".")[0] not in SECTIONS for change in changes),
    )


def _touched(old: Mapping[str, object], new: Mapping[str, object]) -> frozenset[str]:
    return frozenset(name for name, _, _ in _items(old, new)) if old is not new else frozenset()


def is_fixed(key: str) -> bool:
    """Whether a key is one of those that only a start reads, or below one."""
    return any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED)


def _compare(old: object, new: object, key: str) -> Iterator[ConfigChange]:
    """The differences at a key and below it."""
    if old is new or old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name, before, after in _items(old, new):
            yield from _compare_item(before, after, f"{key}.{name}")
    elif type(old) is type(new) and isinstance(old, msgspec.Struct) and not isinstance(old, TcpAddress | UnixAddress):
        for field, name in zip(old.__struct_fields__, old.__struct_encode_fields__, strict=True):
            yield from _compare(getattr(old, field), getattr(new, field), f"{key}.{name}".lstrip("."))
    else:
        yield ConfigChange(key, "changed", _show(old, key), _show(new, key))


def _compare_item(old: object | None, new: object | None, key: str) -> Iterator[ConfigChange]:
    if old is None:
        yield ConfigChange(key, "added")
    elif new is None:
        yield ConfigChange(key, "removed")
    else:
        yield from _compare(old, new, key)


def _items(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[tuple[str, object | None, object | None]]:
    """Name, old and new value of the items that differ: those that are new or changed, then those that are gone."""
    for name, after in new.items():
        before = old.get(name)
        if before is not after and before != after:
            yield name, before, after
    for name, before in old.items():
        if name not in new:
            yield name, before, None


def _show(value: object, key: str) -> str:
    """As the file writes it, where that is easy."""
    if isinstance(value, TcpAddress) and not key.startswith(("upstreams.", "services.", "connect.")):
        return value.hostport
    if isinstance(value, TcpAddress | UnixAddress):
        return str(value)
    if isinstance(value, int) and key.endswith(".mode"):
        return f"{value:04o}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value, enc_hook=str).decode() if value is not None else "null"
