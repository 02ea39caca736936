"""A JSON Schema of a configuration, from the same types that read it: editors then complete keys, and say what is wrong
while somebody writes. What a value may not be beside others is for ``hostlane validate`` to say.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
import types
import typing
from typing import Any, Literal, get_args, get_origin

from msgspec import Struct

from control.base.reading.decode import fields, hints, unwrapped
from control.base.reading.shape import NULL, shape_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
VARIABLE = {
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(?::-[^}]*)?\}",
    "description": "a variable of the environment is somewhere in it",
}
_OR_VARIABLE = {"$ref": "#/$defs/variable"}
_TYPES = {int: "integer", str: "string", bool: "boolean", float: "number"}


def schema_of(kind: type[Struct], title: str, words: dict[str, str] | None = None) -> dict[str, Any]:
    """The schema of a file that is read as `kind`.

    Args:
        words: by key of the first level, a word that may stand for the whole section (``upstreams: all``).
    """
    found = _section(kind)
    for key, word in (words or {}).items():
        section = found["properties"][key]
        found["properties"][key] = {"anyOf": [section, {"const": word}]}
    return {"$schema": DIALECT, "title": title, **found, "type": "object", "$defs": {"variable": VARIABLE}}


def _section(kind: type[Struct]) -> dict[str, Any]:
    said, types = texts(kind), hints(kind)
    properties = {}
    for key, field in fields(kind).items():
        properties[key] = _schema(types[field.name])
        if description := said.get(field.name):
            properties[key]["description"] = " ".join(filter(None, [description, _allowed(properties[key])]))
    required = [key for key, field in fields(kind).items() if field.required]
    found: dict[str, Any] = {"type": "object" if required else ["object", "null"], "properties": properties}
    return {**found, **({"required": required} if required else {}), "additionalProperties": False}


def _allowed(schema: dict[str, Any]) -> str:
    return f"({schema['description']})" if schema.get("description") else ""


def _schema(annotation: Any) -> dict[str, Any]:
    kind, meta = unwrapped(annotation)
    if meta is not None and meta.extra:
        return {"anyOf": [_shape(meta.extra["reader"]), _OR_VARIABLE], "description": meta.description or ""}
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _section(kind)
    if get_origin(kind) is dict:
        names, values = get_args(kind)
        _, of_name = unwrapped(names)
        shape = _shape(of_name.extra["reader"]) if of_name is not None and of_name.extra else {}
        return {"type": ["object", "null"], "propertyNames": shape, "additionalProperties": _schema(values)}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _schema(get_args(kind)[0])}
    return {"anyOf": [_leaf(annotation), _OR_VARIABLE]}


def _leaf(annotation: Any) -> dict[str, Any]:
    kind, meta = unwrapped(annotation)
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if get_origin(kind) in (types.UnionType, typing.Union):
        return {"anyOf": [NULL if part is type(None) else _leaf(part) for part in get_args(kind)]}
    found: dict[str, Any] = {"type": _TYPES[kind]}
    if meta is not None and meta.ge is not None:
        found["minimum"] = meta.ge
    if meta is not None and meta.le is not None:
        found["maximum"] = meta.le
    return found


def _shape(reader: Any) -> dict[str, Any]:
    try:
        return shape_of(reader)
    except LookupError:
        return {}


@functools.cache
def texts(kind: type[Struct]) -> dict[str, str]:
    """The text under each attribute of a class."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base is Struct or not issubclass(base, Struct):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for before, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
                and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            ):  # fmt: skip
                found[before.target.id] = " ".join(str(after.value.value).split()).replace("``", "").replace("`", "")
    return found
