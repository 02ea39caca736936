"""The root of all errors that Hostlane raises on purpose, and those that the control plane and the proxy share."""

from __future__ import annotations


class HostlaneError(Exception):
    """Base of all expected errors; ``str()`` is one line that a user can act on."""


class ConfigError(HostlaneError):
    """The configuration is wrong.

    Attributes:
        problems: one line each, ``FILE:LINE: key.path: found; allowed``, in file order.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StartError(HostlaneError):
    """The configuration is well-formed, but this machine cannot start it (port in use, no such directory...)."""
