"""``hostlane join``."""

from __future__ import annotations

import os
import sys

import click

from control.base.reading.addresses import DEFAULT_CONFIG
from control.base.terminal import report
from proxy.errors import HostlaneError, StartError


@click.command()
@click.argument("token")
@click.option("--offer", "offers", multiple=True, metavar="SERVICE=ADDRESS", help="Offer tcp:HOST:PORT or unix:/PATH.")
@click.option(
    "--use", "uses", multiple=True, metavar="SERVICE[=ADDRESS]", help="A socket for callers of it; all: for every one."
)
@click.option("--service", is_flag=True, help="Have systemd run the proxy, now and whenever the machine starts.")
@click.option("--listen", metavar="IP:PORT", help="Where links of other hosts arrive: an address of the macvlan or VF.")
@click.option("--server", "servers", multiple=True, metavar="HOST:PORT", help="Instead of the token's control servers.")
@click.option("--config", "file", default=DEFAULT_CONFIG, show_default=True, metavar="FILE",
              help="What is written.")  # fmt: skip
@click.option("--state-dir", metavar="DIRECTORY", help="Where the certificate is kept. [default: /var/lib/hostlane]")
@click.option("--socket-dir", metavar="DIRECTORY", help="For sockets of --use. [default: /run/hostlane-services]")
@click.option("--run-dir", metavar="DIRECTORY", help="Where the proxy is commanded. [default: /run/hostlane]")
def join(
    token: str,
    offers: tuple[str, ...],
    uses: tuple[str, ...],
    service: bool,
    listen: str | None,
    servers: tuple[str, ...],
    file: str,
    state_dir: str | None,
    socket_dir: str | None,
    run_dir: str | None,
) -> None:
    """Make this machine a host of the mesh.

    It writes the configuration, gets a certificate and, with --service, has systemd run the proxy.

    TOKEN is what `hostlane token create` has printed; -: it is read from standard input. It says who this host is,
    where the control plane is and how to know it.

    Links arrive at the address by which this host reaches the control plane, port 7600, unless --listen says otherwise.
    --use redis makes the socket redis.sock in /run/hostlane-services; --use redis=tcp:127.0.0.1:6379 one there.

    Exit 2 if something is wrong or in the way; the token has not been used then, unless the message says so.
    """
    from control.api.tokens import parse_untrusted
    from control.base.reading.addresses import DEFAULT_RUN_DIR, DEFAULT_SOCKET_DIR, host_port
    from control.base.system import logs
    from control.base.system.systemd import SystemdService, command
    from proxy.setup import configuration
    from proxy.setup.daemon import PROXY, SOCKETS, socket_unit
    from proxy.setup.enrolment import enrol, judged, own_address

    logs.configure("warning", "auto")
    try:
        try:
            found = parse_untrusted(sys.stdin.read() if token == "-" else token)
            known = [host_port(each).hostport for each in servers] or list(found.servers)
            if not known:
                raise StartError("the token does not say where the control plane is; allowed: --server HOST:PORT")
            sockets, every = configuration.used(uses, socket_dir or DEFAULT_SOCKET_DIR)
            content = configuration.text_of(
                configuration.JoinOptions(
                    host=found.host,
                    mesh=found.mesh or configuration.DEFAULT_MESH,
                    listen=listen or own_address(known[0]),
                    servers=known,
                    offers=configuration.offered(offers),
                    uses=sockets,
                    use_all=every,
                    run_dir=run_dir or DEFAULT_RUN_DIR,
                    socket_dir=socket_dir or DEFAULT_SOCKET_DIR,
                    state_dir=state_dir or configuration.DEFAULT_STATE_DIR,
                )
            )
        except ValueError as error:
            raise StartError(_said(str(error))) from None
        config, place = judged(content), os.path.abspath(file)
        assert config.control is not None
        unit, sockets_unit = SystemdService(PROXY, place, command()), socket_unit(config)
        if service:
            paths = {"control.state_dir": config.control.state_dir, "run_dir": config.run_dir}
            unit.check({**paths, "socket_dir": config.socket_dir})
        enrol(found, place, content, config)
    except HostlaneError as error:
        sys.exit(report([error]))
    click.echo(f"{found.host} is a host of mesh {config.mesh}; links arrive at {config.links.listen.hostport}")
    click.echo(f"configuration: {click.format_filename(place)}")
    if service:
        try:
            unit.install({} if sockets_unit is None else {SOCKETS: sockets_unit})
            unit.own(config.control.state_dir)
            unit.start(*([] if sockets_unit is None else [SOCKETS]))
        except HostlaneError as error:
            click.echo("the host has joined, but its service does not run:", err=True)
            sys.exit(report([error]))
        click.echo("service: hostlane runs (systemctl status hostlane)")
    for line in configuration.reached(config):
        click.echo(line)
    if not service:
        click.echo(f"next: hostlane proxy --config {click.format_filename(place)}")


def _said(text: str) -> str:
    return f"TOKEN: {text}" if text.startswith("it ") else text
