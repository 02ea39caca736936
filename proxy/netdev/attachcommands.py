"""``hostlane net attach | detach``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from proxy.config.netvalues import AUTO
from proxy.errors import NetError

if TYPE_CHECKING:
    from proxy.config.interfaces import ContainerInterfaceConfig
    from proxy.config.schema import Config
    from proxy.netdev.apply.containers import AttachTarget
    from proxy.netdev.plan.steps import NetPlan


Done = tuple["NetPlan", Sequence[str]]


def names_a_container(command: Callable[..., None]) -> Callable[..., None]:
    """The argument and option that say whose interface it is."""
    command = click.option("--pid", type=click.IntRange(1), help="A process in the namespace instead of a container.")(
        command
    )
    return click.argument("container", required=False)(command)


def find(container: str | None, pid: int | None) -> AttachTarget:
    """The container or process. Raises NetError."""
    from proxy.netdev.apply import containers

    if (container is None) == (pid is None):
        raise click.UsageError("name a container or give --pid, one of them")
    return containers.of_process(pid) if pid is not None else containers.of_container(str(container))


def wanted(config: Config, name: str, options: dict[str, Any]) -> ContainerInterfaceConfig:
    """What the options say; without any, what ``containers`` of the configuration says about this one."""
    from proxy.netdev.leases.leases import segment_of

    given = {key: value for key, value in options.items() if value not in (None, ())}
    if not given and name in config.containers:
        return config.containers[name]
    if not given:
        raise click.UsageError(f"the configuration has no containers.{name}, and no option says what it shall get")
    found = read_options(name, given)
    if AUTO in found.addresses and config.control is None:
        raise click.UsageError("--address: found auto; allowed with a control plane only (control)")
    if AUTO in found.addresses and segment_of(config, found) is None:
        raise click.UsageError("--segment: missing; allowed with auto: the name of a pool of the control plane")
    return found


def attach(config: Config, target: AttachTarget, wanted: ContainerInterfaceConfig) -> Done:
    """Give the container its interface, with a control plane to ask for its address and for the MACs of other hosts.
    Returns what was done, and notes. Raises NetError; an address that was leased for it is given back then.
    """
    import trio

    from proxy.netdev.apply import containers
    from proxy.netdev.leases import addressbook
    from proxy.netdev.leases.leases import fill_interface, part_of, segment_of

    fresh = None
    if AUTO in wanted.addresses:
        segment = segment_of(config, wanted)
        assert segment is not None, "wanted()"
        part = part_of(target.name, wanted.name)
        before = addressbook.files_of(config).read(segment, part)
        if target.runs:
            lease = trio.run(addressbook.own_lease, config, segment, part)
            wanted = fill_interface(wanted, lease)
            fresh = lease if before is None else None
    elsewhere, notes = trio.run(addressbook.counted, config)
    try:
        return containers.attach(config, target, wanted, elsewhere), notes
    except NetError:
        if fresh is not None:  # only this lease: the container's other interfaces use theirs
            with suppress(NetError):
                trio.run(addressbook.give_back, config, target.name, fresh)
        raise


def give_back(config: Config, names: Sequence[str]) -> None:
    """Give back the addresses that were leased for the containers. Raises NetError."""
    import trio

    from proxy.netdev.leases import addressbook

    problems = []
    for name in names:
        try:
            trio.run(addressbook.give_back, config, name)
        except NetError as error:
            problems.append(str(error))
    if problems:
        raise NetError("; ".join(problems))


def read_options(name: str, given: dict[str, Any]) -> ContainerInterfaceConfig:
    """The options as the section of a configuration file would be read. Raises UsageError with all that is wrong."""
    from control.base.reading.decode import Decoder
    from control.base.reading.yamlmap import Document, Path
    from proxy.config.interfacecheck import check_interfaces
    from proxy.config.interfaces import ContainerInterfaceConfig

    data = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    path: Path = ("containers", name)
    document = Document(lines={(*path, key): 1 for key in data})
    found = Decoder(document).decode(data, ContainerInterfaceConfig, path)
    check_interfaces(SimpleNamespace(interfaces={}, containers={name: found}, segments={}), document)
    if document.problems:
        texts = [f"--{_option(problem.path[2:])}: {problem.text}" for problem in document.problems]
        raise click.UsageError("; ".join(texts))
    assert isinstance(found, ContainerInterfaceConfig)
    return found


def _option(path: tuple[str | int, ...]) -> str:
    return {"addresses": "address"}.get(str(path[0]), str(path[0])) if path else "parent"
