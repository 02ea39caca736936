"""The lab must be what it says: macvlan untracked, the Docker path tracked, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.demo import lab as labs
from proxy.demo import netns, processes
from proxy.demo.docker_path import CONTAINER
from proxy.demo.lab import Lab, LabHost
from proxy.demo.mesh import HOSTLANE

pytestmark = pytest.mark.netns


def serve(host: LabHost, address: str, port: int = 0) -> socket.socket:
    listener = host.socket()
    listener.bind((address, port))
    listener.listen()
    return listener


def exchange(client: socket.socket, listener: socket.socket, payload: bytes = b"hello") -> None:
    with client, listener:
        client.settimeout(10)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            client.sendall(payload)
            assert accepted.recv(len(payload), socket.MSG_WAITALL) == payload


def tracked(host: LabHost, text: str) -> list[str]:
    """Entries of a host's connection tracking, in either namespace, that hold ``text``."""
    lists = [netns.run(netns.inside(name, ["conntrack", "-L"])) for name in host.cabled]
    return [entry for entries in lists for entry in entries.splitlines() if text in entry]


def names(lab: Lab) -> set[str]:
    return {name for host in lab.hosts for name in (host.netns, host.machine_netns, host.container_netns)}


def existing() -> set[str]:
    return {line.split()[0] for line in netns.run(["ip", "netns", "list"]).splitlines() if line}


def test_macvlan_joins_the_hosts_both_ways_and_is_not_tracked(lab: Lab) -> None:
    for near, far in ((lab.a, lab.b), (lab.b, lab.a)):
        listener = serve(far, far.address)
        exchange(near.socket(), listener)
        macvlan = netns.run(["ip", "-n", far.netns, "-br", "link", "show", "mv0"]).split()[2]
        assert macvlan in netns.run(["ip", "-n", near.netns, "neighbour", "show", far.address]), "not past the macvlan"
    assert "macvlan mode bridge" in netns.run(["ip", "-d", "-n", lab.a.netns, "link", "show", "mv0"])
    assert [tracked(host, "10.77.0.") for host in lab.hosts] == [[], []]


def test_mv0_is_what_net_apply_makes_of_the_section(lab: Lab, tmp_path: Path) -> None:
    links = f"links: {{listen: {lab.a.address}:7600, security: none}}\n"
    (tmp_path / "host-a.yaml").write_text(f"host: {lab.a.name}\n{links}{lab.a.section}")
    apply = lab.a.command([*HOSTLANE, "net", "apply", "--config", str(tmp_path / "host-a.yaml")])
    assert netns.run(apply) == "nothing to change\n"
    with Lab(interfaces=False) as bare:
        with pytest.raises(netns.LabError):
            netns.run(["ip", "-n", bare.a.netns, "link", "show", "mv0"])
        netns.run([word.replace(lab.a.netns, bare.a.netns) for word in apply])
        kept = [netns.run(["ip", "-n", host.netns, "-br", "link", "show", "mv0"]) for host in (lab.a, bare.a)]
        assert kept[0] == kept[1]
        assert bare.b.address not in netns.run(["ip", "-n", bare.b.netns, "address"])


def test_docker_path_is_masqueraded_forwarded_and_tracked(lab: Lab) -> None:
    lab.publish(8080, 80)
    listener = netns.make_socket(lab.b.container_netns)
    listener.bind((CONTAINER, 80))
    listener.listen()
    client = netns.make_socket(lab.a.container_netns)
    with listener, client:
        client.settimeout(10)
        client.connect((lab.b.machine_address, 8080))
        accepted, source = listener.accept()
        accepted.close()
        assert source[0] == lab.a.machine_address, "the container's own address left the host: no masquerade"
        assert client.getsockname()[0] == CONTAINER
    assert [len(tracked(host, "dport=8080 ")) for host in lab.hosts] == [1, 1]
    assert all(host.conntrack_count() >= 1 for host in lab.hosts)


def test_unpublished_port_of_a_container_is_not_reached(lab: Lab) -> None:
    with netns.make_socket(lab.a.container_netns) as client:
        client.settimeout(10)
        with pytest.raises(ConnectionRefusedError):
            client.connect((lab.b.machine_address, 8081))


