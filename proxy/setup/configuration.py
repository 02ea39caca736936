"""The configuration of a host that joins: what the token says, what was asked for, and nothing that is a default
(sans-IO).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from control.base.reading.addresses import DEFAULT_RUN_DIR, DEFAULT_SOCKET_DIR, deliver_address, listen_address
from control.base.reading.units import service_name
from proxy.config.schema import Config, ControlPlaneConfig

ALL = "all"
DEFAULT_MESH = "hostlane"
DEFAULT_STATE_DIR = ControlPlaneConfig(servers=()).state_dir


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """What a host is to be.

    Attributes:
        listen: ``links.listen``; servers: of the control plane.
        offers, uses: by service, where it is delivered and where callers reach it.
        use_all: an upstream for every service.
    """

    host: str
    mesh: str
    listen: str
    servers: Sequence[str]
    offers: dict[str, str]
    uses: dict[str, str]
    use_all: bool = False
    run_dir: str = DEFAULT_RUN_DIR
    socket_dir: str = DEFAULT_SOCKET_DIR
    state_dir: str = DEFAULT_STATE_DIR


def offered(texts: Sequence[str]) -> dict[str, str]:
    """``redis=tcp:127.0.0.1:6379``, for each service once. Raises ValueError."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, address = text.partition("=")
        if not equals:
            raise ValueError(f"--offer: found {json.dumps(text)}; allowed: SERVICE=tcp:HOST:PORT or SERVICE=unix:/PATH")
        _add(found, "--offer", name, str(deliver_address(address)))
    return found


def used(texts: Sequence[str], socket_dir: str) -> tuple[dict[str, str], bool]:
    """``redis``, ``redis=tcp:127.0.0.1:6380`` or ``all``; and whether all are. Raises ValueError."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, address = text.partition("=")
        if name != ALL or equals:
            _add(found, "--use", name, str(listen_address(address if equals else f"unix:{socket_dir}/{name}.sock")))
    return found, ALL in texts


def _add(found: dict[str, str], option: str, name: str, address: str) -> None:
    if service_name(name) in found:
        raise ValueError(f"{option}: found {name} a second time; allowed: each service once")
    found[name] = address


def text_of(options: JoinOptions) -> str:
    """The file, which `proxy.config.schema.parse` has yet to judge."""
    lines = [
        "# Written by hostlane join; configs/reference.yaml has every key. After a change: hostlane reload",
        f"host: {options.host}",
    ]
    for key, value, usual in (
        ("mesh", options.mesh, DEFAULT_MESH),
        ("run_dir", options.run_dir, DEFAULT_RUN_DIR),
        ("socket_dir", options.socket_dir, DEFAULT_SOCKET_DIR),
    ):
        if value != usual:
            lines.append(f"{key}: {json.dumps(value)}")
    lines += ["links:", f"  listen: {json.dumps(options.listen)}"]
    lines += ["control:", f"  servers: {json.dumps([*options.servers])}"]
    if options.state_dir != DEFAULT_STATE_DIR:
        lines.append(f"  state_dir: {json.dumps(options.state_dir)}")
    if options.uses:
        lines += ["upstreams:", *(f"  {name}: {{listen: {json.dumps(at)}}}" for name, at in options.uses.items())]
    if options.use_all:
        lines.append("all_upstreams: {}" if options.uses else "upstreams: all")
    if options.offers:
        lines += ["services:", *(f"  {name}: {{deliver: {json.dumps(at)}}}" for name, at in options.offers.items())]
    return "\n".join(lines) + "\n"


def reached(config: Config) -> list[str]:
    """Where callers find each service, a line each."""
    found = [f"{name}: {upstream.listen}" for name, upstream in config.upstreams.items()]
    if config.all_upstreams is not None:
        found.append(f"every service of the mesh: unix:{config.all_upstreams.path(config.socket_dir, 'SERVICE')}")
    return found
