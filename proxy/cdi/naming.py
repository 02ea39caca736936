"""Which containers of an engine name the device."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from control.base.unixhttp import unix_client

__all__ = ["containers_naming"]

ANSWER = 30.0
_FAILED = (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError, OSError, KeyError, TypeError)


def containers_naming(device: str, socket: str) -> list[str]:
    """The names of the containers, running or not, that name a CDI device. Blocks.

    Args:
        socket: path of the engine's socket.

    Raises ValueError when the engine does not answer; its text says why.
    """
    try:
        with unix_client(socket, ANSWER) as http:
            found = []
            for each in _get(http, "/containers/json?all=1"):
                known = _get(http, f"/containers/{each['Id']}/json")
                if known is not None and device in _devices(known):
                    found.append(str(known.get("Name", "")).lstrip("/") or each["Id"][:12])
            return sorted(found)
    except _FAILED as error:
        raise ValueError(f"{socket}: {getattr(error, 'strerror', None) or error or type(error).__name__}") from None


def _get(http: httpx.Client, path: str) -> Any:
    response = http.get(f"http://engine{path}")
    if response.status_code == 404:  # it has gone meanwhile
        return None
    response.raise_for_status()
    return msgspec.json.decode(response.content)


def _devices(container: dict[str, Any]) -> set[str]:
    """Docker has them among the requests, Podman among the devices."""
    config = container.get("HostConfig") or {}
    requests = {id for each in config.get("DeviceRequests") or [] for id in each.get("DeviceIDs") or []}
    return requests | {str(each.get("PathOnHost", "")) for each in config.get("Devices") or []}
