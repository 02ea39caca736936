"""The process of a container, asked of the Docker Engine through its Unix socket. Blocks."""

from __future__ import annotations

import os
import socket
from urllib.parse import quote

import httpx

from proxy.errors import NetError

DEFAULT = "unix:///var/run/docker.sock"
SECONDS = 10.0
"""Longest wait for an answer: a daemon that is busy starting containers answers an inspection late."""


def container_pid(name: str) -> int | None:
    """The process id of a running container, None if the engine has no such container or it does not run.

    ``name`` is a name or an id. Raises NetError when the engine does not answer.
    """
    host = os.environ.get("DOCKER_HOST") or DEFAULT
    scheme, _, path = host.partition("://")
    if scheme != "unix":
        raise NetError(f"DOCKER_HOST is {host}; allowed: unix:///path, because the container must run on this host")
    try:
        _probe(path)
        # The environment's proxy settings are about other servers than this one.
        with httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=SECONDS, trust_env=False) as client:
            answer = client.get(f"http://docker/containers/{quote(name, safe='')}/json")
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise ValueError(f"it answered {answer.status_code}")
        return int(answer.json()["State"]["Pid"]) or None
    except OSError as error:
        raise NetError(f"no Docker Engine at {host}: {(error.strerror or str(error)).lower()}") from error
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise NetError(f"the Docker Engine at {host} does not tell about {name}: {said}") from error


def _probe(path: str) -> None:
    """Connect and leave again: httpx hides why it cannot, and leaves its socket open then."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(SECONDS)
        probe.connect(path)
