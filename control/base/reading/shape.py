"""What a reader takes, as JSON Schema says it: for editors, which check a file while somebody writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Reader = TypeVar("Reader", bound=Callable[..., Any])

_SHAPE, _WRITE = "__shape__", "__write__"
NULL = {"type": "null"}


def text(pattern: str) -> dict[str, Any]:
    """A text that `pattern` describes as a whole. (JSON Schema knows patterns of ECMA, without flags.)"""
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def takes(shape: dict[str, Any], write: Callable[[Any], Any] | None = None) -> Callable[[Reader], Reader]:
    """The reader takes no value that is not of this shape; of those it may refuse some. `write`: what a file would say
    for what was read, where that is not plain.
    """

    def mark(reader: Reader) -> Reader:
        setattr(reader, _SHAPE, shape)
        setattr(reader, _WRITE, write)
        return reader

    return mark


def shape_of(reader: Callable[..., Any]) -> dict[str, Any]:
    """What was marked. Raises LookupError for a reader that was not."""
    reader = getattr(reader, "func", reader)
    try:
        found: dict[str, Any] = getattr(reader, _SHAPE)
    except AttributeError:
        raise LookupError(f"{reader} has no shape") from None
    return found


def writer_of(reader: Callable[..., Any]) -> Callable[[Any], Any] | None:
    """What was marked, if anything."""
    found: Callable[[Any], Any] | None = getattr(getattr(reader, "func", reader), _WRITE, None)
    return found
