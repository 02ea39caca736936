"""Which listeners and offers there should be, from what is known of all containers (sans-IO)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from control.base.reading.addresses import TcpAddress
from proxy.config.netvalues import container_name
from proxy.door import labels
from proxy.door.labels import ContainerLabels

__all__ = ["Container", "Desired", "Room", "SocketDirectory", "desired"]

_RECREATED = re.compile("[0-9a-f]{12}_(?=.)")
"""Compose has this before the name of a container that is to take the place of another one, which has the name."""

Health = Literal["none", "starting", "healthy", "unhealthy"]


@dataclass(frozen=True)
class Container:
    """What is known of one container.

    Attributes:
        id: the engine's; name: as people know it.
        created: when, in a form that sorts.
        running: its processes run, or are paused.
        starting: its namespaces are there, its processes do not run yet: it can call, and cannot be called.
        namespace: name of the file that is its network namespace, or a path; empty: it has none.
        mode: its network mode, as the engine says it: ``host``, ``container:ID``, ``none``, a network.
        health: what its health check says; ``none``: it has none.
    """

    id: str
    name: str
    created: str = ""
    running: bool = False
    paused: bool = False
    namespace: str = ""
    mode: str = ""
    health: str = "none"
    labels: Mapping[str, str] = field(default_factory=dict)
    starting: bool = False


@dataclass(frozen=True)
class SocketDirectory:
    """The directory that a container has mounted, from before its first start until it is removed; `group`: whose it
    is.
    """

    group: str
    services: tuple[str, ...]
    caller: str = ""


@dataclass(frozen=True)
class Room:
    """What should be open in the network namespace of one container.

    Attributes:
        namespace: as `Container.namespace`.
        listeners: the service that each address is for.
        offers: the address of each service that is offered now.
    """

    container: str
    name: str
    namespace: str
    caller: str = ""
    listeners: Mapping[TcpAddress, str] = field(default_factory=dict)
    offers: Mapping[str, TcpAddress] = field(default_factory=dict)


@dataclass(frozen=True)
class Desired:
    """Attributes:
    rooms: by the container's id.
    problems: a line for each thing that cannot be had, which names the container.
    directories: by their names.
    attaching: the containers that are to get an interface (`hostlane.attach`).
    """

    rooms: Mapping[str, Room]
    problems: tuple[str, ...]
    directories: Mapping[str, SocketDirectory] = field(default_factory=dict)
    attaching: tuple[str, ...] = ()


def desired(containers: Iterable[Container]) -> Desired:
    """What should be open. Where two containers ask for one thing, the older one has it, and the other one has it when
    that one has gone.
    """
    found = _Claims()
    for each in sorted(containers, key=lambda container: (container.created, container.id)):
        found.add(each)
    return Desired(found.rooms, tuple(found.problems), found.directories, tuple(found.attaching))


def directory_name(name: str) -> str:
    """Of the directory of a container's sockets. Raises ValueError if its name cannot be one's."""
    return container_name(_RECREATED.sub("", name, 1))


class _Claims:
    """What the containers so far have."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}
        self.directories: dict[str, SocketDirectory] = {}
        self.problems: list[str] = []
        self.attaching: list[str] = []
        self._offered: dict[str, str] = {}
        self._callers: dict[str, tuple[str, str]] = {}
        self._namespaces: dict[str, str] = {}

    def add(self, each: Container) -> None:
        """The next one, which is younger than those before."""
        asked, wrong = labels.read(each.labels)
        for line in wrong:
            self._problem(each, line)
        enters = each.running and bool(asked.uses or asked.offers) and self._can_be_entered(each)
        caller = self._caller(each, asked) if enters or asked.sockets else ""
        if asked.sockets:
            self._directory(each, asked, caller)
        if asked.attach and each.running:
            self.attaching.append(each.name)
        if enters:
            offers = self._offers(each, asked)
            self.rooms[each.id] = Room(each.id, each.name, each.namespace, caller, asked.uses, offers)

    def _problem(self, container: Container, why: str) -> None:
        self.problems.append(f"container {container.name}: {why}")

    def _can_be_entered(self, container: Container) -> bool:
        if why := shared(container):
            self._problem(container, why)
        elif container.namespace:
            if (first := self._namespaces.setdefault(container.namespace, container.name)) == container.name:
                return True
            self._problem(container, f"it is in the network namespace of {first}; put its labels there")
        return False

    def _caller(self, container: Container, asked: ContainerLabels) -> str:
        """Replicas of one Compose service are one caller; others that bear its name are not."""
        if not asked.caller:
            return ""
        who = asked.group or container.id
        first, name = self._callers.setdefault(asked.caller, (who, container.name))
        if first == who:
            return asked.caller
        why = f"{name} is caller {asked.caller}, so that calls of this one name no caller"
        self._problem(container, f"{labels.CALLER}: {why}")
        return ""

    def _directory(self, container: Container, asked: ContainerLabels, caller: str) -> None:
        """One that takes another one's place has its directory, too, from before it has its name."""
        group = asked.group or container.id
        try:
            name = directory_name(container.name)
        except ValueError as error:
            return self._problem(container, f"{labels.SOCKETS}: its name is its directory's: {error}")
        mine = SocketDirectory(group, asked.sockets, caller)
        first = self.directories.setdefault(name, mine)
        if first.group != group:
            why = f"directory {name} is another container's; rename one"
            self._problem(container, f"{labels.SOCKETS}: {why}")
        elif first is not mine:
            services = tuple(dict.fromkeys((*first.services, *asked.sockets)))
            self.directories[name] = SocketDirectory(group, services, first.caller or caller)

    def _offers(self, container: Container, asked: ContainerLabels) -> dict[str, TcpAddress]:
        found: dict[str, TcpAddress] = {}
        if container.paused or container.starting or container.health not in ("none", "healthy"):
            return found
        for service, address in asked.offers.items():
            if (first := self._offered.setdefault(service, container.name)) == container.name:
                found[service] = address
            else:
                self._problem(container, f"{labels.OFFER}: {first} offers {service}, and goes first")
        return found


def shared(container: Container) -> str:
    """Why nothing can be opened for it, though it runs; empty: it can."""
    if container.mode == "host":
        return "its network is the host's, where everybody could call as it does; allowed: one of its own, or none"
    if container.mode.startswith("container:"):
        return "its network is another container's; put its labels there"
    return ""
