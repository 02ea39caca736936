"""This host as a member of a mesh with a control plane: its certificate, the map that it follows, its registration."""

from __future__ import annotations

import random
from collections.abc import Callable, Container

import trio

from control.api.client import ControlClient
from control.api.mesh import TrustBundle
from control.base.version import VERSION
from proxy.config.difference import ConfigDifference
from proxy.config.schema import Config
from proxy.links.keyring import Keyring
from proxy.mesh.follower import MapClient, MapFollower
from proxy.mesh.renewer import CertificateRenewer
from proxy.mesh.statelock import StateLock
from proxy.netdev.leases.addressbook import claim
from proxy.netdev.leases.leases import LeasedAddresses


class Membership:
    """See the module's text.

    Args:
        static: what the file says; it has `control`.
        keyring: this host's certificate, if it has one.
        control: asked instead of the configuration's servers; then nobody renews the certificate.
        instance: names this process in the registration.
        apply: makes the proxy equal to a configuration (`MapFollower`).
        renewed: told the name of a host that is another process by now.
        cut: ends the links that were made with one of these certificates (serial numbers).
        book: the leases that the proxy has started with.
        state, displaced: as `proxy.mesh.registration.HostRegistrar` takes them.

    Attributes:
        follower: of the map.
    """

    def __init__(
        self,
        static: Config,
        keyring: Keyring | None,
        control: MapClient | None,
        *,
        instance: str,
        apply: Callable[[Config], ConfigDifference],
        renewed: Callable[[str], None],
        cut: Callable[[Container[str]], None],
        book: LeasedAddresses = LeasedAddresses(),  # noqa: B008 - it cannot change
        state: StateLock | None = None,
        displaced: Callable[[bool], None] = lambda displaced: None,
    ) -> None:
        self._keyring, self._cut, self._book = keyring, cut, book
        self._client = self._renewer = None
        if control is None:
            control = self._client = self._connect(static)
            self._client.secret = "" if state is None else state.secret
            if static.links.tls is None and keyring is not None:  # otherwise it is the user's to renew
                self._renewer = CertificateRenewer(static, keyring, self._client, cut=cut, random=random.random)
        self.follower = MapFollower(
            static,
            control,
            instance=instance,
            version=VERSION,
            apply=apply,
            renewed=renewed,
            trusted=self.trusted,
            random=random.random,
            claim=None if self._client is None else self._claim,
            state=state,
            displaced=displaced,
        )
        if self._client is not None:
            self._client.on_unanswered = self.follower.unanswered

    async def _claim(self) -> None:
        assert self._client is not None
        if self.follower.static.links.segment is not None or self._book.leases:
            await claim(self._client, self.follower.static, self._book)

    def _connect(self, static: Config) -> ControlClient:
        keyring, control = self._keyring, static.control
        assert keyring is not None
        assert control is not None
        servers = [server.hostport for server in control.servers]
        return ControlClient(servers, lambda: keyring.current.control, name=static.mesh)

    def trusted(self, trust: TrustBundle) -> None:
        """The control plane says which CAs count and which certificates are revoked."""
        if self._renewer is not None:
            self._renewer.trust(trust)
        elif self._keyring is not None and (revoked := self._keyring.revoked.adopt(trust.revoked)):
            self._cut(revoked)

    @property
    def renewal_error(self) -> str | None:
        """As `CertificateRenewer.failing`."""
        return None if self._renewer is None else self._renewer.failing

    async def keep(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the certificate in force, until cancelled. What was revoked before the proxy was restarted is revoked by
        the time this is `started`.
        """
        if self._renewer is None:
            task_status.started()
        else:
            await self._renewer.run(task_status=task_status)

    async def leave(self, handed_over: bool) -> None:
        """The proxy ends; `handed_over`: another process of this host has taken its place. Raises nothing."""
        await self.follower.leave(handed_over)

    async def close(self) -> None:
        """Close what is open to the control plane."""
        if self._client is not None:
            await self._client.aclose()
