from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from control.base.reading import files
from proxy.config import schema as config
from proxy.config.interfaces import ContainerInterfaceConfig, InterfaceConfig, RouteConfig, SegmentConfig
from proxy.config.schema import (
    EVERYBODY,
    AccessConfig,
    AdminConfig,
    AllowRuleConfig,
    AllUpstreamsConfig,
    Config,
    ConnectConfig,
    ControlPlaneConfig,
    DoorConfig,
    LinksConfig,
    LogConfig,
    PeerConfig,
    PoolConfig,
    ProxyLimits,
    PumpConfig,
    ServiceConfig,
    TakeoverConfig,
    TcpAddress,
    TcpConfig,
    TlsFiles,
    UnixAddress,
    UpstreamConfig,
)
from proxy.errors import ConfigError
from tests.tools.privileges import modes_count

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MINIMAL = "host: host-a\nlinks: {listen: 10.77.0.1:7600, security: none}\n"

KEYS_OF_ALL = (
    "host, links, run_dir, socket_dir, admin, takeover, telemetry, door, mesh, control, peers, upstreams, "
    "all_upstreams, connect, services, interfaces, containers, segments, limits, tcp, pump, pool, log, access"
)
MAPPING = f"allowed: a mapping with {KEYS_OF_ALL}"

DESIGN = """\
# host-a.yaml: a static mesh of two hosts, no control plane
host: host-a
run_dir: /run/hostlane               # sockets that command: 0700, never mounted
socket_dir: /run/hostlane-services   # sockets that serve: what containers mount
links:
  listen: 10.77.0.1:7600
  security: none            # default: mtls
peers:
  host-b: {address: 10.77.0.2:7600, services: [redis]}
upstreams:
  redis: {listen: "unix:/run/hostlane-services/redis.sock"}
services:
  web: {deliver: "unix:/srv/web/web.sock"}       # or tcp:127.0.0.1:8080
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "f.yaml")
    return caught.value.problems


def test_the_design_s_example() -> None:
    assert config.parse(DESIGN, "host-a.yaml") == Config(
        host="host-a",
        run_dir="/run/hostlane",
        links=LinksConfig(listen=TcpAddress("10.77.0.1", 7600), security="none"),
        peers={"host-b": PeerConfig(address=TcpAddress("10.77.0.2", 7600), services=("redis",))},
        upstreams={"redis": UpstreamConfig(listen=UnixAddress("/run/hostlane-services/redis.sock"))},
        services={"web": ServiceConfig(deliver=UnixAddress("/srv/web/web.sock"))},
    )
    modeline, _, rest = (CONFIGS / "host-a.yaml").read_text().partition("\n")
    assert modeline == "# yaml-language-server: $schema=schema/host.json"
    assert rest == DESIGN


def test_the_two_hosts_fit_together() -> None:
    a, b = config.load(CONFIGS / "host-a.yaml"), config.load(CONFIGS / "host-b.yaml")
    assert a.peers == {b.host: PeerConfig(address=b.links.listen, services=tuple(b.services))}
    assert b.peers == {a.host: PeerConfig(address=a.links.listen, services=tuple(a.services))}


def test_the_reference_shows_the_defaults() -> None:
    shown = config.load(CONFIGS / "reference.yaml")
    links = LinksConfig(listen=shown.links.listen, tls=shown.links.tls)
    assert shown.control is not None
    assert shown.all_upstreams is not None
    assert shown.connect is not None
    assert shown.door is not None
    entries = [
        (shown.control, ControlPlaneConfig(servers=shown.control.servers, token_file=shown.control.token_file)),
        (shown.door, DoorConfig()),
        (shown.all_upstreams, AllUpstreamsConfig(directory="/run/hostlane-services/mesh", caller="shop")),
        (shown, Config(host=shown.host, links=links)),
        (shown.links, links),
        (shown.upstreams["redis"], UpstreamConfig(listen=shown.upstreams["redis"].listen)),
        (shown.connect, ConnectConfig(listen=shown.connect.listen, services=shown.connect.services, caller="shop")),
        (shown.services["web"], ServiceConfig(deliver=shown.services["web"].deliver)),
        (shown.interfaces["hl0"], InterfaceConfig(parent="eth0")),
        (shown.interfaces["hl1"], InterfaceConfig(kind="vf", parent="eth1")),
        (shown.interfaces["hl0"].routes[0], RouteConfig(to="10.80.0.0/16", via="10.77.0.254")),
        (shown.containers["web-1"], ContainerInterfaceConfig(parent="eth0")),
        (shown.segments["front"], SegmentConfig(parent="eth0", mac_limit=4096)),
    ]
    given = (
        "control", "door", "peers", "upstreams", "all_upstreams", "connect", "services", "interfaces", "containers",
        "segments", "addresses", "routes",
    )  # fmt: skip
    for section, defaults in entries:
        for field in msgspec.structs.fields(section):
            if field.name not in given:
                assert getattr(section, field.name) == getattr(defaults, field.name), field.name


def test_defaults() -> None:
    found = config.parse(MINIMAL, "f.yaml")
    assert (found.run_dir, found.socket_dir) == ("/run/hostlane", "/run/hostlane-services")
    assert found.mesh == "hostlane"
    assert found.admin == AdminConfig(group=None, origin="own")
    assert found.takeover == TakeoverConfig(origin="own")
    assert (found.peers, found.upstreams, found.services) == ({}, {}, {})
    assert (found.interfaces, found.containers, found.segments) == ({}, {}, {})
    assert found.links == LinksConfig(
        listen=TcpAddress("10.77.0.1", 7600), security="none", max_per_peer=2, dial_timeout=5.0,
        ping_interval=5.0, ping_timeout=5.0, replay_buffer=4 * 2**20,
    )  # fmt: skip
    assert found.limits == ProxyLimits(
        stream_credit=256 * 2**10, memory=None, streams_per_link=65535, waiting_streams=1024,
        open_timeout=5.0, stop_timeout=5.0, takeover_timeout=86400.0, memory_per_peer=None, opens_per_second=None,
    )  # fmt: skip
    assert found.tcp == TcpConfig(keepalive_idle=60, keepalive_interval=15, keepalive_probes=4)
    assert found.pump == PumpConfig(busy_poll=None)
    assert found.pool == PoolConfig(
        idle_min=1.0, idle_max=3600.0, idle_price=0.01, open_ahead=True, record=None, record_limit=64 * 2**20
    )
    assert found.log == LogConfig(level="info", format="auto")
    assert found.access == AccessConfig(to=None, events=("ended",), interval=60.0, only="all", sample=1.0)
    assert UpstreamConfig(listen=UnixAddress("/x")).mode == 0o666
    assert ServiceConfig(deliver=UnixAddress("/x")) == ServiceConfig(
        deliver=UnixAddress("/x"), connect_timeout=5.0, allow=EVERYBODY, proxy_protocol="none"
    )
    assert AllowRuleConfig() == AllowRuleConfig(host=None, service=None, uid=None)


def test_every_value_can_be_set() -> None:
    text = """
