"""The table of routes as an OpenAPI 3.1 document (sans-IO)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from control.api.mesh import ControlErrorBody
from control.server.routes import ApiRoute

__all__ = ["document", "statuses"]

_REF = "#/components/schemas/{name}"
_ANYTIME = "any other refusal: 405, 408, 413, 429 (too many requests), 431, 500, 501, 503 (the store, or too busy)"


def document(routes: Sequence[ApiRoute], version: str) -> dict[str, Any]:
    """The whole document, as plain data."""
    types = [kind for route in routes for kind in (route.body, route.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components([*types, ControlErrorBody], ref_template=_REF)
    shown = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        body = None if route.body is None else next(shown)
        answer = None if route.answer is None else next(shown)
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, body, answer)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hostlane control plane", "version": version},
        "paths": paths,
        "components": {"schemas": components},
    }


def statuses(route: ApiRoute) -> dict[int, str]:
    """What a request may be answered with, and what it means, but for what any request may get at any time."""
    found = {route.status: HTTPStatus(route.status).phrase}
    if route.body is not None or route.query:
        found[400] = "not a body, or a query, of this kind"
    if "anybody" not in route.who:
        found[403] = "forbidden: not for this caller; revoked: its certificate does not count any more"
        if {"host", "own"} & {*route.who}:
            found[401] = "no_certificate: none of a host of this mesh"
    return {**found, **route.refuses}


def _operation(route: ApiRoute, body: Any, answer: Any) -> dict[str, Any]:
    refused = {"application/json": {"schema": {"$ref": _REF.format(name="ControlErrorBody")}}}
    responses: dict[str, Any] = {"default": {"description": _ANYTIME, "content": refused}}
    for status, meaning in sorted(statuses(route).items()):
        response: dict[str, Any] = {"description": meaning}
        if status >= 400:
            response["content"] = refused
        elif answer is not None:
            kind = "application/x-ndjson" if route.stream else "application/json"
            response["content"] = {kind: {"schema": answer}}
        responses[str(status)] = response
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": f"For: {', '.join(route.who)}.",
        "operationId": route.handle.__name__,
        "parameters": list(_parameters(route)),
        "responses": responses,
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _parameters(route: ApiRoute) -> Iterator[dict[str, Any]]:
    for part in route.parts:
        if part.startswith("{"):
            yield {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
    for name, meaning in route.query.items():
        yield {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
