"""Which listeners and offers there should be, from what is known of all containers (sans-IO)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from control.base.reading.addresses import TcpAddress
from proxy.door import labels
from proxy.door.labels import ContainerLabels

__all__ = ["Container", "Desired", "Room", "desired"]

Health = Literal["none", "starting", "healthy", "unhealthy"]


@dataclass(frozen=True)
class Container:
    """What is known of one container.

    Attributes:
        id: the engine's; name: as people know it.
        created: when, in a form that sorts.
        running: its processes run, or are paused.
        namespace: name of the file that is its network namespace; empty: it has none.
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
    """

    rooms: Mapping[str, Room]
    problems: tuple[str, ...]


def desired(containers: Iterable[Container]) -> Desired:
    """What should be open. Where two containers ask for one thing, the older one has it, and the other one has it when
    that one has gone.
    """
    rooms: dict[str, Room] = {}
    problems: list[str] = []
    offered: dict[str, str] = {}
    callers: dict[str, tuple[str, str]] = {}
    namespaces: dict[str, str] = {}
    for each in sorted(containers, key=lambda container: (container.created, container.id)):
        asked, wrong = labels.read(each.labels)
        problems += [f"container {each.name}: {line}" for line in wrong]
        if not each.running or not (asked.uses or asked.offers):
            continue
        if (why := _shared(each)) or not each.namespace:
            problems += [f"container {each.name}: {why}"] if why else []
            continue
        if (first := namespaces.setdefault(each.namespace, each.name)) != each.name:
            problems.append(f"container {each.name}: it is in the network namespace of {first}; put its labels there")
            continue
        problems += _namesake(each, asked, callers)
        offers = {}
        for service, address in asked.offers.items():
            if each.paused or each.health not in ("none", "healthy"):
                continue
            if (first := offered.setdefault(service, each.name)) == each.name:
                offers[service] = address
            else:
                problems.append(f"container {each.name}: {labels.OFFER}: {first} offers {service}, and goes first")
        rooms[each.id] = Room(each.id, each.name, each.namespace, _caller(each, asked, callers), asked.uses, offers)
    return Desired(rooms, tuple(problems))


def _shared(container: Container) -> str:
    """Why nothing can be opened for it, though it runs; empty: it can."""
    if container.mode == "host":
        return "its network is the host's, where everybody could call as it does; allowed: one of its own, or none"
    if container.mode.startswith("container:"):
        return "its network is another container's; put its labels there"
    return ""


def _namesake(container: Container, asked: ContainerLabels, callers: dict[str, tuple[str, str]]) -> list[str]:
    """Replicas of one Compose service are one caller; others that bear its name are not."""
    if not asked.caller:
        return []
    who = (asked.group or container.id, container.name)
    first = callers.setdefault(asked.caller, who)
    if first[0] == who[0]:
        return []
    why = f"{first[1]} is caller {asked.caller}, so that calls of this one name no caller"
    return [f"container {container.name}: {labels.CALLER}: {why}"]


def _caller(container: Container, asked: ContainerLabels, callers: Mapping[str, tuple[str, str]]) -> str:
    if not asked.caller or callers[asked.caller][0] != (asked.group or container.id):
        return ""
    return asked.caller