host: h
run_dir: /tmp/x
socket_dir: /tmp/y
admin: {group: ops, from: any}
takeover: {from: any}
mesh: m.example
links: {listen: "[::1]:1", security: none, max_per_peer: 64, dial_timeout: 1s, ping_interval: 2m, ping_timeout: 10ms,
        replay_buffer: 1MiB, tls: {certificate: /c, key: /k, ca: /a}}
peers:
  b: {address: b.example:2}
upstreams:
  s: {listen: "unix:/s", mode: 0600, owner: root, group: 7}
  t: {listen: "tcp:127.0.0.1:3", caller: shop}
services:
  s: {deliver: "tcp:db:4", connect_timeout: 1ms, proxy_protocol: v2}
  t: {deliver: "unix:/t", allow: [{host: b, service: shop, uid: 0}, {uid: 4294967294}]}
  u: {deliver: "unix:/u", allow: []}
limits: {stream_credit: 16KiB, memory: 1MiB, streams_per_link: 1, waiting_streams: 0, open_timeout: 1h,
         stop_timeout: 1.5s, takeover_timeout: 2h, memory_per_peer: 64KiB, opens_per_second: 1}
tcp: {keepalive_idle: null, keepalive_interval: 1h, keepalive_probes: 127}
pump: {busy_poll: 50us}
pool: {idle_min: 2s, idle_max: 1m, idle_price: 1s, open_ahead: false, record: /tmp/r, record_limit: 64KiB}
log: {level: debug, format: json}
access: {to: /tmp/a, events: [opened, interval], interval: 5s, only: {slower_than: 50ms}, sample: 0.5}
"""
    assert config.parse(text, "f.yaml") == Config(
        host="h",
        run_dir="/tmp/x",
        socket_dir="/tmp/y",
        admin=AdminConfig(group="ops", origin="any"),
        takeover=TakeoverConfig(origin="any"),
        mesh="m.example",
        links=LinksConfig(
            listen=TcpAddress("::1", 1), security="none", max_per_peer=64, dial_timeout=1.0,
            ping_interval=120.0, ping_timeout=0.01, replay_buffer=2**20,
            tls=TlsFiles(certificate="/c", key="/k", ca="/a"),
        ),
        peers={"b": PeerConfig(address=TcpAddress("b.example", 2))},
        upstreams={
            "s": UpstreamConfig(listen=UnixAddress("/s"), mode=0o600, owner="root", group=7),
            "t": UpstreamConfig(listen=TcpAddress("127.0.0.1", 3), caller="shop"),
        },
        services={
            "s": ServiceConfig(deliver=TcpAddress("db", 4), connect_timeout=0.001, proxy_protocol="v2"),
            "t": ServiceConfig(
                deliver=UnixAddress("/t"), allow=(AllowRuleConfig(host="b", service="shop", uid=0),
                                                  AllowRuleConfig(uid=4294967294))
            ),
            "u": ServiceConfig(deliver=UnixAddress("/u"), allow=()),
        },
        limits=ProxyLimits(
            stream_credit=16384, memory=2**20, streams_per_link=1, waiting_streams=0, open_timeout=3600.0,
            stop_timeout=1.5, takeover_timeout=7200.0, memory_per_peer=2**16, opens_per_second=1,
        ),
        tcp=TcpConfig(keepalive_idle=None, keepalive_interval=3600, keepalive_probes=127),
        pump=PumpConfig(busy_poll=50e-6),
        pool=PoolConfig(
            idle_min=2.0, idle_max=60.0, idle_price=1.0, open_ahead=False, record="/tmp/r", record_limit=64 * 2**10
        ),
        log=LogConfig(level="debug", format="json"),
        access=AccessConfig(to="/tmp/a", events=("opened", "interval"), interval=5.0, only=0.05, sample=0.5),
    )  # fmt: skip


def test_a_section_with_everything_commented_out_is_empty() -> None:
    assert config.parse(MINIMAL + "peers:\n#  b: {}\nlimits:\npump: ~\n", "f") == config.parse(MINIMAL, "f")


def test_a_config_is_immutable() -> None:
    with pytest.raises(AttributeError):
        config.parse(MINIMAL, "f").host = "b"  # type: ignore[misc]


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = """\
rundir: /run
links:
  listen: 10.77.0.1
  max_per_peer: 65
