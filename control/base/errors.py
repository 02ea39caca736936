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


class RequestRefused(HostlaneError):
    """The control plane does not do what a request asks for; ``str()`` is the line that the asker gets.

    Attributes:
        status: of the HTTP answer; code: a word for programs (`control.api.mesh.ControlErrorBody`).
    """

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code = status, code
