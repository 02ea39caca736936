"""What a container's labels ask for (sans-IO): ``hostlane.use``, ``hostlane.sockets``, ``hostlane.offer``,
``hostlane.attach``, ``hostlane.caller``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from control.base.reading.addresses import TcpAddress, ip_port, is_wildcard
from control.base.reading.serviceaddress import address_of
from control.base.reading.units import quote, service_name, wrong
from proxy.config.netvalues import interface_name

__all__ = ["ContainerLabels", "concerned", "read"]

PREFIX = "hostlane."
USE, SOCKETS, OFFER = "hostlane.use", "hostlane.sockets", "hostlane.offer"
ATTACH, CALLER = "hostlane.attach", "hostlane.caller"
KNOWN = (USE, SOCKETS, OFFER, ATTACH, CALLER)
PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
"""Set by Compose."""
USE_FORM = "SERVICE@127.x.y.z:PORT, SERVICE@[::1]:PORT or SERVICE:PORT, several with commas between"
SOCKETS_FORM = "services, several with commas between, each once"
OFFER_FORM = "SERVICE=tcp:IP:PORT, several with commas between"

T = TypeVar("T")


@dataclass(frozen=True)
class ContainerLabels:
    """What one container asks for.

    Attributes:
        uses: the addresses inside the container at which it calls a service, each with the service.
        sockets: the services that it calls through Unix sockets.
        offers: the services that it offers, each with its address inside the container.
        attach: the interface of the host that it gets one of its own of; empty: none.
        caller: the service that the container belongs to; empty: not known.
        group: the Compose service that it is a container of; empty: of none.
    """

    uses: Mapping[TcpAddress, str] = field(default_factory=dict)
    sockets: tuple[str, ...] = ()
    offers: Mapping[str, TcpAddress] = field(default_factory=dict)
    attach: str = ""
    caller: str = ""
    group: str = ""


def concerned(labels: Mapping[str, str]) -> bool:
    """Whether any of a container's labels is for Hostlane."""
    return any(label.startswith(PREFIX) for label in labels)


def read(labels: Mapping[str, str]) -> tuple[ContainerLabels, list[str]]:
    """What the labels ask for, and a line for each thing that is wrong with them. What is wrong is left out, and all
    else holds; a container of which nothing is right asks for nothing.
    """
    problems = [
        f"{label}: unknown; allowed: {', '.join(KNOWN)}"
        for label in sorted(labels)
        if label.startswith(PREFIX) and label not in KNOWN
    ]
    uses: dict[TcpAddress, str] = {}
    for service, address in _each(labels, USE, _use, problems):
        for place in (address, TcpAddress("::1", address.port)) if address.host == "127.0.0.1" else (address,):
            if uses.setdefault(place, service) != service:
                problems.append(f"{USE}: {place.hostport} is for {uses[place]} already, and cannot be for {service}")
    sockets: dict[str, None] = {}
    for name in _each(labels, SOCKETS, _socket, problems):
        if name in sockets:
            problems.append(f"{SOCKETS}: {wrong(name, SOCKETS_FORM)}")
        sockets[name] = None
    offers: dict[str, TcpAddress] = {}
    for service, address in _each(labels, OFFER, _offer, problems):
        if address in uses:
            problems.append(f"{OFFER}: {address.hostport} is where this container calls {uses[address]}: a circle")
        elif offers.setdefault(service, address) != address:
            problems.append(f"{OFFER}: {service} is at {offers[service].hostport} already, not {address.hostport}")
    attach = ""
    if ATTACH in labels:
        try:
            attach = interface_name(labels[ATTACH])
        except ValueError as error:
            problems.append(f"{ATTACH}: {error}")
    project, name = labels.get(PROJECT, ""), labels.get(SERVICE, "")
    # A line break, as both may have dots: `a.b` of `c` is not `a` of `b.c`, though both are called `a.b.c`.
    group = f"{project}\n{name}" if project and name else ""
    caller = labels.get(CALLER, f"{project}.{name}" if group else "")
    if caller or CALLER in labels:
        try:
            service_name(caller)
        except ValueError as error:
            label = CALLER if CALLER in labels else f"{PROJECT} and {SERVICE}"
            problems.append(f"{label}: {error}, for example with {CALLER}")
            caller = ""
    return ContainerLabels(uses, tuple(sockets), offers, attach, caller, group), problems


def _each(
    labels: Mapping[str, str], label: str, reader: Callable[[str], T], problems: list[str]
) -> Iterator[T]:
    if label not in labels:
        return
    for part in labels[label].split(","):
        try:
            yield reader(part.strip())
        except ValueError as error:
            problems.append(f"{label}: {error}")


def _use(text: str) -> tuple[str, TcpAddress]:
    service, at, place = text.partition("@")
    if not at:
        service, _, port = text.partition(":")
        place = f"{address_of(service)}:{port}"
    try:
        service_name(service)
        address = ip_port(place)
    except ValueError:
        raise wrong(text, USE_FORM) from None
    if not ipaddress.ip_address(address.host).is_loopback:
        raise wrong(text, USE_FORM, f"where {quote(address.host)} is no loopback address, and others could call there")
    return service, address


def _socket(text: str) -> str:
    try:
        return service_name(text)
    except ValueError:
        raise wrong(text, SOCKETS_FORM) from None


def _offer(text: str) -> tuple[str, TcpAddress]:
    service, _, place = text.partition("=")
    try:
        if not place.startswith("tcp:"):
            raise ValueError
        service_name(service)
        address = ip_port(place.removeprefix("tcp:"))
    except ValueError:
        raise wrong(text, OFFER_FORM) from None
    if is_wildcard(address.host):
        raise wrong(text, OFFER_FORM, "which stands for every address of the container")
    return service, address
