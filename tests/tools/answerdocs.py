"""The part of docs/cli.md that is written from the types: what each command prints with --json."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import msgspec

from control.base.reading.jsonschema import texts
from control.base.terminal import imported
from control.cli.answers import ANSWERS

WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}


def markdown() -> str:
    """A table of the commands, then one for each object."""
    lines = ["| command | prints |", "|---|---|"]
    found: dict[str, Any] = {}
    for command, answer in ANSWERS.items():
        kind = imported(answer.kind)
        said = _link(kind, found)
        printed = f"a list of {said}" if answer.listed else f"{said}, one a line" if answer.lines else said
        lines.append(f"| `hostlane {command}` | {printed} |")
    done: set[str] = set()
    sections: dict[str, list[str]] = {}
    while left := [name for name in found if name not in done]:
        done.add(left[0])
        sections[left[0]] = list(_section(found[left[0]], found))
    for name in sorted(sections):
        lines += ["", *sections[name]]
    return "\n".join(lines)


def _section(kind: Any, found: dict[str, Any]) -> Iterator[str]:
    yield f"### {kind.__name__}"
    yield ""
    if kind.__doc__:
        yield _plain(kind.__doc__)
        yield ""
    yield "| field | is | |"
    yield "|---|---|---|"
    hints, said = typing.get_type_hints(kind), texts(kind)
    for field in msgspec.structs.fields(kind):
        meaning = _plain(said.get(field.name, ""))
        yield f"| `{field.encode_name}` | {_is(hints[field.name], found)} | {meaning} |".replace("|  |", "| |")


def _is(hint: Any, found: dict[str, Any]) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _link(hint, found)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_is(part, found) for part in arguments)
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"list ({', '.join(_is(part, found) for part in arguments)})"
    if origin in (list, tuple, frozenset, set) or (origin is not None and not issubclass(origin, dict)):
        return f"list: {_is(arguments[0], found)}"
    if origin is dict:
        return f"object, by name: {_is(arguments[1], found)}"
    return WORDS.get(hint, "any value")


def _link(kind: Any, found: dict[str, Any]) -> str:
    found[kind.__name__] = kind
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")
