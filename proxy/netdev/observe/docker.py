"""A container's name and process, asked of the Docker Engine through its Unix socket. Blocks."""

from __future__ import annotations

import os
from urllib.parse import quote

import httpx

from control.base.unixhttp import unix_client
from proxy.errors import NetError

DEFAULT = "unix:///var/run/docker.sock"
SECONDS = 10.0
"""Longest wait for an answer: a daemon that is busy starting containers answers an inspection late."""


def container(name: str) -> tuple[str, int | None]:
    """The name of a container, and its process id: None if it does not run, or if the engine has no such container.

    ``name`` is a name, or an id, or the beginning of one. Raises NetError when the engine does not answer.
    """
    host = os.environ.get("DOCKER_HOST") or DEFAULT
    scheme, _, path = host.partition("://")
    if scheme != "unix":
        raise NetError(f"DOCKER_HOST is {host}; allowed: unix:///path, because the container must run on this host")
    try:
        with unix_client(path, SECONDS) as client:
            answer = client.get(f"http://docker/containers/{quote(name, safe='')}/json")
        if answer.status_code == 404:
            return name, None
        if answer.status_code != 200:
            raise ValueError(f"it answered {answer.status_code}")
        found = answer.json()
        return str(found["Name"]).removeprefix("/"), int(found["State"]["Pid"]) or None
    except OSError as error:
        raise NetError(f"no Docker Engine at {host}: {(error.strerror or str(error)).lower()}") from error
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise NetError(f"the Docker Engine at {host} does not tell about {name}: {said}") from error
