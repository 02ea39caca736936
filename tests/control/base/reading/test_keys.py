"""Keys that both configurations have are read alike."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Struct

from control.base.errors import ConfigError
from control.base.reading import files
from control.base.reading.addresses import TcpAddress
from control.base.reading.keys import Account, Duration, HostPort, LogConfig, Mode, RunDir, SomePath
from control.server.config import Config as ServerConfig
from proxy.config.schema import Config as HostConfig


class Keys(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    wait: Duration = 1.0
    mode: Mode = 0o600
    owner: Account = None
    path: SomePath = "/a"
    run_dir: RunDir = "/run/hostlane"
    peer: HostPort = TcpAddress("db", 2)
    log: LogConfig = LogConfig()


def parse(text: str) -> Keys:
    return files.parse(text, "file.yaml", Keys, lambda *_: None, "something")


def test_each_is_read_by_its_reader() -> None:
    found = parse(
        'wait: 500ms\nmode: "0660"\nowner: redis\npath: null\nrun_dir: /run/b/\npeer: db:1\nlog: {level: debug}\n'
    )
    assert found == Keys(
        wait=0.5,
        mode=0o660,
        owner="redis",
        path=None,
        run_dir="/run/b",
        peer=TcpAddress("db", 1),
        log=LogConfig(level="debug"),
    )


@pytest.mark.parametrize("text", ["wait: 5", "mode: 660", "path: a", "peer: db", "log: {level: loud}"])
def test_each_says_what_is_wrong(text: str) -> None:
    with pytest.raises(ConfigError, match=r"file.yaml:1: .*: found .*; allowed: "):
        parse(text)


@pytest.mark.parametrize("config", [HostConfig, ServerConfig])
def test_both_have_the_same_logs(config: Any) -> None:
    [log] = [field for field in msgspec.structs.fields(config) if field.name == "log"]
    assert isinstance(log.default, LogConfig)
