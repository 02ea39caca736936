"""Calls to etcd's JSON gateway: several members, one of which is asked, and the next one when that does not answer."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
import trio
from cryptography import x509

from control.api.certificates import UNREADABLE_PEM, no_ca, refuse_no_ca
from control.base.errors import StartError
from control.base.httpclient import RequestBody, closing_given_up
from control.base.wholefile import read_file
from control.store import etcdwire
from control.store.base import StoreError
from control.store.etcdwire import EtcdAuthToken, EtcdFailure, EtcdKeepAlive, EtcdResponse

T = TypeVar("T", bound=EtcdResponse | EtcdKeepAlive)

MAX_FILE_BYTES = 1 << 20
"""Largest file of CA certificates that is read: hundreds of them fit."""
REQUEST_TIMEOUT = 5.0
"""Seconds for one answer of one member, as etcdctl's ``--command-timeout``; healthy ones need milliseconds."""
PATIENCE = 3
"""Times the request timeout that a call goes on asking members: a dead one, an election, and the answer."""
PAUSE = 0.1
"""Seconds to wait when all members have been asked in vain; an election takes about one."""
REQUESTS = 8
"""Under way at the same time; others wait their turn. etcd answers in a few milliseconds, and httpcore looks at all
pairs of its connections for each request: 64 of them took three times the CPU time, and longer."""
KEEPALIVE = [
    # A member whose machine is gone is noticed within 5 + 3 * 2 seconds, also by a watch that only listens.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
# A member without a leader is to say so at once, rather than keep us waiting, or a watch silent.
HEADERS = {"content-type": "application/json", "accept-encoding": "identity", "grpc-metadata-hasleader": "true"}


class EtcdAccess(NamedTuple):
    """How etcd is reached.

    Attributes:
        endpoints: client URLs of the members, ``https://10.0.0.5:2379``; all of one cluster.
        prefix: the store keeps to keys that begin with this, so that etcd can be shared.
        ca: PEM file to verify members with; None: the system's.
        certificate, key: PEM files that this client shows; both or none.
        user, password: for etcd's own authentication, where it is enabled.
        timeout: seconds for one request.
    """

    endpoints: tuple[str, ...]
    prefix: str = "hostlane/"
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    user: str | None = None
    password: str = ""
    timeout: float = REQUEST_TIMEOUT


class EtcdRefused(StoreError):
    """etcd's final answer is no.

    Attributes:
        failure: what it said.
    """

    def __init__(self, line: str, failure: EtcdFailure) -> None:
        super().__init__(line)
        self.failure = failure


class _Silent(Exception):
    """This member did not answer; `taken`: it may have done what was asked."""

    def __init__(self, line: str, taken: bool) -> None:
        super().__init__(line)
        self.taken = taken


class Gateway:
    """The members of one cluster. `aclose` it; calls under way then fail.

    Attributes:
        cluster: etcd's id of the cluster, once one member has answered; a member of another one is an error.
        patience: seconds that a call goes on.

    Raises StartError when `access` holds what cannot be: an endpoint that is none, a file that is missing.
    """

    def __init__(self, access: EtcdAccess) -> None:
        if not access.endpoints:
            raise StartError("etcd endpoints: found none; allowed: at least one http[s]://HOST:PORT")
        for endpoint in access.endpoints:
            _check(endpoint)
        self.cluster = 0
        self.timeout = access.timeout
        self.patience = PATIENCE * access.timeout
        self._access = access
        self._endpoints = [endpoint.rstrip("/") for endpoint in access.endpoints]
        self._current = 0
        self._token: str | None = None
        self._login = {"name": access.user, "password": access.password}
        self._turns = trio.CapacityLimiter(REQUESTS)
        transport = httpx.AsyncHTTPTransport(
            verify=tls_context(access), trust_env=False, socket_options=KEEPALIVE,
            # Watches come on top.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=REQUESTS),
        )  # fmt: skip
        self._client = httpx.AsyncClient(transport=transport, headers=HEADERS, timeout=None, trust_env=False)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def call(self, path: str, body: Mapping[str, Any], kind: type[T], *, repeat: bool) -> T:
        """The answer of some member. `repeat`: to do it twice does no harm.

        Raises EtcdRefused, and StoreError when no member answers in time, or none can be asked again.
        """
        deadline = trio.current_time() + self.patience
        asked = 0
        async with self._turns:
            while True:
                endpoint = self.endpoint()
                try:
                    return await self._ask(endpoint, path, body, kind)
                except _Silent as silent:
                    # Also if this call ends here: the next one is not to wait for the same member.
                    self.leave(endpoint)
                    if silent.taken and not repeat:
                        raise StoreError(f"{silent}; whether the commit has happened is not known") from None
                    if trio.current_time() >= deadline:
                        raise StoreError(f"{silent}; no member has answered for {self.patience:g} s") from None
                asked += 1
                if asked % len(self._endpoints) == 0:
                    await trio.sleep(PAUSE)

    def endpoint(self) -> str:
        """The member that is asked at present."""
        return self._endpoints[self._current]

    def leave(self, endpoint: str) -> None:
        """Ask the next one from now on; nothing, if another caller has left this one already."""
        if endpoint == self.endpoint():
            self._current = (self._current + 1) % len(self._endpoints)

    async def authenticate(self) -> None:
        """Get a token, where a user is configured. Raises as `call`."""
        if self._access.user is not None:
            self._token = (await self.call("/v3/auth/authenticate", self._login, EtcdAuthToken, repeat=True)).token

    async def refresh(self) -> None:
        """Get another token, where a user is configured; nothing, if that fails: the next request says why."""
        try:
            await self.authenticate()
        except StoreError:
            pass

    async def alive(self, endpoint: str) -> bool:
        """Whether this member answers at all."""
        try:
            await self._ask(endpoint, "/v3/maintenance/status", {}, EtcdResponse)
        except (_Silent, StoreError):
            return False
        return True

    async def listen(self, endpoint: str, path: str, body: Mapping[str, Any], take: Callable[[bytes], None]) -> None:
        """Give `take`, which raises nothing, each line of an answer without end; who wants no more cancels this.

        Raises httpx.HTTPError when it breaks, StoreError when it is refused.
        """
        response = await self._client.send(self._request(endpoint + path, body), stream=True)
        try:
            if response.status_code != 200:
                raise StoreError(_failure(await response.aread()).message)
            lines = etcdwire.LineSplitter()
            # Left only by what the iterator raises: there is no other way to close all that httpx has nested in it.
            async for data in response.aiter_raw():
                for line in lines.feed(data):
                    take(line)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await response.aclose()

    def check_cluster(self, endpoint: str, cluster: int) -> None:
        """Raises StoreError for an answer out of another cluster than before."""
        self.cluster = self.cluster or cluster
        if cluster != self.cluster:
            raise StoreError(
                f"{endpoint}: belongs to another etcd cluster ({cluster:x}) than the one in use ({self.cluster:x})"
            )

    def _request(self, url: str, body: Mapping[str, Any]) -> httpx.Request:
        data = msgspec.json.encode(body)
        request = self._client.build_request("POST", url, content=data, extensions={"trace": closing_given_up()})
        request.stream = RequestBody(data)
        if self._token:
            request.headers["authorization"] = self._token
        return request

    async def _ask(self, endpoint: str, path: str, body: Mapping[str, Any], kind: type[T], again: bool = False) -> T:
        try:
            with trio.fail_after(self.timeout):
                response = await self._client.send(self._request(endpoint + path, body))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Silent(f"{endpoint}: cannot be reached ({_plain(error)})", taken=False) from None
        except trio.TooSlowError:
            raise _Silent(f"{endpoint}: no answer within {self.timeout:g} s", taken=True) from None
        except httpx.HTTPError as error:
            raise _Silent(f"{endpoint}: the connection broke ({_plain(error)})", taken=True) from None
        if response.status_code == 200:
            answer = etcdwire.decode(response.content, kind)
            if isinstance(answer, EtcdKeepAlive) and answer.error is not None:
                raise _Silent(f"{endpoint}: {answer.error.message}", taken=True)
            self.check_cluster(endpoint, answer.header.cluster_id)
            return answer
        failure = _failure(response.content)
        stale = failure.code == etcdwire.UNAUTHENTICATED or failure.message in etcdwire.STALE_TOKEN
        if stale and self._access.user is not None and not again and kind is not EtcdAuthToken:
            await self._renew_token(endpoint)
            return await self._ask(endpoint, path, body, kind, again=True)
        if failure.code in etcdwire.ANSWERS:
            raise EtcdRefused(f"{endpoint}: {failure.message}", failure)
        not_taken = any(text in failure.message for text in etcdwire.NOT_TAKEN)
        raise _Silent(f"{endpoint}: {failure.message}", taken=not not_taken)

    async def _renew_token(self, endpoint: str) -> None:
        self._token = None
        self._token = (await self._ask(endpoint, "/v3/auth/authenticate", self._login, EtcdAuthToken)).token


def _failure(body: bytes) -> EtcdFailure:
    try:
        return msgspec.json.decode(body, type=EtcdFailure)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return EtcdFailure(message="the answer is not one of etcd's v3 gateway")


def _plain(error: BaseException) -> str:
    """What the kernel or OpenSSL said, below what httpx, httpcore and trio make of it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        if isinstance(inner, OSError) and (inner.errno or isinstance(inner, ssl.SSLError)):
            return _reason(inner)
        inner = inner.__cause__ or inner.__context__
    return str(error).lower() or type(error).__name__


def _check(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port and not parts.path.strip("/")
    except ValueError:
        right = False
    if not right:
        raise StartError(f"etcd endpoint: found {endpoint!a}; allowed: http[s]://HOST:PORT")


def tls_context(access: EtcdAccess) -> ssl.SSLContext:
    """The TLS context for etcd's members. Raises StartError if the files are not what they are to be."""
    try:
        context = ssl.create_default_context(cafile=access.ca)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"{access.ca}: not the certificates of etcd's CA ({_reason(error)})") from None
    # With partial chains (Python 3.13's default), each certificate of the file is trusted as it is.
    if access.ca is not None and not context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN:
        _refuse_no_ca(access.ca)
    if access.certificate is not None:
        try:
            context.load_cert_chain(access.certificate, access.key)
        except (OSError, ssl.SSLError) as error:
            raise StartError(
                f"{access.certificate}, {access.key}: not a certificate and its key ({_reason(error)})"
            ) from None
    return context


def _refuse_no_ca(path: str) -> None:
    """Raise StartError if with this file, which OpenSSL has taken, nobody would be trusted. A member's certificate that
    has signed itself (etcd's ``--auto-tls``) is, and others do no harm beside a CA's (a ``fullchain.pem``).
    """
    try:
        found = x509.load_pem_x509_certificates(read_file(path, MAX_FILE_BYTES, "PEM text"))
        if any(each.subject == each.issuer or not no_ca(each) for each in found):
            return
    except UNREADABLE_PEM:
        return  # OpenSSL could; etcd's CA is etcd's affair
    try:
        refuse_no_ca(found)
    except ValueError as error:
        raise StartError(f"{path}: {error}") from None


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        text = getattr(error, "verify_message", None) or error.reason or str(error)
        return text.lower().replace("_", " ")
    return os.strerror(error.errno).lower() if error.errno else str(error).lower()
