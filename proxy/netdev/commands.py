"""``hostlane net``: the network interfaces of this host. Whatever is slow to import is imported by what needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from control.base.options import of_a_host
from control.base.suggest import SuggestingGroup
from control.base.terminal import ended_by, reported
from proxy.netdev import attachcommands

if TYPE_CHECKING:
    from proxy.config.schema import Config
    from proxy.netdev.leases.leases import LeasedAddresses
    from proxy.netdev.plan.steps import NetPlan


class PlanAnswer(msgspec.Struct, frozen=True):
    """What was done or would be, a line for each step; or, with no step, a line for each reason why it cannot be."""

    steps: list[str]
    problems: list[str]
    notes: list[str]


@click.group(cls=SuggestingGroup)
def net() -> None:
    """Make and remove this host's network interfaces.

    macvlan children, SR-IOV virtual functions, addresses and routes, as the configuration has them. `plan` shows what
    `apply` would do. What Hostlane made bears its mark, an alias that `ip link` shows; `remove` takes away only that.
    """


def with_config(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all of them have."""
    command = click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
    return of_a_host(command)


@net.command()
@with_config
def plan(file: str, as_json: bool) -> None:
    """Show what would change, and change nothing.

    Exit 1 if it could not be applied; the reasons are on stderr.
    """
    with reported():
        from proxy.netdev.apply import manage

        config, book = settled(load(file))
        _show(manage.planned(config, manage.look(), book.elsewhere), as_json, book.notes)


@net.command()
@with_config
def apply(file: str, as_json: bool) -> None:
    """Make the interfaces as configured.

    A second run changes nothing. If a step fails, those before it are taken back. Exit 1 then.
    """
    with reported():
        from proxy.netdev.apply import manage

        config, book = settled(load(file))
        _show(manage.bring_up(config, book.elsewhere), as_json, book.notes)


@net.command()
@of_a_host
def watch(file: str) -> None:
    """Make the interfaces as configured, and again whenever one is gone.

    For the unit that sets the network up for a proxy which must not (CAP_NET_ADMIN). Until SIGTERM or SIGINT; it says
    in its log what it does. Exit 2 if they cannot be made in the beginning.
    """
    with reported():
        import trio

        from control.base.system import logs
        from proxy.netdev.apply import watch as watching

        config, book = settled(load(file))
        logs.configure(config.log.level, config.log.format)
        try:
            trio.run(watching.watch, config, book.elsewhere)
        except BaseException as error:
            sys.exit(ended_by(error, "net watch failed"))


@net.command()
@with_config
def remove(file: str, as_json: bool) -> None:
    """Take away everything that this host's Hostlane made.

    Whatever bears the mark of the configuration's host; containers keep what they got (`detach`). Exit 1 if a step
    fails; those before it are taken back.
    """
    with reported():
        from proxy.netdev.apply import manage

        _show(manage.take_away(load(file)), as_json)


@net.command()
@with_config
def status(file: str, as_json: bool) -> None:
    """Show how the interfaces are. Exit 1 if one is not as configured or carries nothing."""
    with reported():
        from proxy.netdev.apply import manage

        config, _ = settled(load(file), counting=False)
        found = manage.state(config)
    rows = [
        (i.name, i.kind, i.parent or "-", i.mac or "-", str(i.mtu or "-"), " ".join(i.addresses) or "-") for i in found
    ]
    _print(found, as_json, columns(("interface", "kind", "parent", "mac", "mtu", "addresses"), rows))
    problems = [item.problem for item in found if item.problem]
    _complain(problems)
    sys.exit(1 if problems else 0)


@net.command()
@click.option("--hosts", type=click.IntRange(1, 1_000_000), help="Hosts to divide over segments.")
@click.option("--containers", type=click.IntRange(0, 100_000), help="Containers with a MAC of their own on each host.")
@click.option("--mac-limit", type=click.IntRange(1, 10_000_000), help="MACs that a segment's switches can keep.")
@with_config
def budget(hosts: int | None, containers: int | None, mac_limit: int | None, file: str, as_json: bool) -> None:
    """Show how many MACs this host uses of each segment's limit, or propose how to divide hosts over segments.

    With a control plane that has a segment of the same name, also how many other hosts use as it counts them.

    With --hosts, --containers and --mac-limit: a proposal. Exit 1 if a segment is over its limit.
    """
    wanted = (hosts, containers, mac_limit)
    if any(value is not None for value in wanted) and None in wanted:
        raise click.UsageError("--hosts, --containers and --mac-limit go together")
    with reported():
        from proxy.netdev.apply import manage
        from proxy.netdev.plan.budget import divide, usages

        config = load(file)
        if hosts is not None and containers is not None and mac_limit is not None:
            try:
                division = divide(hosts, containers, mac_limit)
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            without = f"with containers on Hostlane's Unix sockets instead: {divide(hosts, 0, mac_limit)}"
            _print(division, as_json, [str(division), without])
            return
        import trio

        from proxy.netdev.leases import addressbook

        elsewhere, notes = trio.run(addressbook.counted, config)
        found = usages(addressbook.remembered(config), manage.look(), elsewhere=elsewhere)
    rows = [
        (
            u.segment, u.parent, str(u.vlan or "-"), str(len(u.macs)), "-" if u.elsewhere is None else str(u.elsewhere),
            str(u.share), str(u.mac_limit), str(u.hosts),
        )
        for u in found
    ]  # fmt: skip
    head = ("segment", "parent", "vlan", "used here", "elsewhere", "share", "limit", "hosts")
    _print(found, as_json, columns(head, rows))
    _complain(notes)
    over = [usage.over for usage in found if usage.over]
    _complain(over)
    sys.exit(1 if over else 0)


