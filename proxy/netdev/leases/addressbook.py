"""What a host asks the control plane's address book: leases, claims for addresses of its own, MACs of the others.

A lease is remembered (`proxy.netdev.leases.leasefiles`), so that the same address is used again when nobody answers.
What the control plane *says* counts: a refusal is no reason to use what is remembered.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
import trio

from control.api.client import ControlClient, Denied, Unreachable
from control.api.mesh import AddressLease, AddressRequest, ControlStatus
from control.base.backoff import Backoff
from control.base.reading.units import show
from proxy.config.schema import Config
from proxy.errors import ConfigError, NetError, StartError
from proxy.links.keyring import IDENTITY, Keyring, held_secret
from proxy.netdev.leases.leasefiles import LeaseFiles, is_sound
from proxy.netdev.leases.leases import LeasedAddresses, fill, ip_of, segments
from proxy.netdev.plan.links import wanted_mac

log = structlog.get_logger()

PATIENCE = 5.0
"""Seconds that anybody waits for an answer who can go on without; one server answers in milliseconds."""
PAUSE, LONGEST_PAUSE = 1.0, 10.0
"""Seconds: windows of the pause before a host without an address asks again (`control.base.backoff`)."""
MAX_REASON = 400
"""Characters of a control server's reason that are shown as they are."""
ANSWERS = (400, 404, 409)
"""Statuses that are about what was asked. Any other one (revoked, too many requests) is as good as no answer."""


class AddressClient(Protocol):
    """What is needed of the control plane (`control.api.client.ControlClient`)."""

    async def addresses(self, request: AddressRequest) -> AddressLease: ...

    async def give_back(self, segment: str, part: str = "") -> None: ...

    async def status(self) -> ControlStatus: ...


@asynccontextmanager
async def asking(config: Config) -> AsyncIterator[ControlClient]:
    """A client that shows this host's certificate. Raises NetError without one."""
    assert config.control is not None
    keyring = await trio.to_thread.run_sync(_keyring, config)
    servers = [server.hostport for server in config.control.servers]
    async with ControlClient(servers, lambda: keyring.current.control, name=config.mesh) as client:
        client.secret = await trio.to_thread.run_sync(held_secret, config.control.state_dir)
        yield client


def _keyring(config: Config) -> Keyring:
    assert config.control is not None
    if config.links.tls is None and not os.path.lexists(os.path.join(config.control.state_dir, IDENTITY)):
        raise NetError("this host has not joined the mesh; hostlane proxy does that when it first starts")
    try:
        keyring = Keyring.from_config(config)
    except ConfigError as error:
        raise NetError("; ".join(error.problems)) from None
    assert keyring is not None
    return keyring


def files_of(config: Config) -> LeaseFiles:
    """Where this host, which has `control`, remembers its leases."""
    assert config.control is not None
    return LeaseFiles(config.control.state_dir)


def brings_none(config: Config, segment: str) -> bool:
    """Whether the configuration gives this host no address of its own on a segment (`_claim_static`)."""
    return config.links.address is not None or config.links.segment != segment


async def lease(
    client: AddressClient, files: LeaseFiles, segment: str, part: str = "", *, alone: bool = False
) -> AddressLease:
    """The lease, by now remembered; `alone`: as `AddressRequest`. Raises Denied, Unreachable; NetError if it cannot be
    kept.
    """
    before = await trio.to_thread.run_sync(files.read, segment, part)
    last = ip_of(before) if before else None
    request = AddressRequest(segment=segment, part=part, before=last, alone=alone)
    found = await client.addresses(request)
    if (found.segment, found.part) != (segment, part) or not is_sound(found):
        raise Unreachable(f"no address of use from the control plane for {segment}{part}: another version, perhaps")
    if found != before:
        await trio.to_thread.run_sync(files.write, found)
    return found


