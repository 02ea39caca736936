"""Writes a host's configuration, and has it join the mesh: whole, or not at all.

A token works once, so whatever else can fail is tried before it is used: the configuration is judged and written, the
state_dir made. If the host cannot join then, the configuration is taken away again.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import trio

from control.api.client import Unreachable
from control.api.tokens import JoinToken, text
from control.base.reading.addresses import host_port
from control.base.wholefile import write_new
from proxy.config.schema import Config, parse
from proxy.errors import ConfigError, StartError
from proxy.mesh.join import JoinCandidate, NotJoined, join
from proxy.mesh.statedir import StateDir

LINKS_PORT = 7600


def own_address(server: str) -> str:
    """``IP:PORT`` for links: the address by which this host reaches a control server. Nothing is sent. Raises
    StartError.
    """
    target = host_port(server)
    try:
        family, kind, _, _, address = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            own = str(probe.getsockname()[0])
    except OSError as error:
        why = (error.strerror or "failed").lower()
        raise StartError(
            f"no way to the control server {server}: {why}; --listen IP:PORT says where links arrive"
        ) from None
    return f"[{own}]:{LINKS_PORT}" if ":" in own else f"{own}:{LINKS_PORT}"


def judged(content: str) -> Config:
    """The configuration in a text that was made from options. Raises ConfigError with lines that name its keys."""
    try:
        return parse(content, "options")
    except ConfigError as error:
        raise ConfigError([line.partition(": ")[2] for line in error.problems]) from None


def enrol(token: JoinToken, file: str, content: str, config: Config) -> None:
    """Write `content` to the new `file`, and join. Raises StartError; the file is not there then, and the message says
    whether the token may have been used.
    """
    assert config.control is not None
    state = StateDir(config.control.state_dir)
    if os.path.lexists(file):
        raise StartError(f"{file} exists: this host has a configuration; --config names another, for a second proxy")
    if state.holds_identity:
        raise StartError(f"{state.path} holds a certificate: this host has joined already; remove it to join anew")
    state.prepare()
    _write(file, content)
    try:
        trio.run(_join, JoinCandidate.from_config(config), text(token), state)
    except BaseException:
        with suppress(OSError):
            os.unlink(file)
        raise


async def _join(candidate: JoinCandidate, token: str, state: StateDir) -> None:
    try:
        await join(candidate, token, state)
    except (NotJoined, Unreachable) as error:
        raise StartError(f"cannot join: {error}") from None
    except OSError as error:
        reason = (error.strerror or "not writable").lower()
        raise StartError(f"control.state_dir: {state.path}: {reason}; the token has not been used") from None


def _write(file: str, content: str) -> None:
    try:
        write_new(file, content)
    except OSError as error:
        raise StartError(
            f"cannot write {file}: {(error.strerror or 'failed').lower()}; the token has not been used"
        ) from None
