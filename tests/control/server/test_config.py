from __future__ import annotations

import pytest

from control.base.errors import ConfigError
from control.server import config

LEAST = "name: control-1\nlisten: 10.77.0.100:7601\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(LEAST + text, "f.yaml")
    return caught.value.problems


def test_what_it_is_without_a_word() -> None:
    found = config.parse(LEAST, "f.yaml")
    assert found.store.sqlite is not None
    assert found.store.etcd is None
    assert (found.lease, found.certificate_lifetime, found.mesh) == (15.0, 86400.0, "hostlane")


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("", "/var/lib/hostlane-control/store.db"),
        ("state_dir: /srv/state", "/srv/state/store.db"),
        ("store: {sqlite: {}}", "/var/lib/hostlane-control/store.db"),
        ("state_dir: /srv/state\nstore: {sqlite: {path: /srv/store.db}}", "/srv/store.db"),
        ("store: {etcd: {endpoints: [10.0.0.1:2379]}}", None),
    ],
)
def test_where_the_store_is(text: str, file: str | None) -> None:
    assert config.parse(LEAST + text, "f.yaml").store_file == file


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("store: {}", "f.yaml:3: store: found neither; allowed: sqlite or etcd, one of them"),
        (
            "store: {sqlite: {path: /s}, etcd: {endpoints: [10.0.0.1:2379]}}",
            "f.yaml:3: store: found sqlite and etcd; allowed: sqlite or etcd, one of them",
        ),
        (
            "store: {etcd: {endpoints: []}}",
            "f.yaml:3: store.etcd.endpoints: found none; allowed: one or more IP:PORT",
        ),
        (
            "store: {etcd: {endpoints: [10.0.0.1:2379], user: 1000, password_file: /p}}",
            "f.yaml:3: store.etcd.user: found 1000; allowed: text, in quotes",
        ),
        (
            "store: {etcd: {endpoints: [10.0.0.1:2379], user: x}}",
            "f.yaml:3: store.etcd: found one of user and password_file; allowed: both, or neither",
        ),
        (
            "store: {etcd: {endpoints: [10.0.0.1:2379], key: /k}}",
            "f.yaml:3: store.etcd: found one of certificate and key; allowed: both, or neither",
        ),
        (
            "store: {etcd: {endpoints: ['[fe80::5]:2379']}}",
            'f.yaml:3: store.etcd.endpoints[0]: found "[fe80::5]:2379", which each interface has on its own; '
            "allowed: [fe80::5%INTERFACE]:2379",
        ),
        ("lease: 1s", "f.yaml:3: lease: found 1 s; allowed: 5s to 10m"),
        ("certificate_lifetime: 1s", 'f.yaml:3: certificate_lifetime: found "1s"; allowed: 1m to 3650d'),
        ("certificate_lifetime: 24", "which has no unit"),
        ("segments: {lan: {pool: 10.77.0.5}}", "allowed: a network such as 10.77.0.0/24"),
        ("segments: {lan: {pool: 10.0.0.0/8}}", "allowed: a network such as 10.77.0.0/24"),
        (
            "segments: {lan: {pool: 10.77.0.0/24, reserved: [10.78.0.1]}}",
            'segments.lan.reserved[0]: found "10.78.0.1/32"; allowed: an address or a network of 10.77.0.0/24',
        ),
        ("segments: {lan: {pool: 10.77.0.0/24, reserved: [x]}}", "allowed: an address or a network of the pool"),
        ("telemetry: {page: true}", "f.yaml:3: telemetry.page: found true without telemetry.listen; allowed: with"),
        ("limits: {watcher: 3}", 'unknown key (did you mean "watchers"?)'),
    ],
)
def test_what_is_wrong_is_one_line(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert problem in found
