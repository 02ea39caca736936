"""Debian's nginx and PostgreSQL, unmodified, called on another host: by a label, through a Unix socket and by CONNECT.
(Redis is in all other tests.)
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.docker.conftest import Hosts
from tests.docker.engines import SERVICES, EngineHost
from tests.tools.sockets import eventually

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

FORWARD = Path(__file__).with_name("forward.py")
ACCOUNTS = "--volume=/etc/passwd:/etc/passwd:ro"
CONNECT = f"{SERVICES}/connect.sock"
USE = {"hostlane.use": "web@127.77.0.3:80,postgresql@127.77.0.4:5432"}
NGINX = """\
daemon off;
pid /tmp/pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server { listen 127.0.0.1:80; root FOLDER; }
}
"""
POSTGRESQL = """
initdb --pgdata=/tmp/db --auth=trust --username=postgres --no-sync --locale=C >/dev/null
exec postgres -D /tmp/db -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off
"""


def start_client(host: EngineHost, service: str, port: int) -> None:
    """A container that waits, for commands, and what lets them call by CONNECT."""
    host.run("client", ["sleep", "infinity"], f"--volume={host.sockets}/services:{SERVICES}",
             f"--volume={FORWARD}:{FORWARD}:ro", ACCOUNTS, labels=USE)  # fmt: skip
    argv = [os.path.realpath(sys.executable), str(FORWARD), str(port), CONNECT, service]
    host.docker("exec", "--detach", "client", *argv)


def test_nginx(empty: Hosts) -> None:
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None or shutil.which("curl") is None:
        pytest.skip("nginx or curl is not installed (Debian: apt-get install nginx-light curl)")
    a, b = empty
    page = os.urandom(300_000).hex()
    (b.files / "page").write_text(page)
    (b.files / "nginx.conf").write_text(NGINX.replace("FOLDER", str(b.files)))
    b.run("web", ["nginx", "-e", "stderr", "-c", f"{b.files}/nginx.conf"], "--tmpfs=/tmp", ACCOUNTS,
          "--volume=/etc/group:/etc/group:ro", "--cap-add=SETUID", "--cap-add=SETGID", "--cap-add=CHOWN",
          "--cap-add=NET_BIND_SERVICE", f"--volume={b.files}:{b.files}:ro",
          labels={"hostlane.offer": "web=tcp:127.0.0.1:80"})  # fmt: skip
    start_client(a, "web", 8081)
    for way in (
        ["http://127.77.0.3/page"],
        ["--unix-socket", f"{SERVICES}/web.sock", "http://web/page"],
        ["http://127.0.0.1:8081/page"],
    ):
        eventually(lambda way=way: a.says("client", "curl", "--silent", *way) == page, " ".join(way))


@pytest.fixture
def postgresql() -> Path:
    """Where its programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return found[-1].parent


def test_postgresql(empty: Hosts, postgresql: Path) -> None:
    """pgbench leaves four tables whose sums are equal, whatever has happened on the way."""
    a, b = empty
    path = f"--env=PATH={postgresql}:/usr/bin:/bin"
    b.run("database", ["sh", "-ec", POSTGRESQL], "--user=65534:65534", "--tmpfs=/tmp", path, ACCOUNTS,
          labels={"hostlane.offer": "postgresql=tcp:127.0.0.1:5432"})  # fmt: skip
    start_client(a, "postgresql", 5433)
    ways = (["-h", "127.77.0.4"], ["-h", SERVICES], ["-h", "127.0.0.1", "-p", "5433"])
    ask = ["-U", "postgres", "-d", "postgres"]
    for way in ways:
        argv = ["psql", *way, *ask, "-At", "-c", "select 6*7"]
        eventually(lambda argv=argv: a.says("client", f"{postgresql}/{argv[0]}", *argv[1:]) == "42", " ".join(way))
    pgbench = ["exec", "client", f"{postgresql}/pgbench"]
    a.docker(*pgbench, *ways[0], "-U", "postgres", "-i", "-q", "postgres")
    for way in ways:
        said = a.docker(*pgbench, *way, "-U", "postgres", "-n", "-c", "8", "-t", "20", "postgres")
        assert "number of transactions actually processed: 160/160" in said
        assert "failed transactions: 0" in said
    sums = " ".join(
        f"(select sum({column}) from pgbench_{table})," for table, column in
        (("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance"), ("history", "delta"))
    )  # fmt: skip
    query = f"select {sums} (select count(*) from pgbench_history)"
    psql = ["exec", "client", f"{postgresql}/psql", *ways[0], *ask, "-At"]
    *equal, transactions = a.docker(*psql, "-c", query).split("|")
    assert len(set(equal)) == 1
    assert int(transactions) == 160 * len(ways)
