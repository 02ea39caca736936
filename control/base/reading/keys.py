"""Types of keys, and a section, that the configurations of the proxy and of the control server have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, field

from control.base.reading import addresses, units
from control.base.reading.addresses import TcpAddress
from control.base.reading.decode import read_by
from control.base.reading.yamlmap import Document

HostName = Annotated[str, read_by(units.host_name, units.HOST_NAME)]
ServiceName = Annotated[str, read_by(units.service_name, units.SERVICE_NAME)]
Duration = Annotated[float, read_by(units.duration, units.DURATION)]
Patience = Annotated[float, read_by(units.patience, units.DURATION)]
Account = Annotated[str | int | None, read_by(units.account, units.ACCOUNT)]
Mode = Annotated[int, read_by(units.mode, units.MODE)]
FilePath = Annotated[str, read_by(units.absolute_path, units.PATH)]
SomePath = Annotated[str | None, read_by(units.or_null(units.absolute_path), f"{units.PATH}, or null")]
RunDir = Annotated[str, read_by(addresses.run_dir, units.PATH)]
IpPort = Annotated[TcpAddress, read_by(addresses.ip_port, addresses.IP_PORT)]
HostPort = Annotated[TcpAddress, read_by(addresses.host_port, addresses.HOST_PORT)]


class AdminConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may command, beside root and the user that it runs as (control/base/system/commanders.py)."""

    group: Account = None
    """Members of this group may, too."""
    origin: Literal["own", "any"] = field(default="own", name="from")
    """own: only processes in its own pid and user namespace; any: from containers, too."""


SomeIpPort = Annotated[TcpAddress | None, read_by(units.or_null(addresses.ip_port), f"{addresses.IP_PORT}, or null")]
DnsName = Annotated[str, read_by(addresses.dns_name, addresses.DNS_NAME)]


class ScrapeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where scrapers ask, over TCP (docs/metrics.md)."""

    listen: SomeIpPort = None
    """None: nowhere."""
    hosts: tuple[DnsName, ...] = ()
    """Names by which they may ask; an IP address and localhost always do."""
    page: Annotated[bool, Meta(description="true or false")] = False
    """Whether a browser gets a page at `listen` (docs/page.md)."""


def check_page(telemetry: Any, document: Document) -> None:
    """Add a problem for a page that is to be nowhere. (Any value may be UNSET here.)"""
    if telemetry is not UNSET and telemetry.page is True and telemetry.listen is None:
        document.problem(("telemetry", "page"), "found true without telemetry.listen; allowed: with an address there")


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logs go to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, JSON otherwise."""
