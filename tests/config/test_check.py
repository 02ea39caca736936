from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from control.base.reading.addresses import HOST_PORT
from proxy.config import check
from proxy.config import schema as config
from proxy.errors import ConfigError

HEAD = "host: a\nlinks: {listen: 10.0.0.1:7600, security: none}\n"


def problems(text: str) -> list[str]:
    try:
        config.parse(text, "f")
    except ConfigError as error:
        return error.problems
    return []


TLS_NEEDED = (
    "links.tls: missing; allowed: a mapping with certificate, key, ca for mutual TLS "
    '(or "security: none" beside it, only on an isolated segment)'
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host: a\nlinks:\n  listen: 10.0.0.1:7600\n", [f"f:2: {TLS_NEEDED}"]),
        ("host: a\nlinks:\n  listen: 10.0.0.1:1\n  security: mtls\n", [f"f:2: {TLS_NEEDED}"]),
        ("host: a\nlinks:\n  listen: 10.0.0.1:1\n  tls: {certificate: /c, key: /k, ca: /a}\n", []),
        ("host: a\nlinks:\n  listen: 10.0.0.1:1\n  tls: {certificate: c, key: /k}\n",
         ['f:4: links.tls.certificate: found "c"; allowed: an absolute path',
          "f:4: links.tls.ca: missing; allowed: an absolute path"]),
        ("host: a\nlinks:\n  listen: 10.0.0.1:1\n  security: tls\n",
         ['f:4: links.security: found "tls"; allowed: mtls | none']),
        # Misspelt: one line, not two.
        (
            "host: a\nlinks: {listen: 10.0.0.1:1, secuirty: none}\n",
            [
                'f:2: links.secuirty: unknown key (did you mean "security"?); allowed: listen, address, segment, '
                "interface, security, tls, max_per_peer, dial_timeout, ping_interval, ping_timeout, refused_timeout, "
                "resume_timeout, replay_buffer"
            ],
        ),
    ],
)  # fmt: skip
def test_security(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


TOGETHER = {
    "own name as a peer": (
        "peers: {a: {address: 10.0.0.2:1}}",
        'peers.a: found this host\'s own name "a"; allowed: names of other hosts',
    ),
    "two peers, one address": (
        "peers: {b: {address: 10.0.0.2:1}, c: {address: 10.0.0.2:1}}",
        'peers.c.address: found "10.0.0.2:1", which is also peers.b.address; allowed: an address of its own',
    ),
    "own address as a peer's": (
        "peers: {b: {address: 10.0.0.1:7600}}",
        'peers.b.address: found "10.0.0.1:7600", which is also links.listen of this host; '
        "allowed: an address of its own",
    ),
    "a service twice": (
        "peers: {b: {address: 10.0.0.2:1, services: [x, y, x]}}",
        'peers.b.services[2]: found "x" a second time; allowed: each service once',
    ),
    "two upstreams, one path": (
        "services: {x: {deliver: 'unix:/s'}, y: {deliver: 'unix:/t'}}\n"
        "upstreams: {x: {listen: 'unix:/u'}, y: {listen: 'unix://u'}}",
        'upstreams.y.listen: found "unix:/u", where upstreams.x listens; allowed: a place of its own',
    ),
    "an upstream on the admin socket": (
        "services: {x: {deliver: 'unix:/s'}}\nupstreams: {x: {listen: 'unix:/run/hostlane/admin.sock'}}",
        'upstreams.x.listen: found "unix:/run/hostlane/admin.sock", in run_dir /run/hostlane, where the sockets that '
        "command live (docs/upgrade.md); allowed: another directory, such as /run/hostlane-services",
    ),
    "an upstream in run_dir, as in earlier versions": (
        "services: {x: {deliver: 'unix:/s'}}\nupstreams: {x: {listen: 'unix:/run/hostlane/shop/x.sock'}}",
        'upstreams.x.listen: found "unix:/run/hostlane/shop/x.sock", in run_dir /run/hostlane, where the sockets that '
        "command live (docs/upgrade.md); allowed: another directory, such as /run/hostlane-services",
    ),
    "a service in run_dir": (
        "run_dir: /a/b\nsocket_dir: /c\nservices: {x: {deliver: 'unix:/a/b/s'}}",
        'services.x.deliver: found "unix:/a/b/s", in run_dir /a/b, where the sockets that command live '
        "(docs/upgrade.md); allowed: another directory, such as /c",
    ),
    "socket_dir in run_dir": (
        "run_dir: /a/b\nsocket_dir: /a/b/c",
        'socket_dir: found socket_dir "/a/b/c" and run_dir /a/b, where the sockets that command live '
        "(docs/upgrade.md); allowed: neither within the other",
    ),
    "run_dir in socket_dir": (
        "socket_dir: /a\nrun_dir: /a/b",
        'socket_dir: found socket_dir "/a" and run_dir /a/b, where the sockets that command live (docs/upgrade.md); '
        "allowed: neither within the other",
    ),
    "metrics where links arrive": (
        "telemetry: {listen: '10.0.0.1:7600'}",
        'telemetry.listen: found "tcp:10.0.0.1:7600", where links.listen listens; allowed: a place of its own',
    ),
    "an upstream where metrics are": (
        "telemetry: {listen: '127.0.0.1:9600'}\nupstreams: {x: {listen: 'tcp:127.0.0.1:9600'}}\n"
        "services: {x: {deliver: 'unix:/x'}}",
        'upstreams.x.listen: found "tcp:127.0.0.1:9600", where telemetry.listen listens; allowed: a place of its own',
    ),
    "metrics at a name": (
        "telemetry: {listen: 'localhost:9600'}",
        'telemetry.listen: found "localhost:9600", a bad IP address; allowed: IP:PORT or [IPv6]:PORT, port 1 to 65535',
    ),
    "a port where a name is wanted": (
        "telemetry: {hosts: ['a.example:9600']}",
        'telemetry.hosts[0]: found "a.example:9600"; allowed: a host name, without a port',
    ),
    "more streams than there are": (
        "telemetry: {sample_streams: 2}",
        "telemetry.sample_streams: found 2; allowed: auto, or a number above 0 and at most 1, such as 0.01",
    ),
    "the socket for monitoring in run_dir": (
        "telemetry: {socket: /run/hostlane/status.sock}",
        'telemetry.socket: found "/run/hostlane/status.sock" beside run_dir /run/hostlane; '
        "allowed: a directory of its own, such as /run/hostlane-telemetry",
    ),
    "the socket for monitoring below socket_dir": (
        "socket_dir: /a/b\ntelemetry: {socket: /a/b/c/status.sock}",
        'telemetry.socket: found "/a/b/c/status.sock" beside socket_dir /a/b; '
        "allowed: a directory of its own, such as /run/hostlane-telemetry",
    ),
    "the socket for monitoring above both": (
        "telemetry: {socket: /run/status.sock}",
        'telemetry.socket: found "/run/status.sock" beside run_dir /run/hostlane; '
        "allowed: a directory of its own, such as /run/hostlane-telemetry",
    ),
    "the socket for monitoring among all upstreams": (
        "upstreams: all\nall_upstreams: {directory: /all}\ntelemetry: {socket: /all/status.sock}",
        'telemetry.socket: found "/all/status.sock" beside all_upstreams.directory /all; '
        "allowed: a directory of its own, such as /run/hostlane-telemetry",
    ),
    "an upstream in the directory of the socket for monitoring": (
        "services: {x: {deliver: 'unix:/s'}}\nupstreams: {x: {listen: 'unix:/m/x.sock'}}\n"
        "telemetry: {socket: /m/status.sock}",
        'upstreams.x.listen: found "unix:/m/x.sock", in the directory of telemetry.socket; allowed: another directory',
    ),
    "a service in the directory of the socket for monitoring": (
        "services: {x: {deliver: 'unix:/m/s/x.sock'}}\ntelemetry: {socket: /m/status.sock}",
        'services.x.deliver: found "unix:/m/s/x.sock", in the directory of telemetry.socket; '
        "allowed: another directory",
    ),
    "no path of a socket": (
        "telemetry: {socket: 'unix:/m/status.sock'}",
        'telemetry.socket: found "unix:/m/status.sock"; allowed: an absolute path',
    ),
    "run_dir above the default socket_dir": (
        "run_dir: /run",
        'run_dir: found socket_dir "/run/hostlane-services" and run_dir /run, where the sockets that command live '
        "(docs/upgrade.md); allowed: neither within the other",
    ),
    "an upstream on the links' port": (
        "services: {x: {deliver: 'unix:/s'}}\nupstreams: {x: {listen: 'tcp:0.0.0.0:7600'}}",
        'upstreams.x.listen: found "tcp:0.0.0.0:7600", where links.listen listens; allowed: a place of its own',
    ),
    "round in circles": (
        "upstreams: {x: {listen: 'unix:/s'}}\nservices: {x: {deliver: 'unix:/s'}}",
        'services.x.deliver: found "unix:/s", where upstreams.x listens; allowed: the socket of the service itself',
    ),
    "an upstream where all addresses listen": (
        "services: {x: {deliver: 'unix:/s'}, y: {deliver: 'unix:/t'}}\n"
        "upstreams: {x: {listen: 'tcp:[::]:80'}, y: {listen: 'tcp:127.0.0.1:80'}}",
        'upstreams.y.listen: found "tcp:127.0.0.1:80", where upstreams.x listens; allowed: a place of its own',
    ),
    "round in circles by the links": (
        "services: {x: {deliver: 'tcp:10.0.0.1:7600'}}",
        'services.x.deliver: found "tcp:10.0.0.1:7600", where links.listen listens; '
        "allowed: the socket of the service itself",
    ),
    "an owner of a TCP port": (
        "services: {x: {deliver: 'unix:/s'}}\nupstreams: {x: {listen: 'tcp:127.0.0.1:1', owner: root}}",
        "upstreams.x.owner: found with a tcp: socket, which has none; allowed: with unix: only",
    ),
    "offered by nobody": (
        "upstreams: {x: {listen: 'unix:/t'}}",
        'upstreams.x: found no peer and no service of this host that offers "x"; allowed: none so far',
    ),
    "nearly offered": (
        "services: {web: {deliver: 'unix:/s'}}\nupstreams: {wep: {listen: 'unix:/t'}}",
        'upstreams.wep: found no peer and no service of this host that offers "wep" (did you mean "web"?); '
        "allowed: web",
    ),
    "a rule that gives nothing": (
        "services: {x: {deliver: 'unix:/s', allow: [{host: a}, {}]}}",
        "services.x.allow[1]: found a rule that gives neither host nor service nor uid; "
        "allowed: one or more of them (no allow at all lets everybody in)",
    ),
    "a rule whose lines are commented out": (
        "services: {x: {deliver: 'unix:/s', allow: [null]}}",
        "services.x.allow[0]: found a rule that gives neither host nor service nor uid; "
        "allowed: one or more of them (no allow at all lets everybody in)",
    ),
    "a rule for a host that is none": (
        "services: {x: {deliver: 'unix:/s', allow: [{host: hots-b}]}}\npeers: {host-b: {address: 10.0.0.2:1}}",
        'services.x.allow[0].host: found "hots-b", which is neither this host nor one of its peers '
        '(did you mean "host-b"?); allowed: a, host-b',
    ),
    "the uid of everybody who has none": (
        "services: {x: {deliver: 'unix:/s', allow: [{uid: 65534}]}}",
        "services.x.allow[0].uid: found 65534, which stands for every user that a namespace does not map; "
        "allowed: a user of the caller's own, mapped on its host",
    ),
    "the same beside a host and a service": (
        "services: {x: {deliver: 'unix:/s', allow: [{uid: 1}, {host: a, service: y, uid: 65534}]}}",
        "services.x.allow[1].uid: found 65534, which stands for every user that a namespace does not map; "
        "allowed: a user of the caller's own, mapped on its host",
    ),
    "rules commented out": (
        "services:\n  x:\n    deliver: 'unix:/s'\n    allow:",
        "services.x.allow: found nothing; allowed: a list such as [a, b]",
    ),
    "a uid left blank": (
        "services: {x: {deliver: 'unix:/s', allow: [{host: a, uid: }]}}",
        "services.x.allow[0].uid: found nothing; allowed: a numeric user id",
    ),
    "a caller left blank": (
        "services: {x: {deliver: 'unix:/s'}}\nupstreams: {x: {listen: 'unix:/x', caller: }}",
        "upstreams.x.caller: found nothing; allowed: 1 to 63 of a-z 0-9 . _ -, with a letter or digit first and last",
    ),
    "a replay buffer above the budget": (
        "limits: {memory: 3MiB}",
        "links.replay_buffer: found 4194304 bytes; allowed: at most limits.memory, 3145728 bytes",
    ),
    "credit above the budget": (
        "limits: {memory: 4MiB, stream_credit: 5MiB}",
        "limits.stream_credit: found 5242880 bytes; allowed: at most limits.memory, 4194304 bytes",
    ),
    "one peer's share above the budget": (
        "limits: {memory: 4MiB, memory_per_peer: 5MiB}",
        "limits.memory_per_peer: found 5242880 bytes; allowed: at most limits.memory, 4194304 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TOGETHER.values(), ids=TOGETHER)
def test_values_that_do_not_go_together(text: str, expected: str) -> None:
    assert [problem.split(" ", 1)[1] for problem in problems(HEAD + text + "\n")] == [expected]


@pytest.mark.failure("34")
@pytest.mark.parametrize(
    ("one", "other"),
    [("host-b:1", "Host-B:1"), ("'[::ffff:10.0.0.2]:1'", "10.0.0.2:1"), ("'[fd00::2]:1'", "'[FD00:0::2]:1'")],
)
def test_two_peers_at_one_address(one: str, other: str) -> None:
    (problem,) = problems(HEAD + f"peers: {{b: {{address: {one}}}, c: {{address: {other}}}}}\n")
    assert problem.endswith("which is also peers.b.address; allowed: an address of its own")


def rule_for(uid: int) -> list[str]:
    return problems(HEAD + f"services: {{x: {{deliver: 'unix:/s', allow: [{{uid: {uid}}}]}}}}\n")


def test_the_overflow_uid_is_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "overflowuid"
    file.write_text("4242\n")
    monkeypatch.setattr(check, "OVERFLOW_UID", str(file))
    assert [len(rule_for(uid)) for uid in (4241, 4242, 4243, 65533, 65534, 65535)] == [0, 1, 0, 0, 1, 0]
    file.write_text("none\n")
    assert [len(rule_for(uid)) for uid in (4242, 65534)] == [0, 1]
    file.unlink()
    assert [len(rule_for(uid)) for uid in (4242, 65534)] == [0, 1]


@pytest.mark.failure("34")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes user namespaces")
@pytest.mark.parametrize("uid", [1000, 4711])
def test_that_uid_is_what_the_kernel_says_of_a_caller_who_is_not_mapped(uid: int) -> None:
    asks = (
        "import os, socket, struct, sys; s = socket.socket(socket.AF_UNIX)\n"
        "s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o777); s.listen(); print('up', flush=True); c, _ = s.accept()\n"
        "print(struct.unpack('iII', c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])\n"
    )
    calls = f"import os, socket; os.setuid({uid}); s = socket.socket(socket.AF_UNIX)\ns.connect('{{}}')\n"
    with tempfile.TemporaryDirectory(prefix="hl-") as folder:
        os.chmod(folder, 0o755)
        path = f"{folder}/s"
        inside = ["unshare", "--user", "--map-root-user", sys.executable, "-c", asks, path]
        with subprocess.Popen(inside, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == "up\n"
            subprocess.run([sys.executable, "-c", calls.format(path)], check=True, timeout=30)
            seen = int(server.stdout.readline())
    assert seen in check.overflow_uids()
    assert rule_for(seen) != []


@pytest.mark.failure("34")
@pytest.mark.parametrize(
    ("text", "where", "found"),
    [
        ("peers: {b: {address: 10.0.0.2:1, services: [web, 8081]}}", "peers.b.services[1]", "8081, a number"),
        ("peers: {b: {address: 10.0.0.2:1, services: [1.5]}}", "peers.b.services[0]", "1.5, a number"),
        ("peers: {b: {address: 10.0.0.2:1, services: [true]}}", "peers.b.services[0]", "true, a truth value"),
        ("services: {x: {deliver: 'unix:/s', allow: [{host: 7}]}}", "services.x.allow[0].host", "7, a number"),
        ("mesh: 12", "mesh", "12, a number"),
    ],
)
def test_names_that_yaml_takes_for_something_else(text: str, where: str, found: str) -> None:
    (problem,) = problems(HEAD + text + "\n")
    assert f" {where}: found {found} without quotes; allowed: 1 to 63 of " in problem
    assert problem.endswith(", with a letter or digit first and last, in quotes")


@pytest.mark.parametrize("name", ["8081", "1.5", "true"])
def test_in_quotes_they_are_names(name: str) -> None:
    assert problems(HEAD + f'peers: {{b: {{address: 10.0.0.2:1, services: ["{name}"]}}}}\n') == []


@pytest.mark.parametrize(
    "text",
    [
        "peers: {b: {address: 10.0.0.2:1, services: [x]}}\nupstreams: {x: {listen: 'unix:/x'}}",
        "services: {x: {deliver: 'unix:/s'}}\nupstreams: {x: {listen: 'unix:/x'}}",
        # A service may live on several hosts, this one among them.
        "services: {x: {deliver: 'unix:/s'}}\npeers: {b: {address: 10.0.0.2:1, services: [x]}}",
        "services: {x: {deliver: 'unix:/s', allow: [{host: a}, {host: b, service: y, uid: 0}, {uid: 5}]}}\n"
        "peers: {b: {address: 10.0.0.2:1}}",
        "services: {x: {deliver: 'unix:/s', allow: []}}",
        # Two services behind one socket are one application under two names.
        "services: {x: {deliver: 'unix:/s'}, y: {deliver: 'unix:/s'}}",
    ],
)
def test_values_that_go_together(text: str) -> None:
    assert problems(HEAD + text + "\n") == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("peers: {b: {address: 10.0.0.2:1, services: x}}\nupstreams: {x: {listen: 'unix:/x'}}", 1),
        ("peers: {b: {address: 10.0.0.2:1, servics: [x]}}\nupstreams: {x: {listen: 'unix:/x'}}", 1),
        ("peers: 5\nupstreams: {x: {listen: 'unix:/x'}}", 1),
        ("peerz: {b: {address: 10.0.0.2:1, services: [x]}}\nupstreams: {x: {listen: 'unix:/x'}}", 1),
        ("upstreams: {x: 5, y: {listen: 7}}\nservices: {x: 5, y: {deliver: 7}}", 4),
        ("limits: 5", 1),
        ("services: {x: {deliver: 'unix:/s', allow: [{hots: a}]}}", 1),
        ("services: {x: {deliver: 'unix:/s', allow: [{host: 5}, a]}}", 2),
        ("services: {x: {deliver: 'unix:/s', allow: [{host: b}]}}\npeers: 5", 1),
        ("services: {x: {deliver: 'unix:/s', allow: [{host: b}]}}\npeerz: {b: {address: 10.0.0.2:1}}", 1),
        ("limits: {memory: 1}", 1),
        ("limits: {stream_credit: 1}", 1),
        ("run_dir: 5", 1),
        # A bad address says nothing against what the peer offers.
        ("peers: {b: {address: x, services: [x]}}\nupstreams: {x: {listen: 'unix:/x'}, y: {listen: 'unix:/y'}}", 2),
    ],
)
def test_one_mistake_gives_one_line(text: str, count: int) -> None:
    found = problems(HEAD + text + "\n")
    assert len(found) == count, found


def test_without_links_the_other_checks_go_on() -> None:
    found = problems("host: a\nlinks: 5\npeers: {a: {address: 10.0.0.2:1}}\n")
    assert [problem.split(": ")[1] for problem in found] == ["links", "peers.a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("telemetry: {listen: \"127.0.0.1:9000\", page: true}\n", []),
        ("telemetry: {page: true}\n",
         ["f:3: telemetry.page: found true without telemetry.listen; allowed: with an address there"]),
        ("access: {to: stderr, events: [opened]}\n", []),
        ("access: {to: stderr, only: failed}\n", []),
        ("access: {to: stderr, events: []}\n",
         ["f:3: access.events: found an empty list; allowed: one or more of opened, interval, ended"]),
        ("access:\n  to: stderr\n  events: [opened]\n  only: failed\n",
         ["f:6: access.only: found failed without ended among access.events, and only an end shows a failure; "
          "allowed: with ended"]),
        ("pool: {idle_min: 5s, idle_max: 5s}\n", []),
        ("pool:\n  idle_min: 2s\n  idle_max: 1s\n",
         ["f:5: pool.idle_max: found idle_min 2 s above idle_max 1 s; allowed: not above it"]),
        ("pool:\n  idle_max: 500ms\n",
         ["f:4: pool.idle_max: found idle_min 1 s above idle_max 0.5 s; allowed: not above it"]),
    ],
)  # fmt: skip
def test_how_long_links_are_kept(text: str, expected: list[str]) -> None:
    assert problems(HEAD + text) == expected


CONTROL = "host: a\nlinks: {listen: 10.0.0.1:7600}\ncontrol: {servers: [10.0.0.9:7601]}\n"

WITH_CONTROL = {
    "no certificate files": ("", []),
    "services that nobody offers yet": ("upstreams: {x: {listen: 'unix:/x'}}", []),
    "rules for hosts that are not known yet": ("services: {x: {deliver: 'unix:/s', allow: [{host: b}]}}", []),
    "static peers beside it": ("peers: {b: {address: 10.0.0.2:1}}", []),
    "all": ("upstreams: all\nservices: {x: {deliver: 'unix:/s'}}", []),
    "own service at the socket that it would be called through": (
        "upstreams: all\nsocket_dir: /run\nrun_dir: /r\nservices: {x: {deliver: 'unix:/run/x.sock'}}",
        ['services.x.deliver: found "unix:/run/x.sock", where all_upstreams.x listens; '
         "allowed: the socket of the service itself"],
    ),
    "the same with directories": (
        "socket_dir: /s\nall_upstreams: {layout: directories}\nservices: {x: {deliver: 'unix:/s/x/x.sock'}}",
        ['services.x.deliver: found "unix:/s/x/x.sock", where all_upstreams.x listens; '
         "allowed: the socket of the service itself"],
    ),
    "no layout": (
        "all_upstreams: {layout: each}\nservices: {x: {deliver: 'unix:/s/x.sock'}}",
        ['all_upstreams.layout: found "each"; allowed: files | directories'],
    ),
    "the same with an upstream of its own": (
        "upstreams: {x: {listen: 'unix:/x'}}\nall_upstreams: {directory: /run}\n"
        "services: {x: {deliver: 'unix:/run/x.sock'}}", [],
    ),
    "all in run_dir": (
        "run_dir: /a\nall_upstreams: {directory: /a}\n",
        ['all_upstreams.directory: found "/a", in run_dir /a, where the sockets that command live (docs/upgrade.md); '
         "allowed: another directory, such as /run/hostlane-services"],
    ),
    "broken upstreams beside all": (
        "upstreams: 5\nall_upstreams:\nservices: {x: {deliver: 'unix:/s'}}",
        ["upstreams: found 5; allowed: a mapping, one entry a name"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WITH_CONTROL.values(), ids=WITH_CONTROL)
def test_with_a_control_plane(text: str, expected: list[str]) -> None:
    assert [problem.split(" ", 1)[1] for problem in problems(CONTROL + text + "\n")] == expected


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ("{}", ["f:3: control.servers: missing; allowed: a value of another type"]),
        ("{servers: []}", ["f:3: control.servers: found no server; allowed: a list of " + HOST_PORT]),
        ("{servers: [10.0.0.9:1, 10.0.0.9:1]}",
         ['f:3: control.servers[1]: found "10.0.0.9:1" a second time; allowed: each once']),
        ("{servers: [10.0.0.9]}", [f'f:3: control.servers[0]: found "10.0.0.9", no port; allowed: {HOST_PORT}']),
        ("5", ["f:3: control: found 5; allowed: a mapping with servers, token_file, state_dir"]),
        ("{servers: [c:1], token: /t}",
         ['f:3: control.token: unknown key (did you mean "token_file"?); allowed: servers, token_file, state_dir']),
        ("{servers: [c:1], state_dir: x}", ['f:3: control.state_dir: found "x"; allowed: an absolute path']),
    ],
)  # fmt: skip
def test_a_control_section_that_is_wrong(control: str, expected: list[str]) -> None:
    assert problems(f"host: a\nlinks: {{listen: 10.0.0.1:7600}}\ncontrol: {control}\n") == expected


def test_peers_must_be_able_to_dial_whoever_registers() -> None:
    found = problems("host: a\nlinks: {listen: 0.0.0.0:7600}\ncontrol: {servers: [c:1]}\n")
    assert found == [
        'f:2: links.listen: found "0.0.0.0:7600", which stands for every address of this machine, beside control; '
        "allowed: the one address that peers shall dial"
    ]


@pytest.mark.parametrize(
    ("text", "directory"),
    [
        ("upstreams: all", None),
        ("upstreams: all\nall_upstreams: {directory: /x}", "/x"),
        ("all_upstreams: {directory: /x}\nupstreams: {y: {listen: 'unix:/y'}}", "/x"),
        ("all_upstreams:", None),
    ],
)
def test_all_upstreams(text: str, directory: str | None) -> None:
    found = config.parse(CONTROL + text + "\n", "f")
    assert found.all_upstreams is not None
    assert found.all_upstreams.directory == directory
    assert set(found.upstreams) == ({"y"} if "y: " in text.replace("directory: ", "") else set())


def test_own_certificate_files_beside_a_control_plane() -> None:
    text = "host: a\nlinks: {listen: 10.0.0.1:1, tls: {certificate: /c, key: /k, ca: /a}}\ncontrol: {servers: [c:1]}\n"
    assert problems(text) == []


def test_all_has_a_line() -> None:
    assert problems("host: a\nlinks: 5\nupstreams: al\n")[1] == (
        'f:3: upstreams: found "al"; allowed: a mapping, one entry a name'
    )


@pytest.mark.parametrize(
    ("links", "found"),
    [
        (
            "{security: none}",
            "links.listen: missing; allowed: IP:PORT or [IPv6]:PORT, port 1 to 65535 (or links.address: auto)",
        ),
        (
            "{address: auto, listen: '10.0.0.1:1', segment: lan}",
            "links.listen: found beside links.address; allowed: one of them",
        ),
        (
            "{address: auto}",
            "links.segment: missing; allowed with links.address: auto: the name of an address pool of the control "
            "plane",
        ),
        (
            "{address: 'auto:0', segment: lan}",
            'links.address: found "auto:0"; allowed: auto (port 7600), "auto:PORT" with port 1 to 65535, or null',
        ),
    ],
)
def test_where_links_arrive(links: str, found: str) -> None:
    text = f"host: a\nlinks: {links}\ncontrol: {{servers: ['10.0.0.9:1']}}\n"
    leased = "interfaces: {hl0: {parent: eth0, addresses: [auto], segment: lan}}\n"
    assert [problem.split(" ", 1)[1] for problem in problems(text + leased)] == [found]


def test_a_leased_address_needs_a_control_plane() -> None:
    found = problems("host: a\nlinks: {address: auto, segment: lan, security: none}\n")
    assert "f:2: links.address: found auto without control; allowed: with a control plane only" in found


@pytest.mark.parametrize(
    ("pump", "looks_for"),
    [
        ("{}", None),
        ("{busy_poll: auto}", None),
        ("{busy_poll: off}", 0.0),
        ('{busy_poll: "off"}', 0.0),
        ("{busy_poll: 50us}", 50e-6),
        ("{busy_poll: 2.5ms}", 2.5e-3),
        ("{busy_poll_us: 50}", 50e-6),
        ("{busy_poll_us: 0}", 0.0),
    ],
)
def test_how_long_the_pump_looks_for_work(pump: str, looks_for: float | None) -> None:
    assert config.parse(f"{HEAD}pump: {pump}\n", "f").pump.looks_for == looks_for


@pytest.mark.parametrize("raw", ["50", "11ms", "1s", "true", "on", "-5us", "null", "AUTO", "[]"])
def test_what_is_no_such_time(raw: str) -> None:
    (problem,) = problems(f"{HEAD}pump: {{busy_poll: {raw}}}\n")
    assert problem.startswith("f:3: pump.busy_poll: found ")
    assert "allowed: auto, off, or a time with its unit, such as 50us, of at most 10ms" in problem


def test_the_key_and_what_it_replaces() -> None:
    assert problems(f"{HEAD}pump: {{busy_poll: auto, busy_poll_us: 5}}\n") == [
        "f:3: pump.busy_poll_us: found beside busy_poll, which replaces it; allowed: one of them"
    ]
