"""Which request means what, and who may make it (sans-IO)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

import msgspec

from control.base.errors import RequestRefused
from control.base.reading.units import SHOWN_CHARACTERS, show

__all__ = ["ApiRoute", "ApiRoutes", "Caller", "MatchedRequest", "Who"]

Who = Literal["anybody", "host", "own", "server", "admin"]
"""anybody: also without a certificate; host: any host; own: the host whose name is in the path; server: another control
server; admin: whoever may command at the local socket."""


@dataclass(frozen=True)
class Caller:
    """Who makes a request. `server`: name of the control server; None: it is none. `host`, `serial`, `began`, `expires`
    (its validity, seconds since 1970), `issuer` (`control.ca.root.issuer_of`): of its certificate, None without one.
    `admin`: by the local socket. `refused`: why whoever came by that socket may not command there
    (`control.base.system.commanders`), and gets no answer to anything."""

    address: str
    host: str | None = None
    serial: str | None = None
    expires: float | None = None
    admin: bool = False
    issuer: bytes | None = None
    began: float | None = None
    refused: str | None = None
    server: str | None = None


@dataclass(frozen=True)
class MatchedRequest:
    """A request that a route has matched: who, the names in its path, its query, its decoded body. `heard` returns when
    the client closes its end, or says something more, and is for one task at a time."""

    caller: Caller
    names: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    heard: Callable[[], Awaitable[None]]


@dataclass(frozen=True, eq=False)
class ApiRoute:
    """One method on one path.

    Attributes:
        path: with names in braces, such as ``/v1/hosts/{name}``.
        who: any of these may.
        handle: does it, and returns what `answer` says, or raises RequestRefused with a status that is in `refuses`.
        body, answer: types of the JSON, None: there is none.
        status: when all is well.
        refuses: statuses of its own, beside those that any request may get (`ApiRoutes.find`, and `openapi.statuses`).
        query: names and meanings of parameters, none of which is needed.
        stream: the answer is lines of `answer` without end.
        quick: it writes nothing and takes no time, so it need not wait for those that do. A host that says that it is
            there must not wait behind all who come: its lease would end, and it would come itself.
    """

    method: str
    path: str
    who: tuple[Who, ...]
    handle: Callable[[Any, MatchedRequest], Awaitable[Any]]
    summary: str
    body: Any = None
    answer: Any = None
    status: int = 200
    refuses: Mapping[int, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    quick: bool = False

    @property
    def parts(self) -> list[str]:
        return self.path.split("/")


class ApiRoutes:
    """All routes, found by method and path."""

    def __init__(self, routes: Sequence[ApiRoute]) -> None:
        self.routes = tuple(routes)
        self._decoders = {route: msgspec.json.Decoder(route.body) for route in routes if route.body is not None}

    def find(self, method: str, target: str, caller: Caller) -> tuple[ApiRoute, dict[str, str], dict[str, str]]:
        """The route of a request that `caller` may make, the names in its path, its query.

        Raises RequestRefused: 404 ``no_such_path``; 405 ``method``; 401 ``no_certificate``; 403 ``forbidden``; 400
        ``query``.
        """
        if caller.refused is not None:
            raise RequestRefused(403, "forbidden", caller.refused)
        path, _, query = target.partition("?")
        here = [(route, names) for route in self.routes if (names := _match(route.parts, path.split("/"))) is not None]
        if not here:
            raise RequestRefused(404, "no_such_path", f"no such path {show(path)}; /openapi.json says which there are")
        found = next(((route, names) for route, names in here if route.method == method), None)
        if found is None:
            allowed = ", ".join(route.method for route, _ in here)
            raise RequestRefused(405, "method", f"method {show(method)} on {show(path)}; allowed: {allowed}")
        route, names = found
        _admit(route, names, caller)
        return route, names, _query(route, query)

    def decode(self, route: ApiRoute, body: bytes) -> Any:
        """The body as the route has it. Raises RequestRefused (400 ``body``)."""
        decoder = self._decoders.get(route)
        if decoder is None:
            if body:
                raise RequestRefused(400, "body", f"found a body; allowed: none for {route.method} {route.path}")
            return None
        try:
            return decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            what = " ".join(str(error).split())[: 4 * SHOWN_CHARACTERS]
            raise RequestRefused(400, "body", f"not a body for {route.method} {route.path}: {what}") from None


def _match(parts: list[str], found: list[str]) -> dict[str, str] | None:
    """The names in a path; None if it is not of this route."""
    if len(parts) != len(found):
        return None
    names = {}
    for part, text in zip(parts, found, strict=True):
        if part.startswith("{") and text:
            names[part[1:-1]] = unquote(text)
        elif part != text:
            return None
    return names


def _admit(route: ApiRoute, names: Mapping[str, str], caller: Caller) -> None:
    if "anybody" in route.who or (caller.admin and "admin" in route.who):
        return
    if "server" in route.who:
        if caller.server is None:
            text = f"{route.method} {route.path} is for control servers of this mesh, by their certificates"
            raise RequestRefused(403, "forbidden", text)
        return
    if caller.admin:
        raise RequestRefused(403, "forbidden", f"{route.method} {route.path} is for hosts; it comes over the network")
    if not {"host", "own"} & {*route.who}:
        text = f"{route.method} {route.path} is for the administrator; it comes through the server's control.sock"
        raise RequestRefused(403, "forbidden", text)
    if caller.host is None:
        raise RequestRefused(401, "no_certificate", "this needs a host's certificate of this mesh")
    if "host" not in route.who and names.get("name") != caller.host:
        text = f"host {caller.host} asks for host {show(names.get('name'))}; allowed: itself"
        raise RequestRefused(403, "forbidden", text)


def _query(route: ApiRoute, text: str) -> dict[str, str]:
    try:
        # A bound on the number, as each costs; an unknown one is a slip of the pen that would change what is meant.
        query = dict(parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=16))
    except ValueError:
        raise RequestRefused(400, "query", f"found query {show(text)}; allowed: name=value&name=value") from None
    for name in query:
        if name not in route.query:
            allowed = ", ".join(route.query) or "none here"
            raise RequestRefused(400, "query", f"found parameter {show(name)}; allowed: {allowed}")
    return query