peers:
  Host_B: {address: 10.77.0.2:7600}
upstreams:
  redis: {mode: 0666, lsten: "unix:/r"}
host: host-a
log: {level: loud, format: json, level: info}
"""
    assert problems(text) == [
        'f.yaml:1: rundir: unknown key (did you mean "run_dir"?); '
        f"allowed: {KEYS_OF_ALL}",
        'f.yaml:3: links.listen: found "10.77.0.1", no port; allowed: IP:PORT or [IPv6]:PORT, port 1 to 65535',
        "f.yaml:4: links.max_per_peer: found 65; allowed: a whole number from 1 to 64",
        'f.yaml:6: peers.Host_B: found "Host_B"; '
        "allowed: 1 to 63 of a-z 0-9 . -, with a letter or digit first and last",
        'f.yaml:8: upstreams.redis.lsten: unknown key (did you mean "listen"?); allowed: listen, mode, owner, group, '
        "caller",
        "f.yaml:8: upstreams.redis.listen: missing; allowed: unix:/absolute/path or tcp:IP:PORT",
        "f.yaml:10: log.level: written a second time; the first is on line 10",
        'f.yaml:10: log.level: found "loud"; allowed: debug | info | warning | error',
    ]


def test_a_wrong_file_does_not_fill_the_screen() -> None:
    found = problems("host: a\n" * 1000)
    assert len(found) == files.MAX_PROBLEMS + 1
    assert found[-1] == "f.yaml: 901 more problems"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "found an empty file; allowed: a mapping with at least host and links"),
        ("# only a comment\n", "found an empty file; allowed: a mapping with at least host and links"),
        ("5\n", f"found 5; {MAPPING}"),
        ("[]\n", f"found a list; {MAPPING}"),
        ("host: a\n\tlinks: 1\n", None),
    ],
)  # fmt: skip
def test_not_a_configuration(text: str, expected: str | None) -> None:
    assert problems(text) == [
        f"f.yaml:1: {expected}" if expected else "f.yaml:2: found a tab; allowed: spaces for indentation"
    ]


def test_an_empty_mapping_lacks_what_is_required() -> None:
    assert problems("{}\n") == [
        "f.yaml:1: host: missing; allowed: 1 to 63 of a-z 0-9 . -, with a letter or digit first and last",
        "f.yaml:1: links.listen: missing; allowed: IP:PORT or [IPv6]:PORT, port 1 to 65535 (or links.address: auto)",
        "f.yaml:1: links.tls: missing; allowed: a mapping with certificate, key, ca for mutual TLS "
        '(or "security: none" beside it, only on an isolated segment)',
    ]  # fmt: skip


def load_problem(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    (problem,) = caught.value.problems
    return problem.removeprefix(str(path))


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("\ufeff" + MINIMAL, encoding="utf-8")
    assert config.load(path) == config.load(str(path)) == config.parse(MINIMAL, "f")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    assert load_problem(path) == ": no such file"
    assert load_problem(tmp_path) == ": is a directory"
    path.write_text(MINIMAL)
    assert load_problem(path / "x") == ": not a directory"
    path.write_bytes(b"host: a\nlinks: \xff\xfe\n")
    assert load_problem(path) == ":2: found byte 0xff; allowed: UTF-8 text"
    path.write_bytes(b"#" * (files.MAX_FILE_BYTES + 1))
    assert load_problem(path) == ": found more than 1 MiB; allowed: a YAML file"
    assert load_problem(Path("/dev/zero")) == ": found more than 1 MiB; allowed: a YAML file"


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(MINIMAL)
    path.chmod(0)
    with modes_count():
        assert load_problem(path) == ": permission denied"


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from(["host-a", "10.77.0.1:7600", "none", "mtls", "5s", "4MiB", "unix:/x", "tcp:1.1.1.1:1", "redis"])
)  # fmt: skip
KEYS = (
    st.sampled_from(
        [
            *Config.__struct_fields__, *LinksConfig.__struct_fields__, *UpstreamConfig.__struct_fields__,
            *ServiceConfig.__struct_fields__, *AllowRuleConfig.__struct_fields__, "host-a", "redis",
        ]
    )
    | st.text()
)
TREES = st.recursive(LEAVES, lambda below: st.lists(below) | st.dictionaries(KEYS, below), max_leaves=20)
SECTIONS = [key for key in Config.__struct_fields__ if key != "host"]
SHAPED = st.fixed_dictionaries(
    {}, optional={"host": LEAVES, **{key: st.dictionaries(KEYS, TREES) | TREES for key in SECTIONS}}
)  # fmt: skip


@given(SHAPED.map(lambda tree: msgspec.json.encode(tree).decode()) | st.text())
@example(DESIGN)
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    try:
        assert isinstance(config.parse(text, "f"), Config)
    except ConfigError as error:
        assert error.problems
        assert all(problem.isprintable() and problem.startswith("f:") for problem in error.problems)
        lines = [int(problem.split(":")[1]) for problem in error.problems]
        assert lines == sorted(lines)


RULES = TREES | st.lists(
    st.dictionaries(st.sampled_from([*AllowRuleConfig.__struct_fields__, "hots"]), LEAVES) | LEAVES
)


@given(st.fixed_dictionaries({}, optional={"allow": RULES, "proxy_protocol": LEAVES | st.just("v2")}))
def test_no_rule_ever_lets_in_more_than_it_says(keys: dict[str, Any]) -> None:
    """What is taken says something in every rule; what was not understood is an error, never a wider rule."""
    document = {
        "host": "host-a",
        "links": {"listen": "10.77.0.1:7600", "security": "none"},
        "services": {"redis": {"deliver": "unix:/x", **keys}},
    }
    try:
        service = config.parse(msgspec.json.encode(document).decode(), "f").services["redis"]
    except ConfigError as error:
        assert all(problem.isprintable() for problem in error.problems)
        return
    if "allow" in keys:
        assert [{key: getattr(rule, key) for key in given} for rule, given in
                zip(service.allow, keys["allow"], strict=True)] == keys["allow"]
        assert all(rule != AllowRuleConfig() for rule in service.allow)
    else:
        assert service.allow == EVERYBODY


@given(st.data())
def test_the_example_with_one_wrong_line_never_surprises(data: st.DataObject) -> None:
    lines = DESIGN.splitlines()
    position = data.draw(st.integers(0, len(lines) - 1))
    cut = data.draw(st.integers(0, len(lines[position])))
    lines[position] = (
        lines[position][:cut] + data.draw(st.text(max_size=3)) + lines[position][cut + data.draw(st.integers(0, 3)) :]
    )
    try:
        config.parse("\n".join(lines), "f")
    except ConfigError as error:
        assert all(problem.isprintable() for problem in error.problems)
