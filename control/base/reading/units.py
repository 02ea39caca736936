"""What a person writes in a configuration file, turned into values: durations, sizes, names, octal modes, paths.

Every reader takes the raw value that the YAML file held, of any type, and returns the typed one. It raises
``ValueError`` and nothing else; the text of that error is "what was found; what is allowed", ready to stand behind a
file, a line and a key.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any, Literal

from control.base.reading.shape import NULL, shape_of, takes, text

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)", re.ASCII)
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BUSY_POLL = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,3})?)(us|ms)", re.ASCII)
_PER_SECOND = {"us": 1e6, "ms": 1e3}
_LIFETIME = re.compile(r"([0-9]{1,6})(s|m|h|d)", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)", re.ASCII)
BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_HOST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.ASCII)
# As host names, and "_" because names of docker-compose services have it.
_SERVICE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", re.ASCII)
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)

DURATION = "a duration with its unit, such as 500ms, 5s or 2m"
LIFETIME = "a duration with its unit, such as 10m, 24h or 30d"
BUSY_POLL = "auto, off, or a time with its unit, such as 50us, of at most 10ms"
SIZE = "a size with its unit, such as 64KiB, 4MiB or 1GiB"
SHARE = "auto, or a number above 0 and at most 1, such as 0.01"
HOST_NAME = "1 to 63 of a-z 0-9 . -, with a letter or digit first and last"
SERVICE_NAME = "1 to 63 of a-z 0-9 . _ -, with a letter or digit first and last"
ACCOUNT = "a name or a numeric id"
UID = "a numeric user id"
MAX_ACCOUNT_ID = 2**32 - 2
"""Largest uid or gid: chown takes the one above it for "leave as it is"."""
_UID_SHAPE = {"type": "integer", "minimum": 0, "maximum": MAX_ACCOUNT_ID}
MODE = 'an octal mode in quotes, such as "0660"'
SERVICE_NAMES = "all, or a list of services such as [redis, web]"
PATH = "an absolute path"

SHOWN_CHARACTERS = 60
"""Longest piece of somebody's text that is repeated in an error, in characters: the line stays readable."""


def show(raw: object) -> str:
    """The value as an error names it: always one printable line of bounded length."""
    if raw is None:
        return "nothing"
    if isinstance(raw, dict):
        return "a mapping"
    if isinstance(raw, list):
        return "a list"
    text = raw if isinstance(raw, str) else json.dumps(raw)
    if len(text) > SHOWN_CHARACTERS:
        text = text[:SHOWN_CHARACTERS] + "..."
    return quote(text) if isinstance(raw, str) else text


