"""Plain data into msgspec Structs, strictly, collecting every problem instead of stopping at the first one.

msgspec decides what a leaf may be (types, ranges, literals); this module walks the sections, because msgspec.convert
alone stops at the first error and does not know lines.
"""

from __future__ import annotations

import difflib
import functools
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import UNSET, Meta, Struct

from control.base.reading.units import show
from control.base.reading.yamlmap import Document, Path

MAX_UNKNOWN_KEYS = 20
"""Unknown keys reported per section: a file of another program should not print a page of errors per key."""


def read_by(reader: Callable[..., Any], description: str, **limits: str) -> Meta:
    """The leaf is read by ``reader``; ``description`` says what is allowed when the key is missing."""
    return Meta(description=description, extra={"reader": functools.partial(reader, **limits)})


def between(low: int, high: int) -> Meta:
    """The leaf is a whole number in this range."""
    return Meta(ge=low, le=high, description=f"a whole number from {low} to {high}")


class Decoder:
    """Decodes one document. A value with a problem becomes ``UNSET``, so that checks across values can pass over it.

    Attributes:
        unknown: sections that have unknown keys; what seems missing there may merely be misspelt.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self.unknown: set[Path] = set()

    def decode(self, raw: Any, annotation: Any, path: Path = ()) -> Any:
        """``raw`` as ``annotation`` (a Struct, dict, tuple or leaf). A wrong value adds a problem and never raises."""
        if raw is UNSET:
            return UNSET
        kind, meta = unwrapped(annotation)
        if meta is not None and meta.extra:
            return self._read(raw, meta.extra["reader"], path)
        if isinstance(kind, type) and issubclass(kind, Struct):
            return self._section(raw, kind, path)
        if get_origin(kind) is dict:
            return self._entries(raw, get_args(kind), path)
        if get_origin(kind) is tuple:
            return self._items(raw, get_args(kind)[0], path)
        return self._leaf(raw, annotation, path)

    def _section(self, raw: Any, kind: type[Struct], path: Path) -> Any:
        data = self._as_mapping(raw, path, f"a mapping with {', '.join(fields(kind))}")
        if data is UNSET:
            return UNSET
        known = fields(kind)
        self._report_unknown([key for key in data if key not in known], list(known), path)
        types = hints(kind)
        values = {
            known[key].name: self.decode(data[key], types[known[key].name], (*path, key))
            for key in data
            if key in known
        }
        for key, field in known.items():
            if field.required and key not in data:
                values[field.name] = self._missing(types[field.name], (*path, key))
        return kind(**values)

    def _missing(self, annotation: Any, path: Path) -> Any:
        kind, meta = unwrapped(annotation)
        if meta is None and isinstance(kind, type) and issubclass(kind, Struct):
            return self._section({}, kind, path)
        self._document.problem(path, f"missing; allowed: {_allowed(annotation)}")
        return UNSET

    def _entries(self, raw: Any, annotations: tuple[Any, ...], path: Path) -> Any:
        data = self._as_mapping(raw, path, "a mapping, one entry a name")
        if data is UNSET:
            return UNSET
        for key in data:
            self.decode(key, annotations[0], (*path, key))
        return {key: self.decode(value, annotations[1], (*path, key)) for key, value in data.items()}

    def _items(self, raw: Any, annotation: Any, path: Path) -> Any:
        if not isinstance(raw, list):
            self._document.problem(path, f"found {show(raw)}; allowed: a list such as [a, b]")
            return UNSET
        return tuple(self.decode(item, annotation, (*path, position)) for position, item in enumerate(raw))

    def _as_mapping(self, raw: Any, path: Path, allowed: str) -> Any:
        # A section whose lines are all commented out is an empty one.
        if raw is None and path:
            return {}
        if isinstance(raw, dict):
            return raw
        self._document.problem(path, f"found {show(raw)}; allowed: {allowed}")
        return UNSET

    def _read(self, raw: Any, reader: typing.Callable[[object], Any], path: Path) -> Any:
        try:
            return reader(raw)
        except ValueError as error:
            self._document.problem(path, str(error))
            return UNSET

    def _leaf(self, raw: Any, annotation: Any, path: Path) -> Any:
        try:
            return msgspec.convert(raw, annotation, strict=True)
        except msgspec.ValidationError:
            allowed = _allowed(annotation)
            if allowed == "text" and isinstance(raw, (int, float)):
                allowed = "text, in quotes"
            self._document.problem(path, f"found {show(raw)}; allowed: {allowed}")
            return UNSET

    def _report_unknown(self, keys: list[str], allowed: list[str], path: Path) -> None:
        if keys:
            self.unknown.add(path)
        for key in keys[:MAX_UNKNOWN_KEYS]:
            near = difflib.get_close_matches(key[:40], allowed, n=1)
            hint = f' (did you mean "{near[0]}"?)' if near else ""
            self._document.problem((*path, key), f"unknown key{hint}; allowed: {', '.join(allowed)}")


@functools.cache
def fields(kind: type[Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """By the key in the file, which may be a word that Python keeps for itself."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@functools.cache
def hints(kind: type[Struct]) -> dict[str, Any]:
    """The types of its attributes."""
    return typing.get_type_hints(kind, include_extras=True)


def unwrapped(annotation: Any) -> tuple[Any, Meta | None]:
    """The type itself and the `msgspec.Meta` that stands with it."""
    if get_origin(annotation) is types.UnionType:
        # `Section | None`: a section that may be missing. What stands there is one.
        sections = [part for part in get_args(annotation) if isinstance(part, type) and issubclass(part, Struct)]
        return (sections[0] if len(sections) == 1 else annotation), None
    if get_origin(annotation) is not Annotated:
        return annotation, None
    kind, *notes = get_args(annotation)
    return kind, next((note for note in notes if isinstance(note, Meta)), None)


def _allowed(annotation: Any) -> str:
    """What a leaf may be, in words."""
    kind, meta = unwrapped(annotation)
    if meta is not None and meta.description:
        return meta.description
    if get_origin(kind) is Literal:
        return " | ".join(get_args(kind))
    if get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(_allowed(part) for part in get_args(kind) if part is not type(None))
    return {int: "a whole number", str: "text"}.get(kind, "a value of another type")
