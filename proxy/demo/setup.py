"""What the demo measures: a Redis server, a mesh of two hosts in front of it, and the ways from host A to host B."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from proxy.demo import mesh, netns, redis
from proxy.demo.controlserver import ControlServer
from proxy.demo.docker_path import CONTAINER
from proxy.demo.forward import PortForward
from proxy.demo.lab import Lab
from proxy.demo.loopback import Loopback
from proxy.demo.mesh import DemoProxy
from proxy.demo.paths import DemoPath
from proxy.demo.processes import BackgroundProcess, DemoError, begin
from proxy.demo.redis import RedisClient

REDIS_PORT, LINK_PORT, CONTROL_PORT = 6379, 7600, 7601
PAGE_PORT, MESH_PAGE_PORT = 7690, 7691
PROOF_BYTES = 1 << 20
SLEEP = ["sleep", "60"]


@dataclass
class DemoSetup:
    """Built by `on_two_hosts` or `on_loopback`; the lab or loopback it was built on ends its processes."""

    server: ControlServer
    near: DemoProxy
    far: DemoProxy
    folder: Path
    start_servers: Callable[[Path], list[BackgroundProcess]]
    """Called with the path of the Unix socket that the far proxy delivers to."""
    direct: list[DemoPath]
    """The ways without Hostlane."""
    container: Callable[[], Sequence[str]] = tuple
    """Options of ``hostlane explain`` that show the direct way as a container has it."""
    services: list[BackgroundProcess] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        """What a client on host A connects to: there because host B offers ``redis``."""
        return self.near.socket_dir / "redis.sock"

    @property
    def server_socket(self) -> Path:
        """What the proxy on host B delivers to."""
        return self.folder / "server.sock"

    @property
    def ways(self) -> list[DemoPath]:
        """The mesh first, then the direct ways."""
        # A link counts once, at host A: dialled from there, or accepted there.
        links = f"( dport = :{self.far.port} or sport = :{self.near.port} )"
        name = "Hostlane, Unix socket"
        return [DemoPath(name, self.near.place, ("-s", str(self.socket)), links, through_mesh=True), *self.direct]

    def configure(self) -> None:
        """Write a configuration for each host and for the control server."""
        self.server.file.write_text(self.server.configuration())
        self.near.file.write_text(mesh.configuration(self.near, self.server.address))
        self.far.file.write_text(mesh.configuration(self.far, self.server.address, offers=self.server_socket))

    def make_interfaces(self) -> Iterator[str]:
        """Have ``hostlane net apply`` make them on each host that wants some; yields what to show of it. DemoError."""
        for end in (self.near, self.far):
            if end.place.section:
                said = mesh.make_interfaces(end)
                yield f"{end.place.name}$ hostlane net apply --config {end.file.name}\n{said}"

    def start(self) -> Iterator[str]:
        """Set up the control plane, have both hosts join, and end when Redis answers through the mesh.

        Configurations and interfaces are there. Yields the commands with what they print, for people. Raises DemoError
        when something does not start.
        """
        self.services += self.start_servers(self.server_socket)
        redis.wait_until_it_answers(self.server_socket, self.services)
        prompt, option = f"{self.server.place.name}$ hostlane", f"--config {self.server.file.name}"
        yield f"{prompt} control init {option}\n{self.server.init()}"
        self.services.append(self.server.start())
        lines = [f"{prompt} control {option} &"]
        for end in (self.far, self.near):
            self.server.let_in(end)
            lines.append(f"{prompt} token create --host {end.place.name} {option} > {end.token.name}")
        for end in (self.far, self.near):
            self.services.append(mesh.start(end))
            lines.append(f"{end.place.name}$ hostlane proxy --config {end.file.name} &")
        yield "\n".join([*lines, ""])
        redis.wait_until_it_answers(self.socket, self.services)
        for what in ("hosts", "services"):
            yield f"{prompt} {what} {option}\n{self.server.show(what)}"

    def check(self) -> None:
        """Raises DemoError if a server or a proxy has died."""
        for service in self.services:
            service.check()

    def show_pages(self, stack: ExitStack) -> list[tuple[str, str]]:
        """Bring the pages of mesh and hosts to this machine until ``stack`` ends: what each shows, and where."""
        ends = [(each.place.name, each.place, each.page_port) for each in (self.near, self.far)]
        found = []
        for what, place, port in (("the mesh", self.server.place, self.server.page_port), *ends):
            if port is not None:
                forward = stack.enter_context(PortForward(place, port))
                found.append((what, f"http://127.0.0.1:{forward.port}/"))
        return found

    def handshakes_avoided(self) -> int:
        return int(mesh.status(self.near)["handshakes_avoided"])

    def explain(self) -> str:
        """The layers of a message, directly and through Hostlane. Raises DemoError."""
        return mesh.explain(self.near, "redis", self.container())

    def prove(self) -> str:
        """Send a random value through the mesh, read it back, and read it from the server itself.

        Returns the line that says so. Raises DemoError if a byte differs.
        """
        value = os.urandom(PROOF_BYTES)
        try:
            with RedisClient(self.socket) as through, RedisClient(self.server_socket) as server:
                through.call(b"SET", b"hostlane:proof", value)
                returned, stored = through.call(b"GET", b"hostlane:proof"), server.call(b"GET", b"hostlane:proof")
        except OSError as error:
            raise DemoError(f"the proof value did not get through the mesh: {error}") from None
        if returned != value or stored != value:
            raise DemoError("bytes changed on their way through the mesh: this is a bug in Hostlane")
        digest, size = hashlib.sha256(returned).hexdigest()[:16], PROOF_BYTES >> 20
        return f"Byte-exact: {size} MiB of random bytes, set and read back through the mesh (sha256 {digest}…)"


def on_two_hosts(lab: Lab, folder: Path) -> DemoSetup:
    """Host B's Redis on its macvlan address; a second one in its container, published as Docker would."""

    def servers(path: Path) -> list[BackgroundProcess]:
        lab.publish(REDIS_PORT, REDIS_PORT)
        return [
            redis.serve(lab.b, lab.b.address, REDIS_PORT, path),
            redis.serve(lab.b, CONTAINER, REDIS_PORT, folder / "container.sock", container=True),
        ]

    def direct(name: str, address: str, container: bool) -> DemoPath:
        target = ("-h", address, "-p", str(REDIS_PORT))
        return DemoPath(name, lab.a, target, f"( dport = :{REDIS_PORT} )", container=container)

    ways = [
        direct("direct, bridge + NAT", lab.b.machine_address, container=True),
        direct("direct, macvlan", lab.b.address, container=False),
    ]
    def container() -> list[str]:
        # explain looks into a namespace through a process that lives there; on a real host there always is one.
        begin(netns.inside(lab.a.machine_netns, SLEEP), lab.a.processes, {})
        process = lab.a.popen(SLEEP, container=True)
        return ["--from", str(process.pid), "--to", lab.b.machine_address]

    near, far = (
        DemoProxy(host, LINK_PORT, folder / letter, PAGE_PORT) for host, letter in zip(lab.hosts, "ab", strict=True)
    )
    server = ControlServer(lab.a, CONTROL_PORT, folder, MESH_PAGE_PORT)
    return DemoSetup(server, near, far, folder, servers, ways, container)


def on_loopback(machine: Loopback, folder: Path) -> DemoSetup:
    """Everything on 127.0.0.1, on ports that are free now."""
    redis_port, control_port, near_port, far_port, *pages = free_ports(7)

    def servers(path: Path) -> list[BackgroundProcess]:
        return [redis.serve(machine.b, machine.b.address, redis_port, path)]

    target = ("-h", machine.b.address, "-p", str(redis_port))
    way = DemoPath("direct, loopback TCP", machine.a, target, f"( dport = :{redis_port} )")
    near = DemoProxy(machine.a, near_port, folder / "a", pages[0])
    far = DemoProxy(machine.b, far_port, folder / "b", pages[1])
    server = ControlServer(machine.a, control_port, folder, pages[2])
    return DemoSetup(server, near, far, folder, servers, [way])


def free_ports(count: int) -> list[int]:
    """Different TCP ports of the loopback that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
