"""``attach`` and ``detach``: the namespaces of host and container, and the plans between them. Blocks.

Call it from a process that lives in the host's network namespace. Only short-lived threads enter the container's.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import msgspec
from msgspec import Struct

from proxy.config.interfaces import ContainerInterfaceConfig
from proxy.config.schema import Config
from proxy.errors import NetError
from proxy.netdev.apply.apply import apply
from proxy.netdev.apply.kernel import Kernel
from proxy.netdev.apply.manage import look
from proxy.netdev.observe import docker, observe
from proxy.netdev.observe.namespaces import open_namespace, run_inside
from proxy.netdev.plan.attach import given_to, plan_attachment, plan_detachment, plan_return
from proxy.netdev.plan.steps import NetPlan, Step

PROCESS = "pid-"
"""Before the number of a process, in the place of a container's name."""


class AttachTarget(Struct, frozen=True, kw_only=True):
    """The container or process that gets an interface."""

    name: str
    """Of the container; stands in the mark."""
    pid: int | None
    """None: it does not run, or `namespace` says where."""
    namespace: str | None = None
    """The file of its network namespace, for whoever cannot see its process."""

    @property
    def runs(self) -> bool:
        """Whether it has a network namespace."""
        return self.pid is not None or self.namespace is not None


def of_container(name: str) -> AttachTarget:
    """A container by its name or its id; it has the name that the engine has for it. Raises NetError when the engine
    does not answer.
    """
    name, pid = docker.container(name)
    return AttachTarget(name=name, pid=pid)


def of_process(pid: int) -> AttachTarget:
    """A process that is in a network namespace of its own."""
    return AttachTarget(name=f"{PROCESS}{pid}", pid=pid if os.path.exists(f"/proc/{pid}") else None)


def attach(
    config: Config,
    target: AttachTarget,
    wanted: ContainerInterfaceConfig,
    elsewhere: Mapping[str, int] = MappingProxyType({}),
) -> NetPlan:
    """Give the container its interface. Returns what was done. Raises NetError; nothing is changed then.

    ``elsewhere``: as `budget.usages` takes it.
    """
    if not target.runs:
        raise NetError(f"{target.name} does not run or is not there; only what runs has a network namespace")
    with _namespace(target.pid, target.namespace) as container:
        return give(config, target.name, container, wanted, elsewhere)


def give(
    config: Config,
    name: str,
    container: int,
    wanted: ContainerInterfaceConfig,
    elsewhere: Mapping[str, int] = MappingProxyType({}),
) -> NetPlan:
    """The same for a network namespace that is open as the descriptor ``container``."""
    with _namespace() as home:
        if os.fstat(home).st_ino == os.fstat(container).st_ino:
            raise NetError(f"{name} is in this host's network namespace (--network host); use interfaces:")
        inside = run_inside(container, observe.snapshot)
        plan = plan_attachment(config, name, wanted, look(), inside, _temporary(), elsewhere)
        apply(plan, Kernel(home=home, container=container))
        return plan


class Detached(Struct, frozen=True, kw_only=True):
    """What `detach` has done.

    Attributes:
        names: whose leases nobody uses any more.
    """

    plan: NetPlan
    names: tuple[str, ...]


def detach(config: Config, target: AttachTarget) -> Detached:
    """Take away what is in its network namespace, whatever name that was given to, and what it had when it has ended.
    Raises NetError.
    """
    steps: tuple[Step, ...] = ()
    names = {target.name}
    if target.pid is not None:
        with _namespace(target.pid) as container:
            taken, marked = take(config, container)
            steps = taken.steps
            # A mark is the container's to write, so that it alone is nobody's word for another one's lease.
            names |= {name for name in marked if _is_in(name, os.fstat(container).st_ino)}
    given_back = plan_return(config.host, names, look())
    apply(given_back, Kernel())
    plan = msgspec.structs.replace(given_back, steps=(*steps, *given_back.steps))
    return Detached(plan=plan, names=tuple(sorted(names)))


def take(config: Config, container: int) -> tuple[NetPlan, set[str]]:
    """Take away what this host gave to the network namespace that is open as the descriptor ``container``. Returns what
    was done, and the names that it was given to. Raises NetError.
    """
    with _namespace() as home:
        if os.fstat(home).st_ino == os.fstat(container).st_ino:
            return NetPlan(), set()
        inside = run_inside(container, observe.snapshot)
        taken = plan_detachment(config.host, inside, _temporary())
        apply(taken, Kernel(home=home, container=container))
    marked = given_to(config.host, inside)
    given_back = plan_return(config.host, marked, look())
    apply(given_back, Kernel())
    return msgspec.structs.replace(given_back, steps=(*taken.steps, *given_back.steps)), marked


def _is_in(name: str, namespace: int) -> bool:
    """Whether the container or process of this name is in the network namespace with this inode."""
    number = name.removeprefix(PROCESS)
    try:
        found = of_process(int(number)) if number.isdecimal() and number != name else of_container(name)
        return found.pid is not None and os.stat(f"/proc/{found.pid}/ns/net").st_ino == namespace
    except (NetError, OSError):
        return False


def _temporary() -> str:
    """A name that no namespace has: 12 characters, and room for a number behind."""
    return f"hl{secrets.token_hex(5)}"


@contextmanager
def _namespace(pid: int | None = None, path: str | None = None) -> Iterator[int]:
    fd = open_namespace(pid, path)
    try:
        yield fd
    finally:
        os.close(fd)
