"""Who is told what becomes of a session: the pool that has it."""

from __future__ import annotations

from typing import Any, Protocol


class SessionObserver(Protocol):
    """Is told what becomes of sessions. Calls may come inside turns: they must not block."""

    def session_left(self) -> None:
        """The peer takes no more streams on one of them."""

    def session_keeps(self, session: Any) -> None:
        """It is suspended, and keeps more than before."""

    def session_carried(self, session: Any) -> None:
        """It is about to go on over a link: its first one, or the next one."""

    def session_over(self, session: Any) -> None:
        """It is about to end. Called once."""


class NullObserver:
    """Observer of a session that nobody else cares for."""

    def session_left(self) -> None:
        """Does nothing."""

    def session_keeps(self, session: Any) -> None:
        """Does nothing."""

    def session_carried(self, session: Any) -> None:
        """Does nothing."""

    def session_over(self, session: Any) -> None:
        """Does nothing."""


NULL_OBSERVER = NullObserver()
