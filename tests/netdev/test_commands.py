"""``hostlane net`` as a user runs it: processes in a namespace, what they print and how they exit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.demo import netns
from proxy.netdev.commands import columns
from tests.netdev.machine import HEAD, dump, ip

pytestmark = pytest.mark.netns

MAIN = [sys.executable, "-c", "from control.cli.main import main; main()"]
MAC = "02:00:00:00:00:01"
HL0 = f'interfaces: {{hl0: {{parent: eth0, mac: "{MAC}", addresses: [10.9.0.1/24]}}}}\n'
STEPS = [
    f"hl0: create macvlan on eth0, mode bridge, mac {MAC}",
    "hl0: mark as hostlane:a:hl0:arp",
    "eth0: set arp_ignore 1",
    "eth0: set arp_announce 2",
    "hl0: set arp_ignore 1",
    "hl0: set arp_announce 2",
    "hl0: set up",
    "hl0: add address 10.9.0.1/24",
]


SETTINGS = ("arp_ignore", "arp_announce", "rp_filter")


@pytest.fixture(autouse=True)
def kernels(space: str) -> None:
    """The kernel's own settings: a namespace begins with those of the machine."""
    for name in ("all", "default", "eth0"):
        for key in SETTINGS:
            netns.run(netns.inside(space, ["sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{name}/{key}"]))


def settings(space: str) -> list[str]:
    files = [f"/proc/sys/net/ipv4/conf/eth0/{key}" for key in SETTINGS]
    return netns.run(netns.inside(space, ["cat", *files])).split()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f.yaml"
    path.write_text(HEAD + HL0)
    return path


def net(space: str, *words: object) -> tuple[int, list[str], list[str]]:
    """Exit code and the lines of standard output and error."""
    argv = netns.inside(space, [*MAIN, "net", *map(str, words)])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def test_from_plan_to_remove(space: str, file: Path) -> None:
    before = dump(space)
    assert net(space, "plan", "--config", file) == (0, STEPS, [])
    assert dump(space) == before, "a plan changes nothing"
    assert net(space, "status", "--config", file)[::2] == (1, ["hostlane: hl0: not made yet"])
    assert net(space, "apply", "--config", file) == (0, STEPS, [])
    after = dump(space)
    assert net(space, "apply", "--config", file) == (0, ["nothing to change"], [])
    assert dump(space) == after
    code, said, errors = net(space, "status", "--config", file)
    assert (code, errors) == (0, [])
    assert [line.split() for line in said] == [
        ["interface", "kind", "parent", "mac", "mtu", "addresses"],
        ["hl0", "macvlan", "eth0", MAC, "1500", "10.9.0.1/24"],
    ]
    assert settings(space) == ["1", "2", "0"]
    gone = ["hl0: delete", "eth0: set arp_announce 0", "eth0: set arp_ignore 0"]
    assert net(space, "remove", "--config", file) == (0, gone, [])
    assert dump(space) == before
    assert settings(space) == ["0", "0", "0"]
    assert net(space, "remove", "--config", file) == (0, ["nothing to change"], [])


def test_json(space: str, file: Path) -> None:
    code, said, _ = net(space, "apply", "--json", "--config", file)
    assert (code, json.loads("".join(said))) == (0, {"steps": STEPS, "problems": [], "notes": []})
    ip(space, "link set cable down")
    code, said, _ = net(space, "status", "--json", "--config", file)
    (state,) = json.loads("".join(said))
    assert code == 1
    assert (state["name"], state["addresses"], state["problem"][:18]) == ("hl0", ["10.9.0.1/24"], "hl0 has no carrier")


def test_what_cannot_be_done(space: str, file: Path) -> None:
    before = dump(space)
    file.write_text(HEAD + "interfaces: {hl0: {parent: eth7}, eth0: {parent: cable}}\n")
    problems = [
        "hostlane: hl0: parent eth7 does not exist; there are: cable, eth0, lo",
        "hostlane: eth0: exists and is not marked as this host's (no alias); choose another name, or remove or "
        "rename it",
    ]
    assert net(space, "plan", "--config", file) == (1, [], problems)
    code, said, errors = net(space, "apply", "--config", file)
    assert (code, said) == (1, [])
    assert errors == ["; ".join(line.removeprefix("hostlane: " * bool(i)) for i, line in enumerate(problems))]
    file.write_text("host: a\ninterfaces: {hl0: {parent: eth7, mode: router}}\n")
    code, said, errors = net(space, "plan", "--config", file)
    assert (code, said) == (2, [])
    assert errors[-1] == (f'{file}:2: interfaces.hl0.mode: found "router"; allowed: bridge | private | vepa | passthru')
    assert net(space, "status")[0] == 2
    assert dump(space) == before


def test_budget(space: str, file: Path) -> None:
    file.write_text(HEAD + HL0 + "segments: {front: {parent: eth0, mac_limit: 3, hosts: 2}}\n")
    code, said, errors = net(space, "budget", "--config", file)
    assert [line.split() for line in said][1:] == [["front", "eth0", "-", "2", "-", "1", "3", "2"]]
    assert (code, errors) == (
        1,
        ["hostlane: segment front: this host would use 2 MACs of its share of 1 (3 for 2 hosts)"],
    )
    wanted = ("--hosts", 100, "--containers", 200, "--mac-limit")
    code, said, _ = net(space, "budget", *wanted, 4096, "--config", file)
    assert (code, said[0][:47]) == (0, "5 segments with at most 20 hosts each; each hos")
    code, said, _ = net(space, "budget", *wanted, 4096, "--json", "--config", file)
    assert json.loads(said[0])["segments"] == 5
    assert net(space, "budget", *wanted, 2, "--config", file)[0] == 2
    assert net(space, "budget", "--hosts", 5, "--config", file)[0] == 2


def test_attach_and_detach_a_process(space: str, file: Path) -> None:
    before = dump(space)
    process = subprocess.Popen(
        netns.inside(space, ["unshare", "-n", "sh", "-c", "echo ready; exec sleep 600"]), stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        with process.stdout as ready:
            assert ready.readline() == b"ready\n"
        options = ("--pid", process.pid, "--config", file)
        code, said, errors = net(
            space, "attach", "--parent", "eth0", "--mac", MAC, "--address", "10.9.0.5/24", "--name", "net0", *options
        )
        assert (code, errors) == (0, [])
        assert said[-1] == "net0: add address 10.9.0.5/24"
        shown = netns.run(["nsenter", "-t", str(process.pid), "-n", "ip", "-br", "addr", "show", "net0"]).split()
        assert (shown[0].partition("@")[0], shown[1], shown[2]) == ("net0", "UP", "10.9.0.5/24")
        assert net(space, "detach", *options) == (0, ["net0: delete"], [])
        assert net(space, "detach", *options) == (0, ["nothing to change"], [])
        assert net(space, "attach", "--address", "10.9.0.5", *options)[0] == 2
        assert net(space, "attach", "--config", file)[0] == 2
    finally:
        process.kill()
        process.wait()
    assert dump(space) == before


def test_columns() -> None:
    assert columns(("a", "bb"), [("long", "x"), ("", "")]) == ["a     bb", "long  x", ""]
