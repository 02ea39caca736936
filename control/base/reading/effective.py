"""Every value of a configuration, as its file would write it, and where each is from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from msgspec import Struct

from control.base.reading.addresses import TcpAddress
from control.base.reading.decode import Decoder, fields, hints, unwrapped
from control.base.reading.shape import writer_of
from control.base.reading.units import BYTES, SECONDS
from control.base.reading.yamlmap import Document, Path, plain_value

DEFAULT = "default"
_PLAIN = re.compile(r"[A-Za-z0-9/_.][A-Za-z0-9/_.:+=@%-]*", re.ASCII)
_NONE = object()


class EffectiveValue(Struct, frozen=True, kw_only=True):
    """A value: the way to it from the top, what the file would say, and where it is from: ``default``, or ``FILE:LINE``
    and the variables of the environment that it comes from.
    """

    path: tuple[str | int, ...]
    value: Any
    source: str


def values(config: Struct, document: Document, file: str) -> list[EffectiveValue]:
    """All of them, in the order of the reference. What no file can say is left out (an address that is leased later).

    Args:
        document: what `config` was read from, which is called `file` in the sources.
    """
    return list(_section(config, type(config), (), document, file))


def as_yaml(found: Sequence[EffectiveValue]) -> str:
    """The values as a file has them, with the sources as comments."""
    lines: list[tuple[str, str]] = []
    before: Path = ()
    for each in found:
        shared = 0
        while shared < min(len(before), len(each.path) - 1) and before[shared] == each.path[shared]:
            shared += 1
        for depth in range(shared, len(each.path) - 1):
            lines.append((f"{'  ' * depth}{_text(each.path[depth])}:", ""))
        lines.append((f"{'  ' * (len(each.path) - 1)}{_text(each.path[-1])}: {_flow(each.value)}", each.source))
        before = each.path[:-1]
    width = min(60, max((len(text) for text, source in lines if source), default=0))
    return "\n".join(f"{text:<{width}}  # {source}" if source else text for text, source in lines)


def _section(
    section: Struct, kind: type[Struct], path: Path, document: Document, file: str
) -> Iterator[EffectiveValue]:
    for key, field in fields(kind).items():
        yield from _value(getattr(section, field.name), hints(kind)[field.name], (*path, key), document, file)


def _value(value: Any, annotation: Any, path: Path, document: Document, file: str) -> Iterator[EffectiveValue]:
    kind, meta = unwrapped(annotation)
    read = meta is not None and meta.extra
    if isinstance(value, Struct) and not read:
        yield from _section(value, type(value), path, document, file)
    elif get_origin(kind) is dict and value:
        for name, item in value.items():
            yield from _value(item, get_args(kind)[1], (*path, name), document, file)
    elif (written := _written(value, annotation)) is not _NONE:
        yield EffectiveValue(path=path, value=written, source=_source(path, document, file))


def _source(path: Path, document: Document, file: str) -> str:
    if path not in document.lines:
        return DEFAULT
    names = [name for at, found in document.variables.items() if at[: len(path)] == path for name in found]
    return f"{file}:{document.lines[path]}" + "".join(f", ${{{name}}}" for name in names)


def _written(value: Any, annotation: Any) -> Any:
    """What a file would say for the value: the first of the ways to write it that is read as the value again."""
    kind, meta = unwrapped(annotation)
    if meta is None and isinstance(value, dict):
        return {name: _written(item, get_args(kind)[1]) for name, item in value.items()}
    if meta is None and isinstance(value, tuple):
        return [_written(item, get_args(kind)[0]) for item in value]
    if meta is None and isinstance(value, Struct):
        found = {key: _written(getattr(value, field.name), hints(type(value))[field.name])
                 for key, field in fields(type(value)).items()}  # fmt: skip
        return {key: item for key, item in found.items() if item is not None and item is not _NONE}
    write = writer_of(meta.extra["reader"]) if meta is not None and meta.extra else None
    for candidate in (*([] if write is None else [write(value)]), *_candidates(value)):
        document = Document()
        if Decoder(document).decode(candidate, annotation) == value and not document.problems:
            return candidate
    return _NONE


def _candidates(value: Any) -> Iterator[Any]:
    if value is None or isinstance(value, (str, int, float)):
        yield value
    if isinstance(value, TcpAddress):
        yield value.hostport
    if value is None or value == 0:
        yield from ("auto", "off")
    if isinstance(value, (int, float)):
        for unit, seconds in sorted(SECONDS.items(), key=lambda item: -item[1]):
            if (count := round(value / seconds, 9)) == int(count) and count:
                yield f"{int(count)}{unit}"
        for unit, size in sorted(BYTES.items(), key=lambda item: -item[1]):
            if value and value % size == 0:
                yield f"{int(value // size)}{unit}"
        yield from (f"{value:g}s", f"{value * 1e6:g}us")
    if isinstance(value, int):
        yield from (f"{value:04o}", f"{value // 1000}Gbit", f"{value}Mbit")
    yield str(value)


def _text(part: str | int) -> str:
    return _flow(str(part))


def _flow(value: Any) -> str:
    """In YAML's flow style, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(name)}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        text = value.replace("$", "$$")
        plain = _PLAIN.fullmatch(text) and not text.isdigit() and not text.endswith(":") and plain_value(text) == text
        return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())
    return json.dumps(value)
