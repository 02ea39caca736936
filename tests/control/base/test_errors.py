from __future__ import annotations

from control.base import errors
from proxy import errors as proxys


def test_one_tree() -> None:
    """What the proxy raises and what the control plane raises are caught by one name."""
    assert proxys.ConfigError is errors.ConfigError
    assert issubclass(proxys.ProtocolError, errors.HostlaneError)


def test_a_configuration_error_reads_as_its_problems() -> None:
    assert str(errors.ConfigError(["a:1: x", "a:2: y"])) == "a:1: x\na:2: y"
