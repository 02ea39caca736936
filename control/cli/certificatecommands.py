"""``hostlane certificates``: a CA and certificates of hosts, for a mesh without a control plane."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from control.api.messages import NewCertificate
from control.base.errors import HostlaneError
from control.base.reading import units
from control.base.reading.times import when
from control.base.suggest import SuggestingGroup
from control.base.terminal import fail
from control.base.wholefile import read_file, write_file

if TYPE_CHECKING:
    from control.ca.root import RootCa

MOST = 1 << 20
DAY = 86400.0


@click.group(cls=SuggestingGroup)
def certificates() -> None:
    """Certificates for a mesh without a control plane.

    With one, hosts get theirs from it (hostlane token create).
    """


@certificates.command()
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option("--directory", metavar="DIR", type=click.Path(file_okay=False), default=".", show_default=True,
              help="Where the files are, or will be; made if it is missing.")  # fmt: skip
@click.option("--mesh", metavar="NAME", help="Of a new CA; default: hostlane. An old one knows it.")
@click.option("--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="Validity for a host.")
@click.option("--renew", is_flag=True, help="Replace the key and certificate of hosts that have some.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def new(
    hosts: tuple[str, ...], directory: str, mesh: str | None, days: int, renew: bool, as_json: bool
) -> None:
    """Make a key and a certificate for each HOST: HOST.key and HOST.pem.

    The CA is ca.pem, with its key in ca.key: made if there is none, and never changed. HOST.pem, HOST.key and ca.pem go
    to the host; ca.key stays where only you are. Exit 1 if something cannot be written; each file is whole then.
    """
    try:
        for host in hosts:
            units.host_name(host)
        if mesh is not None:
            units.host_name(mesh)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    place = Path(directory)
    taken = [path for host in dict.fromkeys(hosts) for path in _files(place, host) if os.path.lexists(path)]
    if taken and not renew:
        fail(f"{taken[0]}: exists; --renew replaces it", 1)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        root, of = _root(place, mesh)
        made = [_make(place, root, of, host, days) for host in dict.fromkeys(hosts)]
    except OSError as error:
        fail(f"{error.filename or place}: {(error.strerror or 'cannot be written').lower()}", 1)
    except HostlaneError as error:
        fail(error, 1)
    if as_json:
        click.echo(msgspec.json.encode(made))
        return
    for each in made:
        click.echo(f"{each.certificate}, {each.key}: {each.uri}, until {when(each.expires)}")
    click.echo(f"they and {place / 'ca.pem'} go to the hosts; {place / 'ca.key'} goes nowhere")


def _files(place: Path, host: str) -> tuple[Path, Path]:
    return place / f"{host}.pem", place / f"{host}.key"


def _root(place: Path, mesh: str | None) -> tuple[RootCa, str]:
    """The CA that is there, or a new one, and its mesh. Raises HostlaneError for one that is of no use, and OSError."""
    from control.api.certificates import key_pem, pem, read_roots
    from control.ca.root import RootCa, mesh_of, new_root, read_key

    certificate, key = place / "ca.pem", place / "ca.key"
    there = [path for path in (certificate, key) if os.path.lexists(path)]
    if not there:
        made = new_root(mesh or "hostlane", time.time())
        write_file(str(key), key_pem(made.key).encode(), 0o600, replace=False)
        write_file(str(certificate), pem(made.certificate).encode(), 0o644, replace=False)
        return made, mesh or "hostlane"
    at = certificate
    try:
        found = read_roots(read_file(str(certificate), MOST, "PEM text").decode("ascii", "replace"))[0]
        at = key
        root = RootCa(found, read_key(read_file(str(key), MOST, "PEM text")))
    except ValueError as error:
        raise HostlaneError(f"{at}: {error}") from None
    if found.public_key() != root.key.public_key():
        raise HostlaneError(f"{key}: found another key than that of {certificate}; allowed: its key")
    if found.not_valid_after_utc.timestamp() <= time.time():
        raise HostlaneError(f"{certificate}: expired on {when(found.not_valid_after_utc.timestamp())}")
    of = mesh_of(found)
    if of is None and mesh is None:
        raise HostlaneError(f"{certificate}: does not say of which mesh it is; --mesh does")
    if of is not None and mesh not in (None, of):
        raise HostlaneError(f"{certificate}: found a CA of mesh {of}; allowed: --mesh {of}, or another directory")
    return root, of or str(mesh)


def _make(place: Path, root: RootCa, mesh: str, host: str, days: int) -> NewCertificate:
    """Raises OSError."""
    from control.api.certificates import key_pem, new_key
    from control.ca.root import CertificateNames, issue

    key, names = new_key(), CertificateNames.host(mesh, host)
    issued = issue(root, key.public_key(), names, time.time(), days * DAY)
    certificate_file, key_file = _files(place, host)
    write_file(str(key_file), key_pem(key).encode(), 0o600)
    write_file(str(certificate_file), issued.certificate.encode(), 0o644)
    return NewCertificate(
        host=host,
        uri=names.uri,
        certificate=str(certificate_file),
        key=str(key_file),
        ca=str(place / "ca.pem"),
        expires=issued.not_after,
    )
