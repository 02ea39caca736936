"""configs/ is the manual that cannot be out of date: every example is valid, and every key stands in one."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest
import yaml

from control.server import config as control_config
from proxy.config import schema as config

ROOT = Path(__file__).resolve().parents[2]
CONTROL = sorted((ROOT / "configs").glob("control*.yaml"))
EXAMPLES = [path for path in sorted((ROOT / "configs").glob("*.y*ml")) if path not in CONTROL]
COMPOSE = sorted((ROOT / "compose" / "etc").glob("*.yaml"))
SHOWN = [
    (path.name, block)
    for path in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "proxy/mux/SPEC.md"]
    for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
]


def declared(annotation: Any, prefix: str = "") -> Iterator[str]:
    """Every key path that a type allows; the names that users choose (of peers, services...) are ``*``."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct) and not is_address(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        for field in msgspec.structs.fields(annotation):
            yield f"{prefix}{field.encode_name}"
            yield from declared(hints[field.name], f"{prefix}{field.encode_name}.")
    elif get_origin(annotation) is dict:
        yield from declared(get_args(annotation)[1], f"{prefix}*.")
    elif get_origin(annotation) is tuple:
        yield from declared(get_args(annotation)[0], prefix)
    elif get_origin(annotation) in (typing.Union, types.UnionType):
        for choice in get_args(annotation):
            yield from declared(choice, prefix)


def known_to_control() -> set[str]:
    return set(declared(control_config.Config))


def is_address(kind: type) -> bool:
    """Addresses are one piece of text in the file, whatever they are in memory."""
    return kind in (config.UnixAddress, config.TcpAddress)


def used(value: Any, known: set[str], prefix: str = "") -> Iterator[str]:
    """The same paths, as one example uses them."""
    for item in value if isinstance(value, list) else ():
        yield from used(item, known, prefix)
    if not isinstance(value, dict):
        return
    for key, below in value.items():
        path = f"{prefix}{key}" if f"{prefix}{key}" in known else f"{prefix}*"
        yield path
        yield from used(below, known, f"{path}.")


KNOWN = set(declared(config.Config))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 1
    assert len(COMPOSE) > 1
    assert {"host", "links.listen", "peers.*.services", "upstreams.*.mode", "limits.memory"} <= KNOWN
    assert {"services.*.allow", "services.*.allow.uid"} <= KNOWN


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_validates(path: Path) -> None:
    assert config.load(path).host


def test_every_key_stands_in_an_example() -> None:
    examples = [yaml.safe_load(path.read_text()) for path in EXAMPLES]
    shown = {key for example in examples for key in used(example, KNOWN)}
    assert KNOWN - shown == {"pump.busy_poll_us"}, "which is read for one release more"


def test_the_readme_shows_the_two_hosts_of_configs() -> None:
    shown = (ROOT / "README.md").read_text().split("```yaml\n")[1:]
    hosts = [config.parse(block.partition("```")[0], "README.md") for block in shown]
    assert hosts == [config.load(ROOT / "configs" / name) for name in ("host-a.yaml", "host-b.yaml")]


@pytest.mark.parametrize(("name", "block"), SHOWN, ids=[f"{name}-{number}" for number, (name, _) in enumerate(SHOWN)])
def test_what_a_document_shows_can_be_pasted(name: str, block: str) -> None:
    """Into the file of a host or of a control server that says nothing of it yet. Docker Compose's is not ours."""
    shown: dict[str, Any] = yaml.safe_load(block)
    if "store" in shown:
        least = {"name": "control-1", "listen": "10.77.0.100:7601"}
        assert control_config.parse(yaml.safe_dump(least | shown), name).name
        return
    if any({"volumes", "image"} & service.keys() for service in shown.get("services", {}).values()):
        return
    calls = shown.get("upstreams", {})
    peers = {host: {"address": f"{host}.example:7600", "services": []} for host in ("host-a", "host-b")}
    peers["host-a"]["services"] = [] if calls == "all" else list(calls)
    least = {"host": "host-c", "links": {"listen": "10.77.0.1:7600", "security": "none"}, "peers": peers}
    if "auto" in block:
        least |= {"control": {"servers": ["10.77.0.100:7601"]}}
    assert config.parse(yaml.safe_dump(least | shown), name).host == "host-c"


@pytest.mark.parametrize("path", CONTROL, ids=lambda path: path.name)
def test_every_control_server_example_validates(path: Path) -> None:
    assert control_config.load(path).name


def test_every_key_of_a_control_server_stands_in_an_example() -> None:
    known = known_to_control()
    assert {"store.etcd.endpoints", "store.sqlite.path", "segments.*.hold", "limits.watchers"} <= known
    examples = [yaml.safe_load(path.read_text()) for path in CONTROL]
    assert known - {key for example in examples for key in used(example, known)} == set()


def test_the_control_reference_shows_defaults() -> None:
    text = (ROOT / "configs" / "control-reference.yaml").read_text()
    shown = control_config.parse(text, "reference")
    least = control_config.parse("name: control-1\nlisten: 10.77.0.100:7601\n", "least")
    for section in ("limits", "admin", "log", "lease", "certificate_lifetime", "mesh", "run_dir", "state_dir"):
        assert getattr(shown, section) == getattr(least, section)
