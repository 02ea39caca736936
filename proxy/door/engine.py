"""The container engine, asked over its Unix socket: which containers there are, and what happens to them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec
import trio

from proxy.door import labels
from proxy.door.desired import Container

__all__ = ["Engine", "EngineEvent", "Unanswered"]

EVENTS = ("create", "start", "die", "destroy", "rename", "pause", "unpause", "health_status")
"""Those that matter here. A health check is three more for each time it runs (exec_create, exec_start, exec_die)."""
ANSWER = 30.0
"""Seconds for an answer. The engine answers for a container that starts only when it has started."""
MOST_LINE = 1 << 20
YOUNGEST = "~"
"""Sorts behind every time."""
_FAILED = (httpx.HTTPError, httpx.StreamError, msgspec.MsgspecError, trio.TooSlowError, OSError)


class Unanswered(Exception):
    """The engine does not answer, or not as an engine; its text says why."""


class EngineEvent(msgspec.Struct, frozen=True):
    """Something happened to a container.

    Attributes:
        action: one of `EVENTS`.
        name: of the container; labels: its labels.
    """

    id: str
    action: str
    name: str
    labels: dict[str, str]

    @property
    def ours(self) -> bool:
        """Whether the container has labels for Hostlane."""
        return labels.concerned(self.labels)

    @property
    def container(self) -> Container:
        """One that was created just now, as far as this tells: an inspection would have to wait for its start."""
        return Container(self.id, self.name, YOUNGEST, labels=self.labels)


class Engine:
    """A client of the engine, which ``async with`` closes. Every method raises Unanswered. The engine's API is asked
    without a version, so that any engine answers in its own.

    Args:
        path: of the engine's socket. It is opened for each connection: an engine that restarts makes a new file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # No connection is kept for later: to a socket of this machine the next one costs nothing, and one that is idle
        # would be a descriptor that is held for as long as nobody asks again.
        transport = httpx.AsyncHTTPTransport(uds=path, limits=httpx.Limits(max_keepalive_connections=0))
        self._http = httpx.AsyncClient(transport=transport, timeout=ANSWER, trust_env=False, base_url="http://engine")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._http.aclose()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        """What happens from now on; the iterator ends with the engine."""
        filters = quote(json.dumps({"type": ["container"], "event": EVENTS}))
        timeout = httpx.Timeout(ANSWER, read=None)
        try:
            async with self._http.stream("GET", f"/events?filters={filters}", timeout=timeout) as response:
                response.raise_for_status()
                yield self._lines(response)
        except _FAILED as error:
            raise self._unanswered(error) from None

    async def _lines(self, response: httpx.Response) -> AsyncIterator[EngineEvent]:
        try:
            async for line in response.aiter_lines():
                if line and (event := _event(msgspec.json.decode(line))) is not None:
                    yield event
        except _FAILED as error:
            raise self._unanswered(error) from None

    async def containers(self) -> list[str]:
        """The ids of all containers that have labels for Hostlane, running or not."""
        found = await self._get("/containers/json?all=1")
        return [each["Id"] for each in found if labels.concerned(each.get("Labels") or {})]

    async def names(self) -> dict[str, str]:
        """The ids of all containers, running or not, whatever labels they have, by their names."""
        found = await self._get("/containers/json?all=1")
        return {_listed(each).name: each["Id"] for each in found}

    async def listed(self, id: str) -> Container | None:
        """What the list of all containers says of one, at once, even if that is being started (an inspection waits).
        None: there is no such container.
        """
        filters = quote(json.dumps({"id": [id]}))
        for each in await self._get(f"/containers/json?all=1&filters={filters}") or ():
            if each["Id"] == id:
                return _listed(each)
        return None

    async def inspect(self, id: str) -> Container | None:
        """What the engine knows of a container; None: there is no such container."""
        found = await self._get(f"/containers/{quote(id, safe='')}/json")
        return None if found is None else container(found)

    async def _get(self, path: str) -> Any:
        try:
            with trio.fail_after(ANSWER):
                response = await self._http.get(path)
            if response.status_code == 404:
                return None
            response.raise_for_status()
            return msgspec.json.decode(response.content)
        except _FAILED as error:
            raise self._unanswered(error) from None

    def _unanswered(self, error: Exception) -> Unanswered:
        return Unanswered(f"{self._path}: {str(error) or type(error).__name__}")


def _event(found: Mapping[str, Any]) -> EngineEvent | None:
    actor = found.get("Actor") or {}
    action = str(found.get("Action", "")).partition(":")[0]
    if action not in EVENTS or not isinstance(actor.get("ID"), str):
        return None
    told = {str(key): str(value) for key, value in (actor.get("Attributes") or {}).items()}
    return EngineEvent(actor["ID"], action, told.get("name") or actor["ID"][:12], told)


def _listed(found: Mapping[str, Any]) -> Container:
    """As far as it can be known of a container that has not started."""
    names = [str(name).lstrip("/") for name in found.get("Names") or ()]
    # Names of links to it have a slash more.
    name = next((name for name in names if "/" not in name), found["Id"][:12])
    created = datetime.fromtimestamp(found.get("Created") or 0, UTC).isoformat()
    mode = str((found.get("HostConfig") or {}).get("NetworkMode", ""))
    return Container(id=found["Id"], name=name, created=created, mode=mode, labels=found.get("Labels") or {})


def container(found: Mapping[str, Any]) -> Container:
    """A container, as the engine's inspection describes it. Podman's answers have the same names here."""
    state, config = found.get("State") or {}, found.get("Config") or {}
    sandbox = (found.get("NetworkSettings") or {}).get("SandboxKey") or ""
    return Container(
        id=found["Id"],
        name=str(found.get("Name", "")).lstrip("/") or found["Id"][:12],
        created=str(found.get("Created", "")),
        running=bool(state.get("Running")),
        paused=bool(state.get("Paused")),
        namespace=sandbox.rpartition("/")[2],
        mode=str((found.get("HostConfig") or {}).get("NetworkMode", "")),
        health=str((state.get("Health") or {}).get("Status") or "none"),
        labels=config.get("Labels") or {},
    )
