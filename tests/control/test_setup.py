from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from control import setup
from control.errors import StartError
from control.reading.units import absolute_path

NOW = 1_800_000_000.0


def test_what_a_first_server_needs(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    made = setup.make_ca(state, "m", NOW)
    keys = setup.keys_of(state)
    assert keys.key(made) is not None
    assert len(keys.roots()) == 1
    with pytest.raises(StartError, match="there is a CA already"):
        setup.make_ca(state, "m", NOW)
    text = setup.next_steps(config="/etc/c.yaml", mesh="m", listen="10.0.0.5:7601", state_dir=state, ca=made)
    assert f"{state}/ca/{made}.key" in text
    assert os.path.exists(f"{state}/ca/{made}.key")
    assert "hostlane control --config /etc/c.yaml" in text


def test_a_key_elsewhere(tmp_path: Path) -> None:
    place = str(tmp_path / "key")
    made = setup.make_ca(str(tmp_path / "state"), "m", NOW, (place,))
    assert os.stat(place).st_mode & 0o777 == 0o600
    assert setup.keys_of(str(tmp_path / "state"), (place,)).key(made) is not None
    text = setup.next_steps(config="c", mesh="m", listen="1.1.1.1:1", state_dir="/s", ca=made, key_file=place)
    assert f"its key is {place}." in text


def test_a_configuration_to_begin_with(tmp_path: Path) -> None:
    path = str(tmp_path / "control.yaml")
    setup.write_config(path, name="one", mesh="m", listen="[::1]:7601", state_dir="/var/lib/x")
    found = yaml.safe_load(Path(path).read_text())
    assert (found["name"], found["mesh"], found["state_dir"]) == ("one", "m", "/var/lib/x")
    assert absolute_path(found["store"]["sqlite"]["path"]) == "/var/lib/x/store.db"
    with pytest.raises(StartError, match="is there already, and is not overwritten"):
        setup.write_config(path, name="two", mesh="m", listen="1.1.1.1:1", state_dir="/s")
    with pytest.raises(StartError, match="no such file"):
        setup.write_config("/nowhere/x.yaml", name="two", mesh="m", listen="1.1.1.1:1", state_dir="/s")
