from __future__ import annotations

import pytest

from control.base.errors import ConfigError
from control.cli.filekinds import KINDS, kind_of


@pytest.mark.parametrize(
    ("text", "name"),
    [("host: a\nlinks: {}", "host"), ("name: a\nlisten: b", "control"), ("links: {}\npeers: {}", "host"),
     ("store: {}\nlease: 5s", "control"), ("log: {}\nname: c", "control"),
     ("", "host"), ("[", "host"), ("- a", "host")],
)  # fmt: skip
def test_a_file_is_known_by_its_keys(text: str, name: str) -> None:
    assert kind_of(text, "f") is KINDS[name]


def test_a_file_of_another_kind() -> None:
    with pytest.raises(ConfigError) as caught:
        kind_of("services_of: {}\nversion: 3", "f.yaml")
    assert caught.value.problems == [
        "f.yaml:1: found a file of another kind; allowed: a host's configuration (with host) or a control server's "
        "configuration (with name)"
    ]
