"""The first certificate of a host: by a token, from a control plane that the host does not know yet.

The token holds the fingerprints of the mesh's CAs. The host fetches the CA certificates from whoever answers, takes
only those that the token names, connects again to a server that proves itself with one of them, and only then says the
token. The key is made here and never leaves the host.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
import trio

from control.api import certificates
from control.api.client import ControlClient, Denied, Unreachable
from control.api.mesh import IssueResponse, JoinRequest
from control.api.tokens import MAX_LENGTH, JoinToken, parse_untrusted
from control.base.backoff import Backoff
from control.base.reading.units import show
from proxy.config.schema import Config
from proxy.errors import ConfigError, HostlaneError, StartError
from proxy.links.credentials import RequiredIdentity, read
from proxy.mesh.statedir import StateDir

log = structlog.get_logger()

PAUSE, LONGEST_PAUSE = 1.0, 10.0
"""Seconds: windows of the pause before the next attempt to reach the control plane (`control.base.backoff`), which has
been tried for several seconds by then."""


MAX_REASON = 400
"""Characters of a control server's reason that are shown as they are."""


class NotJoined(HostlaneError):
    """The token is of no use, or the control plane is not the one that it is of; trying again would not help."""


class JoinCandidate(NamedTuple):
    """A host that wants to join: who it is, and where its control plane is (``ADDRESS:PORT``)."""

    mesh: str
    host: str
    servers: Sequence[str]
    token_file: str | None

    @classmethod
    def from_config(cls, config: Config) -> JoinCandidate:
        """The one that the configuration, which has `control`, makes of this host."""
        assert config.control is not None
        servers = [server.hostport for server in config.control.servers]
        return cls(config.mesh, config.host, servers, config.control.token_file)


async def ensure(config: Config, random: Callable[[], float], now: Callable[[], float] = time.time) -> None:
    """Have a certificate in ``control.state_dir`` that is good now: join unless there is one. Nothing to do without
    `control`, or with files of one's own (``links.tls``).

    Waits for the control plane as long as it takes. Raises StartError if the host cannot join: no token, or one that is
    not accepted.
    """
    if config.control is None or config.links.tls is not None:
        return
    state = StateDir(config.control.state_dir)
    await trio.to_thread.run_sync(state.prepare)
    candidate, backoff = JoinCandidate.from_config(config), Backoff(random, start=PAUSE, ceiling=LONGEST_PAUSE)
    said = complained = ""
    while True:
        # Each time: a clock that was wrong when the machine started makes a certificate look as if it were of no use.
        why = await trio.to_thread.run_sync(_fault, state, RequiredIdentity(config.mesh, config.host), now())
        if why is None:
            return
        if state.holds_identity and why != complained:
            log.warning("the certificate of this host is of no use, joining again", error=why)
            complained = why
        try:
            await join(candidate, await read_token(candidate), state)
            return
        except NotJoined as error:
            raise StartError(f"{why}, and cannot join: {error}") from None
        except OSError as error:
            reason = (error.strerror or "not writable").lower()
            raise StartError(f"control.state_dir: {state.path}: {reason}; the token has not been used") from None
        except Unreachable as error:
            level = log.debug if str(error) == said else log.warning
            level("cannot join yet, trying on", error=str(error))
            said = str(error)
        await trio.sleep(PAUSE / 2 + backoff.next())


def _fault(state: StateDir, identity: RequiredIdentity, now: float) -> str | None:
    """Why this host has no certificate that is good now; None: it has one. Blocks on the disk."""
    try:
        read(state.files, identity, now, issued=True)
    except ConfigError as error:
        return "; ".join(error.problems) if state.holds_identity else "this host has no certificate yet"
    return None


async def read_token(candidate: JoinCandidate) -> str:
    """The text in the token file. Raises NotJoined."""
    place, hint = candidate.token_file, f"make a token with: hostlane token create --host {candidate.host}"
    if place is None:
        raise NotJoined(f"control.token_file is not set; {hint}")
    try:
        return await trio.to_thread.run_sync(_read, place)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or "not readable").lower()
        raise NotJoined(f"control.token_file: {place}: {reason}; {hint}") from None


async def join(candidate: JoinCandidate, text: str, state: StateDir) -> None:
    """Join, and put key, certificate and CAs in force.

    Raises NotJoined; Unreachable, after which the token may have been used; and OSError if the disk has no room for the
    files: the token has not been used then.
    """
    token = _parse(candidate, text)
    bundle = await _pinned(candidate, token)
    key = certificates.new_key()
    request = JoinRequest(host=candidate.host, token=text.strip(), csr=certificates.request(key))
    context = _verified(bundle)
    reserved = await trio.to_thread.run_sync(state.reserve, certificates.key_pem(key))
    try:
        async with ControlClient(candidate.servers, lambda: context, name=candidate.mesh) as client:
            try:
                issued = await client.join(request)
            except Denied as error:
                raise _refused(error) from None
        check_issued(issued, key)
        await trio.to_thread.run_sync(reserved.fill, issued.certificate, issued.bundle)
    finally:
        reserved.discard()
    log.info("joined the mesh", mesh=candidate.mesh, host=candidate.host)


def check_issued(issued: IssueResponse, key: certificates.Key) -> None:
    """What a control server sent must be of use before it replaces anything. Raises Unreachable if it is not."""
    try:
        found = certificates.read_certificate(issued.certificate)
        if found.public_key() != key.public_key():
            raise ValueError("it is for another key")
        if not any(certificates.issued_by(found, root) for root in certificates.read_roots(issued.bundle)):
            raise ValueError("none of the CAs beside it has issued it")
    except ValueError as error:
        raise Unreachable(f"the control plane sent a certificate that is of no use: {error}") from None


def _parse(candidate: JoinCandidate, text: str) -> JoinToken:
    place = candidate.token_file
    try:
        token = parse_untrusted(text)
    except ValueError as error:
        raise NotJoined(f"control.token_file: {place}: found no token: {error}") from None
    if token.host != candidate.host:
        raise NotJoined(f"control.token_file: {place}: found a token for host {token.host}, this is {candidate.host}")
    return token


async def _pinned(candidate: JoinCandidate, token: JoinToken) -> str:
    """PEM of the CAs that the control plane has and the token names. Raises NotJoined, Unreachable."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.minimum_version = ssl.TLSVersion.TLSv1_3
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    async with ControlClient(candidate.servers, lambda: anybody, name=candidate.mesh) as client:
        try:
            found = await client.ca()
        except Denied as error:
            raise _refused(error) from None
    if found.mesh != candidate.mesh:
        raise NotJoined(f"the control plane is that of mesh {found.mesh[:64]!a}, this host is for {candidate.mesh}")
    try:
        pinned = [root for root in certificates.read_roots(found.bundle) if certificates.fingerprint(root) in token.ca]
    except ValueError as error:
        raise Unreachable(f"the control plane's CA is of no use: {error}") from None
    if not pinned:
        text = "the control plane's CA is not the one that the token names: another control plane, or a new CA since"
        raise NotJoined(f"{text}; make a new token")
    return "".join(map(certificates.pem, pinned))


def _verified(bundle: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False
    context.load_verify_locations(cadata=bundle)
    return context


def _refused(error: Denied) -> HostlaneError:
    """Too many at a time is a reason to wait; everything else is for a person to mend."""
    text = error.text if error.text.isprintable() and len(error.text) <= MAX_REASON else show(error.text)
    return Unreachable(text) if error.status == 429 else NotJoined(text)


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read(MAX_LENGTH * 2)