def test_shape_and_unshape(lab: Lab) -> None:
    ends = (*lab.a.cabled, *lab.b.cabled)

    def qdisc(end: str) -> str:
        return netns.run(["tc", "-n", end, "qdisc", "show", "dev", "cable0"])

    assert not any("tbf" in qdisc(end) for end in ends)
    lab.shape("1gbit")
    lab.shape("500mbit")
    try:
        assert all("tbf" in qdisc(end) and "rate 500Mbit" in qdisc(end) for end in ends)
        listener = serve(lab.b, lab.b.address)
        exchange(lab.a.socket(), listener, b"x" * 40_000)
    finally:
        lab.unshape()
    lab.unshape()
    assert not any("tbf" in qdisc(end) for end in ends)


def test_cable_down_and_up(lab: Lab) -> None:
    listener = serve(lab.b, lab.b.address)
    with listener, lab.a.socket() as client:
        client.settimeout(10)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            lab.a.cable_down()
            client.sendall(b"kept by TCP")
            accepted.settimeout(0.05)
            with pytest.raises(TimeoutError):
                accepted.recv(1)
            lab.a.cable_up()
            accepted.settimeout(30)
            assert accepted.recv(11, socket.MSG_WAITALL) == b"kept by TCP"


def test_command_and_popen_run_on_their_host(lab: Lab) -> None:
    shown = subprocess.run(lab.b.command(["ip", "-4", "-o", "addr"]), capture_output=True, text=True, check=True).stdout
    assert lab.b.address in shown
    process = lab.b.popen(["ip", "-4", "-o", "addr"], container=True, stdout=subprocess.PIPE, text=True)
    assert CONTAINER in process.communicate(timeout=30)[0]


def test_two_labs_coexist() -> None:
    with Lab() as one, Lab() as two:
        assert names(one).isdisjoint(names(two))
        for lab in (one, two):
            listener = serve(lab.b, lab.b.address, 7000)
            exchange(lab.a.socket(), listener)


def test_exit_ends_processes_and_removes_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    with Lab() as lab:
        polite = lab.a.popen(["sleep", "600"])
        shell = "trap '' TERM; sleep 600 & echo ready; wait; sleep 600"
        stubborn = lab.b.popen(["sh", "-c", shell], stdout=subprocess.PIPE)
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == b"ready\n"
        inside = [pid for host in lab.hosts for pid in netns.pids(host.netns)]
    assert polite.returncode == -signal.SIGTERM
    assert stubborn.returncode == -signal.SIGKILL
    assert names(lab).isdisjoint(existing())
    assert len(inside) == 3
    assert not any(alive(pid) for pid in inside)


def test_nothing_is_left_after_an_exception() -> None:
    with pytest.raises(KeyboardInterrupt), Lab() as lab:
        raise KeyboardInterrupt
    assert names(lab).isdisjoint(existing())


def test_nothing_is_left_when_building_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(machine: str, container: str) -> None:
        raise labs.LabError("no bridge today")

    monkeypatch.setattr(labs.docker_path, "build", fail)
    lab = Lab()
    with pytest.raises(labs.LabError, match="no bridge today"), lab:
        pass
    assert names(lab).isdisjoint(existing())


def test_a_killed_lab_is_swept_up_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    # Under a name of its own: other tests' labs, in other processes, sweep too.
    own = "hostlane-killed"
    monkeypatch.setattr(netns, "_NAME", re.compile(netns._NAME.pattern.replace(netns.PREFIX, own, 1)))
    monkeypatch.setattr(netns, "PREFIX", own)
    script = (
        "import os\n"
        "from proxy.demo import lab, netns\n"
        f"netns.PREFIX = {own!r}\n"
        "lab.Lab().__enter__()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    dead = subprocess.Popen([sys.executable, "-c", script])
    dead.wait()
    assert any(f"-{dead.pid}-" in name for name in existing())
    with Lab():
        assert not any(f"-{dead.pid}-" in name for name in existing())


def alive(pid: int) -> bool:
    """False too for a zombie that its new parent has not collected yet."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_missing_names_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Lab.missing() is None
    monkeypatch.setenv("PATH", "/nowhere")
    assert Lab.missing() == "ip is not installed (Debian: apt-get install iproute2)"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Lab.missing() == "not root (network namespaces need it)"


def test_a_signal_waits_for_the_end_of_the_cleaning_up() -> None:
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from proxy.demo import lab, netns\n"
        "def stop(processes): os.kill(os.getpid(), signal.SIGINT)\n"
        "lab.stop = stop\n"
        "with lab.Lab(): pass\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert not any(f"-{process.pid}-" in name for name in existing())