@net.command()
@attachcommands.names_a_container
@click.option("--kind", help="macvlan (default) or vf.")
@click.option("--parent", help="The interface of this host that it is made on.")
@click.option("--mode", help="Of a macvlan child: bridge (default), private, vepa, passthru.")
@click.option("--vlan", type=int, help="VLAN id.")
@click.option("--mac", help="stable (default) or a MAC.")
@click.option("--mtu", type=int, help="Default: the parent's.")
@click.option("--address", "addresses", multiple=True, help="ADDRESS/PREFIX, or auto; may be repeated.")
@click.option("--segment", help="The control plane's pool that auto is of; default: links.segment.")
@click.option("--name", help="Its name in the container; default: eth1.")
@with_config
def attach(container: str | None, pid: int | None, file: str, as_json: bool, **options: Any) -> None:
    """Give a running container an interface of its own.

    CONTAINER is a name that the Docker Engine knows (DOCKER_HOST). What it gets says `containers` in the configuration,
    or the options if there are any. It lasts as long as the container's network namespace.
    """
    with reported():
        from proxy.netdev.apply import containers

        config = load(file)
        target = attachcommands.find(container, pid)
        wanted = attachcommands.wanted(config, target.name, options)
        if config.control is None:
            _show(containers.attach(config, target, wanted), as_json)
        else:
            done, notes = attachcommands.attach(config, target, wanted)
            _show(done, as_json, notes)


@net.command()
@attachcommands.names_a_container
@with_config
def detach(container: str | None, pid: int | None, file: str, as_json: bool) -> None:
    """Take away what a container got, by its name or by --pid, also after it has ended."""
    with reported():
        from proxy.netdev.apply import containers

        config = load(file)
        target = attachcommands.find(container, pid)
        done = containers.detach(config, target)
        _show(done.plan, as_json)
        if config.control is not None:
            attachcommands.give_back(config, done.names)


def load(file: str) -> Config:
    """The configuration. Raises ConfigError."""
    from proxy.config.schema import load

    return load(file)


def settled(config: Config, *, counting: bool = True) -> tuple[Config, LeasedAddresses]:
    """The configuration with leased addresses in it, and what else the address book says. Raises NetError.

    Args:
        counting: whether the MACs of other hosts matter.
    """
    from proxy.netdev.leases.leases import LeasedAddresses, fill, segments

    if config.control is None or not (segments(config) or (counting and config.segments)):
        return config, LeasedAddresses()
    import trio

    from proxy.netdev.leases import addressbook

    book = trio.run(addressbook.for_commands, config if counting else msgspec.structs.replace(config, segments={}))
    return fill(config, book.leases), book


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows under their heads, each column as wide as its widest cell."""
    table = [head, *rows]
    widths = [max(len(row[position]) for row in table) for position in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _show(found: NetPlan, as_json: bool, notes: Sequence[str] = ()) -> None:
    # Of what cannot be done as a whole, no part is shown as if it could.
    steps = [] if found.problems else [str(step.do) for step in found.steps]
    notes = (*notes, *found.notes)
    lines = [*(steps or ["nothing to change"] * (not found.problems)), *(f"note: {note}" for note in notes)]
    _print(PlanAnswer(steps, list(found.problems), list(notes)), as_json, lines)
    _complain(found.problems)
    if found.problems:
        sys.exit(1)


def _print(answer: Any, as_json: bool, lines: Sequence[str]) -> None:
    if as_json:
        click.echo(msgspec.json.encode(answer))
    for line in () if as_json else lines:
        click.echo(line)


def _complain(problems: Sequence[str]) -> None:
    for problem in problems:
        click.echo(f"hostlane: {problem}", err=True)
