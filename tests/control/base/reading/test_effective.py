from __future__ import annotations

from pathlib import Path

import pytest

from control.base.reading import yamlmap
from control.base.reading.effective import DEFAULT, as_yaml, values
from control.server import config as control_config
from proxy.config import schema

ROOT = Path(__file__).resolve().parents[4]
HOSTS = [path for path in sorted((ROOT / "configs").glob("*.yaml")) if not path.name.startswith("control")]
SERVERS = sorted((ROOT / "configs").glob("control*.yaml"))


def test_each_value_says_where_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HL_IP", "127.0.0.1")
    text = 'host: a\nlinks: {security: none, listen: "${HL_IP}:7600"}\nupstreams:\n  redis: {listen: "unix:/r"}\n'
    text += "peers:\n  b: {address: b:1, services: [redis]}\n"
    config, document = schema.examine(text, "f.yaml")
    found = {yamlmap.render_path(each.path): (each.value, each.source) for each in values(config, document, "f.yaml")}
    assert found["host"] == ("a", "f.yaml:1")
    assert found["links.listen"] == ("127.0.0.1:7600", "f.yaml:2, ${HL_IP}")
    assert found["links.resume_timeout"] == ("15m", DEFAULT)
    assert found["links.replay_buffer"] == ("4MiB", DEFAULT)
    assert found["upstreams.redis.listen"] == ("unix:/r", "f.yaml:4")
    assert found["upstreams.redis.mode"] == ("0666", DEFAULT)
    assert found["pump.busy_poll"] == ("auto", DEFAULT)


@pytest.mark.parametrize("path", [*HOSTS, *SERVERS], ids=lambda path: path.name)
def test_what_stands_in_a_file_is_written_so_that_it_means_the_same(path: Path) -> None:
    reader = schema if path in HOSTS else control_config
    config, document = reader.examine(path.read_text(), str(path))
    every = values(config, document, path.name)
    found = [each for each in every if each.source != DEFAULT or each.path[0] == "all_upstreams"]
    text = as_yaml(found)
    if path.name == "reference.yaml":
        text = text.replace("busy_poll_us", "# busy_poll_us")
    assert reader.parse(text, "written") == config


def test_text_that_yaml_would_read_otherwise_is_quoted() -> None:
    for text in ("0660", "true", "a: b", "# x", "", "- a", "${A}", "1.5", "12", "null", "a$b", "[x", "é\x85"):
        line = as_yaml([values_of(text)])
        assert yamlmap.read(line).data == {"k": text}, line


def values_of(text: str):  # type: ignore[no-untyped-def]
    from control.base.reading.effective import EffectiveValue

    return EffectiveValue(path=("k",), value=text, source="s")