async def at_start(config: Config, random: Callable[[], float]) -> LeasedAddresses:
    """What a proxy needs to know before it makes its interfaces. The host has joined.

    Waits for the control plane as long as it takes for an address that this host never had, otherwise `PATIENCE`.
    Raises StartError: the control plane says no, or names the holder of an address that the configuration gives.
    """
    counts = bool(config.segments and config.interfaces)
    if config.control is None or not (segments(config) or config.links.segment or counts):
        return LeasedAddresses()
    files, leases, away = files_of(config), dict[str, AddressLease](), False
    try:
        async with asking(config) as client:
            for segment in segments(config):
                before = await trio.to_thread.run_sync(files.read, segment)
                if away and before is not None:
                    leases[segment] = before
                else:
                    leases[segment], away = await _leased(
                        client, files, segment, before, random, brings_none(config, segment)
                    )
            elsewhere = {} if away else await _claimed_and_counted(client, config)
    except Denied as error:
        raise StartError(f"links.segment: {reason(error)}") from None
    except NetError as error:
        raise StartError(str(error)) from None
    return LeasedAddresses(leases=leases, elsewhere=elsewhere)


async def _claimed_and_counted(client: AddressClient, config: Config) -> dict[str, int]:
    """The MACs elsewhere, for a start that waits `PATIENCE` for it. Raises StartError if the address is another's."""
    why = f"no answer for {PATIENCE:.0f} s"
    with trio.move_on_after(PATIENCE):
        try:
            await _claim_static(client, config)
        except Denied as error:
            if error.status in ANSWERS:
                place = "links.segment" if error.code == "no_segment" else "links.listen"
                raise StartError(f"{place}: {reason(error)}") from None
            why = reason(error)
        except Unreachable as error:
            why = reason(error)
        else:
            try:
                return await macs_elsewhere(client, config)
            except (Denied, Unreachable) as error:
                why = reason(error)
    log.warning("the address book does not answer, starting without it", error=why)
    return {}


async def _leased(
    client: AddressClient,
    files: LeaseFiles,
    segment: str,
    before: AddressLease | None,
    random: Callable[[], float],
    alone: bool,
) -> tuple[AddressLease, bool]:
    """The lease, and whether it is the remembered one because nobody answers. Raises Denied, NetError."""
    backoff, said = Backoff(random, start=PAUSE, ceiling=LONGEST_PAUSE), ""
    while True:
        why = f"no answer for {PATIENCE:.0f} s"
        with trio.move_on_after(PATIENCE if before else float("inf")):
            try:
                found = await lease(client, files, segment, alone=alone)
            except (Denied, Unreachable) as error:
                if isinstance(error, Denied) and error.status in ANSWERS:
                    raise
                why = reason(error)
            else:
                if before is not None and found.address != before.address:
                    log.warning(
                        "another link address: the one before was given to another host, or is of the pool no more",
                        segment=segment, before=before.address, address=found.address,
                    )  # fmt: skip
                return found, False
        if before is not None:
            log.warning("using the leased address from before", segment=segment, address=before.address, error=why)
            return before, True
        level = log.debug if why == said else log.warning
        level("no link address yet, trying on", segment=segment, error=why)
        said = why
        await trio.sleep(PAUSE / 2 + backoff.next())


async def _claim_static(client: AddressClient, config: Config) -> None:
    """Enter the address that the configuration gives. Raises Denied, with the holder's name, and Unreachable."""
    links = config.links
    if links.segment is None or brings_none(config, links.segment):
        return
    for name, item in config.interfaces.items():
        if links.listen.host in (address.partition("/")[0] for address in item.addresses):
            mac = wanted_mac(config.host, name, item) if item.kind != "existing" else ""
            break
    else:
        mac = ""
    await client.addresses(AddressRequest(segment=links.segment, address=links.listen.host, mac=mac or None))


async def claim(client: AddressClient, config: Config, book: LeasedAddresses) -> None:
    """Enter again what this host uses, in a book that may have forgotten it, before the host registers.

    Raises Unreachable; Denied if an address is another host's by now. A proxy that runs keeps it all the same: its
    streams hang on it.
    """
    await _claim_static(client, config)
    for segment, mine in book.leases.items():
        alone = brings_none(config, segment)
        found = await client.addresses(AddressRequest(segment=segment, before=ip_of(mine), alone=alone))
        if found.address != mine.address:
            text = (
                f"address {ip_of(mine)} on segment {segment} is no longer this host's: it was not heard of for too long"
            )
            raise Denied("taken", f"{text}; restart the proxy, which gets {ip_of(found)}", 409)
    if config.control is None:
        return
    for held in await trio.to_thread.run_sync(files_of(config).parts):
        try:
            found = await client.addresses(AddressRequest(segment=held.segment, part=held.part, before=ip_of(held)))
        except Denied as error:
            log.warning("a container's address is not in the address book", part=held.part, error=reason(error))
            continue
        if found.address != held.address:
            what = f"detach and attach {held.part[1:].partition(':')[0]}"
            log.warning(
                "a container's address is another one's by now", part=held.part, address=held.address, mend=what
            )