def quote(text: str) -> str:
    """The text in double quotes; anything that could break or disguise the line is escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def wrong(raw: object, allowed: str, why: str = "") -> ValueError:
    """The error for a value: what was found (and what is wrong with it), what is allowed."""
    return ValueError(f"found {show(raw)}{f', {why}' if why else ''}; allowed: {allowed}")


def or_null(reader: Callable[..., Any]) -> Callable[..., Any]:
    """The reader for a key whose default, null, may be written out. Not for keys where nothing would mean anything."""

    def read(raw: object, **limits: Any) -> Any:
        return None if raw is None else reader(raw, **limits)

    return takes({"anyOf": [shape_of(reader), NULL]})(read)


def matching(pattern: re.Pattern[str], raw: object, allowed: str) -> str:
    """The text, unchanged, if it is one that `pattern` describes as a whole."""
    if isinstance(raw, (int, float)):
        kind = "a truth value" if isinstance(raw, bool) else "a number"
        raise wrong(raw, allowed if "in quotes" in allowed else f"{allowed}, in quotes", f"{kind} without quotes")
    if not isinstance(raw, str) or pattern.fullmatch(raw) is None:
        raise wrong(raw, allowed)
    return raw


def _with_unit(pattern: re.Pattern[str], raw: object, allowed: str) -> re.Match[str]:
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        raise wrong(raw, allowed, "which has no unit")
    match = pattern.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise wrong(raw, allowed)
    return match


@takes(text(_DURATION.pattern))
def seconds(raw: object) -> float:
    """``"500ms"`` to 0.5, of any length."""
    match = _with_unit(_DURATION, raw, DURATION)
    # Rounded because 1.1 * 0.001 is not the number that anybody wrote.
    return round(float(match[1]) * SECONDS[match[2]], 9)


@takes(text(_DURATION.pattern))
def duration(raw: object) -> float:
    """``"500ms"`` to 0.5 (seconds); from 1 ms to an hour, beyond which a timeout is a slip of the pen."""
    found = seconds(raw)
    if not 0.001 <= found <= 3600.0:
        raise wrong(raw, "1ms to 1h")
    return found


@takes(text(_DURATION.pattern))
def patience(raw: object) -> float:
    """As `duration`, up to a week: for what people have under way, such as streams that somebody holds open."""
    found = seconds(raw)
    if not 0.001 <= found <= 7 * 86400.0:
        raise wrong(raw, "1ms to 168h")
    return found


@takes(text(_LIFETIME.pattern))
def lifetime(raw: object) -> float:
    """``"24h"`` to 86400.0 (seconds); from a minute to ten years: for what outlives the process."""
    match = _with_unit(_LIFETIME, raw, LIFETIME)
    found = int(match[1]) * {**SECONDS, "d": 86400.0}[match[2]]
    if not 60.0 <= found <= 3650 * 86400.0:
        raise wrong(raw, "1m to 3650d")
    return found


@takes({"anyOf": [text(f"auto|off|{_BUSY_POLL.pattern}"), {"const": False}]})
def busy_poll(raw: object) -> float | None:
    """Seconds, 0 for off; None for auto. YAML 1.1 reads ``off`` as a truth value."""
    if raw == "auto":
        return None
    if raw == "off" or raw is False:
        return 0.0
    match = _with_unit(_BUSY_POLL, raw, BUSY_POLL)
    seconds = float(match[1]) / _PER_SECOND[match[2]]
    if seconds > 0.01:
        raise wrong(raw, BUSY_POLL)
    return seconds


@takes({"anyOf": [{"const": "auto"}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}]})
def share(raw: object) -> float | None:
    """A part of a whole; None: ``auto``."""
    if raw == "auto":
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 < raw <= 1:
        raise wrong(raw, SHARE)
    return float(raw)


@takes(text(_SIZE.pattern))
def size(raw: object, low: str = "1B", high: str = "1024GiB") -> int:
    """``"4MiB"`` to 4194304 (bytes), from ``low`` to ``high``."""
    match = _with_unit(_SIZE, raw, SIZE)
    found = _in_bytes(match)
    if not _in_bytes(_SIZE.fullmatch(low)) <= found <= _in_bytes(_SIZE.fullmatch(high)):
        raise wrong(raw, f"{low} to {high}")
    return found


def _in_bytes(match: re.Match[str] | None) -> int:
    return int(match[1]) * BYTES[match[2]] if match else 0


@takes(text(_HOST_NAME.pattern))
def host_name(raw: object) -> str:
    """The name of a host, unchanged."""
    return matching(_HOST_NAME, raw, HOST_NAME)


@takes(text(_SERVICE_NAME.pattern))
def service_name(raw: object) -> str:
    """The name of a service, unchanged."""
    return matching(_SERVICE_NAME, raw, SERVICE_NAME)


@takes(
    {"anyOf": [{"const": "all"}, {"type": "array", "items": text(_SERVICE_NAME.pattern), "uniqueItems": True}]},
    write=lambda found: found if isinstance(found, str) else list(found),
)
def service_names(raw: object) -> tuple[str, ...] | Literal["all"]:
    """The word ``all``, or a list of names of services, each once."""
    if raw == "all":
        return "all"
    if not isinstance(raw, list):
        raise wrong(raw, SERVICE_NAMES)
    names = tuple(service_name(item) for item in raw)
    if (again := next((name for number, name in enumerate(names) if name in names[:number]), None)) is not None:
        raise wrong(again, "each service once", "a second time")
    return names


def is_mac(text: str) -> bool:
    """Whether this is a MAC in lower case."""
    return _MAC.fullmatch(text) is not None


@takes({"anyOf": [text(_ACCOUNT.pattern), _UID_SHAPE, NULL]})
def account(raw: object) -> str | int | None:
    """A user or group by name or number; whether it exists is for the machine that starts the proxy to say."""
    if raw is None or (isinstance(raw, str) and _ACCOUNT.fullmatch(raw)):
        return raw
    try:
        return uid(raw)
    except ValueError:
        raise wrong(raw, ACCOUNT) from None


@takes({"anyOf": [text(_ACCOUNT.pattern), _UID_SHAPE]})
def some_account(raw: object) -> str | int:
    """As `account`, where there must be one."""
    found = account(raw)
    if found is None:
        raise wrong(raw, ACCOUNT)
    return found


@takes(_UID_SHAPE)
def uid(raw: object) -> int:
    """A user's number; a name means something on its own machine only."""
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= MAX_ACCOUNT_ID:
        return raw
    raise wrong(raw, UID)


@takes(text(_MODE.pattern))
def mode(raw: object) -> int:
    """``"0660"`` to 0o660. Read from text, because YAML versions disagree on what a bare 0660 is."""
    return int(matching(_MODE, raw, MODE), 8)


@takes(text("/.*"))
def absolute_path(raw: object) -> str:
    """An absolute path without a trailing slash and without ``.`` or ``..``, as it was written otherwise."""
    if not isinstance(raw, str) or not raw.startswith("/"):
        raise wrong(raw, PATH)
    if not raw.isprintable():
        raise wrong(raw, PATH, "which has characters that cannot be printed")
    if {".", ".."} & set(raw.split("/")):
        raise wrong(raw, f'{PATH} without "." and ".."')
    return os.path.normpath("/" + raw.lstrip("/"))
