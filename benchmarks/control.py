"""How far one control server goes: ``python -m benchmarks.control``. A thousand hosts (``--hosts``), each with a
certificate of its own and two TLS connections as a real one has (its watch, its requests), offer five services each
(``--services``).

joining storm     all of them register and begin to watch at once, as after a power cut
propagation       one host changes its services; until each watcher has the change
steady            nothing changes: every host says every five seconds that it is alive
restart           the control server is restarted; until all of them are back and have one more change

The hosts live in two load processes and speak HTTP/1.1 over TLS 1.3 themselves, with as little work per message as
Python allows; the control server is the product, started as its users start it. Needs no root and no network namespace,
but descriptors (``ulimit -n``): two for each host.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import random
import re
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import trio

from benchmarks import facts
from control.api import certificates, mesh
from control.api.client import CONNECTING, ONLY, ControlClient, Unreachable
from control.base.reading.addresses import CONTROL_SOCKET
from control.ca import root as ca
from control.cli.controlcommands import control as control_command

SERVER_CORE, HOSTS_CORE = 0, 1
"""Of those that this process may use, if there are two."""
PROCESSES = 2
REAL = PROCESSES
"""Number of the load process after those."""
WARM = 3
HANDSHAKES = 32
"""That one load process makes at a time."""
APART = 1.2
"""Seconds between two changes: more than the server leaves between two tellings, so that none waits for that."""
PATIENCE = 300.0
STEADY = 20.0
MIB = 1 << 20
MESH = "hostlane"
BEGIN, END = "<!-- results of benchmarks.control -->", "<!-- end of results -->"
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError)


def main() -> None:
    options = _options()
    # As Ctrl-C: whatever was started is ended on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.load is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        trio.run(_real if options.load == REAL else _load, options)
        return
    results = run(options)
    print(table(results))
    if options.docs:
        place = Path(options.docs)
        place.write_text(document(place.read_text(), results))
    if options.out:
        Path(options.out).write_text(json.dumps(results, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.control", description="How far one control server goes."
    )
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--services", type=int, default=5, help="of each host")
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--real", type=int, default=10, help="hosts that come in the storm with the product's client")
    parser.add_argument("--out", help="write the results there, as JSON")
    parser.add_argument("--docs", help="put the table into this document, docs/scale.md")
    parser.add_argument("--port", type=int, default=0, help="that the control server listens on; 0: any")
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement. Everything that it makes is gone afterwards."""
    if not options.port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            options.port = free.getsockname()[1]
    busy, before = facts.machine_busy(2.0), _load_average()
    with tempfile.TemporaryDirectory(prefix="hl-") as name:
        directory = Path(name)
        with _server(directory, options) as server:
            _certificates(directory, options)
            idle_memory = _memory(server.pid)
            results: dict[str, Any] = {
                "hosts": options.hosts, "services": options.hosts * options.services,
                "memory_empty_mib": idle_memory,
            }  # fmt: skip
            loads = [
                subprocess.Popen(
                    [*_on(HOSTS_CORE), sys.executable, "-m", "benchmarks.control",
                     "--load", str(number), "--directory", name,
                     "--port", str(options.port), "--hosts", str(options.hosts), "--real", str(options.real),
                     "--services", str(options.services),
                     "--changes", str(options.changes)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
                for number in range(PROCESSES + 1)
            ]  # fmt: skip
            try:
                results.update(_measure(loads, server, options))
            finally:
                for load in loads:
                    load.kill()
                    load.wait()
                    for pipe in (load.stdin, load.stdout):
                        if pipe is not None:
                            pipe.close()
    return {
        **results,
        "machine": {"cpu": _cpu_model(), "cores": os.cpu_count(), "busy_before": busy},
        "load_before": before,
        "load_after": _load_average(),
    }


def _measure(loads: list[subprocess.Popen[str]], server: Server, options: argparse.Namespace) -> dict[str, Any]:
    pid = server.pid
    _ask(loads, "ready")
    before = _cpu(pid)
    began = time.perf_counter()
    *storms, real = _ask(loads, "storm")
    storm = time.perf_counter() - began
    loads = loads[:PROCESSES]
    after = _cpu(pid)
    found: dict[str, Any] = {
        "storm_s": round(storm, 2),
        "storm_registered_p99_s": round(max(each["registered_p99"] for each in storms), 2),
        "storm_lost_leases": sum(each["lost"] for each in storms),
        "storm_given_up": sum(each["again"] for each in storms),
        "storm_real_s": [round(moment, 2) for moment in real["times"]],
        "storm_real_unreachable": real["again"],
        "storm_server_cpu_s": round(after - before, 2),
        "memory_full_mib": _memory(pid),
    }
    latencies: list[float] = []
    slowest: list[float] = []
    cpu, began = _cpu(pid), time.perf_counter()
    for number in range(options.changes + WARM):
        # Apart from each other, or the second is held back until the pace allows it.
        time.sleep(APART)
        sent = time.monotonic()
        revision = _ask(loads[:1], f"change {number}")[0]["revision"]
        heard = [moment - sent for each in _ask(loads, f"heard {revision}") for moment in each["times"]]
        if number >= WARM:
            latencies += heard
            slowest.append(max(heard))
        else:
            cpu, began = _cpu(pid), time.perf_counter()
    changing, took = _cpu(pid) - cpu, time.perf_counter() - began
    ordered = sorted(latencies)
    found["propagation_p50_s"] = round(statistics.median(ordered), 4)
    found["propagation_p99_s"] = round(ordered[int(len(ordered) * 0.99)], 4)
    found["propagation_max_s"] = round(ordered[-1], 4)
    found["last_watcher_p50_s"] = round(statistics.median(slowest), 4)
    cpu, began = _cpu(pid), time.perf_counter()
    time.sleep(STEADY)
    steady = (_cpu(pid) - cpu) / (time.perf_counter() - began)
    found["steady_cpu_percent"] = round(100 * steady, 1)
    # Hosts say that they are there also between changes.
    found["change_server_cpu_s"] = round((changing - steady * took) / options.changes, 4)
    found["memory_after_mib"] = _memory(pid)
    server.stop()
    server.start()
    began = time.perf_counter()
    revision = _ask(loads[:1], f"change {options.changes + WARM}")[0]["revision"]
    _ask(loads, f"heard {revision}")
    found["restart_s"] = round(time.perf_counter() - began, 2)
    found["restart_server_cpu_s"] = round(_cpu(server.pid), 2)
    found["restart_lost_leases"] = sum(each["lost"] for each in _ask(loads, "lost")) - found["storm_lost_leases"]
    return found


def _ask(loads: list[subprocess.Popen[str]], order: str) -> list[dict[str, Any]]:
    """Give all load processes an order, and wait until each has carried it out."""
    for load in loads:
        assert load.stdin is not None
        load.stdin.write(order + "\n")
        load.stdin.flush()
    answers = []
    for load in loads:
        assert load.stdout is not None
        line = load.stdout.readline()
        if not line:
            raise SystemExit("benchmarks.control: a load process ended before its time")
        answers.append(json.loads(line))
    return answers


class Server:
    """The control server, as a process of its own."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self._file = directory / "control.yaml"
        self._socket = directory / "run" / CONTROL_SOCKET
        self._file.write_text(
            f"name: control-1\nlisten: 127.0.0.1:{options.port}\nrun_dir: {directory}/run\n"
            f"state_dir: {directory}/state\nstore: {{sqlite: {{path: {directory}/state/store.db}}}}\n"
            "log: {level: error, format: json}\n"
        )
        with redirect_stdout(io.StringIO()):
            control_command(["init", "--config", str(self._file)], standalone_mode=False)

    def start(self) -> None:
        """Returns when it is ready."""
        hostlane = [sys.executable, "-c", "from control.cli.main import main; main()"]
        self._process = subprocess.Popen([*_on(SERVER_CORE), *hostlane, "control", "--config", str(self._file)])
        self.pid = self._process.pid
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("benchmarks.control: the control server did not start")
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def _server(directory: Path, options: argparse.Namespace) -> Iterator[Server]:
    server = Server(directory, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _on(core: int) -> list[str]:
    """In front of a command: it runs on that core. A real control server shares its CPU with none of its hosts."""
    usable = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(usable[core])] if len(usable) > core and len(usable) > 1 else []


def _certificates(directory: Path, options: argparse.Namespace) -> None:
    """A certificate for each host, by the server's own CA; one key for all, which costs nothing that is measured."""
    folder = directory / "state" / "ca"
    (key_file,) = folder.glob("*.key")
    (root_file,) = folder.glob("*.pem")
    root = ca.RootCa(certificates.read_roots(root_file.read_text())[0], ca.read_key(key_file.read_bytes()))
    (directory / "bundle.pem").write_text(certificates.pem(root.certificate))
    key, now = certificates.new_key(), time.time()
    names = [f"host-{number}" for number in range(options.hosts)] + [f"real-{number}" for number in range(options.real)]
    for name in names:
        leaf = ca.issue(root, key.public_key(), ca.CertificateNames.host(MESH, name), now, 86400.0)
        (directory / f"{name}.pem").write_text(leaf.certificate + certificates.key_pem(key))


class Host:
    """One host: its watch, and its requests.

    Attributes:
        lost: how often it was off the map because it could not say in time that it is there.
        again: connections that it has given up, or the server.
    """

    def __init__(
        self, directory: Path, port: int, number: int, services: int, handshakes: trio.CapacityLimiter
    ) -> None:
        self._port, self._handshakes = port, handshakes
        self.name = f"host-{number}"
        self._number, self._services = number, services
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.load_verify_locations(directory / "bundle.pem")
        self._context.load_cert_chain(directory / f"host-{number}.pem")
        self._requests: trio.SSLStream[trio.SocketStream] | None = None
        self._turn = trio.Lock()
        self.lost = self.again = 0
        self.epoch, self.revision = "", 0
        self.moment = 0.0

    async def _connect(self) -> trio.SSLStream[trio.SocketStream]:
        # From an address of its own, as a host has: the server's limits for one client hold here too.
        own = f"127.{64 + (self._number >> 16)}.{self._number >> 8 & 255}.{self._number & 255}"
        tcp = trio.socket.socket()
        stream = None
        try:
            await tcp.bind((own, 0))
            await tcp.connect(("127.0.0.1", self._port))
            stream = trio.SSLStream(
                trio.SocketStream(tcp), self._context, server_hostname=mesh.control_name(MESH), https_compatible=True
            )
            # A real host has a CPU of its own. One for hundreds of hosts must not have them all wait for it.
            async with self._handshakes:
                with trio.fail_after(CONNECTING * ONLY):
                    await stream.do_handshake()
        except BaseException:
            tcp.close()
            raise
        return stream

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body; one request at a time, and as often as it takes, with the patience of a real host."""
        async with self._turn:
            while True:
                try:
                    if self._requests is None:
                        self._requests = await self._connect()
                    with trio.fail_after(ONLY):
                        return await self._asked(self._requests, method, path, body)
                except BROKEN:
                    self.again += 1
                    if self._requests is not None:
                        await trio.aclose_forcefully(self._requests)
                        self._requests = None
                await trio.sleep(random.random())

    @staticmethod
    async def _asked(
        stream: trio.SSLStream[trio.SocketStream], method: str, path: str, body: bytes
    ) -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: c\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        await stream.send_all(head + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await _receive(stream)
        head, _, found = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        while length is not None and len(found) < int(length[1]):
            found += await _receive(stream)
        status = int(head.split()[1])
        if status >= 500:
            raise trio.BrokenResourceError("busy")
        return status, found

    async def register(self, change: int = 0) -> int:
        """Register; returns the revision."""
        names = [{"name": f"service-{self._number * self._services + each}"} for each in range(self._services)]
        if change:
            names.append({"name": f"change-{change}"})
        place = f"10.{64 + (self._number >> 16)}.{self._number >> 8 & 255}.{self._number & 255}:7600"
        record = {"name": self.name, "address": place, "instance": "1", "version": "0.1.0", "services": names}
        status, answer = await self._ask("PUT", f"/v1/hosts/{self.name}", json.dumps({"record": record}).encode())
        if status != 200:
            raise SystemExit(f"benchmarks.control: {answer!r}")
        return int(json.loads(answer)["revision"])

    async def stay(self) -> None:
        """Say every five seconds that it is there."""
        await trio.sleep(5.0 * (self._number % 97) / 97)
        while True:
            status, answer = await self._ask("POST", f"/v1/hosts/{self.name}/alive", b'{"instance":"1"}')
            if status == 404:
                # The server was too busy to hear of it for a whole lease: as a real host, it registers again.
                self.lost += 1
                await self.register()
            elif status not in (200, 204):
                raise SystemExit(f"benchmarks.control: {answer!r}")
            await trio.sleep(5.0)

    async def watch(self, heard: trio.Condition) -> None:
        """Follow the map, on one connection after the other if need be."""
        while True:
            try:
                await self._watch_once(heard)
            except BROKEN:
                self.again += 1
            await trio.sleep(random.random())

    async def _watch_once(self, heard: trio.Condition) -> None:
        """Only the revision of each message is looked at."""
        stream = await self._connect()
        try:
            with trio.fail_after(ONLY):
                after = f"?epoch={self.epoch}&after={self.revision}" if self.epoch else ""
                await stream.send_all(f"GET /v1/watch{after} HTTP/1.1\r\nHost: c\r\n\r\n".encode())
                pending = await _receive(stream)
            while True:
                if epoch := re.search(rb'"epoch":"(\w+)"', pending):
                    self.epoch = epoch[1].decode()
                found = re.findall(rb'"revision":(\d+)', pending)
                if found and int(found[-1]) > self.revision:
                    self.revision, self.moment = int(found[-1]), time.monotonic()
                    async with heard:
                        heard.notify_all()
                pending = pending[-64:] + await _receive(stream)
        finally:
            await trio.aclose_forcefully(stream)


async def _receive(stream: trio.SSLStream[trio.SocketStream]) -> bytes:
    data = await stream.receive_some(65536)
    if not data:
        raise trio.BrokenResourceError("the control server has closed a connection")
    return bytes(data)


async def _real(options: argparse.Namespace) -> None:
    """The load process of hosts whose client is the product's. They come with the storm, and say when they are done."""
    directory = Path(options.directory)
    await trio.to_thread.run_sync(sys.stdin.readline)
    print("{}", flush=True)
    await trio.to_thread.run_sync(sys.stdin.readline)
    times: list[float] = []
    again = 0
    began = time.perf_counter()

    async def arrive(number: int) -> None:
        nonlocal again
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(directory / "bundle.pem")
        context.load_cert_chain(directory / f"real-{number}.pem")
        record = mesh.HostRecord(name=f"real-{number}", address=f"10.63.0.{number + 1}:7600", instance="1")
        async with ControlClient([f"127.0.0.1:{options.port}"], lambda: context, name=MESH) as client:
            while True:
                try:
                    await client.register(record)
                    async with client.watch() as messages:
                        async for message in messages:
                            if isinstance(message, mesh.MapSnapshot):
                                times.append(time.perf_counter() - began)
                                return
                except Unreachable:
                    again += 1
                    await trio.sleep(random.random())

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for number in range(options.real):
                nursery.start_soon(arrive, number)
    print(json.dumps({"times": sorted(times), "again": again}), flush=True)


async def _load(options: argparse.Namespace) -> None:
    """A load process: orders on stdin, an answer each on stdout."""
    directory = Path(options.directory)
    handshakes = trio.CapacityLimiter(HANDSHAKES)
    numbers = range(options.load, options.hosts, PROCESSES)
    hosts = [Host(directory, options.port, number, options.services, handshakes) for number in numbers]
    # This process lives for minutes, and has more objects than its collector could look through beside its work.
    gc.disable()
    heard = trio.Condition()
    async with trio.open_nursery() as nursery:
        while order := (await trio.to_thread.run_sync(sys.stdin.readline)).split():
            with trio.fail_after(PATIENCE):
                if order[0] == "ready":
                    answer: dict[str, Any] = {}
                elif order[0] == "storm":
                    answer = await _storm(hosts, heard, nursery)
                elif order[0] == "lost":
                    answer = {"lost": sum(host.lost for host in hosts)}
                elif order[0] == "change":
                    answer = {"revision": await hosts[0].register(int(order[1]) + 1)}
                else:
                    wanted = int(order[1])
                    async with heard:
                        while any(host.revision < wanted for host in hosts):
                            await heard.wait()
                    answer = {"times": [host.moment for host in hosts]}
            print(json.dumps(answer), flush=True)
        nursery.cancel_scope.cancel()


async def _storm(hosts: list[Host], heard: trio.Condition, nursery: trio.Nursery) -> dict[str, Any]:
    """All hosts begin to watch and register at once; done when each is registered and has a first map."""
    times: list[float] = []
    began = time.perf_counter()

    async def arrive(host: Host) -> None:
        nursery.start_soon(host.watch, heard)
        await host.register()
        times.append(time.perf_counter() - began)
        nursery.start_soon(host.stay)

    async with trio.open_nursery() as arriving:
        for host in hosts:
            arriving.start_soon(arrive, host)
    async with heard:
        while any(host.revision == 0 for host in hosts):
            await heard.wait()
    times.sort()
    return {"registered_p99": times[int(len(times) * 0.99)], "lost": sum(host.lost for host in hosts),
            "again": sum(host.again for host in hosts)}  # fmt: skip


def _load_average() -> float:
    return round(os.getloadavg()[0], 1)


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    """Its resident memory, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / MIB, 1)


def _cpu_model() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "unknown"


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    rows = _rows(results)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def document(text: str, results: dict[str, Any]) -> str:
    """The text with the results between its two marks."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise SystemExit(f"benchmarks.control: no place for the results; it is between {BEGIN} and {END}")
    rows = "\n".join(f"| {name.strip()} | {value} |" for name, value in _rows(results))
    return f"{before}{BEGIN}\n\n| | |\n|---|---|\n{rows}\n\n{END}{after}"


def _real_row(results: dict[str, Any]) -> str:
    times = results["storm_real_s"]
    last = f"registered and with the map after {times[-1]} s at the latest; " if times else ""
    return f"{len(times)} hosts: {last}Unreachable {results['storm_real_unreachable']} times"


def _tenfold(results: dict[str, Any]) -> str:
    """All of it grows with the hosts; what a change costs by itself is little beside its watchers."""
    memory = results["memory_empty_mib"] + 10 * (results["memory_after_mib"] - results["memory_empty_mib"])
    return (
        f"{10 * results['change_server_cpu_s']:.1f} s of CPU for a change, {results['steady_cpu_percent'] / 10:.1f} "
        f"cores with nothing to tell, {10 * results['storm_server_cpu_s']:.0f} s of CPU when all come back, "
        f"{memory / 1024:.1f} GiB"
    )


def _rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    machine = results["machine"]
    return [
        ("hosts, services", f"{results['hosts']}, {results['services']}"),
        ("all register and watch at once", f"{results['storm_s']} s (p99 of registering "
         f"{results['storm_registered_p99_s']} s)"),
        ("  off the map meanwhile, and back", f"{results['storm_lost_leases']}"),
        ("  connections given up and made again", f"{results['storm_given_up']}"),
        ("  beside them, with the product's client", _real_row(results)),
        ("a change, until a watcher has it", f"p50 {results['propagation_p50_s'] * 1000:.0f} ms, "
         f"p99 {results['propagation_p99_s'] * 1000:.0f} ms, max {results['propagation_max_s'] * 1000:.0f} ms"),
        ("  until the last watcher has it", f"p50 {results['last_watcher_p50_s'] * 1000:.0f} ms"),
        ("the server is restarted, until all are back", f"{results['restart_s']} s, "
         f"{results['restart_server_cpu_s']} s of its CPU; off the map meanwhile: {results['restart_lost_leases']}"),
        ("server: CPU of the storm", f"{results['storm_server_cpu_s']} s"),
        ("server: CPU of one change", f"{results['change_server_cpu_s'] * 1000:.0f} ms"),
        ("server: CPU with nothing to tell", f"{results['steady_cpu_percent']} % of a core"),
        ("server: memory empty, full, in the end", f"{results['memory_empty_mib']}, {results['memory_full_mib']}, "
         f"{results['memory_after_mib']} MiB"),
        ("computed for ten times the hosts", _tenfold(results)),
        ("the machine", f"{machine['cores']} cores ({machine['cpu']}); before the run, other work took "
         f"{machine['busy_before'] * 100:.0f} % of it; load {results['load_before']} before, "
         f"{results['load_after']} after"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