def remembered(config: Config) -> Config:
    """The configuration with the addresses that this host had last; without any where it had none. Blocks."""
    if config.control is None:
        return config
    found = [files_of(config).read(segment) for segment in segments(config)]
    return fill(config, {lease.segment: lease for lease in found if lease is not None})


async def for_commands(config: Config) -> LeasedAddresses:
    """What ``hostlane net`` goes by: remembered leases, and what only the control plane can say. Raises NetError where
    there is an address neither here nor there; MACs that nobody counts are a note.
    """
    if config.control is None:
        return LeasedAddresses()
    files, leases = files_of(config), {}
    for segment in segments(config):
        found = await trio.to_thread.run_sync(files.read, segment)
        leases[segment] = found or await own_lease(config, segment)
    elsewhere, notes = await counted(config)
    return LeasedAddresses(leases=leases, elsewhere=elsewhere, notes=notes)


async def own_lease(config: Config, segment: str, part: str = "") -> AddressLease:
    """As `lease`, for a command. Raises NetError: there is none, and why."""
    what = f"segment {segment}: no address from the control plane"
    with trio.move_on_after(PATIENCE):
        try:
            async with asking(config) as client:
                alone = not part and brings_none(config, segment)
                return await lease(client, files_of(config), segment, part, alone=alone)
        except (Denied, Unreachable) as error:
            raise NetError(f"{what}: {reason(error)}") from None
        except NetError as error:
            raise NetError(f"{what}: {error}") from None
    raise NetError(f"{what}: no answer for {PATIENCE:.0f} s")


async def give_back(config: Config, container: str, only: AddressLease | None = None) -> None:
    """The container needs its addresses no more; `only`: this one. Raises NetError if one could not be given back: it
    is remembered.
    """
    files = files_of(config)
    for held in [only] if only is not None else await trio.to_thread.run_sync(files.parts, container):
        try:
            await give_back_one(config, held)
        except NetError as error:
            raise NetError(f"{container}: {error}; detach again later") from None


async def give_back_one(config: Config, held: AddressLease) -> None:
    """As `give_back`, for one lease, with an error that says nothing of what to do."""
    why = f"no answer for {PATIENCE:.0f} s"
    with trio.move_on_after(PATIENCE):
        try:
            async with asking(config) as client:
                await client.give_back(held.segment, held.part)
            await trio.to_thread.run_sync(files_of(config).forget, held)
            return
        except (Denied, Unreachable) as error:
            why = reason(error)
        except (NetError, OSError) as error:
            why = str(error)
    raise NetError(f"address {ip_of(held)} is not given back ({why})")


async def counted(config: Config) -> tuple[dict[str, int], tuple[str, ...]]:
    """As `macs_elsewhere`, for a command; and a note if the control plane cannot be asked. Raises nothing."""
    if config.control is None or not config.segments:
        return {}, ()
    why = f"no answer for {PATIENCE:.0f} s"
    with trio.move_on_after(PATIENCE):
        try:
            async with asking(config) as client:
                return await macs_elsewhere(client, config), ()
        except (Denied, Unreachable) as error:
            why = reason(error)
        except NetError as error:
            why = str(error)
    return {}, (f"the MACs of other hosts are not known, this host's share counts: {why}",)


async def macs_elsewhere(client: AddressClient, config: Config) -> dict[str, int]:
    """MACs of other hosts on the configuration's segments that the control plane has too, the parent of each included.
    Raises Denied, Unreachable.
    """
    if not config.segments:
        return {}
    status = await client.status()
    return {
        use.name: use.macs - len(use.own) + use.hosts - bool(use.own)
        for use in status.segments
        if use.name in config.segments
    }


def reason(error: Denied | Unreachable) -> str:
    """One line that is fit to be shown."""
    text = str(error)
    return text if text.isprintable() and len(text) <= MAX_REASON else show(text)
